"""Live jobs of every owner on one AsyncIOScheduler, and what is done with them after registration.

Lock order: APScheduler calls us under its own lock, so ``lock`` is never held while APScheduler is called.
"""

from contextvars import Context
from threading import RLock
from typing import Protocol

from apscheduler.events import EVENT_JOB_MODIFIED, EVENT_JOB_REMOVED, JobEvent

from hassette_aps.clockwork import ALIAS, Clockwork
from hassette_aps.executor import RunExecutor
from hassette_aps.grid import resumed
from hassette_aps.instants import Micros, now_us
from hassette_aps.job import ACTIVE, CANCELLED, ENDING, FINISHED, PAUSED, PENDING, ScheduledJob
from hassette_aps.keptrows import KeptRows
from hassette_aps.owner import Owner
from hassette_aps.registry import Registry
from hassette_aps.run import Run
from hassette_aps.store import FacadeJobStore
from hassette_aps.types import IfExists


class Reporter(Protocol):
    """Who hears what happens to an owner's jobs (``listeners``)."""

    @property
    def busy(self) -> bool: ...
    def opened(self) -> None: ...
    def registered(self, job: ScheduledJob) -> None: ...
    def cancelled(self, job: ScheduledJob) -> None: ...
    def ended(self, run: Run) -> None: ...
    def trigger_failed(self, run: Run, exc: Exception) -> None: ...


class Jobs:
    """The ``JobKeeper`` of every handle: cancels, pauses, submits and frees jobs."""

    def __init__(self, clockwork: Clockwork, lock: RLock, registry: Registry, executor: RunExecutor) -> None:
        self.clockwork = clockwork
        self.lock = lock
        self.registry = registry
        self.executor = executor
        self.store = FacadeJobStore(clockwork, registry, executor, lock)
        self.rows = KeptRows(clockwork, registry, self)
        self.owners: dict[str, Owner] = {}
        self.reporters: dict[Owner, Reporter] = {}
        self.pending: dict[ScheduledJob, IfExists] = {}
        """Registered, to be scheduled when their owner is opened."""
        self._failed: dict[ScheduledJob, Micros] = {}
        """Paused because their trigger failed, and the target whose verdict that was."""
        executor.settled = self._settled
        executor.due_row = self.rows.due
        self.store.trigger_failed = self.trigger_failed
        self.store.removed_by_aps = self.mark_cancelled  # APScheduler sends the event itself
        self.store.row_set_back = self.rows.set_back

    # The verbs of a handle

    def cancel(self, job: ScheduledJob) -> None:
        """Immediate and idempotent: no run starts once this returns."""
        home = job.home
        assert home is not None
        with self.lock:
            if job.state in (CANCELLED, FINISHED):
                return
            stored = job.row_alias is not None and job not in self.pending and job.state != ENDING
            if self.pending.get(job) in ("skip", "replace"):
                home.unwanted.add(home.id_of(job.name))
            self._leave(job, home, CANCELLED)
        self._tell_cancelled(job, home)
        if stored:
            self.rows.remove(job)
        else:
            self.announce(EVENT_JOB_REMOVED, job)

    def pause(self, job: ScheduledJob) -> None:
        """Hold the schedule."""
        with self.lock:
            if job.state == PENDING:
                job.state = PAUSED
                return
            if job.state != ACTIVE:
                return
            if job.row_alias is None:
                self.store.agenda.drop(job)
                job.state = PAUSED
        if job.row_alias is not None:
            self.rows.pause(job)
        self.announce(EVENT_JOB_MODIFIED, job)

    def resume(self, job: ScheduledJob) -> None:
        """Go on, on the same grid."""
        self.store.notice_step()
        if job.row_alias is not None and job not in self.pending:
            self.rows.refresh(job)
        with self.lock:
            if job.state != PAUSED:
                return
            if job in self.pending:
                job.state = PENDING
                return
        if job.row_alias is not None:
            self.rows.resume(job)
        elif not self._put_back(job):
            return
        self.announce(EVENT_JOB_MODIFIED, job)
        self.store.timer.arm()

    def _put_back(self, job: ScheduledJob) -> bool:
        """Schedule a paused job of our store again; whether it goes on."""
        home, loop, held = job.home, self.clockwork.loop, job.target
        assert home is not None
        assert held is not None
        since = now_us()
        if self._failed.get(job) == held:
            since = max(since, held)  # it has its verdict, whatever the clock shows now
        try:
            target = resumed(job.spec.trigger, held, since, job.zone)
        except Exception as exc:  # noqa: BLE001  11.22: as when it is asked on its own time
            if loop is not None:
                now = now_us()  # the target it is held at has its verdict, or is not owed
                run = Run(job, now, now, "submit")
                loop.call_soon_threadsafe(self._tell_failure, run, exc, context=Context())
            return False
        with self.lock:
            if job.state != PAUSED:
                return False
            if target is not None:
                self._failed.pop(job, None)
                self.store.put(job, target)
                return True
            self._leave(job, home, FINISHED)
        self.announce(EVENT_JOB_REMOVED, job)
        return False

    def submit(self, job: ScheduledJob) -> str:
        """Run it now."""
        home, loop = job.home, self.clockwork.loop
        if job.state in (CANCELLED, FINISHED):
            raise RuntimeError(f"cannot submit job {job.name!r}: it was cancelled or is finished; register it again")
        if home is None or loop is None or not home.live:
            raise RuntimeError(f"cannot submit job {job.name!r}: its scheduler is not running; start it first")
        now = now_us()
        run = Run(job, now, now, "submit")
        loop.call_soon_threadsafe(self.executor.admit, run, now, context=Context())
        return run.execution_id

    def refresh(self, job: ScheduledJob) -> None:
        """Read a row's next run."""
        self.rows.refresh(job)

    # Endings

    def mark_cancelled(self, job: ScheduledJob) -> None:
        """From here on no run of it starts, and its name is free."""
        home = job.home
        assert home is not None
        with self.lock:
            if job.state in (CANCELLED, FINISHED):
                return
            self._leave(job, home, CANCELLED)
        self._tell_cancelled(job, home)

    def _tell_cancelled(self, job: ScheduledJob, home: Owner) -> None:
        reporter = self.reporters.get(home)
        if reporter is not None:
            reporter.cancelled(job)

    def trigger_failed(self, run: Run, exc: Exception) -> None:
        """11.22: tell, and pause the job; nothing else stops."""
        job = run.job
        with self.lock:
            if job.row_alias is None and job.state == ACTIVE:
                job.state = PAUSED
                self._failed[job] = run.target
        self._tell_failure(run, exc)

    def _tell_failure(self, run: Run, exc: Exception) -> None:
        home = run.job.home
        if home is not None and home in self.reporters:
            self.reporters[home].trigger_failed(run, exc)

    def _settled(self, run: Run) -> None:
        """A verdict fell: a job whose last target it was is finished."""
        job, home = run.job, run.job.home
        if job.state != ENDING or not run.is_last or home is None:
            return
        with self.lock:
            self._leave(job, home, FINISHED)
        self.announce(EVENT_JOB_REMOVED, job)

    def _leave(self, job: ScheduledJob, home: Owner, state: int) -> None:
        job.state = state
        if home.last_spec is job.spec:  # it would keep the function alive
            home.last_spec = None
        self.store.forget(job)
        self._failed.pop(job, None)
        self.registry.discard(home, job)
        self.pending.pop(job, None)

    def row_removed(self, job: ScheduledJob | None, alias: str) -> None:
        """APScheduler says that a row is gone: used up, or removed by somebody else."""
        if job is None or job.row_alias != alias or job in self.pending or job.state not in (ACTIVE, PAUSED):
            return
        elsewhere = job.spec.executor is not None
        if elsewhere and job.fires is not None and job.fires <= now_us():
            job.state, job.target = ENDING, None  # its last run is on another executor, which has yet to report
        else:
            self.mark_cancelled(job)

    def announce(self, code: int, job: ScheduledJob) -> None:
        """APScheduler's event for a job of our store; rows have APScheduler's own."""
        home = job.home
        if job.row_alias is None and home is not None and self.clockwork.hears(code) and self.clockwork.started:
            self.clockwork.dispatch(JobEvent(code, home.id_of(job.name), ALIAS))
