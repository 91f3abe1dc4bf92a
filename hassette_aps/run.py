"""One execution of a job, from admission to verdict, and ``current_run()``."""

import asyncio
import traceback as tracebacks
from contextvars import ContextVar
from threading import Lock
from zoneinfo import ZoneInfo

from whenever import ZonedDateTime

from hassette_aps.execution_id import new_execution_id
from hassette_aps.instants import Micros, to_zoned
from hassette_aps.job import ScheduledJob
from hassette_aps.records import Status, TriggerMode, Verdict

_naming = Lock()


class Run:
    """One run, named by (job, target, attempt). ``status`` is None until the verdict."""

    __slots__ = (
        "_execution_id",
        "attempt",
        "cancelling",
        "clock",
        "duration_ms",
        "exception",
        "fires",
        "foreign",
        "job",
        "lateness",
        "limit",
        "missed",
        "on_loop",
        "result",
        "started",
        "status",
        "target",
        "task",
        "thread",
        "triggered_by",
        "upcoming",
        "warned",
        "watched",
    )

    def __init__(
        self, job: ScheduledJob, target: Micros, fires: Micros, triggered_by: TriggerMode = "schedule"
    ) -> None:
        self.job = job
        self.target = target
        self.fires = fires
        self.triggered_by: TriggerMode = triggered_by
        self.attempt = 1
        self.upcoming: Micros | None = None
        """The job's next target, as known at admission."""
        self.lateness: Micros = 0
        self.missed: tuple[Micros, Micros] | None = None
        """The first and the last target coalesced into this run."""
        self.on_loop = job.spec.on_loop or job.spec.where is not None
        """Whether what runs first, or now, is on the loop: a predicate always is."""
        self.limit: float | None = job.limit
        self.started: Micros | None = None
        """Wall clock at the start of the function; None if it never started."""
        self.clock = 0.0
        """Monotonic seconds at the same moment; durations and deadlines count from it."""
        self.status: Status | None = None
        self.cancelling: Status | None = None
        """The verdict it will get once its task has ended: ``timed_out`` or ``cancelled``."""
        self.exception: BaseException | None = None
        self.result: object = None
        self.duration_ms: float | None = None
        self.task: asyncio.Task[None] | None = None
        self.thread: int | None = None
        """Ident of the worker thread, once it has one."""
        self.foreign = False
        """On an executor that is not ours, which sends its own events."""
        self.warned = False
        self.watched: dict[Run, None] | None = None
        """The runs with the same limit, among which its deadline is watched."""
        self._execution_id: str | None = None

    @property
    def execution_id(self) -> str:
        """UUIDv7 of this run; made when first asked for."""
        if self._execution_id is None:
            with _naming:  # the loop and the writer of records may ask at once
                if self._execution_id is None:
                    self._execution_id = new_execution_id()
        return self._execution_id

    @property
    def name(self) -> str:
        """The job's name."""
        return self.job.name

    @property
    def job_name(self) -> str:
        """The job's name, as error contexts and records call it."""
        return self.job.name

    @property
    def job_group(self) -> str | None:
        """The job's group."""
        return self.job.group

    @property
    def owner(self) -> str:
        """The job's owner."""
        return self.job.owner

    @property
    def job_id(self) -> int:
        """The job's process-wide number."""
        return self.job.job_id

    @property
    def db_id(self) -> int | None:
        """The job's id in the database; None without one."""
        return self.job.db_id

    @property
    def is_last(self) -> bool:
        """Whether the schedule is finished once this run is over."""
        return self.upcoming is None and self.triggered_by == "schedule"

    @property
    def zone(self) -> ZoneInfo:
        """The zone the job is scheduled in."""
        return self.job.zone

    @property
    def scheduled_for(self) -> ZonedDateTime:
        """The target this run stands for, without jitter."""
        return to_zoned(self.target, self.zone)

    @property
    def started_at(self) -> ZonedDateTime | None:
        """When the function was called; None before that."""
        return None if self.started is None else to_zoned(self.started, self.zone)

    def log_fields(self) -> dict[str, object]:
        """The fields that log records of this run carry."""
        return {"job_name": self.job.name, "job_db_id": self.job.db_id, "execution_id": self.execution_id}

    def as_verdict(self) -> Verdict:
        """What is put on record of it."""
        job, exc = self.job, self.exception
        kind, message, traceback = (None, None, None) if exc is None else described(exc)
        return Verdict(
            self.execution_id,
            job.owner,
            job.name,
            job.spec.group,
            job.db_id,
            self.status or "interrupted",
            self.target,
            self.started,
            self.duration_ms,
            self.lateness / 1000,
            self.attempt,
            self.triggered_by,
            kind,
            message,
            traceback,
            None,
            None,
            self.upcoming,
        )

    def __repr__(self) -> str:
        return f"<Run of {self.job.name!r} at {self.scheduled_for} {self.status or 'in progress'}>"


class CoalescedTargets:
    """The verdict on the targets that a late run stands for."""

    __slots__ = ("first", "last", "run")

    def __init__(self, run: Run, missed: tuple[Micros, Micros]) -> None:
        self.run = run
        self.first, self.last = missed

    def as_verdict(self) -> Verdict:
        """One range, from the first target to the last."""
        job = self.run.job
        return Verdict(
            execution_id=new_execution_id(),
            owner=job.owner,
            job_name=job.name,
            job_group=job.group,
            db_id=job.db_id,
            status="coalesced",
            scheduled_for=self.first,
            attempt=self.run.attempt,
            coalesced_from=self.first,
            coalesced_to=self.last,
        )


def described(exc: BaseException) -> tuple[str, str, str]:
    """Type, message and full traceback of an exception."""
    return type(exc).__qualname__, message_of(exc), format_exception(exc)


def message_of(exc: BaseException) -> str:
    """``str(exc)``, also for exceptions whose ``__str__`` raises."""
    try:
        return str(exc)
    except Exception:  # noqa: BLE001  a user's exception may raise anything here
        return f"<unprintable {type(exc).__qualname__}>"


def format_exception(exc: BaseException) -> str:
    """The full traceback text: frames, causes and the exception line; never raises."""
    try:
        return "".join(tracebacks.format_exception(exc))
    except Exception:  # noqa: BLE001
        return f"{type(exc).__qualname__}: {message_of(exc)}\n"


_current: ContextVar[Run | None] = ContextVar("hassette_aps_run", default=None)
set_current_run = _current.set


def current_run() -> Run | None:
    """The run this code belongs to, in its task, its thread and everything they start; None outside of one."""
    return _current.get()
