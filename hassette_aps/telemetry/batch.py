"""What is written in one transaction, and how queued changes of jobs fold into it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from threading import Event
from typing import NamedTuple, TypeAlias

from hassette_aps.instants import Micros
from hassette_aps.records import JobRecord, RegisteredLike, Verdict
from hassette_aps.telemetry.rows import JobKey, job_key


class Cancelled(NamedTuple):
    """A job was cancelled."""

    owner: str
    name: str
    at: Micros


JobChange: TypeAlias = RegisteredLike | Cancelled


@dataclass(slots=True)
class JobState:
    """Where the queued changes of one job lead: its last registration, and whether it is cancelled."""

    job: JobRecord | None = None
    cancelled_at: Micros | None = None
    on_ids: list[Callable[[int], None]] = field(default_factory=list["Callable[[int], None]"])


@dataclass(slots=True)
class Batch:
    """One transaction's worth: it is kept and tried again until the database has taken it."""

    jobs: dict[JobKey, JobState] = field(default_factory=dict["JobKey", JobState])
    verdicts: list[Verdict] = field(default_factory=list[Verdict])
    markers: list[Verdict] = field(default_factory=list[Verdict])
    flushed: list[Event] = field(default_factory=list[Event])

    @property
    def size(self) -> int:
        """Queued entries it holds."""
        return len(self.jobs) + len(self.verdicts)

    def __bool__(self) -> bool:
        return bool(self.jobs or self.verdicts or self.markers or self.flushed)

    def add_jobs(self, changes: Iterable[JobChange], convert: Callable[[RegisteredLike], JobRecord | None]) -> None:
        """Fold ``changes``, oldest first, into one final state for each job."""
        for change in changes:
            if isinstance(change, Cancelled):
                state = self.jobs.setdefault(job_key(change.owner, change.name), JobState())
                state.cancelled_at = change.at
            elif record := convert(change):
                state = self.jobs.setdefault(job_key(record.owner, record.name), JobState())
                state.job, state.cancelled_at = record, None
                state.on_ids.append(change.recorded_as)
