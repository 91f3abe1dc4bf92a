"""Facade jobs in the user's job stores: written, found again, parked, paused, and run when APScheduler says so."""

from collections.abc import Container, Mapping
from contextlib import suppress
from contextvars import Context
from datetime import datetime
from logging import getLogger
from threading import RLock
from typing import Any, Protocol, TypeAlias

from apscheduler.jobstores.base import JobLookupError

from hassette_aps.clockwork import ALIAS, NO_LIMIT, Clockwork
from hassette_aps.conflicts import Decision
from hassette_aps.instants import Micros, from_datetime, to_datetime
from hassette_aps.job import ACTIVE, CANCELLED, ENDING, FINISHED, PAUSED, PENDING, ScheduledJob
from hassette_aps.owner import Owner
from hassette_aps.registry import Registry
from hassette_aps.rows import RowTrigger, job_of, phase_of, row_changes
from hassette_aps.run import Run
from hassette_aps.triggers import as_trigger

FoundRow: TypeAlias = tuple[str, Any]
"""The alias of a user's job store, and a row in it (APScheduler's ``Job``)."""

_log = getLogger("hassette_aps.rows")


class Keeper(Protocol):
    """What the rows need from the engine."""

    lock: RLock
    owners: dict[str, Owner]

    def trigger_failed(self, run: Run, exc: Exception) -> None: ...
    def cancel(self, job: ScheduledJob) -> None: ...
    def pause(self, job: ScheduledJob) -> None: ...
    def resume(self, job: ScheduledJob) -> None: ...
    def submit(self, job: ScheduledJob) -> str: ...
    def refresh(self, job: ScheduledJob) -> None: ...


class KeptRows:
    """All rows of ours on one AsyncIOScheduler."""

    def __init__(self, clockwork: Clockwork, registry: Registry, keeper: Keeper) -> None:
        self._clockwork = clockwork
        self._registry = registry
        self._keeper = keeper
        self._last_run: dict[str, tuple[int, Micros]] = {}
        """Row id -> which registration, and its last target that was admitted: the row may not know yet."""
        self._removed: set[str] = set()
        self._own_change: str | None = None

    # Finding

    def all(self) -> dict[str, FoundRow]:
        """Every row of every store by id, raw ones included; those that cannot be read stand under the id ``""``."""
        found: dict[str, FoundRow] = {}
        for alias, store in self._clockwork.stores():
            try:
                with self._clockwork.keeping_broken_rows(store):
                    for row in self._clockwork.aps.get_jobs(alias):
                        found.setdefault(row.id, (alias, row))
            except Exception as exc:  # noqa: BLE001  a store that is down must not keep the others from starting
                _log.warning("job store %r cannot be read: %r", alias, exc)
        return found

    def find(self, job_id: str, wanted: str | None = None) -> FoundRow | None:
        """The row with that id in one store or any; ``BROKEN_ROW`` for one that cannot be read."""
        for alias, store in self._clockwork.stores():
            if wanted not in (None, alias):
                continue
            try:
                row: Any = self._clockwork.look_up(store, job_id)
            except Exception as exc:  # noqa: BLE001
                _log.warning("job store %r cannot be asked for job %r: %r", alias, job_id, exc)
                continue
            if row is not None:
                return alias, row
        return None

    def adopt(self, owner: Owner, rows: Mapping[str, FoundRow]) -> list[ScheduledJob]:
        """List the rows of an earlier process that nobody has registered again, and wake parked ones."""
        adopted: list[ScheduledJob] = []
        for job_id, (alias, row) in rows.items():
            kept = row.trigger
            if not isinstance(kept, RowTrigger) or kept.owner != owner.name:
                continue
            if self._registry.get(job_id) is None:
                if job_id in owner.unwanted:
                    self._remove(job_id, alias)
                    continue
                adopted.append(self._adopt_row(owner, alias, row))
            if kept.parked is not None:
                self._unpark(job_id, alias, kept)
        owner.unwanted.clear()
        return adopted

    def _job_of(self, owner: Owner, row: Any) -> ScheduledJob:
        job = self._registry.get(row.id)
        if job is None or job.row_alias is None:
            return self._adopt_row(owner, str(getattr(row, "_jobstore_alias", "")), row)
        return job

    def _adopt_row(self, owner: Owner, alias: str, row: Any) -> ScheduledJob:
        kept: RowTrigger = row.trigger
        job = job_of(row)
        spec = job.spec
        job.limit = None if spec.timeout_disabled else spec.timeout or owner.default_timeout
        job.home, job.keeper, job.row_alias = owner, self._keeper, alias
        self._mirror(job, row, kept)
        with self._keeper.lock:
            self._registry.add(owner, job)
        return job

    def _mirror(self, job: ScheduledJob, row: Any, kept: RowTrigger) -> None:
        fires = kept.parked if row.next_run_time is None else from_datetime(row.next_run_time)
        job.fires = fires
        job.target = kept.target if fires is None else kept.times.get(fires, fires)
        job.state = ACTIVE if fires is not None else PAUSED

    def refresh(self, job: ScheduledJob) -> None:
        """Read the row's next run; what cannot be read stays as it was."""
        if job.state not in (ACTIVE, PAUSED) or job.home is None or not job.home.live:
            return
        try:
            row: Any = self._clockwork.aps.get_job(job.home.id_of(job.name), job.row_alias)
        except Exception as exc:  # noqa: BLE001
            _log.warning("job store %r cannot be asked for job %r: %r", job.row_alias, job.name, exc)
            return
        if row is not None and isinstance(row.trigger, RowTrigger):
            self._mirror(job, row, row.trigger)

    # Writing

    def write(
        self,
        job: ScheduledJob,
        target: Micros,
        decision: Decision,
        found: FoundRow | None,
    ) -> None:
        """Put a registered job into its store, or take the row that is there."""
        old = found[1].trigger if found is not None else None
        if decision == "keep" and found is not None and isinstance(old, RowTrigger):
            if old.parked is not None:
                found[1].next_run_time = self._unpark(found[1].id, found[0], old)
            self._mirror(job, found[1], old)
            return
        phase = None if found is None else phase_of(found[1], job.spec.trigger)
        target = target if phase is None else phase  # however often the process restarts
        alias = job.row_alias
        assert alias is not None
        kept = RowTrigger(job, target)
        fires = kept.fire_time(target)
        spec = job.spec
        self._own_change = kept.job_id
        try:
            self._clockwork.add_job(
                spec.func,
                kept,
                args=job.args,
                kwargs=job.kwargs,
                id=kept.job_id,
                name=job.name,
                misfire_grace_time=None,
                coalesce=True,
                max_instances=NO_LIMIT,
                next_run_time=to_datetime(fires, self._clockwork.aps.timezone),
                jobstore=alias,
                executor=spec.executor or ALIAS,
                replace_existing=found is not None,
            )
        finally:
            self._own_change = None
        self._removed.discard(kept.job_id)
        with self._keeper.lock:
            if job.state != CANCELLED:
                job.target, job.fires, job.state = target, fires, ACTIVE

    def remove(self, job: ScheduledJob) -> None:
        """Delete the row; even if that fails, this process starts no run of it any more."""
        home = job.home
        assert home is not None
        self._remove(home.id_of(job.name), job.row_alias)

    def _remove(self, job_id: str, alias: str | None) -> None:
        self._removed.add(job_id)
        with suppress(JobLookupError):
            Context().run(self._clockwork.aps.remove_job, job_id, alias)
        self._removed.discard(job_id)

    def gone(self, job_id: str) -> None:
        """The row is deleted. (That its job is over does not say so: the store may have failed to delete it.)"""
        self._last_run.pop(job_id, None)

    def pause(self, job: ScheduledJob) -> None:
        """APScheduler's ``pause_job``; the trigger remembers the target."""
        self._call("pause_job", job)

    def resume(self, job: ScheduledJob) -> None:
        """APScheduler's ``resume_job``; the trigger goes on, on its grid."""
        self._call("resume_job", job)

    def _call(self, verb: str, job: ScheduledJob) -> None:
        home = job.home
        assert home is not None
        with suppress(JobLookupError):
            Context().run(getattr(self._clockwork.aps, verb), home.id_of(job.name), job.row_alias)
        self.refresh(job)

    def set_back(self, job: ScheduledJob, back: Micros) -> None:
        """The wall clock went back: an interval or delay goes on by elapsed time."""
        home = job.home
        assert home is not None
        job_id, alias = home.id_of(job.name), str(job.row_alias)
        try:
            row: Any = self._clockwork.aps.get_job(job_id, alias)
            if row is None or not isinstance(row.trigger, RowTrigger):
                return
            kept: RowTrigger = row.trigger
            kept.set_back(back)
            due: Any = row.next_run_time
            if due is not None:
                due = to_datetime(from_datetime(due) - back, self._clockwork.aps.timezone)
            self._last_run.pop(job_id, None)
            self._modify(job_id, alias, trigger=kept, next_run_time=due)
            self.refresh(job)
        except Exception as exc:  # noqa: BLE001  a store that is down
            _log.warning("job %r waits for its wall time: its row cannot be changed (%r)", job.name, exc)

    # Parking

    def park(self, job: ScheduledJob) -> None:
        """Its owner stops while the AsyncIOScheduler goes on: nothing fires, nothing is lost."""
        home = job.home
        assert home is not None
        try:
            row: Any = self._clockwork.aps.get_job(home.id_of(job.name), job.row_alias)
            if row is not None and isinstance(row.trigger, RowTrigger):
                self._park_row(str(job.row_alias), row)
        except Exception as exc:  # noqa: BLE001  a store that is down must not keep the owner from stopping
            home.logger.warning("job %r: its row in job store %r cannot be parked: %r", job.name, job.row_alias, exc)

    def park_strangers(self, live: Container[str]) -> None:
        """Park the rows of owners that are not running here."""
        for alias, row in self.all().values():
            if isinstance(row.trigger, RowTrigger) and row.trigger.owner not in live:
                self._park_row(alias, row)

    def _park_row(self, alias: str, row: Any) -> None:
        if row.next_run_time is None:
            return
        kept: RowTrigger = row.trigger
        kept.parked = from_datetime(row.next_run_time)
        self._modify(row.id, alias, trigger=kept, next_run_time=None)

    def _unpark(self, job_id: str, alias: str, kept: RowTrigger) -> datetime:
        fires, kept.parked = kept.parked, None
        assert fires is not None
        moment = to_datetime(fires, self._clockwork.aps.timezone)
        self._modify(job_id, alias, trigger=kept, next_run_time=moment)
        return moment

    def _modify(self, job_id: str, alias: str, **changes: Any) -> None:
        self._own_change = job_id
        try:
            self._clockwork.modify_job(job_id, alias, **changes)
        except JobLookupError:
            return
        finally:
            self._own_change = None

    def modified(self, job_id: str, alias: str) -> None:
        """Somebody used ``aps.modify_job`` or ``aps.reschedule_job`` on a row of ours: follow."""
        job = self._registry.get(job_id)
        if job is None or job.row_alias != alias or self._own_change == job_id or job.state == PENDING:
            return
        row: Any = self._clockwork.aps.get_job(job_id, alias)
        if row is None:
            return
        if not isinstance(row.trigger, RowTrigger):  # rescheduled with a trigger of APScheduler
            changed = ScheduledJob(row.func, as_trigger(row.trigger), args=row.args, kwargs=row.kwargs)
            target = from_datetime(row.next_run_time) if row.next_run_time is not None else job.target or 0
            job.spec = job.spec._replace(func=changed.func, trigger=changed.spec.trigger)
            job.args, job.keywords = changed.args, changed.keywords
            kept = RowTrigger(job, target)
            job.target, job.fires = target, kept.fire_time(target)
            self._modify(job_id, alias, trigger=kept)
        elif row_changes(row, job) or row.executor != (job.spec.executor or ALIAS):
            job.take_over(job_of(row))

    # Running

    def due(self, row: Any, now: Micros) -> Run | None:
        """The run of a due row, for our executor; None if it must not run. Under APScheduler's lock."""
        kept = row.trigger
        if not isinstance(kept, RowTrigger):
            raise TypeError(
                f"job {row.id!r}: the executor {ALIAS!r} runs facade jobs only; register it with Scheduler.schedule(),"
                " or give the raw job another executor="
            )
        owner = self._keeper.owners.get(kept.owner)
        fires = from_datetime(row.next_run_time)
        if owner is None or not owner.live or row.id in self._removed or kept.retrying == fires:
            return None
        registration, admitted = self._last_run.get(row.id, (kept.salt, -1))
        try:
            ahead = kept.due(fires, now, admitted if registration == kept.salt else -1)
        except Exception as exc:  # noqa: BLE001  11.22
            failed = kept.salt, kept.target
            if self._last_run.get(row.id) != failed:  # else it has its verdict: the row could not be changed
                self._last_run[row.id] = failed
                self._keeper.trigger_failed(Run(self._job_of(owner, row), kept.target, fires), exc)
            return None
        if ahead is None:
            return None
        job = self._job_of(owner, row)
        self._last_run[row.id] = kept.salt, ahead.target
        run = Run(job, ahead.target, fires)
        run.missed, run.upcoming = ahead.missed, ahead.upcoming
        run.attempt = kept.attempt(ahead.target)
        run.lateness = now - max(fires, ahead.target)
        with self._keeper.lock:
            if job.state in (CANCELLED, FINISHED):
                return None
            job.target = ahead.upcoming
            if ahead.upcoming is None:
                job.state, job.fires = ENDING, None
            else:
                job.state, job.fires = ACTIVE, kept.fire_time(ahead.upcoming)
        return run
