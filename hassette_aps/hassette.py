"""Hassette apps: ``class MyApp(APSchedulerMixin, App[MyConfig])``, and ``self.scheduler`` is ours.

The mixin is an ``App`` without ``__init__`` that swaps Hassette's scheduler child for ``AppScheduler``. List it before
``App`` or ``AppSync``, or use it alone: ``class MyApp(APSchedulerMixin[MyConfig])``.
"""

import asyncio
from contextvars import Context
from typing import Any, ClassVar, TypeVar, cast

from apscheduler.schedulers.asyncio import AsyncIOScheduler

try:
    from hassette import App
    from hassette.context import CURRENT_EXECUTION_ID
    from hassette.resources.base import Resource
    from hassette.resources.lifecycle import mark_ready
    from hassette.scheduler import Scheduler as NativeScheduler
    from hassette.types import AppConfigT
except ImportError as exc:
    raise ImportError("hassette_aps.hassette needs Hassette: pip install 'hassette-aps[hassette]'") from exc

from hassette_aps.error_context import SchedulerErrorContext
from hassette_aps.job import ScheduledJob
from hassette_aps.methods import SchedulingMethods
from hassette_aps.scheduler import Scheduler
from hassette_aps.types import ErrorHandler, IfExists, RunHook

__all__ = ["APSchedulerMixin", "AppScheduler", "ScheduledJob", "SchedulerErrorContext", "SyncScheduler"]

ResourceT = TypeVar("ResourceT", bound=Resource)

ENDED = frozenset({"stopped", "failed", "crashed", "exhausted_dead"})
"""App statuses (``hassette_wire.ResourceStatus``) in which nothing of it may go on."""

GRACE = 2.0
"""Seconds that plain functions in progress get when the app stops; its coroutines are cancelled before, by Hassette."""


class SyncScheduler(SchedulingMethods):
    """``scheduler.sync`` for ``AppSync`` hooks, which run in a worker thread: returns once the job is on record."""

    def __init__(self, scheduler: "AppScheduler") -> None:
        self._scheduler = scheduler

    def add_job(self, job: ScheduledJob, if_exists: IfExists = "error") -> ScheduledJob:
        """Register a job built by hand, and wait until it is on record.

        Raises:
            RuntimeError: called on the event loop, which it would block.
        """

        async def register() -> ScheduledJob:
            return await self._scheduler.add_job(job, if_exists)

        register.__qualname__ = "Scheduler.sync"
        return self._scheduler.task_bucket.run_sync(register())


class AppScheduler(SchedulingMethods, Resource):
    """One app's ``Scheduler``, as the child resource that Hassette starts, stops and asks."""

    def __init__(self, hassette: Any, *, parent: Any = None) -> None:
        super().__init__(hassette, parent=parent)
        app = cast("APSchedulerMixin[Any]", parent)
        settings = {"timezone": app.now().tz_id, **app.scheduler_settings}
        shared = app.shared_apscheduler
        self._app = app
        self._facade: Scheduler = Context().run(  # the app must not be made in the context of another one
            lambda: Scheduler(
                shared,
                owner=app.unique_name.replace("/", ":"),
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
        except RuntimeError:  # TaskBucketSealedError: the app is being stopped
            return None

    # Hassette's lifecycle

    async def on_initialize(self) -> None:
        """Start the schedules; the app's own hooks have registered their jobs by now."""
        await Context().run(asyncio.ensure_future, self._facade.start())
        mark_ready(self, reason="scheduler started")

    async def on_shutdown(self) -> None:
        """Stop them; the one hook that an app's author cannot lose."""
        await self._facade.shutdown(grace=GRACE)

    def get_job_db_ids(self) -> list[int]:
        """None of our jobs is in Hassette's own database."""
        return []

    # Registering and managing

    def add_job(self, job: ScheduledJob, if_exists: IfExists = "error") -> ScheduledJob:
        """Register a job built by hand; see ``Scheduler.add_job``."""
        return self._facade.add_job(job, if_exists)

    def on_error(self, handler: ErrorHandler | None) -> None:
        """Set the handler for all jobs without one of their own; it stays through the app's initialisation."""
        self._facade.on_error(handler)

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

    # Today's Hassette names for the same

    def remove_job(self, job: ScheduledJob) -> None:
        """``cancel_job``, as Hassette 0.60 calls it."""
        self.cancel_job(job)

    def remove_group(self, group: str) -> None:
        """``cancel_group``, as Hassette 0.60 calls it."""
        self.cancel_group(group)

    async def remove_all_jobs(self) -> None:
        """Cancel every job; of an app that has failed or stopped, everything ends with them."""
        for job in self.list_jobs():
            job.cancel()
        if self._app.status in ENDED:  # core's clean-up of a failed start calls nothing else
            await self._facade.shutdown(grace=0)


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
