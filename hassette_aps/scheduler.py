"""The facade: ``Scheduler``, the methods of the semantics, nothing else."""

import asyncio
from collections.abc import Callable
from contextvars import Context, copy_context
from datetime import datetime
from functools import partial
from importlib import import_module
from logging import Logger, getLogger
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast
from zoneinfo import ZoneInfo

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from whenever import ZonedDateTime

from hassette_aps.callables import misfit
from hassette_aps.engine import Engine, engine_of
from hassette_aps.health import SchedulerHealth
from hassette_aps.job import ScheduledJob
from hassette_aps.lifecycle import Lifecycle
from hassette_aps.listeners import Listeners
from hassette_aps.methods import SchedulingMethods
from hassette_aps.options import JobOptions, is_repeated
from hassette_aps.owner import Owner, Spawn
from hassette_aps.records import ExecutionRecord, Status
from hassette_aps.types import ErrorHandler, IfExists, JobFunction, RunHook

if TYPE_CHECKING:
    from hassette_aps.settings import Settings
    from hassette_aps.telemetry import JobSummary

H = TypeVar("H", bound=ErrorHandler | None)


class Scheduler(SchedulingMethods):
    """Hassette's scheduling methods on an ``AsyncIOScheduler``.

    Args:
        aps: The AsyncIOScheduler to attach to, running or not; it is never taken over. None makes one.
        owner: Name of this scheduler among others on the same AsyncIOScheduler; part of the APScheduler ids
            (``owner/name``). The default owner ``""`` uses the plain names.
        logger: Where to log; ``hassette_aps`` by default.
        spawn: Makes the task of each run, for frameworks that track tasks; ``loop.create_task`` by default.
        prepare: Told each run's execution id and context before it starts, to set context variables of its own.
        **settings: See ``Settings``; each is also read from ``HASSETTE_APS_<NAME>``.

    Raises:
        TypeError: ``aps`` is no AsyncIOScheduler, or an unknown setting.
        ValueError: a setting that is not allowed, an owner with a ``/``, or an owner that is attached already.
    """

    def __init__(
        self,
        aps: AsyncIOScheduler | None = None,
        *,
        owner: str = "",
        logger: Logger | None = None,
        spawn: Spawn | None = None,
        prepare: Callable[[str, Context], None] | None = None,
        **settings: Any,
    ) -> None:
        _check_owner(aps, owner)
        # what pydantic needs for a model is imported when the first one is used
        self.settings: Settings = import_module("hassette_aps.settings").Settings.load(settings)
        self.default_mode = self.settings.default_mode
        zone = self.settings.timezone
        if aps is None:
            aps = AsyncIOScheduler() if zone is None else AsyncIOScheduler(timezone=zone)
        self.aps: AsyncIOScheduler = aps
        """The AsyncIOScheduler underneath."""
        self._engine: Engine = engine_of(aps, self.settings.max_workers)
        self._owner = Owner(
            owner,
            self.settings,
            zone or self._engine.clockwork.zone,
            logger or getLogger("hassette_aps"),
            copy_context(),
            spawn,
        )
        self._owner.prepare = prepare
        self._lifecycle = Lifecycle(self._engine, self._owner, self.settings)
        self._listeners: Listeners = self._lifecycle.listeners
        self._lifecycle.attach()

    @property
    def owner(self) -> str:
        """This scheduler's name among the owners of its AsyncIOScheduler."""
        return self._owner.name

    @property
    def timezone(self) -> ZoneInfo:
        """The zone of wall-clock times."""
        return self._owner.zone

    @property
    def running(self) -> bool:
        """Whether jobs run: the AsyncIOScheduler is started and this owner not shut down."""
        return self._owner.live and self._engine.clockwork.started

    @property
    def error_handler_failures(self) -> int:
        """Error handlers and run hooks that raised or exceeded their time."""
        return self._listeners.handler_failures

    # Lifecycle

    async def start(self) -> None:
        """Start the schedules, and the AsyncIOScheduler if it does not run. Relative times count from here.

        Raises:
            ValueError: a name is taken in a persistent store; nothing is registered then.
        """
        await self._lifecycle.start()

    async def shutdown(self, grace: float = 10.0) -> None:
        """Stop: no new run starts, runs in progress get ``grace`` seconds and are then cancelled.

        Error handlers and records are flushed before it returns. The AsyncIOScheduler is stopped only if this package
        started it and no other owner is left on it. From inside a run or a handler, the caller is neither waited for
        nor cancelled. Silent on a second call.
        """
        await self._lifecycle.shutdown(grace)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.shutdown()

    # Registration

    def add_job(self, job: ScheduledJob, if_exists: IfExists = "error") -> ScheduledJob:
        """Register a job built by hand.

        Raises:
            TypeError: not a ``ScheduledJob``.
            ValueError: as ``schedule``; or the job belongs to another scheduler, or was cancelled.
        """
        if not isinstance(job, ScheduledJob):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(
                f"add_job() takes a ScheduledJob, got {job!r}; for a function use schedule() or run_every()"
            )
        if if_exists not in ("error", "skip", "replace"):
            raise ValueError(
                f"job {job.name!r}: if_exists={if_exists!r} is not allowed; give 'error', 'skip' or 'replace'"
            )
        return self._lifecycle.register(job, if_exists)

    def _kept(self, func: JobFunction, trigger: object, options: JobOptions) -> ScheduledJob | None:
        name = options.get("name")
        job = self._engine.registry.get(self._owner.prefix + name) if type(name) is str else None
        if job is None or job.home is not self._owner or job.row_alias is not None:
            return None
        return job if is_repeated(job, func, trigger, options, self.settings.default_mode) else None

    # Jobs

    def cancel_job(self, job: ScheduledJob) -> None:
        """``job.cancel()``, for a job of this scheduler.

        Raises:
            RuntimeError: the job was never registered.
            ValueError: the job belongs to another scheduler.
        """
        if not isinstance(job, ScheduledJob):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"cancel_job() takes a ScheduledJob, got {job!r}; look one up with get_job(name)")
        if job.home is not None and job.home is not self._owner:
            raise ValueError(
                f"job {job.name!r} belongs to another Scheduler (owner {job.owner!r}); use job.cancel() instead"
            )
        job.cancel()

    def cancel_group(self, group: str) -> None:
        """Cancel every job of a group; nothing happens if there is none."""
        for job in self.list_jobs(group=_group(group)):
            job.cancel()

    def list_jobs(self, group: str | None = None) -> list[ScheduledJob]:
        """Active and paused jobs, in order of registration; those of one group if given."""
        with self._engine.lock:
            return self._engine.registry.of(self._owner, None if group is None else _group(group))

    def get_job(self, name: str) -> ScheduledJob | None:
        """The job with that name, or None."""
        if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"get_job() takes a name, got {name!r}")
        with self._engine.lock:
            job = self._engine.registry.get(self._owner.id_of(name))
        return job if job is not None and job.home is self._owner else None

    def on_error(self, handler: H) -> H:
        """Set the handler for failures of all jobs without one of their own; None = no handler.

        It is looked up when a run fails. Usable as a decorator: the handler comes back.

        Raises:
            TypeError: not callable with one ``SchedulerErrorContext``.
        """
        self._listeners.on_error = _taking_one("on_error", handler)
        return handler

    def on_run(self, hook: RunHook) -> None:
        """Call ``hook`` with one ``ExecutionRecord`` per verdict, beside other hooks.

        Raises:
            TypeError: not callable with one ``ExecutionRecord``.
        """
        self._listeners.hooks.append(cast(RunHook, _taking_one("on_run", hook)))

    # What happened

    async def history(
        self,
        job: ScheduledJob | str | None = None,
        *,
        limit: int = 100,
        since: ZonedDateTime | datetime | None = None,
        status: Status | None = None,
    ) -> list[ExecutionRecord]:
        """The latest verdicts of a job (handle or name; None = of all), newest target first.

        ``since`` is compared with the target. Reads the database off the loop.

        Raises:
            RuntimeError: ``database=None``.
            ValueError: a naive ``since``.
        """
        name = job.name if isinstance(job, ScheduledJob) else job
        if isinstance(since, ZonedDateTime):
            since = since.to_stdlib()
        if since is not None and since.tzinfo is None:
            raise ValueError(f"history(since={since!r}): give an aware datetime or a ZonedDateTime")
        read = partial(self._lifecycle.database().history, limit=limit, since=since, status=status)
        return await asyncio.to_thread(read, self.owner, name)

    async def summary(self) -> "list[JobSummary]":
        """One summary per job on record: totals, last run and error, durations, lateness. Reads off the loop.

        Raises:
            RuntimeError: ``database=None``.
        """
        return await asyncio.to_thread(self._lifecycle.database().summary, self.owner)

    def health(self) -> SchedulerHealth:
        """How this scheduler is doing; never blocks, from any thread."""
        return self._lifecycle.health()

    def __repr__(self) -> str:
        owner = f" owner={self.owner!r}" if self.owner else ""
        return f"<Scheduler{owner} ({'running' if self.running else 'stopped'}, {len(self.list_jobs())} jobs)>"


def _check_owner(aps: object, owner: object) -> None:
    if aps is not None and not isinstance(aps, AsyncIOScheduler):
        raise TypeError(
            f"Scheduler() takes an AsyncIOScheduler, got {aps!r}; other APScheduler classes have no event loop"
        )
    if not isinstance(owner, str) or not (owner.isprintable()):
        raise TypeError(f"owner must be a str of printable characters, got {owner!r}")
    if "/" in owner:
        raise ValueError(f"owner {owner!r} may not contain '/': it separates owner and name in APScheduler ids")


def _group(group: object) -> str:
    if not isinstance(group, str):
        raise TypeError(f"group must be a str, got {group!r}")
    return group


def _taking_one(method: str, handler: Any) -> Any:
    if handler is not None and (not callable(handler) or misfit(handler, (None,), {}) is not None):
        raise TypeError(f"{method}() takes a callable with one parameter, got {handler!r}")
    return handler
