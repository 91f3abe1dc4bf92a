"""What happened, told to whoever wants to know: the log, the record, error handlers and hooks."""

import asyncio
import inspect
import sys
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import Context
from datetime import UTC, datetime
from threading import get_ident
from typing import Any, Protocol

from hassette_aps.callables import name_of, reference_of, runs_on_loop
from hassette_aps.error_context import SchedulerErrorContext
from hassette_aps.instants import to_datetime
from hassette_aps.job import ScheduledJob
from hassette_aps.owner import Owner
from hassette_aps.records import ExecutionRecord, JobRecord, Recordable
from hassette_aps.run import CoalescedTargets, Run, current_run, format_exception, set_current_run
from hassette_aps.types import ErrorHandler, RunHook
from hassette_aps.workers import Workers

HANDLER_THREADS = 4
_PACKAGE = __name__.partition(".")[0]


class Recorder(Protocol):
    """Where records go (``telemetry``)."""

    def register(self, job: JobRecord, on_id: Callable[[int], None]) -> None: ...
    def cancelled(self, owner: str, name: str, at: datetime) -> None: ...
    @property
    def record(self) -> Callable[[Recordable], None]: ...


class Listeners:
    """One owner's error handler, hooks and record. Handlers and hooks are isolated, timed and counted."""

    def __init__(
        self, owner: Owner, loop: Callable[[], asyncio.AbstractEventLoop | None], recorder: Recorder | None
    ) -> None:
        self._owner = owner
        self._loop = loop
        self._recorder = recorder
        self._workers = Workers(HANDLER_THREADS, "hassette_aps-handler")
        self._calls: dict[asyncio.Task[None], Run | None] = {}
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
        if self._recorder is None:
            return
        spec = job.spec
        trigger = spec.trigger
        self._recorder.register(
            JobRecord(
                owner=job.owner,
                name=spec.name,
                auto_named=spec.auto_named,
                group=spec.group,
                func=reference_of(spec.func) or name_of(spec.func),
                trigger_type=trigger.trigger_db_type(),
                trigger_label=trigger.trigger_label(),
                trigger_detail=trigger.trigger_detail(),
                args=spec.args,
                kwargs=spec.kwargs,
                jitter=spec.jitter,
                mode=job.mode,
                source=_calling_line(),
                registered_at=datetime.now(UTC),
                next_target=None if job.target is None else to_datetime(job.target),
            ),
            job.recorded_as,
        )

    def cancelled(self, job: ScheduledJob) -> None:
        """Put a cancellation on record."""
        if self._recorder is not None:
            self._recorder.cancelled(job.owner, job.name, datetime.now(UTC))

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
            handler = run.job.spec.on_error or self.on_error
            if handler is not None:
                self._call(handler, _context_of(run), "error handler", run)
        if self.hooks:
            records = [run.as_record()]
            if run.missed is not None:
                records.insert(0, CoalescedTargets(run, run.missed).as_record())
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
        task = loop.create_task(self._guarded(func, told, what), name=f"{what} {name_of(func)}", context=context)
        self._calls[task] = run
        task.add_done_callback(self._calls.pop)

    async def _guarded(self, func: Callable[[Any], Any], told: Any, what: str) -> None:
        logger, limit = self._owner.logger, self._owner.settings.handler_timeout
        watch = asyncio.timeout(limit)
        try:
            async with watch:
                answer = func(told) if runs_on_loop(func) else await self._in_thread(func, told)
                if inspect.isawaitable(answer):
                    await answer
        except asyncio.CancelledError:
            raise
        except BaseException as exc:
            self.handler_failures += 1
            if watch.expired():
                logger.warning("%s %s exceeded its %g s", what, name_of(func), limit)
            else:
                logger.error("%s %s failed", what, name_of(func), exc_info=exc)

    async def _in_thread(self, func: Callable[[Any], Any], told: Any) -> Any:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        context = self._owner.context.copy()
        context.run(set_current_run, current_run())
        ident: list[int] = []

        def resolve(exc: BaseException | None, result: Any) -> None:
            if future.done():
                return
            if exc is None:
                future.set_result(result)
            elif isinstance(exc, StopIteration):  # a future refuses it
                future.set_exception(RuntimeError(f"{name_of(func)} raised StopIteration"))
            else:
                future.set_exception(exc)

        def work() -> None:
            ident.append(get_ident())
            try:
                outcome: tuple[BaseException | None, Any] = (None, context.run(func, told))
            except BaseException as exc:  # noqa: BLE001
                outcome = (exc, None)
            try:
                loop.call_soon_threadsafe(resolve, *outcome, context=Context())
            except RuntimeError:  # the loop is closed
                return

        self._workers.submit(work)
        try:
            return await future
        except asyncio.CancelledError:
            if ident:
                self._workers.leak(ident[0])
            raise

    @property
    def busy(self) -> bool:
        """Whether handlers or hooks are in progress."""
        return bool(self._calls)

    async def drain(self, seconds: float) -> None:
        """Wait for handlers and hooks in progress, except the one that calls."""
        caller = current_run()
        waiting = [task for task, run in self._calls.items() if caller is None or run is not caller]
        if waiting:
            await asyncio.wait(waiting, timeout=seconds)

    def close(self) -> None:
        """Let the handler threads end."""
        self._workers.close()


def _context_of(run: Run) -> SchedulerErrorContext:
    exc = run.exception
    assert exc is not None
    spec = run.job.spec
    return SchedulerErrorContext(
        exception=exc,
        traceback=format_exception(exc),
        job_name=spec.name,
        job_group=spec.group,
        args=spec.args,
        kwargs=dict(spec.kwargs),
        execution_id=run.execution_id,
    )


def _calling_line() -> str | None:
    """``file:line`` of the nearest caller outside this package."""
    frame = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]  the documented way that is fast enough
    while frame is not None:
        if frame.f_globals.get("__name__", "").partition(".")[0] != _PACKAGE:
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back
    return None
