"""Facade jobs on executors that are not ours: their outcomes arrive as APScheduler's events."""

from asyncio import CancelledError
from collections import deque
from collections.abc import Callable
from contextvars import Context
from threading import RLock
from typing import Any

from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_EXECUTED, EVENT_JOB_MISSED, EVENT_JOB_SUBMITTED

from hassette_aps.clockwork import ALIAS, Clockwork
from hassette_aps.events import RunEvent, job_id_of
from hassette_aps.executor import RunExecutor
from hassette_aps.instants import Micros, from_datetime, monotonic, now_us, to_datetime
from hassette_aps.job import ScheduledJob
from hassette_aps.records import Status
from hassette_aps.registry import Registry
from hassette_aps.run import Run

OUTCOMES: dict[int, Status] = {
    EVENT_JOB_EXECUTED: "success",
    EVENT_JOB_ERROR: "error",
    EVENT_JOB_MISSED: "missed",
}
WATCHED = EVENT_JOB_SUBMITTED | EVENT_JOB_EXECUTED | EVENT_JOB_ERROR | EVENT_JOB_MISSED


class ForeignRuns:
    """Runs handed to another executor, matched with what it reports.

    Supported are APScheduler's asyncio, thread pool and process pool executors: failures that they only log (an
    exception or result that does not pickle, a killed worker) end the run as ``error`` too. ``timeout``,
    ``mode`` and ``current_run()`` are our executor's and do not apply here.
    """

    def __init__(
        self,
        clockwork: Clockwork,
        registry: Registry,
        executor: RunExecutor,
        view: Callable[[ScheduledJob], Any],
    ):
        self._clockwork = clockwork
        self._registry = registry
        self._executor = executor
        self._view = view
        self._lock = RLock()  # outcomes come from the threads of pools
        self._flying: dict[str, deque[Run]] = {}
        self._lost_early: dict[str, BaseException] = {}
        """Failures of rows that overtook the news of their own submission."""
        self._overtaken: set[tuple[str, Micros]] = set()
        self._watched: dict[int, Any] = {}
        self._listening = False

    def submit(self, run: Run, alias: str) -> None:
        """Hand a run of a job in our store to executor ``alias``. On the loop."""
        run.foreign, run.limit = True, None
        executor: Any = self._clockwork.executor(alias)
        job_id = job_id_of(run)
        try:
            if executor is None:
                raise LookupError(f"job {run.job.name!r}: the AsyncIOScheduler has no executor {alias!r} any more")
            self.watch(alias)
            run.started, run.clock = now_us(), monotonic()
            self._flies(job_id, run)
            executor.submit_job(self._view(run.job), [to_datetime(run.fires, self._clockwork.aps.timezone)])
        except Exception as exc:  # noqa: BLE001  a pool that is shut down, arguments that do not pickle
            self._take(job_id, run.fires)
            self._executor.foreign_ended(run, "error", exc)

    def watch(self, alias: str) -> None:
        """Follow the outcomes of executor ``alias``, those it only logs included."""
        if not self._listening:
            self._listening = True
            self._clockwork.aps.add_listener(self.heard, WATCHED)
        executor = self._clockwork.executor(alias)
        if executor is not None and id(executor) not in self._watched:
            self._clockwork.watch_losses(executor, self._lost)
            self._watched[id(executor)] = executor

    def close(self) -> None:
        """Leave the user's executors as they were."""
        self._clockwork.aps.remove_listener(self.heard)
        self._listening = False
        for executor in self._watched.values():
            self._clockwork.unwatch_losses(executor)
        self._watched.clear()

    def heard(self, event: Any) -> None:
        """An event of any executor, in any thread; ours and raw jobs' are none of our business here."""
        if isinstance(event, RunEvent):
            return
        if event.code != EVENT_JOB_SUBMITTED:
            run = self._take(event.job_id, from_datetime(event.scheduled_run_time), event.jobstore)
            if run is not None:  # its job may be cancelled by now
                self._end(run, OUTCOMES[event.code], event.exception)
                return
        job = self._registry.get(event.job_id)
        if job is None or job.spec.executor is None or job.home is None or job.row_alias != event.jobstore:
            return
        with self._lock:
            if event.code == EVENT_JOB_SUBMITTED:
                self._submitted_row(job, event)
            else:
                self._ended_row(job, event)

    def _submitted_row(self, job: ScheduledJob, event: Any) -> None:
        for moment in event.scheduled_run_times:
            fires = from_datetime(moment)
            if (event.job_id, fires) in self._overtaken:
                self._overtaken.discard((event.job_id, fires))
                continue
            run = self._run_of_row(job, fires)
            if early := self._lost_early.pop(event.job_id, None):
                self._end_lost(run, early)
            else:
                self._executor.running[run] = None
                self._flies(event.job_id, run)

    def _ended_row(self, job: ScheduledJob, event: Any) -> None:
        fires = from_datetime(event.scheduled_run_time)
        run = self._take(event.job_id, fires, event.jobstore)  # its submission may have arrived just now
        if run is None:
            run = self._run_of_row(job, fires)
            self._overtaken.add((event.job_id, fires))
        self._end(run, OUTCOMES[event.code], event.exception)

    def _run_of_row(self, job: ScheduledJob, fires: Micros) -> Run:
        run = Run(job, fires, fires)
        run.foreign, run.limit = True, None
        run.started, run.clock = now_us(), monotonic()
        run.upcoming = job.target
        return run

    def _lost(self, job_id: str, exc: BaseException) -> None:
        with self._lock:
            run = self._take(job_id)
            if run is not None:
                self._end_lost(run, exc)
            elif (job := self._registry.get(job_id)) is not None and job.row_alias and job.spec.executor:
                self._lost_early[job_id] = exc

    def _end_lost(self, run: Run, exc: BaseException) -> None:
        run.foreign = False  # no event was sent for it: send ours
        self._end(run, "error", exc)

    def _end(self, run: Run, status: Status, exc: BaseException | None) -> None:
        loop = self._clockwork.loop
        try:
            if loop is not None:
                loop.call_soon_threadsafe(self._conclude, run, status, exc, context=Context())
        except RuntimeError:  # the loop is closed
            return

    def _conclude(self, run: Run, status: Status, exc: BaseException | None) -> None:
        if isinstance(exc, CancelledError):
            status = "cancelled"
        if run.job.row_alias is not None:
            run.upcoming = run.job.target  # APScheduler may have removed a used-up row only after the run was reported
        self._executor.foreign_ended(run, status, exc)

    def _take(self, job_id: str, fires: Micros | None = None, store: str | None = None) -> Run | None:
        with self._lock:
            flying = self._flying.get(job_id)
            for run in flying or ():
                if flying and fires in (None, run.fires) and store in (None, run.job.row_alias or ALIAS):
                    flying.remove(run)
                    if not flying:
                        del self._flying[job_id]
                    return run
        return None

    def _flies(self, job_id: str, run: Run) -> None:
        with self._lock:
            self._flying.setdefault(job_id, deque()).append(run)
