"""How a scheduler is doing, at one moment."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerHealth:
    """What ``Scheduler.health()`` returns.

    Attributes:
        alive: Jobs are being started: the AsyncIOScheduler runs, the owner is not shut down, and its timer has fired
            within the last 4 s. False while the event loop is blocked for longer.
        last_wakeup: When the timer last fired, in UTC; None before the first time.
        jobs: Active and paused jobs.
        running: Runs in progress.
        leaked_threads: Threads left behind by plain functions that exceeded their timeout.
        error_handler_failures: Error handlers and run hooks that raised or exceeded their time.
        recording: Whether runs are being recorded; False without a database, or while it cannot be written.
        queue_length: Records that wait for the database.
        dropped_records: Records lost because the database could not take them.
        recording_error: What keeps records from being written now; None if nothing does.
    """

    alive: bool
    last_wakeup: datetime | None
    jobs: int
    running: int
    leaked_threads: int
    error_handler_failures: int
    recording: bool
    queue_length: int
    dropped_records: int
    recording_error: str | None
