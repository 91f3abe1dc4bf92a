"""Everything of ours on one AsyncIOScheduler: its owners, their jobs, and what is done with them."""

import threading
from contextlib import suppress
from contextvars import Context
from dataclasses import replace
from itertools import count
from typing import Any, Protocol
from weakref import WeakValueDictionary

from apscheduler.events import (
    EVENT_ALL_JOBS_REMOVED,
    EVENT_JOB_ADDED,
    EVENT_JOB_MODIFIED,
    EVENT_JOB_REMOVED,
    EVENT_SCHEDULER_STARTED,
    JobEvent,
)

from hassette_aps.clockwork import ALIAS, Clockwork
from hassette_aps.conflicts import Decision, against_job, against_row
from hassette_aps.executor import RunExecutor
from hassette_aps.foreign import WATCHED, ForeignRuns
from hassette_aps.grid import resumed
from hassette_aps.instants import Micros, now_us
from hassette_aps.job import ACTIVE, CANCELLED, ENDING, FINISHED, NEW, PAUSED, PENDING, ScheduledJob
from hassette_aps.keptrows import KeptRows
from hassette_aps.options import auto_name
from hassette_aps.owner import Owner
from hassette_aps.registry import Registry
from hassette_aps.rows import MAX_ID, refuse_unstorable
from hassette_aps.run import Run
from hassette_aps.store import FacadeJobStore
from hassette_aps.types import IfExists


class Reporter(Protocol):
    """Who hears what happens to an owner's jobs (``listeners``)."""

    def registered(self, job: ScheduledJob) -> None: ...
    def cancelled(self, job: ScheduledJob) -> None: ...
    def ended(self, run: Run) -> None: ...
    def trigger_failed(self, run: Run, exc: Exception) -> None: ...


_engines: WeakValueDictionary[int, "Engine"] = WeakValueDictionary()
_making = threading.Lock()


def engine_of(aps: Any, max_workers: int) -> "Engine":
    """The one engine of an AsyncIOScheduler, attached."""
    with _making:
        engine = _engines.get(id(aps))
        if engine is None:
            engine = _engines[id(aps)] = Engine(aps, max_workers)
    engine.attach()
    return engine


class Engine:
    """Registers, cancels, pauses and frees jobs; opens and closes owners.

    Lock order: APScheduler calls us under its own lock, so ``lock`` is never held while APScheduler is called.
    """

    def __init__(self, aps: Any, max_workers: int) -> None:
        self.clockwork = Clockwork(aps)
        self.lock = threading.RLock()
        self.registry = Registry()
        self.executor = RunExecutor(self.clockwork, self.lock, max_workers)
        self.store = FacadeJobStore(self.clockwork, self.registry, self.executor, self.lock)
        self.foreign = ForeignRuns(self.clockwork, self.registry, self.executor, self.store.view)
        self.rows = KeptRows(self.clockwork, self.registry, self.executor, self)
        self.owners: dict[str, Owner] = {}
        self.reporters: dict[Owner, Reporter] = {}
        self.failures: dict[Owner, Exception] = {}
        """Why an owner could not be opened at start."""
        self.pending: dict[ScheduledJob, IfExists] = {}
        """Registered, to be scheduled when their owner is opened."""
        self.attached = False
        self.started_here = False
        """One of our owners started the AsyncIOScheduler; the last one to leave stops it."""
        self._hears_foreign = False
        self.executor.hand_over = self.foreign.submit
        self.executor.settled = self._settled
        self.executor.due_row = self.rows.due
        self.store.trigger_failed = self.trigger_failed
        self.store.removed_by_aps = self._removed_by_aps
        self.store.stopped = self._aps_stopped

    # Attaching

    def attach(self) -> None:
        """Put our store, executor and listener on the AsyncIOScheduler, running or not."""
        with _making:
            if self.attached:
                return
            self.attached = True
        aps = self.clockwork.aps
        if self.clockwork.started and any(not self.clockwork.in_memory(alias) for alias, _ in self.clockwork.stores()):
            self.executor.log.warning(
                "attached to an AsyncIOScheduler that is running already: rows of ours that fell due before may be gone"
                " from its job stores; make the Scheduler before aps.start()"
            )
        aps.add_listener(
            self._heard, EVENT_SCHEDULER_STARTED | EVENT_JOB_MODIFIED | EVENT_JOB_REMOVED | EVENT_ALL_JOBS_REMOVED
        )
        Context().run(aps.add_executor, self.executor, ALIAS)
        Context().run(aps.add_jobstore, self.store, ALIAS)

    def detach(self) -> None:
        """Take everything off again; runs in flight finish."""
        with _making:
            if not self.attached:
                return
            self.attached = False
        aps = self.clockwork.aps
        aps.remove_listener(self._heard)
        aps.remove_listener(self.foreign.heard)
        self._hears_foreign = False
        self.foreign.close()
        self.store.disarm()
        with suppress(KeyError):
            aps.remove_jobstore(ALIAS, shutdown=False)
        with suppress(KeyError):
            aps.remove_executor(ALIAS, shutdown=False)
        self.executor.shutdown()

    def _heard(self, event: Any) -> None:
        if event.code == EVENT_SCHEDULER_STARTED:
            self.open_all()
        elif event.code == EVENT_JOB_MODIFIED:
            self.rows.modified(event.job_id, event.jobstore)
        elif event.code == EVENT_JOB_REMOVED:
            self._row_removed(self.registry.get(event.job_id), event.jobstore)
        elif event.alias != ALIAS:  # all rows of one store, or of all
            for job in self.registry:
                if job.row_alias is not None and event.alias in (None, job.row_alias):
                    self._row_removed(job, job.row_alias)

    def _row_removed(self, job: ScheduledJob | None, alias: str) -> None:
        if job is None or job.row_alias != alias or job in self.pending:
            return
        if job.state in (ACTIVE, PAUSED) and self.rows.replacing is not job:
            finished = job.spec.executor not in (None, ALIAS) and job.fires is not None and job.fires <= now_us()
            if not finished:
                self._cancelled(job)

    def watch_foreign(self, alias: str) -> None:
        """Follow the outcomes of executor ``alias``."""
        if not self._hears_foreign:
            self._hears_foreign = True
            self.clockwork.aps.add_listener(self.foreign.heard, WATCHED)
        self.foreign.watch(alias)

    # Owners

    def admit_owner(self, owner: Owner, reporter: Reporter) -> None:
        """Let an owner register jobs; it is opened at once if the AsyncIOScheduler runs.

        Raises:
            ValueError: a live Scheduler with that owner is attached already.
        """
        with self.lock:
            if owner.name in self.owners:
                raise ValueError(
                    f"a Scheduler with owner={owner.name!r} is attached to this AsyncIOScheduler already; shut it down"
                    " first, or give another owner="
                )
            self.owners[owner.name] = owner
            self.reporters[owner] = reporter
            self.executor.reporters[owner] = reporter.ended
            owner.stopping = False
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
            self.reporters.pop(owner, None)
            self.executor.reporters.pop(owner, None)
            self.failures.pop(owner, None)

    def open_all(self) -> None:
        """The AsyncIOScheduler has started: open every owner; one that fails does not keep the others closed."""
        self.failures.clear()
        self.rows.park_strangers(self.owners)
        for owner in list(self.owners.values()):
            try:
                self.open(owner)
            except Exception as exc:  # noqa: BLE001  kept for Scheduler.start(); with a bare aps.start() the log tells
                self.failures[owner] = exc
                owner.logger.error("the jobs of owner %r are not scheduled: %s", owner.name, exc)
        self.store.arm()

    def open(self, owner: Owner) -> None:
        """Schedule what the owner registered, after settling every name against the rows of earlier processes.

        Raises:
            ValueError: a name is taken; then nothing of the owner is registered.
        """
        with self.lock:
            waiting = [(job, if_exists) for job, if_exists in self.pending.items() if job.home is owner]
        rows = self.rows.all()
        decided: list[tuple[ScheduledJob, Decision, tuple[str, Any] | None]] = []
        for job, if_exists in waiting:
            found = rows.get(owner.id_of(job.name))
            decision = "add" if found is None else against_row(found[1], found[0], job, owner.name, if_exists)
            decided.append((job, decision, found))
        owner.live = True
        for job, decision, found in decided:
            self._schedule(owner, job, decision, found)
        self.rows.adopt(owner, rows)
        self.store.arm()

    def close(self, owner: Owner, *, aps_goes_on: bool) -> int:
        """Cancel an owner's jobs in memory, park its rows if the AsyncIOScheduler goes on. How many were in memory."""
        count = 0
        for job in self.registry.of(owner):
            if job.row_alias is None or job in self.pending:
                count += 1
                self._cancelled(job)
                self._announce_removed(job)
            else:
                if aps_goes_on:
                    self.rows.park(job)
                with self.lock:
                    job.state = FINISHED
                    self.registry.discard(owner, job)
        return count

    def _aps_stopped(self) -> None:
        for owner in list(self.owners.values()):
            owner.stopping = True
            self.close(owner, aps_goes_on=False)
            owner.live = owner.stopping = False

    # Registering

    def register(self, owner: Owner, job: ScheduledJob, if_exists: IfExists) -> ScheduledJob:
        """Schedule a job, or keep it for the start.

        Raises:
            ValueError: the name is taken, an alias is unknown, the schedule can never fire, the job cannot be stored.
        """
        if job.state != NEW:
            return self._again(owner, job, if_exists)
        now = now_us()
        alias = job.spec.jobstore or owner.settings.jobstore
        alias = None if alias == ALIAS else alias
        self._complete(owner, job, alias, now)
        with self.lock:
            existing = self._settle_name(owner, job, if_exists)
            decision = "add" if existing is None else against_job(existing, job, owner.name, if_exists)
            if existing is not None and decision == "keep":
                if existing.row_alias is not None:
                    existing.spec = job.spec  # the functions of this process instead of those read back
                return existing
            job_is_row = alias is not None
            target = self._first_target(owner, job, now)
            if owner.stopping:
                job.state = CANCELLED
                job.home, job.keeper = owner, self
                owner.logger.warning("job %r is not scheduled: its scheduler is shutting down", job.name)
                return job
        if job_is_row and alias is not None and not self.clockwork.in_memory(alias):
            refuse_unstorable(job, alias)
        found = None
        if owner.live:
            found = self.rows.find(owner.id_of(job.name))
            if existing is None and found is not None:
                decision = against_row(found[1], found[0], job, owner.name, if_exists)
        elif existing is None:
            self._settle_against_pending(owner, job, if_exists)
        with self.lock:
            if existing is not None:
                self._replace(owner, existing, keeps_row=found is not None)
            job.home, job.keeper = owner, self
            job.row_alias = job.row_alias or alias
            job.target = job.fires = target
            job.state = PENDING
            self.registry.add(owner, job)
            self.pending[job] = if_exists
        if owner.live:
            try:
                self._schedule(owner, job, decision, found)
            except BaseException:
                with self.lock:
                    self.pending.pop(job, None)
                    job.state = CANCELLED
                    self.registry.discard(owner, job)
                raise
        if owner in self.reporters:
            self.reporters[owner].registered(job)
        return job

    def _again(self, owner: Owner, job: ScheduledJob, if_exists: IfExists) -> ScheduledJob:
        if job.home is not owner:
            raise ValueError(f"job {job.name!r} belongs to another Scheduler (owner {job.owner!r}); build a new ScheduledJob")
        if job.state in (CANCELLED, FINISHED):
            raise ValueError(f"job {job.name!r} was cancelled or is finished; build a new ScheduledJob")
        if if_exists == "error":
            against_job(job, job, owner.name, if_exists)
        return job

    def _complete(self, owner: Owner, job: ScheduledJob, alias: str | None, now: Micros) -> None:
        """Fill in what the scheduler's settings decide."""
        spec = job.spec
        settings = owner.settings
        executor = spec.executor or settings.executor
        executor = None if executor == ALIAS else executor
        for kind, wanted, known in (
            ("job store", alias, self.clockwork.has_store),
            ("executor", executor, self.clockwork.has_executor),
        ):
            if wanted is not None and not known(wanted):
                raise ValueError(
                    f"job {spec.name!r}: the AsyncIOScheduler has no {kind} {wanted!r}; add it with"
                    f" aps.add_{kind.replace(' ', '')}(..., {wanted!r}) first, or leave {kind.replace(' ', '')}= out"
                )
        trigger = spec.trigger.settle(now, owner.zone)
        if trigger is not spec.trigger or executor != spec.executor or spec.mode is None:
            name = auto_name(spec.func, trigger) if spec.auto_named else spec.name
            mode = spec.mode or owner.default_mode
            job.spec = replace(spec, trigger=trigger, mode=mode, executor=executor, name=name)
        job.limit = None if spec.timeout_disabled else spec.timeout or owner.default_timeout
        if alias is not None and len(owner.id_of(spec.name)) > MAX_ID:
            raise ValueError(
                f"job {spec.name!r}: its id has more than the {MAX_ID} characters a job store keeps; give a shorter name="
            )

    def _settle_name(self, owner: Owner, job: ScheduledJob, if_exists: IfExists) -> ScheduledJob | None:
        """Who has the name; an unnamed one-shot finds a free one."""
        existing = self.registry.get(owner.id_of(job.name))
        if existing is None or not (job.spec.auto_named and job.spec.trigger.one_shot and if_exists == "error"):
            return existing
        base = job.name
        free = next(n for n in count(2) if self.registry.get(owner.id_of(f"{base}#{n}")) is None)
        job.spec = replace(job.spec, name=f"{base}#{free}")
        return None

    def _first_target(self, owner: Owner, job: ScheduledJob, now: Micros) -> Micros:
        trigger = job.spec.trigger
        try:
            target = trigger.first(now, owner.zone)
        except Exception as exc:
            raise ValueError(f"job {job.name!r}: trigger {trigger} gives no first time: {exc!r}") from exc
        if target is None:
            raise ValueError(f"job {job.name!r}: trigger {trigger} never fires; give a schedule that has a first time")
        return target

    def _settle_against_pending(self, owner: Owner, job: ScheduledJob, if_exists: IfExists) -> None:
        """Raw jobs that wait for the same start: refused, or taken over."""
        job_id = owner.id_of(job.name)
        for entry in list(self.clockwork.pending()):
            raw, alias, _ = entry
            if raw.id == job_id:
                against_row(raw, alias, job, owner.name, if_exists)
                self.clockwork.pending().remove(entry)
                job.row_alias = alias

    def _replace(self, owner: Owner, old: ScheduledJob, *, keeps_row: bool) -> None:
        with self.lock:
            was_row = old.row_alias is not None and old not in self.pending
        self._cancelled(old)
        if not (was_row and keeps_row):
            self._announce_removed(old)

    def _schedule(self, owner: Owner, job: ScheduledJob, decision: Decision, found: tuple[str, Any] | None) -> None:
        """Put a registered job where it lives, from now on."""
        paused = job.state == PAUSED
        target = self._first_target(owner, job, now_us())
        if found is not None:
            job.row_alias = found[0]
        if job.row_alias is None:
            with self.lock:
                if self.pending.pop(job, None) is None:
                    return  # cancelled meanwhile
                self.store.put(job, target)
                if paused:
                    self.store.agenda.drop(job)
                    job.state = PAUSED
                arm = self.store.due_earlier(job)
            self._announce(EVENT_JOB_ADDED, job)
            if arm:
                self.store.arm()
        else:
            self.rows.write(owner, job, target, decision, found)
            with self.lock:
                self.pending.pop(job, None)
            if paused:
                self.rows.pause(job)
        if job.spec.executor is not None:
            self.watch_foreign(job.spec.executor)

    # The verbs of a handle

    def cancel(self, job: ScheduledJob) -> None:
        """Immediate and idempotent."""
        with self.lock:
            if job.state in (CANCELLED, FINISHED):
                return
            stored = job.row_alias is not None and job not in self.pending and job.state != ENDING
        self._cancelled(job)
        if stored:
            self.rows.remove(job)
        elif job.row_alias is None:
            self._announce_removed(job)

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
        if job.row_alias is None:
            self._announce(EVENT_JOB_MODIFIED, job)
        else:
            self.rows.pause(job)

    def resume(self, job: ScheduledJob) -> None:
        """Go on, on the same grid."""
        with self.lock:
            if job.row_alias is not None and job not in self.pending:
                self.rows.refresh(job)
            if job.state != PAUSED:
                return
            if job in self.pending:
                job.state = PENDING
                return
            if job.row_alias is None and job.target is not None:
                target = resumed(job.spec.trigger, job.target, now_us(), job.zone)
                if target is not None:
                    self.store.put(job, target)
        if job.row_alias is None:
            self._announce(EVENT_JOB_MODIFIED, job)
            self.store.arm()
        else:
            self.rows.resume(job)

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

    def trigger_failed(self, run: Run, exc: Exception) -> None:
        """11.22: tell, and pause the job; nothing else stops."""
        job = run.job
        with self.lock:
            if job.row_alias is None and job.state == ACTIVE:
                job.state = PAUSED
        if (home := job.home) is not None and home in self.reporters:
            self.reporters[home].trigger_failed(run, exc)

    def _cancelled(self, job: ScheduledJob) -> None:
        """Mark a job: from here on no run of it starts."""
        home = job.home
        assert home is not None
        with self.lock:
            if job.state in (CANCELLED, FINISHED):
                return
            job.state = CANCELLED
            self.store.forget(job)
            self.rows.forget(job)
            self.registry.discard(home, job)
            self.pending.pop(job, None)
        reporter = self.reporters.get(home)
        if reporter is not None:
            reporter.cancelled(job)

    def _removed_by_aps(self, job: ScheduledJob) -> None:
        self._cancelled(job)  # APScheduler sends the event itself

    def _settled(self, run: Run) -> None:
        job = run.job
        if job.state != ENDING or not run.is_last:
            return
        home = job.home
        assert home is not None
        with self.lock:
            job.state = FINISHED
            self.store.forget(job)
            self.rows.forget(job)
            self.registry.discard(home, job)
        if job.row_alias is None:
            self._announce_removed(job)

    def _announce_removed(self, job: ScheduledJob) -> None:
        if job.row_alias is None:
            self._announce(EVENT_JOB_REMOVED, job)

    def _announce(self, code: int, job: ScheduledJob) -> None:
        clockwork, home = self.clockwork, job.home
        if home is not None and clockwork.started and clockwork.hears_others(code, self._heard):
            clockwork.dispatch(JobEvent(code, home.id_of(job.name), ALIAS))
