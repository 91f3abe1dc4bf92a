"""What the writer says about itself."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetryHealth:
    """State of the recording, at one moment. Counters start at zero with the process.

    ``alive``: the writer runs and its last attempt to write succeeded. ``queue_length``: records that wait.
    ``written``: verdicts stored. ``dropped``: records and registrations lost because the queue was full or
    the database was refused. ``rejected``: records that cannot be stored at all. ``write_errors``: failed
    attempts, each of which is repeated. ``error``: what keeps it from writing now; None if nothing does.
    """

    alive: bool
    queue_length: int
    written: int
    dropped: int
    rejected: int
    write_errors: int
    last_write: datetime | None
    error: str | None
