"""Everything of ours on one AsyncIOScheduler: attached once, shared by its owners, taken off with the last one."""

import asyncio
import threading
from contextlib import suppress
from contextvars import Context
from typing import Any
from weakref import WeakValueDictionary

from apscheduler.events import (
    EVENT_ALL_JOBS_REMOVED,
    EVENT_JOB_MODIFIED,
    EVENT_JOB_REMOVED,
    EVENT_SCHEDULER_STARTED,
)
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from hassette_aps.clockwork import ALIAS, Clockwork
from hassette_aps.executor import RunExecutor
from hassette_aps.foreign import ForeignRuns
from hassette_aps.job import FINISHED
from hassette_aps.jobs import Jobs, Reporter
from hassette_aps.owner import Owner
from hassette_aps.registration import Registration
from hassette_aps.registry import Registry

_ROWS = EVENT_JOB_MODIFIED | EVENT_JOB_REMOVED | EVENT_ALL_JOBS_REMOVED

_engines: WeakValueDictionary[int, "Engine"] = WeakValueDictionary()
_making = threading.Lock()


def engine_of(aps: AsyncIOScheduler, max_workers: int) -> "Engine":
    """The one engine of an AsyncIOScheduler."""
    with _making:
        engine = _engines.get(id(aps))
        if engine is None:
            engine = _engines[id(aps)] = Engine(aps, max_workers)
        return engine


def engines_on(loop: asyncio.AbstractEventLoop) -> list["Engine"]:
    """Engines whose AsyncIOScheduler runs on ``loop``."""
    return [engine for engine in list(_engines.values()) if engine.clockwork.loop is loop]


class Engine:
    """Attaches to an AsyncIOScheduler, and opens and closes owners on it."""

    def __init__(self, aps: AsyncIOScheduler, max_workers: int) -> None:
        self.clockwork = Clockwork(aps)
        self.lock = threading.RLock()
        self.registry = Registry()
        self.executor = RunExecutor(self.clockwork, self.lock, max_workers)
        self.jobs = Jobs(self.clockwork, self.lock, self.registry, self.executor)
        self.foreign = ForeignRuns(self.clockwork, self.registry, self.executor, self.jobs.store.view)
        self.registration = Registration(self.jobs, self.foreign)
        self.starter: Owner | None = None
        """The owner whose ``start()`` is starting the AsyncIOScheduler."""
        self.start_failure: Exception | None = None
        """Why that owner could not be opened."""
        self.attached = False
        self.started_here = False
        """One of our owners started the AsyncIOScheduler; the last one to leave stops it."""
        self.executor.hand_over = self.foreign.submit
        self.jobs.store.stopped = self._aps_stopped

    # Attaching

    def attach(self) -> None:
        """Put our store, executor and listeners on the AsyncIOScheduler, running or not."""
        with _making:
            if self.attached:
                return
            self.attached = True
        aps, clockwork = self.clockwork.aps, self.clockwork
        if clockwork.started and not all(clockwork.in_memory(alias) for alias, _ in clockwork.stores()):
            self.executor.log.warning(
                "attached to an AsyncIOScheduler that is running already: rows of ours that fell due before may"
                " be gone from its job stores; make the Scheduler before aps.start()"
            )
        aps.add_listener(self._started, EVENT_SCHEDULER_STARTED)
        Context().run(aps.add_executor, self.executor, ALIAS)
        Context().run(aps.add_jobstore, self.jobs.store, ALIAS)

    def detach(self) -> None:
        """Take everything off again; runs in flight finish."""
        with _making:
            if not self.attached:
                return
            self.attached = False
        aps = self.clockwork.aps
        aps.remove_listener(self._started)
        aps.remove_listener(self._rows_changed)
        self.foreign.close()
        self.jobs.store.timer.disarm()
        with suppress(KeyError):
            aps.remove_jobstore(ALIAS, shutdown=False)
        with suppress(KeyError):
            aps.remove_executor(ALIAS, shutdown=False)
        self.executor.retire()

    def _started(self, event: Any) -> None:
        self.open_all()

    def _rows_changed(self, event: Any) -> None:
        """Somebody used APScheduler's own verbs, or APScheduler removed a row that was used up."""
        jobs = self.jobs
        if event.code == EVENT_JOB_MODIFIED:
            jobs.rows.modified(event.job_id, event.jobstore)
        elif event.code == EVENT_JOB_REMOVED:
            jobs.rows.gone(event.job_id)
            jobs.row_removed(self.registry.get(event.job_id), event.jobstore)
        else:  # all rows of one store, or of all
            for job in self.registry:
                if job.row_alias is not None and event.alias in (None, job.row_alias):
                    jobs.rows.gone(job.home.id_of(job.name) if job.home else job.name)
                    jobs.row_removed(job, job.row_alias)

    @property
    def busy(self) -> bool:
        """Whether handlers or hooks of any owner are in progress."""
        return any(reporter.busy for reporter in self.jobs.reporters.values())

    # Owners

    @property
    def owners(self) -> dict[str, Owner]:
        """The live owners by name."""
        return self.jobs.owners

    def admit_owner(self, owner: Owner, reporter: Reporter) -> None:
        """Let an owner register jobs; it is opened at once if the AsyncIOScheduler runs.

        Raises:
            ValueError: a live Scheduler with that owner is attached already.
        """
        with self.lock:
            former = self.owners.get(owner.name)
            if former is not None and not (former.ended and not self.registry.of(former)):
                raise ValueError(
                    f"a Scheduler with owner={owner.name!r} is attached to this AsyncIOScheduler already; shut it"
                    " down first, or give another owner="
                )
            self.owners[owner.name] = owner
            self.jobs.reporters[owner] = reporter
            self.executor.reporters[owner] = reporter.ended
        if self.clockwork.started:
            try:
                self.open(owner)
            except Exception:
                self.dismiss_owner(owner)
                raise

    def dismiss_owner(self, owner: Owner) -> None:
        """Forget an owner; its name is free."""
        with self.lock:
            owner.live = False
            if self.owners.get(owner.name) is owner:
                del self.owners[owner.name]
            self.jobs.reporters.pop(owner, None)
            self.executor.reporters.pop(owner, None)

    def start(self, starter: Owner) -> None:
        """Start the AsyncIOScheduler and open every owner.

        Raises:
            ValueError: a name of ``starter`` is taken in a store; no owner is open then, and nothing wakes up.
        """
        self.started_here, self.starter, self.start_failure = True, starter, None
        try:
            self.clockwork.start()
        finally:
            self.starter = None
        if self.start_failure is not None:
            raise self.start_failure

    def open_all(self) -> None:
        """The AsyncIOScheduler has started: open every owner; one that fails does not keep the others closed."""
        for owner in sorted(self.owners.values(), key=lambda owner: owner is not self.starter):
            try:
                self.open(owner)
            except Exception as exc:  # noqa: BLE001  its start() raises it; after a bare aps.start() the log tells
                if owner is self.starter:
                    self.start_failure = exc
                    self.clockwork.pause()  # its first wakeup is on its way: no row is used up before it stops
                    return
                owner.logger.error("the jobs of owner %r are not scheduled: %s", owner.name, exc)
        self.jobs.rows.park_strangers({name for name, owner in self.owners.items() if owner.live})

    def open(self, owner: Owner) -> None:
        """Schedule what the owner registered, after settling every name against the rows of earlier processes.

        Raises:
            ValueError: a name is taken; then nothing of the owner is registered.
        """
        rows, reporter = self.jobs.rows.all(), self.jobs.reporters[owner]
        decided = self.registration.decide_pending(owner, rows)
        owner.live, owner.ended = True, False
        self._watch_rows()
        for job, decision, found in decided:
            self.registration.schedule(owner, job, decision, found)
            if decision == "replace":
                rows.pop(owner.id_of(job.name), None)
        for job in self.jobs.rows.adopt(owner, rows):
            reporter.registered(job)
        self.jobs.store.timer.arm()
        reporter.opened()

    def _watch_rows(self) -> None:
        aps = self.clockwork.aps
        aps.remove_listener(self._rows_changed)
        aps.add_listener(self._rows_changed, _ROWS)

    def close(self, owner: Owner, *, aps_goes_on: bool) -> set[str]:
        """Cancel an owner's jobs in memory, park its rows while the AsyncIOScheduler goes on, if only for the drain.

        Returns the names of those that were in memory.
        """
        jobs = self.jobs
        lost: set[str] = set()
        for job in self.registry.of(owner):
            if job.row_alias is None or job in jobs.pending or self.clockwork.in_memory(job.row_alias):
                lost.add(job.name)
                jobs.cancel(job)
                continue
            if aps_goes_on:
                jobs.rows.park(job)
            with self.lock:
                job.state = FINISHED
                self.registry.discard(owner, job)
        owner.lost |= lost
        owner.unwanted.clear()
        return lost

    def _aps_stopped(self) -> None:
        """``aps.shutdown()`` ends every owner; each may start again."""
        for owner in [owner for owner in self.owners.values() if owner.live]:
            owner.stopping = True
            self.close(owner, aps_goes_on=False)
            owner.live = owner.stopping = False
            owner.ended = True
