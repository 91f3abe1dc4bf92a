"""``ScheduledJob``: what a registration returns, and where the schedule of one job is kept."""

import asyncio
from collections.abc import Generator, Mapping
from itertools import count as counter
from typing import Any, Final, Protocol, Unpack
from zoneinfo import ZoneInfo

from whenever import ZonedDateTime

from hassette_aps.instants import Micros, to_zoned
from hassette_aps.options import Asked, JobOptions, JobSpec, validated
from hassette_aps.owner import Owner
from hassette_aps.types import ErrorHandler, JobFunction, Mode, Predicate

NEW: Final = 0
"""Built, not registered."""
PENDING: Final = 1
"""Registered; its owner is not running yet."""
ACTIVE: Final = 2
PAUSED: Final = 3
ENDING: Final = 4
"""Its last target has fired; listed until that run is over."""
FINISHED: Final = 5
CANCELLED: Final = 6

RECORD_WAIT = 1.0
"""Seconds that ``await job`` waits for the record of its registration."""

_numbers = counter(1)
_NO_ZONE = ZoneInfo("UTC")


class JobKeeper(Protocol):
    """What a handle asks of the scheduler it is registered with."""

    def cancel(self, job: "ScheduledJob") -> None: ...
    def pause(self, job: "ScheduledJob") -> None: ...
    def resume(self, job: "ScheduledJob") -> None: ...
    def submit(self, job: "ScheduledJob") -> str: ...
    def refresh(self, job: "ScheduledJob") -> None: ...


class ScheduledJob:
    """A registered job. Equality and hash are by identity; ``job in scheduler.list_jobs()`` says if it is active.

    Every registration method returns one, and ``await job`` gives the same one once its registration is
    recorded. Built by hand, ``ScheduledJob(func, trigger, **options)`` goes to ``Scheduler.add_job``.
    """

    __slots__ = (
        "args",
        "db_id",
        "fires",
        "home",
        "job_id",
        "keeper",
        "keywords",
        "limit",
        "name",
        "row_alias",
        "spec",
        "state",
        "target",
        "waiters",
    )

    def __init__(self, func: JobFunction, trigger: object, **options: Unpack[JobOptions]) -> None:
        """Validate and keep a job without registering it.

        Raises:
            TypeError: an unknown option, a value of the wrong type, arguments that do not fit ``func``.
            ValueError: a value that is not allowed.
        """
        self._begin(validated(func, trigger, options))

    @classmethod
    def of(cls, asked: Asked) -> "ScheduledJob":
        """A job of what was validated before."""
        job = cls.__new__(cls)
        job._begin(asked)
        return job

    def _begin(self, asked: Asked) -> None:
        self.spec: JobSpec
        self.name: str
        """Unique per scheduler."""
        self.args: tuple[Any, ...]
        """Positional arguments, as copied at registration."""
        self.keywords: Mapping[str, Any]
        """The keyword arguments; ``kwargs`` is a copy."""
        self.spec, self.name, self.args, self.keywords = asked
        self.job_id: int = next(_numbers)
        """Unique in the process, set at creation."""
        self.db_id: int | None = None
        """Id in the database once the registration is recorded."""
        self.home: Owner | None = None
        self.keeper: JobKeeper | None = None
        self.state: int = NEW
        self.target: Micros | None = None
        self.fires: Micros | None = None
        self.limit: float | None = None
        self.row_alias: str | None = None
        """The user's job store that keeps it; None = ours."""
        self.waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] | None = None

    def take_over(self, other: "ScheduledJob") -> None:
        """From now on do what another registration of the same name asks for."""
        self.spec, self.args, self.keywords = other.spec, other.args, other.keywords

    @property
    def next_run(self) -> ZonedDateTime | None:
        """The next target, without jitter; None when paused, cancelled or finished; provisional before start."""
        return self._upcoming(jittered=False)

    @property
    def fire_at(self) -> ZonedDateTime | None:
        """``next_run`` with its jitter: when the next run really starts."""
        return self._upcoming(jittered=True)

    def _upcoming(self, *, jittered: bool) -> ZonedDateTime | None:
        if self.row_alias is not None and self.keeper is not None:
            self.keeper.refresh(self)
        moment = self.fires if jittered else self.target
        return None if moment is None or self.state not in (PENDING, ACTIVE) else to_zoned(moment, self.zone)

    @property
    def trigger(self) -> Any:
        """The trigger as it was given."""
        return getattr(self.spec.trigger, "inner", self.spec.trigger)

    @property
    def group(self) -> str | None:
        """The label given with ``group=``."""
        return self.spec.group

    @property
    def jitter(self) -> float | None:
        """Seconds; see ``JobOptions``."""
        return self.spec.jitter

    @property
    def func(self) -> JobFunction:
        """The function as it was given."""
        return self.spec.func

    @property
    def kwargs(self) -> dict[str, Any]:
        """A copy of the keyword arguments."""
        return dict(self.keywords)

    @property
    def timeout(self) -> float | None:
        """Seconds given with ``timeout=``; None means the scheduler's default applies."""
        return self.spec.timeout

    @property
    def timeout_disabled(self) -> bool:
        """Whether the job has no limit at all."""
        return self.spec.timeout_disabled

    @property
    def mode(self) -> Mode:
        """Overlap mode in force."""
        return self.spec.mode or (self.home.default_mode if self.home else "parallel")

    @property
    def where(self) -> Predicate | None:
        """The predicate asked before each run."""
        return self.spec.where

    @property
    def on_error(self) -> ErrorHandler | None:
        """The job's own error handler."""
        return self.spec.on_error

    @property
    def owner(self) -> str:
        """Name of the owner; empty for the default one and before registration."""
        return self.home.name if self.home else ""

    @property
    def zone(self) -> ZoneInfo:
        """The zone of its wall-clock times."""
        return self.home.zone if self.home else _NO_ZONE

    def cancel(self) -> None:
        """Stop the job: when this returns, no new run of it starts. Silent on a second call.

        A run in progress finishes.

        Raises:
            RuntimeError: the job was never registered.
        """
        self._registered("cancel").cancel(self)

    def remove(self) -> None:
        """``cancel``, as Hassette 0.60 calls it."""
        self.cancel()

    def pause(self) -> None:
        """Hold the schedule: a paused job owes no targets. Silent if it is paused or gone.

        Raises:
            RuntimeError: the job was never registered.
        """
        self._registered("pause").pause(self)

    def resume(self) -> None:
        """Go on, on the same grid; a one-shot whose time passed meanwhile runs now. Silent if it is not paused.

        Raises:
            RuntimeError: the job was never registered.
        """
        self._registered("resume").resume(self)

    def submit(self) -> str:
        """Run the job now, with its arguments, overlap mode, timeout, record and handlers; the schedule stays.

        Returns:
            The execution id of the run.

        Raises:
            RuntimeError: the job is not registered, cancelled or finished, or its scheduler is not running.
        """
        return self._registered("submit").submit(self)

    def preview(self, count: int = 5) -> list[ZonedDateTime]:
        """The next ``count`` targets, without jitter, counted from ``next_run``; [] for a job that has none."""
        if self.next_run is None:
            return []
        found: list[Micros] = []
        target = self.target
        while target is not None and len(found) < count:
            found.append(target)
            target = self.spec.trigger.after(target, self.zone)
        return [to_zoned(moment, self.zone) for moment in found]

    def _registered(self, verb: str) -> JobKeeper:
        if self.keeper is None:
            raise RuntimeError(
                f"cannot {verb} job {self.name!r}: it was never registered; give it to Scheduler.add_job(job) first"
            )
        return self.keeper

    def __await__(self) -> Generator[Any, None, "ScheduledJob"]:
        return self._recorded().__await__()

    async def _recorded(self) -> "ScheduledJob":
        home = self.home
        if home is None or home.settings.database is None or self.db_id is not None:
            return self
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self.waiters = [*(self.waiters or ()), (loop, future)]
        if self.db_id is None:  # it may have arrived in between, from the writer's thread
            await asyncio.wait((future,), timeout=RECORD_WAIT)
        if self.db_id is None:
            home.logger.warning(
                "job %r is scheduled, but its record has not been written within %s s; db_id follows later",
                self.name,
                RECORD_WAIT,
            )
        return self

    def recorded_as(self, db_id: int) -> None:
        """Take the id of the record, from any thread, and wake those who await the handle."""
        self.db_id = db_id
        waiters, self.waiters = self.waiters, None
        for loop, future in waiters or ():
            try:
                loop.call_soon_threadsafe(_resolve, future)
            except RuntimeError:  # that loop is closed; nobody waits there any more
                continue

    def __repr__(self) -> str:
        owner = f" of {self.owner!r}" if self.owner else ""
        return f"<ScheduledJob {self.name!r}{owner} ({self.spec.trigger}, next run {self.next_run})>"


def _resolve(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
