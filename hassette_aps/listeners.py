"""What happened, told to whoever wants to know: the log, the record, error handlers and hooks."""

import asyncio
import inspect
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import Context
from threading import get_ident
from typing import Any, Protocol

from hassette_aps.callables import name_of, runs_on_loop
from hassette_aps.error_context import SchedulerErrorContext
from hassette_aps.instants import Micros, now_us
from hassette_aps.job import ScheduledJob
from hassette_aps.owner import Owner
from hassette_aps.records import ExecutionRecord, Recordable, RegisteredLike
from hassette_aps.registered import RegisteredJob
from hassette_aps.run import CoalescedTargets, Run, current_run, format_exception, set_current_run
from hassette_aps.types import ErrorHandler, RunHook
from hassette_aps.workers import Workers

HANDLER_THREADS = 4


class Recorder(Protocol):
    """Where records go (``telemetry``)."""

    def registered(self, job: RegisteredLike) -> None: ...
    def cancelled(self, owner: str, name: str, at: Micros) -> None: ...
    @property
    def record(self) -> Callable[[Recordable], None]: ...


class _Call:
    """One call of a handler or hook."""

    __slots__ = ("func", "name", "run", "task", "thread", "timer")

    def __init__(self, func: Callable[[Any], Any], name: str, run: Run | None) -> None:
        self.func = func
        self.name = name
        self.run = run
        self.task: asyncio.Task[Any] | None = None
        self.thread: int | None = None
        """Ident of the worker thread while the function is in it."""
        self.timer: asyncio.TimerHandle | None = None


class Listeners:
    """One owner's error handler, hooks and record. Handlers and hooks are isolated, timed and counted."""

    def __init__(
        self, owner: Owner, loop: Callable[[], asyncio.AbstractEventLoop | None], recorder: Recorder | None
    ) -> None:
        self._owner = owner
        self._loop = loop
        self._recorder = recorder
        self._workers = Workers(HANDLER_THREADS, "hassette_aps-handler")
        self._calls: dict[asyncio.Task[None], _Call] = {}
        self.on_error: ErrorHandler | None = None
        """The owner's handler, looked up when a run fails."""
        self.hooks: list[RunHook] = []
        """Called with one ``ExecutionRecord`` per verdict."""
        self._interrupted: deque[ExecutionRecord] = deque()
        self.handler_failures = 0
        """Handlers and hooks that raised or exceeded their time."""

    # Registrations

    def registered(self, job: ScheduledJob) -> None:
        """Put a registration on record."""
        if self._recorder is not None:
            self._recorder.registered(RegisteredJob(job, self._owner))

    def cancelled(self, job: ScheduledJob) -> None:
        """Put a cancellation on record."""
        if self._recorder is not None:
            self._recorder.cancelled(self._owner.name, job.name, now_us())

    # Verdicts

    def ended(self, run: Run) -> None:
        """One verdict, on the loop."""
        if run.status == "error":
            self._log_error(run)
        self._tell(run)

    def trigger_failed(self, run: Run, exc: Exception) -> None:
        """A trigger raised when asked for its next time: the job is paused, its target an error."""
        run.status, run.exception = "error", exc
        what = "asked again in 60 s" if run.job.row_alias else "paused until job.resume()"
        self._owner.logger.error("job %r: its trigger failed; %s", run.job.name, what, exc_info=exc)
        self._tell(run)

    def _log_error(self, run: Run) -> None:
        self._owner.logger.error(
            "Job error (job_db_id=%s, exec=%s)",
            run.job.db_id,
            run.execution_id,
            exc_info=run.exception,
            extra=run.log_fields(),
        )

    def _tell(self, run: Run) -> None:
        recorder = self._recorder
        if recorder is not None:
            if run.missed is not None:
                recorder.record(CoalescedTargets(run, run.missed))
            recorder.record(run)
        if run.status in ("error", "timed_out"):
            own = run.job.spec.on_error
            handler = self.on_error if own is None else own
            if handler is not None:
                self._call(handler, _context_of(run), "error handler", run)
        if self.hooks:
            records = [run.as_verdict().as_record()]
            if run.missed is not None:
                records.insert(0, CoalescedTargets(run, run.missed).as_verdict().as_record())
            for hook in tuple(self.hooks):
                for record in records:
                    self._call(hook, record, "run hook", run)

    def interrupted(self, records: Iterable[ExecutionRecord]) -> None:
        """Runs that a killed process left behind, from the writer's thread; hooks hear of them once the loop runs."""
        self._interrupted.extend(records)
        loop = self._loop()
        if loop is not None:
            loop.call_soon_threadsafe(self.opened, context=Context())

    def opened(self) -> None:
        """The owner's jobs run from now on. On the loop."""
        self._workers.open()
        while self._interrupted:
            record = self._interrupted.popleft()
            for hook in tuple(self.hooks):
                self._call(hook, record, "run hook", None)

    # Handlers and hooks

    def _call(self, func: Callable[[Any], Any], told: Any, what: str, run: Run | None) -> None:
        loop = asyncio.get_running_loop()
        context = self._owner.context.copy()
        context.run(set_current_run, run)
        call = _Call(func, f"{what} {name_of(func)}", run)
        # not create_task(): a framework's task factory may refuse what belongs to an owner that is being stopped
        task = asyncio.Task(self._guarded(call, told), loop=loop, name=call.name, context=context)
        self._calls[task] = call
        task.add_done_callback(self._calls.pop)

    async def _guarded(self, call: "_Call", told: Any) -> None:
        call.task = asyncio.current_task()
        try:
            if runs_on_loop(call.func):
                self._begun(call)
                answer = call.func(told)
            else:
                answer = await self._in_thread(call, told)
            if inspect.isawaitable(answer):
                await answer
        except BaseException as exc:
            if call.task is not None and call.task.cancelling():
                raise  # overdue, or the loop is being closed
            self.handler_failures += 1
            self._owner.logger.error("%s failed", call.name, exc_info=exc)
        finally:
            if call.timer is not None:
                call.timer.cancel()

    def _begun(self, call: "_Call") -> None:
        """Its time counts from here, not from its place in the queue for a thread. On the loop."""
        if call.task is not None and not call.task.done():
            limit = self._owner.settings.handler_timeout
            call.timer = asyncio.get_running_loop().call_later(limit, self._overdue, call, context=Context())

    def _overdue(self, call: "_Call") -> None:
        self.handler_failures += 1
        self._owner.logger.warning("%s exceeded its %g s", call.name, self._owner.settings.handler_timeout)
        if call.thread is not None:
            self._workers.leak(call.thread)
        if call.task is not None:
            call.task.cancel()

    async def _in_thread(self, call: "_Call", told: Any) -> Any:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        context = self._owner.context.copy()
        context.run(set_current_run, call.run)

        def resolve(exc: BaseException | None, result: Any) -> None:
            call.thread = None
            if future.done():
                return
            if exc is None:
                future.set_result(result)
            elif isinstance(exc, StopIteration):  # a future refuses it
                future.set_exception(RuntimeError(f"{name_of(call.func)} raised StopIteration"))
            else:
                future.set_exception(exc)

        def work() -> None:
            if future.done():  # given up by a shutdown while it waited for a thread
                return
            call.thread = get_ident()
            try:
                loop.call_soon_threadsafe(self._begun, call, context=Context())
                try:
                    outcome: tuple[BaseException | None, Any] = (None, context.run(call.func, told))
                except BaseException as exc:  # noqa: BLE001
                    outcome = (exc, None)
                loop.call_soon_threadsafe(resolve, *outcome, context=Context())
            except RuntimeError:  # the loop is closed
                return

        self._workers.submit(work)
        return await future

    @property
    def busy(self) -> bool:
        """Whether handlers or hooks are in progress."""
        return bool(self._calls)

    async def drain(self, seconds: float) -> None:
        """Wait for handlers and hooks in progress, except the one that calls, until none ends within ``seconds``."""
        caller = current_run()
        while waiting := [task for task, call in self._calls.items() if caller is None or call.run is not caller]:
            ended, _ = await asyncio.wait(waiting, timeout=seconds)
            if not ended:
                self._owner.logger.warning("%d error handlers and run hooks are given up", len(waiting))
                for task in waiting:
                    task.cancel()
                return

    def close(self) -> None:
        """Let the handler threads end."""
        self._workers.close()


def _context_of(run: Run) -> SchedulerErrorContext:
    exc = run.exception
    assert exc is not None
    return SchedulerErrorContext(
        exception=exc,
        traceback=format_exception(exc),
        job_name=run.job.name,
        job_group=run.job.group,
        args=run.job.args,
        kwargs=run.job.kwargs,
        execution_id=run.execution_id,
    )
