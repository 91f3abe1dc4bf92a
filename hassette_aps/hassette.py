"""Hassette apps: ``class MyApp(APSchedulerMixin, App[MyConfig])``, and ``self.scheduler`` is ours.

The mixin is an ``App`` without ``__init__`` that swaps Hassette's scheduler child for ``AppScheduler``. List it before
``App`` or ``AppSync``, or use it alone: ``class MyApp(APSchedulerMixin[MyConfig])``.
"""

import asyncio
from abc import abstractmethod
from contextvars import Context
from typing import Any, ClassVar, TypeVar, Unpack, cast

from apscheduler.schedulers.asyncio import AsyncIOScheduler

try:
    from hassette import App
    from hassette.context import CURRENT_BUCKET, CURRENT_EXECUTION_ID
    from hassette.exceptions import TaskBucketSealedError
    from hassette.resources.base import Resource
    from hassette.resources.lifecycle import mark_ready
    from hassette.scheduler import EntityTime
    from hassette.scheduler import Scheduler as NativeScheduler
    from hassette.types import AppConfigT
except ImportError as exc:
    raise ImportError("hassette_aps.hassette needs Hassette: pip install 'hassette-aps[hassette]'") from exc

from hassette_aps.error_context import SchedulerErrorContext
from hassette_aps.job import ScheduledJob
from hassette_aps.methods import SchedulingMethods
from hassette_aps.options import JobOptions
from hassette_aps.scheduler import Scheduler
from hassette_aps.types import ErrorHandler, IfExists, JobFunction, RunHook

__all__ = ["APSchedulerMixin", "AppScheduler", "ScheduledJob", "SchedulerErrorContext", "SyncScheduler"]

ResourceT = TypeVar("ResourceT", bound=Resource)
HandlerT = TypeVar("HandlerT", bound=ErrorHandler | None)

ENDED = frozenset({"stopped", "failed", "crashed", "exhausted_dead"})
"""App statuses (``hassette_wire.ResourceStatus``) in which nothing of it may go on."""

GRACE = 2.0
"""Seconds that plain functions in progress get when the app stops; its coroutines are cancelled before, by Hassette."""


class AppMethods(SchedulingMethods):
    """What ``scheduler`` and ``scheduler.sync`` share: all that does not wait, Hassette's names for it included."""

    _facade: Scheduler

    def schedule(self, func: JobFunction, trigger: object, **options: Unpack[JobOptions]) -> ScheduledJob:
        """See ``Scheduler.schedule``; Hassette's own triggers work too, except the one that follows an entity.

        Raises:
            TypeError: an ``EntityTime`` trigger; and as ``Scheduler.schedule``.
        """
        if isinstance(trigger, EntityTime):
            raise TypeError(
                f"{trigger!r} needs Hassette's own scheduler, which moves the job whenever the entity changes; listen"
                " to the entity with self.bus.on_state_change() and run_once(..., if_exists='replace') instead"
            )
        return super().schedule(func, trigger, **options)

    def on_error(self, handler: HandlerT) -> HandlerT:
        """Set the handler for all jobs without one of their own; it stays through the app's initialisation."""
        return self._facade.on_error(handler)

    def on_run(self, hook: RunHook) -> None:
        """See ``Scheduler.on_run``."""
        self._facade.on_run(hook)

    def list_jobs(self, group: str | None = None) -> list[ScheduledJob]:
        """Active and paused jobs; those of one group if given."""
        return self._facade.list_jobs(group)

    def get_job(self, name: str) -> ScheduledJob | None:
        """The job with that name, or None."""
        return self._facade.get_job(name)

    def cancel_job(self, job: ScheduledJob) -> None:
        """Cancel a job of this app."""
        self._facade.cancel_job(job)

    def cancel_group(self, group: str) -> None:
        """Cancel every job of a group."""
        self._facade.cancel_group(group)

    def remove_job(self, job: ScheduledJob) -> None:
        """``cancel_job``, as Hassette 0.60 calls it."""
        self._facade.cancel_job(job)

    def remove_group(self, group: str) -> None:
        """``cancel_group``, as Hassette 0.60 calls it."""
        self._facade.cancel_group(group)

    @abstractmethod
    def remove_all_jobs(self) -> "asyncio.Future[None]":
        """Cancel every job, at once; awaiting it is optional."""


class SyncScheduler(AppMethods):
    """``scheduler.sync`` for ``AppSync`` hooks, which run in a worker thread: returns once the job is on record."""

    def __init__(self, scheduler: "AppScheduler") -> None:
        self._facade = scheduler.facade
        self._scheduler = scheduler

    def add_job(self, job: ScheduledJob, if_exists: IfExists = "error") -> ScheduledJob:
        """Register a job built by hand, and wait until it is on record.

        Raises:
            RuntimeError: called on the event loop, which it would block.
        """

        async def register() -> ScheduledJob:
            return await self._scheduler.add_job(job, if_exists)

        register.__qualname__ = "Scheduler.sync"  # Hassette's error on the loop names it
        return self._scheduler.task_bucket.run_sync(register())

    def remove_all_jobs(self) -> "asyncio.Future[None]":
        """Cancel every job, at once."""
        return self._scheduler.remove_all_jobs()


class AppScheduler(AppMethods, Resource):
    """One app's ``Scheduler``, as the child resource that Hassette starts, stops and asks."""

    def __init__(self, hassette: Any, *, parent: Any = None) -> None:
        super().__init__(hassette, parent=parent)
        app = cast("APSchedulerMixin[Any]", parent)
        settings = {"timezone": app.now().tz_id, **app.scheduler_settings}
        shared = app.shared_apscheduler
        self._app = app
        context = Context()  # not the current one, which may be another app's
        context.run(CURRENT_BUCKET.set, app.task_bucket)
        self._facade: Scheduler = context.run(
            lambda: Scheduler(
                shared,
                owner=app.unique_name,
                logger=app.logger.getChild("scheduler"),
                spawn=self._spawn,
                prepare=_set_execution_id,
                **settings,
            )
        )
        self.sync = SyncScheduler(self)

    @property
    def facade(self) -> Scheduler:
        """The ``Scheduler`` itself: ``history``, ``summary``, ``health``, ``aps``."""
        return self._facade

    @property
    def scheduler_service(self) -> Any:
        """Hassette's own service, which core asks to forget this owner."""
        return self.hassette.scheduler_service

    def _spawn(self, body: Any, name: str, context: Context) -> asyncio.Task[None] | None:
        """The task of a run, in the app's own bucket; None once that is sealed."""
        try:
            return context.run(self._app.task_bucket.spawn, body, name=name)
        except TaskBucketSealedError:  # the app is being stopped
            return None

    # Hassette's lifecycle

    async def on_initialize(self) -> None:
        """Start the schedules; the app's own hooks have registered their jobs by now."""
        await Context().run(asyncio.ensure_future, self._facade.start())
        mark_ready(self, reason="scheduler started")

    async def on_shutdown(self) -> None:
        """Stop them; the one hook that an app's author cannot lose."""
        ending = self._end(GRACE)
        try:
            await asyncio.shield(ending)
        except asyncio.CancelledError:  # Hassette's time for it is up, and it says so more than once
            ending.cancel()
            raise

    def _end(self, grace: float) -> asyncio.Task[None]:
        """Shut the facade down, in a task of no bucket: they may be sealed by now."""
        return asyncio.Task(self._facade.shutdown(grace), loop=self.hassette.loop, name=f"{self.unique_name} ends")

    def get_job_db_ids(self) -> list[int]:
        """None of our jobs is in Hassette's own database."""
        return []

    # Jobs

    def add_job(self, job: ScheduledJob, if_exists: IfExists = "error") -> ScheduledJob:
        """Register a job built by hand; see ``Scheduler.add_job``."""
        return self._facade.add_job(job, if_exists)

    def remove_all_jobs(self) -> "asyncio.Future[None]":
        """Cancel every job, at once; of an app that has failed or stopped, everything ends with them."""
        for job in self.list_jobs():
            job.cancel()
        if self._app.status in ENDED:  # core's clean-up of a failed start calls nothing else
            return self._end(0)
        done: asyncio.Future[None] = self.hassette.loop.create_future()
        done.set_result(None)
        return done


def _set_execution_id(execution_id: str, context: Context) -> None:
    """Hassette's log lines and its API calls carry the id of our run."""
    context.run(CURRENT_EXECUTION_ID.set, execution_id)


class APSchedulerMixin(App[AppConfigT]):
    """An ``App`` whose ``scheduler`` is ours.

    Attributes:
        scheduler_settings: Settings of ``Scheduler(...)`` for this app's, such as ``{"database": "sqlite:///runs.db"}``.
        shared_apscheduler: An AsyncIOScheduler that several apps share; None gives each app its own.
    """

    scheduler_settings: ClassVar[dict[str, Any]] = {}
    shared_apscheduler: ClassVar[AsyncIOScheduler | None] = None

    scheduler: AppScheduler  # pyright: ignore[reportIncompatibleVariableOverride]  that is the point

    def add_child(self, child_class: type[ResourceT], **kwargs: Any) -> ResourceT:
        """As any resource's, but Hassette's scheduler becomes ours."""
        if child_class is NativeScheduler:
            return super().add_child(cast("type[ResourceT]", AppScheduler), **kwargs)
        return super().add_child(child_class, **kwargs)
