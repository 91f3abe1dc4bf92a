"""The executor: one run from admission to verdict.

``admit`` only decides; bodies start in a later loop turn. ``_on_loop`` and ``_in_thread`` run the function,
``_verdict`` is the single way out.
"""

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from contextvars import Context
from functools import partial
from logging import getLogger
from threading import RLock, get_ident
from typing import Any

from apscheduler.events import EVENT_JOB_SUBMITTED, JobSubmissionEvent
from apscheduler.executors.base import BaseExecutor

from hassette_aps.callables import is_awaitable
from hassette_aps.clockwork import ALIAS, Clockwork
from hassette_aps.deadlines import Deadlines
from hassette_aps.eager import EagerTasks
from hassette_aps.events import CODES, job_id_of, outcome_event
from hassette_aps.instants import Micros, monotonic, now_us, to_datetime
from hassette_aps.job import CANCELLED
from hassette_aps.overlap import Guards
from hassette_aps.owner import Owner
from hassette_aps.records import Status
from hassette_aps.run import Run, current_run, set_current_run
from hassette_aps.types import Predicate
from hassette_aps.workers import Workers

CANCEL_GRACE = 0.25
"""Seconds a cancelled coroutine has to end before its verdict falls without it."""


class RunExecutor(BaseExecutor):
    """Runs facade jobs: ours from the job store, those in the user's own stores through ``submit_job``."""

    def __init__(self, clockwork: Clockwork, lock: RLock, max_workers: int) -> None:
        super().__init__()
        self.log = getLogger("hassette_aps")
        self._clockwork = clockwork
        self._guarded = lock
        self._started_on: asyncio.AbstractEventLoop | None = None
        """The loop, which runs may still need when APScheduler has stopped and forgotten it."""
        self._stock_tasks = False
        """Whether that loop makes tasks as asyncio does, and not in a way of its own."""
        self.workers = Workers(max_workers, "hassette_aps")
        self.running: dict[Run, None] = {}
        """Admitted, started or about to, without a verdict."""
        self.verdicts = 0
        """Runs that have ended."""
        self._guards = Guards()
        self._eager = EagerTasks()
        self.deadlines = Deadlines(self._expired)
        self.reporters: dict[Owner, Callable[[Run], None]] = {}
        """Who hears an owner's verdicts."""
        self.settled: Callable[[Run], None] = _ignore
        """Told last of each verdict: frees one-shots."""
        self.hand_over: Callable[[Run, str], None] = _no_hand_over
        """Takes runs of jobs that name another executor."""
        self.due_row: Callable[[Any, Micros], Run | None] = _no_row
        """Makes the run of a due row of a user's store; None if it must not run."""

    def start(self, scheduler: Any, alias: str) -> None:
        super().start(scheduler, alias)
        self._started_on = loop = self._clockwork.loop
        self._stock_tasks = getattr(type(loop), "create_task", None) is asyncio.BaseEventLoop.create_task
        self.workers.open()

    # Admission

    def _do_submit_job(self, job: Any, run_times: list[Any]) -> None:
        raise NotImplementedError  # submit_job is replaced as a whole: APScheduler counts instances by job id

    def submit_job(self, job: Any, run_times: list[Any]) -> None:
        """A due row of a user's store, called by APScheduler under its lock: only admit."""
        now = now_us()
        run = self.due_row(job, now)
        if run is not None:
            self.admit(run, now, announce=False)

    def admit(self, run: Run, now: Micros, *, announce: bool = True) -> None:
        """Decide on a due run: start it, let it wait, or refuse it. On the loop."""
        job = run.job
        home = job.home
        assert home is not None
        if now - run.fires > home.threshold:
            home.logger.warning("job %r behind schedule by %.1f s", job.name, (now - run.fires) / 1e6)
        announce = announce and self._clockwork.hears(EVENT_JOB_SUBMITTED)
        if home.max_lateness is not None and run.lateness > home.max_lateness:
            home.logger.warning("job %r missed: %.1f s late", job.name, run.lateness / 1e6)
            if announce:
                self._announce(run)
            self._verdict(run, "missed")
        elif (job.spec.mode or home.default_mode) == "parallel" or job.spec.executor is not None:
            if announce:
                self._announce(run)
            self._launch(run, home)
        else:
            admitted = self._guards.admit(run, self._refuse, self.stop, now)
            if announce and run.status is None:  # as APScheduler: not what was refused
                self._announce(run)
            if admitted:
                self._launch(run, home)

    def _announce(self, run: Run) -> None:
        times = [to_datetime(run.fires, self._clockwork.aps.timezone)]
        alias = ALIAS if run.job.spec.executor is not None else run.job.row_alias or ALIAS
        self._clockwork.dispatch(JobSubmissionEvent(EVENT_JOB_SUBMITTED, job_id_of(run), alias, times))

    def _refuse(self, run: Run, status: Status) -> None:
        if status == "suppressed":
            self._home(run).logger.debug("job %r suppressed: a run is in progress (mode='single')", run.job.name)
        elif status == "dropped":
            self._home(run).logger.warning("job %r dropped: its queue is full (mode='queued')", run.job.name)
        self._verdict(run, status)

    def _launch(self, run: Run, home: Owner) -> None:
        self.running[run] = None
        spec = run.job.spec
        loop = self._loop()
        if spec.executor is not None and spec.where is None:
            self.hand_over(run, spec.executor)
            return
        if spec.on_loop or spec.where is not None:
            self._spawn(run, home, loop, self._on_loop(run))
        else:
            loop.call_soon(self.workers.submit, partial(self._in_thread, run, self._context_of(run)), context=Context())
        if run.limit is not None and run.status is None:
            self.deadlines.add(run, run.limit, loop)

    def _spawn(self, run: Run, home: Owner, loop: asyncio.AbstractEventLoop, body: Coroutine[Any, Any, None]) -> None:
        """Make the task of a run."""
        context = self._context_of(run)
        if home.spawn is not None:
            run.task = home.spawn(body, run.job.name, context)
            if run.task is None:  # the owner takes no more tasks: it is being stopped
                body.close()
                self._verdict(run, "cancelled")
        elif home.settings.eager_tasks:
            self._eager.start_soon(run, body, context, loop)
        elif self._stock_tasks and loop.get_task_factory() is None:
            # what create_task() comes to, without its detours
            run.task = asyncio.Task(body, loop=loop, name=run.job.name, context=context)
        else:
            run.task = loop.create_task(body, name=run.job.name, context=context)

    # Bodies

    def begin(self, run: Run) -> bool:
        """The last-moment check: whether the function may start, decided under the lock that ``cancel`` takes."""
        home = self._home(run)
        with self._guarded:
            if run.job.state == CANCELLED or home.stopping or not home.live:
                return False
            if run.status is not None or run.cancelling is not None:
                return False
            run.started = now_us()
        run.clock = monotonic()
        return True

    async def _on_loop(self, run: Run) -> None:
        """The whole of a run in a task: a coroutine function's, or of a job with a predicate."""
        set_current_run(run)
        job, spec = run.job, run.job.spec
        try:
            if run.task is None and self._loop().get_task_factory() is not None:
                await asyncio.sleep(0)  # an eager one is still inside the admission
            if spec.where is not None and not await self._asked(run, spec.where):
                return
            if not self.begin(run):
                self._verdict_if_open(run, "cancelled")
                return
            result = spec.func(*job.args, **job.keywords) if job.keywords else spec.func(*job.args)
            if is_awaitable(result):
                result = await result
        except BaseException as exc:  # noqa: BLE001  SystemExit and KeyboardInterrupt end the run only
            self._ended(run, exc)
        else:
            self._ended(run, None, result)

    async def _asked(self, run: Run, where: Predicate) -> bool:
        """Ask the predicate; whether the function is to run now, in this task."""
        spec = run.job.spec
        run.clock = monotonic()
        answer = where()
        if not (await answer if is_awaitable(answer) else answer):
            self._verdict_if_open(run, "skipped")
            return False
        if run.limit is not None and run.status is None:  # it counts from the function's start
            self.deadlines.discard(run)
            run.on_loop = spec.on_loop
            self.deadlines.add(run, run.limit, self._loop())
        if spec.executor is not None and self.begin(run):
            self.deadlines.discard(run)
            run.task = None
            self.hand_over(run, spec.executor)
            return False
        if not spec.on_loop and spec.executor is None:
            run.task, run.clock = None, 0.0
            self.workers.submit(partial(self._in_thread, run, self._context_of(run)))
            return False
        return True

    def _in_thread(self, run: Run, context: Context) -> None:
        """The whole of a plain function's run, in a worker thread; must not raise."""
        context.run(self._call_plain, run)

    def _call_plain(self, run: Run) -> None:
        set_current_run(run)
        run.thread = get_ident()
        job = run.job
        if not self.begin(run):
            self._post(self._verdict_if_open, run, "cancelled")
            return
        try:
            result = job.spec.func(*job.args, **job.keywords)
        except BaseException as exc:  # noqa: BLE001
            self._post(self._ended, run, exc)
        else:
            self._post(self._returned, run, result)

    def _returned(self, run: Run, result: Any) -> None:
        """A plain function came back; if with an awaitable (a lambda around a coroutine), that is awaited."""
        if is_awaitable(result) and run.status is None:
            self._spawn(run, self._home(run), self._loop(), self._await(run, result))
            if run.status is not None and inspect.iscoroutine(result):  # its owner takes no more tasks
                result.close()
        else:
            if inspect.iscoroutine(result):
                result.close()
            self._ended(run, None, result)

    async def _await(self, run: Run, awaitable: Any) -> None:
        set_current_run(run)
        try:
            result = await awaitable
        except BaseException as exc:  # noqa: BLE001
            self._ended(run, exc)
        else:
            self._ended(run, None, result)

    # Verdict

    def _ended(self, run: Run, exc: BaseException | None, result: Any = None) -> None:
        if run.status is not None:
            self._home(run).logger.info("job %r: the run left behind as %s has ended", run.job.name, run.status)
            return
        if exc is not None and exc.__traceback__ is not None:
            exc.__traceback__ = exc.__traceback__.tb_next  # our own frame: it would keep the run alive in a cycle
        if run.cancelling is not None:
            self._verdict(run, run.cancelling, exc)
        elif exc is None:
            run.result = result
            self._verdict(run, "success")
        elif isinstance(exc, asyncio.CancelledError | GeneratorExit):
            self._verdict(run, "cancelled")
        else:
            self._verdict(run, "error", exc)

    def foreign_ended(self, run: Run, status: Status, exc: BaseException | None) -> None:
        """Another executor's outcome, on the loop."""
        if run.status is None:
            self._verdict(run, status, exc)

    def _verdict_if_open(self, run: Run, status: Status) -> None:
        if run.status is None:
            self._verdict(run, run.cancelling or status)

    def _verdict(self, run: Run, status: Status, exc: BaseException | None = None) -> None:
        """The one way out of a run. On the loop, once."""
        run.status = status
        self.verdicts += 1
        if status == "timed_out":
            timeout = TimeoutError(f"job {run.job.name!r} exceeded its timeout of {run.limit:g} s")
            timeout.__cause__ = exc
            run.exception = timeout
        elif status == "error":
            run.exception = exc
        if run.started is not None:
            run.duration_ms = (monotonic() - run.clock) * 1000
        run.task = None
        self.running.pop(run, None)
        self.deadlines.discard(run)
        home = self._home(run)
        code = CODES.get(status)
        if code and not run.foreign and self._clockwork.hears(code):
            alias = run.job.row_alias or ALIAS
            self._clockwork.dispatch(outcome_event(code, run, alias, self._clockwork.aps.timezone))
        run.result = None
        if self._guards.held and (following := self._guards.release(run)) is not None:
            self._launch(following, home)
        reporter = self.reporters.get(home)
        if reporter is not None:
            reporter(run)
        if run.upcoming is None:
            self.settled(run)

    # Stopping runs

    def _expired(self, run: Run) -> None:
        self._home(run).logger.warning("job %r timed out after %g s", run.job.name, run.limit)
        self.stop(run, "timed_out")

    def stop(self, run: Run, status: Status = "cancelled") -> None:
        """End a run without its consent: a coroutine is cancelled, a thread is left behind. On the loop."""
        if run.status is not None or run.cancelling is not None:
            return
        task = run.task
        if task is not None:
            run.cancelling = status
            task.cancel()
            if run.clock == 0.0:  # a task cancelled before its first step never runs our code
                self._verdict(run, status)
            else:
                self._loop().call_later(CANCEL_GRACE, self._give_up, run, context=Context())
            return
        self._verdict(run, status)
        if run.thread is not None:
            home = self._home(run)
            if self.workers.leak(run.thread):
                home.logger.warning(
                    "job %r: its thread cannot be stopped and is left behind until the function returns"
                    " (%d of at most %d)",
                    run.job.name,
                    self.workers.leaked,
                    self.workers.max_workers,
                )
            else:
                home.logger.warning(
                    "job %r: its thread cannot be stopped and %d are left behind already; plain functions wait until"
                    " one returns. Give them a timeout of their own, or raise max_workers",
                    run.job.name,
                    self.workers.leaked,
                )

    def _give_up(self, run: Run) -> None:
        if run.status is None and run.cancelling is not None:
            self._home(run).logger.warning(
                "job %r ignored its cancellation for %s s; the run is %s and left behind",
                run.job.name,
                CANCEL_GRACE,
                run.cancelling,
            )
            self._verdict(run, run.cancelling)

    def drop_waiting(self, home: Owner | None = None) -> None:
        """Refuse runs that wait for another one's verdict: an owner's, or all."""
        for run in self._guards.waiting(home):
            self._verdict(run, "cancelled")

    def inspect_runs(self, now: Micros) -> None:
        """Every few seconds: verdicts for tasks that somebody else cancelled unstarted, WARNINGs for stuck guards."""
        for run in list(self.running):
            if run.task is not None and run.task.done() and run.status is None:
                self._verdict(run, run.cancelling or "cancelled")
        self._guards.look(now)

    def shutdown(self, wait: bool = True) -> None:
        """APScheduler stops: as its own asyncio executor, cancel what runs, except the caller, and do not wait."""
        caller = current_run()
        self.drop_waiting()
        for run in list(self.running):
            if run is not caller:
                self.stop(run)
        self.retire()

    def retire(self) -> None:
        """Start nothing any more; what runs may finish."""
        self.deadlines.close()
        self.workers.close()

    # Small things

    def _home(self, run: Run) -> Owner:
        home = run.job.home
        assert home is not None
        return home

    def _context_of(self, run: Run) -> Context:
        home = self._home(run)
        context = home.context.copy()
        if home.prepare is not None:
            home.prepare(run.execution_id, context)
        return context

    def _loop(self) -> asyncio.AbstractEventLoop:
        loop = self._started_on
        assert loop is not None, "runs are admitted on a running loop only"
        return loop

    def _post(self, callback: Callable[..., None], *args: Any) -> None:
        """Continue on the loop; if it is closed there is nobody left to tell."""
        loop = self._started_on
        try:
            if loop is not None:
                loop.call_soon_threadsafe(callback, *args, context=Context())
        except RuntimeError:
            return


def own_run_in(home: Owner) -> Run | None:
    """The run of ``home`` that the calling code belongs to."""
    run = current_run()
    return run if run is not None and run.job.home is home else None


def _ignore(run: Run) -> None:
    pass


def _no_hand_over(run: Run, alias: str) -> None:
    raise LookupError(f"no executor {alias!r}")


def _no_row(job: Any, now: Micros) -> Run | None:
    return None
