"""From a validated job to a scheduled one: settings filled in, its name settled, put where it lives."""

from collections.abc import Container
from itertools import count
from operator import is_
from typing import Any

from apscheduler.events import EVENT_JOB_ADDED, EVENT_JOB_REMOVED

from hassette_aps.clockwork import ALIAS
from hassette_aps.conflicts import Decision, against_job, against_row
from hassette_aps.foreign import ForeignRuns
from hassette_aps.instants import Micros, now_us
from hassette_aps.job import CANCELLED, FINISHED, NEW, PAUSED, PENDING, ScheduledJob
from hassette_aps.jobs import Jobs
from hassette_aps.keptrows import FoundRow
from hassette_aps.options import auto_name
from hassette_aps.owner import Owner
from hassette_aps.rows import MAX_ID, refuse_unstorable
from hassette_aps.types import IfExists


class Registration:
    """Registers jobs. Whatever is refused leaves no trace; a job it would have replaced goes on."""

    def __init__(self, jobs: Jobs, foreign: ForeignRuns) -> None:
        self._jobs = jobs
        self._foreign = foreign
        self._clockwork = jobs.clockwork

    def register(self, owner: Owner, job: ScheduledJob, if_exists: IfExists) -> ScheduledJob:
        """Schedule a job, or keep it for the start.

        Raises:
            ValueError: the name is taken, an alias is unknown, the schedule never fires, the job cannot be stored.
        """
        jobs = self._jobs
        if job.state != NEW:
            return self._again(owner, job, if_exists)
        if owner.live:
            jobs.store.notice_step()
        now = now_us()
        alias = self._complete(owner, job, now)
        target = self._first_target(owner, job, now)
        with jobs.lock:
            existing = self._settle_name(owner, job, if_exists)
        job_id = owner.prefix + job.name
        found: FoundRow | None = None
        if owner.live and (existing is None or existing.row_alias is not None):
            found = jobs.rows.find(job_id, existing and existing.row_alias)
        decision: Decision = "add"
        if existing is not None or found is not None:
            decision = self._decide(owner, job, if_exists, existing, found)
        if existing is not None and decision == "keep":
            if existing.row_alias is not None:
                existing.take_over(job)  # the functions of this process instead of those read back
            return existing
        if owner.stopping:
            job.home, job.keeper, job.state = owner, jobs, CANCELLED
            owner.logger.warning("job %r is not scheduled: its scheduler is shutting down", job.name)
            return job
        raw = None
        if not owner.live and existing is None:
            raw = self._raw_pending(owner, job, if_exists)
        alias = found[0] if found is not None else raw[1] if raw is not None else alias
        if alias is not None:
            self._refuse_unstorable(job, alias)
        with jobs.lock:
            if jobs.registry.get(job_id) is not existing:
                return self.register(owner, job, if_exists)  # another thread was faster: decide again
            job.home, job.keeper, job.state = owner, jobs, PENDING
            job.row_alias = alias
            job.target = job.fires = target
            if existing is None:
                jobs.registry.add(owner, job)
            else:
                jobs.registry.swap(owner, existing, job)
            jobs.pending[job] = if_exists
        if raw is not None:
            self._clockwork.pending().remove(raw)
        if owner.live:
            try:
                self._put(job, target, decision, found)
            except BaseException:
                with jobs.lock:
                    jobs.pending.pop(job, None)
                    if existing is None:
                        jobs.registry.discard(owner, job)
                    else:
                        jobs.registry.swap(owner, job, existing)
                    job.state = CANCELLED
                raise
        if existing is not None:
            jobs.mark_cancelled(existing)
            jobs.announce(EVENT_JOB_REMOVED, existing)
        reporter = jobs.reporters.get(owner)
        if reporter is not None:
            reporter.registered(job)
        return job

    def decide_pending(
        self, owner: Owner, rows: dict[str, FoundRow]
    ) -> list[tuple[ScheduledJob, Decision, FoundRow | None]]:
        """Settle what an owner registered before start against the rows that are there.

        Raises:
            ValueError: a name is taken.
        """
        with self._jobs.lock:
            waiting = [item for item in self._jobs.pending.items() if item[0].home is owner]
        decided: list[tuple[ScheduledJob, Decision, FoundRow | None]] = []
        for job, if_exists in waiting:
            found = self._found_at_start(owner, job, if_exists, rows)
            decided.append((job, self._decide(owner, job, if_exists, None, found), found))
            if found is not None:
                self._refuse_unstorable(job, found[0])
        return decided

    def _found_at_start(
        self, owner: Owner, job: ScheduledJob, if_exists: IfExists, rows: dict[str, FoundRow]
    ) -> FoundRow | None:
        """The row that has a waiting job's name; an unnamed one-shot finds a free name instead."""
        job_id = owner.id_of(job.name)
        if "" in rows and job_id not in rows:  # some rows cannot be read: it may be one of them
            return self._jobs.rows.find(job_id)
        if job_id not in rows or not _takes_a_suffix(job, if_exists):
            return rows.get(job_id)
        with self._jobs.lock:
            self._jobs.registry.discard(owner, job)
            self._add_suffix(owner, job, rows)
            self._jobs.registry.add(owner, job)
        return None

    def _decide(
        self,
        owner: Owner,
        job: ScheduledJob,
        if_exists: IfExists,
        existing: ScheduledJob | None,
        found: FoundRow | None,
    ) -> Decision:
        if existing is None:
            return "add" if found is None else against_row(found[1], found[0], job, owner.name, if_exists)
        if found is not None and if_exists == "skip" and not self._clockwork.in_memory(found[0]):
            return against_row(found[1], found[0], job, owner.name, if_exists)  # it may be an earlier process's
        return against_job(existing, job, owner.name, if_exists)

    def _refuse_unstorable(self, job: ScheduledJob, alias: str) -> None:
        if not self._clockwork.in_memory(alias):
            refuse_unstorable(job, alias)

    def schedule(self, owner: Owner, job: ScheduledJob, decision: Decision, found: FoundRow | None) -> None:
        """Start the schedule of a job that was registered before; times count from now."""
        self._jobs.store.notice_step()
        self._put(job, self._first_target(owner, job, now_us()), decision, found)

    def _put(self, job: ScheduledJob, target: Micros, decision: Decision, found: FoundRow | None) -> None:
        """Put a registered job where it lives."""
        jobs = self._jobs
        paused = job.state == PAUSED
        if found is not None:
            job.row_alias = found[0]
        if job.row_alias is not None:
            jobs.rows.write(job, target, decision, found)
            with jobs.lock:
                jobs.pending.pop(job, None)
            if paused:
                jobs.rows.pause(job)
        else:
            with jobs.lock:
                if jobs.pending.pop(job, None) is None:
                    return  # cancelled meanwhile
                jobs.store.put(job, target)
                too_late = job.fires is not None and jobs.store.timer.late_for(job.fires)
                if paused:
                    jobs.store.agenda.drop(job)
                    job.state = PAUSED
            jobs.announce(EVENT_JOB_ADDED, job)
            if too_late:
                jobs.store.timer.arm()
        if job.spec.executor is not None:
            self._foreign.watch(job.spec.executor)

    def _again(self, owner: Owner, job: ScheduledJob, if_exists: IfExists) -> ScheduledJob:
        if job.home is not owner:
            raise ValueError(
                f"job {job.name!r} belongs to another Scheduler (owner {job.owner!r}); build a new ScheduledJob"
            )
        if job.state in (CANCELLED, FINISHED):
            raise ValueError(f"job {job.name!r} was cancelled or is finished; build a new ScheduledJob")
        if if_exists == "error":
            against_job(job, job, owner.name, if_exists)
        return job

    def _complete(self, owner: Owner, job: ScheduledJob, now: Micros) -> str | None:
        """Fill in what the scheduler's settings decide; the alias of the user's store it goes to."""
        spec, settings = job.spec, owner.settings
        alias, executor = spec.jobstore or settings.jobstore, spec.executor or settings.executor
        alias, executor = alias if alias != ALIAS else None, executor if executor != ALIAS else None
        if alias is not None and not self._clockwork.has_store(alias):
            raise _unknown(job.name, "job store", alias)
        if executor is not None and not self._clockwork.has_executor(executor):
            raise _unknown(job.name, "executor", executor)
        if alias is not None and executor is not None and spec.where is not None:
            raise ValueError(
                f"job {job.name!r}: where= cannot be asked for a job in job store {alias!r} on executor {executor!r}:"
                " APScheduler runs it by itself; leave jobstore= or executor= out"
            )
        try:
            trigger = spec.trigger.settle(now, owner.zone)
        except ValueError as exc:
            raise ValueError(f"job {job.name!r}: {exc}") from exc
        if trigger is not spec.trigger or executor != spec.executor or spec.mode is None:
            mode = spec.mode or owner.default_mode
            spec = spec._replace(trigger=trigger, mode=mode, executor=executor)
            if spec.auto_named:
                job.name = auto_name(spec.func, trigger)
        former = owner.last_spec
        if former is not None and all(map(is_, spec, former)):
            spec = former
        job.spec = owner.last_spec = spec
        job.limit = None if spec.timeout_disabled else spec.timeout or owner.default_timeout
        if alias is not None and len(owner.id_of(job.name)) > MAX_ID:
            raise ValueError(
                f"job {job.name!r}: its id has more than the {MAX_ID} characters a job store keeps;"
                " give a shorter name="
            )
        return alias

    def _settle_name(self, owner: Owner, job: ScheduledJob, if_exists: IfExists) -> ScheduledJob | None:
        """Who has the name; an unnamed one-shot finds a free one."""
        existing = self._jobs.registry.get(owner.prefix + job.name)
        if existing is None or not _takes_a_suffix(job, if_exists):
            return existing
        self._add_suffix(owner, job, {})
        return None

    def _add_suffix(self, owner: Owner, job: ScheduledJob, rows: Container[str]) -> None:
        base = auto_name(job.spec.func, job.spec.trigger)
        names = (f"{base}#{n}" for n in count(2))
        taken = self._jobs.registry.get
        job.name = next(name for name in names if taken(owner.id_of(name)) is None and owner.id_of(name) not in rows)

    def _first_target(self, owner: Owner, job: ScheduledJob, now: Micros) -> Micros:
        trigger = job.spec.trigger
        try:
            target = trigger.first(now, owner.zone)
        except Exception as exc:
            raise ValueError(f"job {job.name!r}: trigger {trigger} gives no first time: {exc!r}") from exc
        if target is None:
            raise ValueError(f"job {job.name!r}: trigger {trigger} never fires; give a schedule that has a first time")
        return target

    def _raw_pending(self, owner: Owner, job: ScheduledJob, if_exists: IfExists) -> tuple[Any, str, bool] | None:
        """A raw job with that id that waits for the same start: refused, or to be taken over."""
        for entry in list(self._clockwork.pending()):
            raw: Any = entry[0]
            if raw.id == owner.id_of(job.name):
                against_row(raw, entry[1], job, owner.name, if_exists)
                return entry
        return None


def _takes_a_suffix(job: ScheduledJob, if_exists: IfExists) -> bool:
    return job.spec.auto_named and job.spec.trigger.one_shot and if_exists == "error"


def _unknown(name: str, kind: str, alias: str) -> ValueError:
    option = kind.replace(" ", "")
    return ValueError(
        f"job {name!r}: the AsyncIOScheduler has no {kind} {alias!r}; add it with aps.add_{option}(..., {alias!r})"
        f" first, or leave {option}= out"
    )
