"""The job store: where facade jobs live, and where their due runs start.

APScheduler sees a job store like any other. Due jobs are not handed back to it: one timer on its loop fires the
earliest bucket, each job is advanced on its grid once and its run handed to the executor, a slice per loop turn.
"""

from collections.abc import Callable
from datetime import datetime
from threading import RLock
from typing import Any

from apscheduler.job import Job
from apscheduler.jobstores.base import BaseJobStore, JobLookupError

from hassette_aps.agenda import Agenda
from hassette_aps.callables import reference_of, runs_on_loop
from hassette_aps.clockwork import ALIAS, NO_LIMIT, Clockwork
from hassette_aps.executor import RunExecutor
from hassette_aps.grid import delay, step
from hassette_aps.instants import SECOND, Micros, from_datetime, monotonic, now_us, to_datetime
from hassette_aps.job import ACTIVE, ENDING, PAUSED, PENDING, ScheduledJob
from hassette_aps.registry import Registry
from hassette_aps.run import Run
from hassette_aps.timer import BEAT, Timer
from hassette_aps.triggers import Every, Once, as_trigger
from hassette_aps.waking import Waking

SLICE = 64
"""Jobs started per loop turn: long enough to be cheap, short enough not to hold the loop."""

CLOCK_STEP: Micros = SECOND
"""A wall clock that differs from the monotonic one by more than this, since the last look, was set."""

_REFUSED_CHANGES = {
    "coalesce": "late targets of a facade job always coalesce into one recorded run",
    "misfire_grace_time": "give the Scheduler max_lateness=",
    "max_instances": "give the job mode='parallel', 'single', 'queued' or 'restart'",
    "name": "register the job again under the other name",
}


class FacadeJobStore(BaseJobStore):
    """One per AsyncIOScheduler, shared by all owners, under the alias ``hassette_aps``."""

    def __init__(self, clockwork: Clockwork, registry: Registry, executor: RunExecutor, lock: RLock) -> None:
        super().__init__()
        self._clockwork = clockwork
        self._registry = registry
        self._executor = executor
        self._lock = lock
        self._drift: Micros | None = None
        self._last_beat = 0.0
        self._waking = Waking(clockwork)
        self._extras: dict[ScheduledJob, Micros] = {}
        self._rewound: dict[ScheduledJob, list[Micros]] = {}
        self.agenda = Agenda()
        self.timer = Timer(clockwork, self.process, self._earliest)
        self.last_wakeup: Micros | None = None
        self.stopped: Callable[[], None] = _nothing
        self.trigger_failed: Callable[[Run, Exception], None] = _ignore_failure
        self.removed_by_aps: Callable[[ScheduledJob], None] = _ignore_job
        self.row_set_back: Callable[[ScheduledJob, Micros], None] = _ignore_step

    # A due job, from the timer to the executor

    def process(self) -> None:
        """Start one slice of due runs; the next slice gets its own loop turn. On the loop."""
        if not self._clockwork.running:
            return
        if monotonic() - self._last_beat >= BEAT:
            self._beat()
        self.notice_step()
        self.timer.fired()
        now = self.last_wakeup = now_us()
        with self._lock:
            due = self.agenda.pop_due(now, SLICE)
        for fires, jobs in due:
            self._fire(jobs, fires, now)
        earliest = self._earliest()
        if earliest is not None and earliest <= now:
            self.timer.fire_soon()
        else:
            self.timer.arm_for(earliest)

    def _fire(self, jobs: list[ScheduledJob], fires: Micros, now: Micros) -> None:
        """Start the runs that are due at one instant. Neighbours that share trigger and target share the step."""
        owner = trigger = target = ahead = None
        admit, agenda, extras, rewound = self._executor.admit, self.agenda, self._extras, self._rewound
        for job in jobs:
            home = job.home
            if home is None or job.target is None or job.state != ACTIVE:
                continue
            spec = job.spec
            run = Run(job, job.target, fires)
            try:
                if extras and job in extras:
                    self._fire_extra(run, now)
                else:
                    if ahead is None or job.target != target or spec.trigger is not trigger or home is not owner:
                        owner, trigger, target, ahead = home, spec.trigger, job.target, None
                        ahead = step(trigger, target, now, home.zone)
                    run.target, run.upcoming, run.missed = ahead
            except Exception as exc:  # noqa: BLE001  a foreign trigger may raise anything; 11.22
                self.trigger_failed(run, exc)
                continue
            if rewound:
                run.attempt += sum(mark > run.target for mark in rewound.get(job, ()))
            run.lateness = now - (fires if fires > run.target else run.target)
            with self._lock:
                if job.state != ACTIVE:
                    continue
                upcoming = job.target = run.upcoming
                if upcoming is None:
                    job.state = ENDING
                else:
                    agenda.put(job, upcoming + delay(spec.jitter) if spec.jitter else upcoming)
            admit(run, now)

    def _fire_extra(self, run: Run, now: Micros) -> None:
        """A run that is not on the grid: the grid goes on where it was."""
        job = run.job
        grid_target = self._extras.pop(job)
        ahead = step(job.spec.trigger, grid_target, now, job.zone) if grid_target <= now else None
        run.upcoming = grid_target if ahead is None else ahead.upcoming

    # The schedule

    def put(self, job: ScheduledJob, target: Micros) -> None:
        """Schedule a job's next target, jitter added. Under the lock."""
        job.target = target
        job.state = ACTIVE
        jitter = job.spec.jitter
        self.agenda.put(job, target + delay(jitter) if jitter else target)

    def _earliest(self) -> Micros | None:
        with self._lock:
            return self.agenda.earliest

    # Looking around

    def _beat(self) -> None:
        self._last_beat = monotonic()
        self._executor.inspect_runs(now_us())
        self._waking.beat()

    def notice_step(self) -> None:
        """Plan anew if the wall clock was set since the last look; before anything is planned on it. Any thread."""
        if not self._clockwork.running:
            return
        with self._lock:
            drift = now_us() - round(monotonic() * SECOND)
            before, self._drift = self._drift, drift
        if before is None or abs(drift - before) <= CLOCK_STEP:
            return
        self._clockwork.wakeup()  # APScheduler's own timer counts elapsed time
        if drift > before:
            self._logger.info("the wall clock went forward by %.1f s", (drift - before) / SECOND)
            return
        back = before - drift
        self._logger.warning(
            "the wall clock was set back by %.1f s: intervals and delays go on by elapsed time", back / SECOND
        )
        for job in self._registry:
            if job.state in (ACTIVE, PAUSED) and job.target is not None and _elapsed(job):
                if job.row_alias is not None:
                    self.row_set_back(job, back)
                    continue
                with self._lock:
                    self._rewound.setdefault(job, []).append(job.target)
                    fires = job.fires
                    self.agenda.drop(job)
                    job.target -= back
                    if fires is not None:
                        self.agenda.put(job, fires - back)

    def clock_changed(self) -> None:
        """Time was taken over or given back by a test clock: no step back."""
        self._drift = None
        self._last_beat = monotonic()
        self.timer.disarm()
        self.timer.arm()

    def forget(self, job: ScheduledJob) -> None:
        """Take a job off the agenda for good. Under the lock."""
        self.agenda.drop(job)
        self._extras.pop(job, None)
        self._rewound.pop(job, None)

    # What APScheduler asks

    def start(self, scheduler: Any, alias: str) -> None:
        super().start(scheduler, alias)
        self._drift = None
        self._last_beat = monotonic()

    def shutdown(self) -> None:
        self.timer.disarm()
        self.stopped()

    def get_due_jobs(self, now: datetime) -> list[Job]:
        """Nothing for APScheduler to do: due jobs are started by the store itself, in a later loop turn."""
        self.timer.fire_soon()
        return []

    def get_next_run_time(self) -> datetime | None:
        """Nothing for APScheduler to wait for: the store has its own timer on the same loop."""
        return None

    def lookup_job(self, job_id: str) -> Job | None:
        job = self._registry.get(job_id)
        return None if job is None or job.row_alias is not None or job.state == PENDING else self.view(job)

    def get_all_jobs(self) -> list[Job]:
        with self._lock:
            jobs = [job for job in self._registry if job.row_alias is None and job.state != PENDING]
        jobs.sort(key=lambda job: (job.fires is None, job.fires or 0))
        return [self.view(job) for job in jobs]

    def view(self, job: ScheduledJob) -> Job:
        """The job as APScheduler's own class, made when somebody looks."""
        spec, home = job.spec, job.home
        assert home is not None
        timezone = self._clockwork.aps.timezone
        return self._clockwork.make_job(
            id=home.id_of(job.name),
            name=job.name,
            func=spec.func,
            func_ref=reference_of(spec.func),
            args=job.args,
            kwargs=job.kwargs,
            trigger=self._shown_trigger(job),
            executor=spec.executor or ALIAS,
            coalesce=True,
            misfire_grace_time=None,
            max_instances=NO_LIMIT,
            next_run_time=to_datetime(job.fires, timezone) if job.state == ACTIVE and job.fires is not None else None,
            _jobstore_alias=job.row_alias or ALIAS,
        )

    def _shown_trigger(self, job: ScheduledJob) -> Any:
        """The trigger; of a paused job one that knows where its grid was, for APScheduler's ``resume_job``."""
        trigger = job.spec.trigger
        if job.state == PAUSED and job.target is not None:
            anchor = to_datetime(job.target, job.zone)
            if trigger.one_shot:
                return Once(anchor)
            if isinstance(trigger, Every):
                return Every(seconds=trigger.interval / SECOND, start=anchor)
        return trigger

    def add_job(self, job: Job) -> None:
        raise ValueError(
            f"job {job.id!r}: aps.add_job(jobstore={ALIAS!r}) is refused; use Scheduler.run_every() and its sisters,"
            " or leave jobstore= out for a raw APScheduler job"
        )

    def update_job(self, job: Job) -> None:
        """``aps.modify_job``, ``pause_job``, ``resume_job``, ``reschedule_job`` on one of our jobs."""
        changed: Any = job
        self.notice_step()
        with self._lock:
            ours = self._registry.get(changed.id)
            if ours is None or ours.row_alias is not None:
                raise JobLookupError(changed.id)
            shown: Any = self.view(ours)
            for key, remedy in _REFUSED_CHANGES.items():
                if getattr(changed, key) != getattr(shown, key):
                    raise ValueError(f"job {changed.id!r}: modify_job({key}=) is refused; {remedy}")
            if changed.executor != shown.executor and not self._clockwork.has_executor(changed.executor):
                raise ValueError(
                    f"job {changed.id!r}: the AsyncIOScheduler has no executor {changed.executor!r}; add it with"
                    f" aps.add_executor(..., {changed.executor!r}) first"
                )
            new_trigger = changed.trigger != shown.trigger
            spec = ours.spec
            ours.spec = spec._replace(
                func=changed.func,
                on_loop=spec.on_loop if changed.func is spec.func else runs_on_loop(changed.func),
                executor=None if changed.executor == ALIAS else changed.executor,
                trigger=as_trigger(changed.trigger).settle(now_us(), ours.zone) if new_trigger else spec.trigger,
            )
            ours.args, ours.keywords = tuple(changed.args), dict(changed.kwargs)
            if changed.next_run_time != shown.next_run_time:
                self._move(ours, changed.next_run_time, on_grid=new_trigger or ours.state == PAUSED)
        self.timer.arm()

    def _move(self, job: ScheduledJob, moment: datetime | None, *, on_grid: bool) -> None:
        """Set the next run; one that is not on the grid is an extra one."""
        self.agenda.drop(job)
        grid_target = self._extras.pop(job, job.target)
        if moment is None:
            job.state, job.target = PAUSED, grid_target
            return
        instant = from_datetime(moment)
        if on_grid or job.spec.trigger.one_shot or grid_target is None:
            self.put(job, instant)
        else:
            self._extras[job] = grid_target
            job.target, job.state = instant, ACTIVE
            self.agenda.put(job, instant)

    def remove_job(self, job_id: str) -> None:
        job = self._registry.get(job_id)
        if job is None or job.row_alias is not None:
            raise JobLookupError(job_id)
        self.removed_by_aps(job)

    def remove_all_jobs(self) -> None:
        for job in self._registry:
            if job.row_alias is None:
                self.removed_by_aps(job)


def _elapsed(job: ScheduledJob) -> bool:
    return job.spec.trigger.trigger_db_type() in ("interval", "after")


def _nothing() -> None:
    pass


def _ignore_failure(run: Run, exc: Exception) -> None:
    pass


def _ignore_job(job: ScheduledJob) -> None:
    pass


def _ignore_step(job: ScheduledJob, back: Micros) -> None:
    pass
