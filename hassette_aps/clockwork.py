"""The AsyncIOScheduler underneath, and the only place that touches its private members.

Line numbers are of APScheduler 3.11.3. ``tests/test_clockwork.py`` fails when one of these members is gone.
"""

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import Context
from typing import Any
from zoneinfo import ZoneInfo

from apscheduler.events import SchedulerEvent
from apscheduler.executors.base import BaseExecutor
from apscheduler.job import Job
from apscheduler.jobstores.base import BaseJobStore
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.schedulers.base import STATE_RUNNING, STATE_STOPPED

from hassette_aps.instants import Micros, as_zone
from hassette_aps.triggers.wallclock import local_clock

ALIAS = "hassette_aps"
"""Alias of our job store and of our executor on every AsyncIOScheduler."""

NO_LIMIT = 2**31 - 1
"""``max_instances`` of our rows: overlap is the job's mode."""


class Clockwork:
    """What the rest of the package needs from one AsyncIOScheduler."""

    def __init__(self, aps: AsyncIOScheduler) -> None:
        self.aps: Any = aps
        """Untyped on purpose: APScheduler ships no types."""

    @property
    def zone(self) -> ZoneInfo:
        """The AsyncIOScheduler's zone."""
        return as_zone(self.aps.timezone)

    def in_fold(self, instant: Micros) -> bool:
        """Whether the clock in that zone shows this hour twice."""
        return local_clock(self.aps.timezone).repeats(instant)

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The loop it runs on; None before start and after shutdown (``schedulers/asyncio.py`` 33, ``_eventloop``)."""
        return self.aps._eventloop

    @property
    def started(self) -> bool:
        """Started, maybe paused."""
        return self.aps.state != STATE_STOPPED

    @property
    def running(self) -> bool:
        """Started and not paused."""
        return self.aps.state == STATE_RUNNING

    @property
    def timer_armed(self) -> bool:
        """Whether it will wake up by itself (``schedulers/asyncio.py`` 34, ``_timeout``)."""
        return self.aps._timeout is not None

    def start(self) -> None:
        """Start it in an empty context: its timer keeps the context of whoever arms it."""
        Context().run(self.aps.start)

    def pause(self) -> None:
        """Let it wake up no more jobs."""
        self.aps.pause()

    def add_job(self, func: Any, trigger: Any, **options: Any) -> None:
        """``add_job`` in an empty context."""
        Context().run(self.aps.add_job, func, trigger, **options)

    def modify_job(self, job_id: str, alias: str, **changes: Any) -> None:
        """``modify_job`` in an empty context."""
        Context().run(self.aps.modify_job, job_id, alias, **changes)

    def wakeup(self) -> None:
        """``wakeup`` in an empty context."""
        Context().run(self.aps.wakeup)

    def hears(self, code: int) -> bool:
        """Whether any listener wants that event (``schedulers/base.py`` 124, ``_listeners``): none costs nothing."""
        for _, mask in self.aps._listeners:  # noqa: SIM110  asked for every run; a generator takes four times as long
            if mask & code:
                return True
        return False

    def dispatch(self, event: SchedulerEvent) -> None:
        """Hand an event to the listeners, each isolated (``schedulers/base.py`` 1022, ``_dispatch_event``)."""
        self.aps._dispatch_event(event)

    def stores(self) -> list[tuple[str, BaseJobStore]]:
        """The user's job stores with their aliases (``schedulers/base.py`` 122, ``_jobstores``)."""
        return [(alias, store) for alias, store in list(self.aps._jobstores.items()) if alias != ALIAS]

    def has_store(self, alias: str) -> bool:
        """Whether that job store exists; ``default`` is made at start when missing (``base.py`` 191)."""
        return alias in self.aps._jobstores or (alias == "default" and not self.started)

    def in_memory(self, alias: str) -> bool:
        """Whether that store keeps nothing across processes; so does a ``default`` still to be made."""
        store = self.aps._jobstores.get(alias)
        return store is None or isinstance(store, MemoryJobStore)

    def executor(self, alias: str) -> BaseExecutor | None:
        """The executor with that alias (``schedulers/base.py`` 120, ``_executors``)."""
        return self.aps._executors.get(alias)

    def has_executor(self, alias: str) -> bool:
        """Whether that executor exists; ``default`` is made at start when missing (``base.py`` 181)."""
        return self.executor(alias) is not None or (alias == "default" and not self.started)

    def pending(self) -> list[tuple[Job, str, bool]]:
        """Raw jobs added before start (``schedulers/base.py`` 126, ``_pending_jobs``)."""
        return self.aps._pending_jobs

    @property
    def raw_running(self) -> bool:
        """Whether executors other than ours have runs in progress (``executors/base.py`` 35, ``_instances``)."""
        others = [executor for alias, executor in self.aps._executors.items() if alias != ALIAS]
        return any(executor._instances for executor in others)

    def watch_losses(self, executor: Any, lost: Callable[[str, BaseException], None]) -> None:
        """Also hear of failures that the executor only logs (``executors/base.py`` 87, ``_run_job_error``)."""
        if "_run_job_error" in vars(executor):
            return
        stock = executor._run_job_error

        def report(job_id: str, exc: BaseException, traceback: Any = None) -> None:
            stock(job_id, exc, traceback)
            lost(job_id, exc)

        executor._run_job_error = report

    def unwatch_losses(self, executor: Any) -> None:
        """Undo ``watch_losses``."""
        executor.__dict__.pop("_run_job_error", None)

    def look_up(self, store: Any, job_id: str) -> Any:
        """A row of a store; ``BROKEN_ROW`` for one that cannot be read."""
        if isinstance(store, MemoryJobStore) or not hasattr(store, "_reconstitute_job"):  # it keeps objects
            return store.lookup_job(job_id)
        with self.keeping_broken_rows(store):
            return store.lookup_job(job_id)

    @contextmanager
    def keeping_broken_rows(self, store: Any) -> Generator[None]:
        """Read a store without deleting what cannot be unpickled right now.

        Six stores delete such rows on any read (``jobstores/sqlalchemy.py`` 171, ``_reconstitute_job`` raises).
        """
        restore = getattr(store, "_reconstitute_job", None)
        if restore is None:
            yield
            return

        def careful(state: Any) -> Any:
            try:
                return restore(state)
            except Exception:  # noqa: BLE001  whatever unpickling a user's class raises
                return BROKEN_ROW

        with self.aps._jobstores_lock:  # ``base.py`` 123: APScheduler reads stores under it
            store._reconstitute_job = careful
            try:
                yield
            finally:
                del store._reconstitute_job

    def make_job(self, **state: Any) -> Job:
        """An APScheduler ``Job`` without the checks of ``Job.__init__`` (``job.py`` 45, ``__slots__``)."""
        job = Job.__new__(Job)
        job._scheduler = self.aps
        for key, value in state.items():
            setattr(job, key, value)
        return job


class _BrokenRow:
    """Stands for a row that cannot be read; sorts as paused."""

    id = ""
    next_run_time = None
    trigger = None


BROKEN_ROW = _BrokenRow()
