"""Errors and their handlers (section 9, 8.6, 11.16, P6, P7)."""

import asyncio
import json
import logging
import os
import signal
import threading
import time
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import pytest
from apscheduler.executors.asyncio import AsyncIOExecutor
from apscheduler.executors.pool import ProcessPoolExecutor, ThreadPoolExecutor
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from pydantic import TypeAdapter

from hassette_aps import ExecutionRecord, Scheduler, SchedulerErrorContext, current_run
from tests.kit import CALLS, Recorded, called, called_async, fails, idle, in_progress, never, until


async def failing() -> None:
    """A coroutine job that raises with a cause."""
    try:
        _ = 1 / 0
    except ZeroDivisionError as exc:
        raise ValueError("unexpected sensor value") from exc


async def test_an_exception_is_logged_once_recorded_and_handled(
    scheduler: Scheduler, caplog: pytest.LogCaptureFixture
) -> None:
    """8.6: one ERROR line with both ids and the traceback; the handler is called; the job stays scheduled."""
    contexts: list[SchedulerErrorContext] = []
    scheduler.on_error(contexts.append)
    job = await scheduler.run_every(failing, hours=1, name="x", group="g")
    execution_id = job.submit()
    await until(lambda: contexts)
    errors = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert [r.getMessage() for r in errors] == [f"Job error (job_db_id={job.db_id}, exec={execution_id})"]
    assert errors[0].exc_info is not None
    assert job in scheduler.list_jobs()
    history = await scheduler.history(job)
    assert [(r.status, r.error_type, r.error_message) for r in history] == [
        ("error", "ValueError", "unexpected sensor value")
    ]


async def test_what_the_context_contains(scheduler: Scheduler) -> None:
    """9.2: exception, full traceback with causes, name, group, copies of the arguments, the execution id; frozen."""
    contexts: list[SchedulerErrorContext] = []
    job = scheduler.run_every(fails, hours=1, name="x", group="g", args=["a"], on_error=contexts.append)
    execution_id = job.submit()
    await until(lambda: contexts)
    ctx = contexts[0]
    assert isinstance(ctx.exception, ValueError)
    assert ctx.traceback.startswith("Traceback")
    assert ctx.traceback.rstrip().endswith("ValueError: ('failed on purpose', 'a')")
    assert (ctx.job_name, ctx.job_group, ctx.args, ctx.kwargs) == ("x", "g", ("a",), {})
    assert ctx.execution_id == execution_id
    with pytest.raises(AttributeError):
        ctx.job_name = "other"  # type: ignore[misc]


async def test_the_traceback_has_the_causes(scheduler: Scheduler) -> None:
    """9.2: causes are part of the traceback text; our own frames are not."""
    contexts: list[SchedulerErrorContext] = []
    scheduler.run_in(failing, 0.01, on_error=contexts.append)
    await until(lambda: contexts)
    assert "ZeroDivisionError" in contexts[0].traceback
    assert "direct cause" in contexts[0].traceback
    assert "executor.py" not in contexts[0].traceback


class Hostile:
    """An argument that fights back."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def __reduce__(self) -> str:
        raise RuntimeError("no pickle")


class Unprintable(Exception):
    """An exception that cannot be printed."""

    def __str__(self) -> str:
        raise RuntimeError("no str")


async def test_contexts_and_records_turn_into_json_whatever_they_hold(scheduler: Scheduler) -> None:
    """9.2: JSON for an alert without ever raising, by ``to_json()`` and by pydantic."""
    contexts: list[SchedulerErrorContext] = []
    recorded = Recorded(scheduler)
    loop: list[Any] = []
    loop.append(loop)

    async def job(*args: Any, **kwargs: Any) -> None:
        raise Unprintable

    scheduler.run_in(
        job, 0.01, args=[Hostile(), loop, b"\xff", float("nan"), "\ud800"], kwargs={"k": {1: {2}}},
        on_error=contexts.append,
    )  # fmt: skip
    await until(lambda: contexts and recorded.records)
    for text in (
        contexts[0].to_json(),
        TypeAdapter(SchedulerErrorContext).dump_json(contexts[0]),
        TypeAdapter(ExecutionRecord).dump_json(recorded.records[0]),
    ):
        json.loads(text)
    told = json.loads(contexts[0].to_json())
    assert told["exception"]["type"] == "Unprintable"
    assert len(told["args"]) == 5


async def test_the_jobs_handler_wins(scheduler: Scheduler) -> None:
    """9.1, P7: exactly one handler is called: the job's own, else the scheduler's."""
    own: list[Any] = []
    app: list[Any] = []
    scheduler.on_error(app.append)
    recorded = Recorded(scheduler)
    scheduler.run_in(failing, 0.01, on_error=own.append, name="own")
    scheduler.run_in(failing, 0.01, name="app")
    await until(lambda: own and app and len(recorded.records) == 2)
    assert [ctx.job_name for ctx in own] == ["own"]
    assert [ctx.job_name for ctx in app] == ["app"]


async def test_the_schedulers_handler_is_looked_up_when_a_run_fails(scheduler: Scheduler) -> None:
    """9.1: registering the handler later covers jobs registered earlier."""
    contexts: list[Any] = []
    job = scheduler.run_every(failing, hours=1)
    scheduler.on_error(lambda ctx: contexts.append("first"))
    scheduler.on_error(lambda ctx: contexts.append("second"))
    job.submit()
    await until(lambda: contexts)
    assert contexts == ["second"]


async def test_sync_handlers_run_in_a_thread_async_ones_on_the_loop(scheduler: Scheduler) -> None:
    """9.1: both kinds are called; a handler knows the run it is about."""
    seen: dict[str, Any] = {}

    def sync(ctx: SchedulerErrorContext) -> None:
        seen["sync"] = (threading.current_thread() is threading.main_thread(), current_run().name)  # type: ignore[union-attr]

    async def on_loop(ctx: SchedulerErrorContext) -> None:
        seen["async"] = (threading.current_thread() is threading.main_thread(), current_run().name)  # type: ignore[union-attr]

    scheduler.run_in(failing, 0.01, on_error=sync, name="a")
    scheduler.run_in(failing, 0.01, on_error=on_loop, name="b")
    await until(lambda: len(seen) == 2)
    assert seen == {"sync": (False, "a"), "async": (True, "b")}


async def test_a_failing_handler_is_logged_and_counted(scheduler: Scheduler, caplog: pytest.LogCaptureFixture) -> None:
    """9.3: ERROR with its traceback, counted; the run's own record is unaffected."""
    recorded = Recorded(scheduler)

    def broken(ctx: SchedulerErrorContext) -> None:
        raise KeyError("in the handler")

    async def exits(ctx: SchedulerErrorContext) -> None:
        raise SystemExit

    scheduler.run_in(failing, 0.01, on_error=broken)
    scheduler.run_in(failing, 0.01, on_error=exits)
    await until(lambda: scheduler.error_handler_failures == 2)
    assert "error handler broken failed" in caplog.text
    assert "in the handler" in caplog.text
    assert recorded.statuses() == ["error", "error"]
    assert scheduler.health().error_handler_failures == 2


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_slow_handler_is_warned_about_and_counted(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """9.3: a handler that exceeds its time: WARNING, counted; others go on."""
    release = threading.Event()

    def sync(ctx: SchedulerErrorContext) -> None:
        release.wait(20)

    async def on_loop(ctx: SchedulerErrorContext) -> None:
        await asyncio.sleep(20)

    async with Scheduler(timezone="UTC", handler_timeout=0.1) as scheduler:
        scheduler.run_in(failing, 0.01, on_error=sync if kind == "sync" else on_loop)
        await until(lambda: scheduler.error_handler_failures == 1)
        release.set()
    assert "exceeded its 0.1 s" in caplog.text


async def test_no_handler_for_cancellation(scheduler: Scheduler) -> None:
    """9.3: a run that is cancelled, by itself too, has no handler call."""
    contexts: list[Any] = []
    recorded = Recorded(scheduler)
    scheduler.on_error(contexts.append)

    async def gives_up() -> None:
        raise asyncio.CancelledError

    scheduler.run_in(gives_up, 0.01)
    await until(lambda: recorded.records)
    await asyncio.sleep(0.02)
    assert recorded.statuses() == ["cancelled"]
    assert contexts == []


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, BaseException, StopIteration, GeneratorExit])
@pytest.mark.parametrize("plain", [True, False], ids=["plain", "coroutine"])
async def test_base_exceptions_do_not_stop_the_scheduler(
    scheduler: Scheduler, error: type[BaseException], plain: bool
) -> None:
    """8.6, 11.16, P6: they count as failures of their own run (a GeneratorExit as its cancellation)."""
    recorded = Recorded(scheduler)

    def raises() -> None:
        raise error

    async def raises_async() -> None:
        raise error

    scheduler.run_in(raises if plain else raises_async, 0.01, name="bad")
    await until(lambda: recorded.statuses("bad"))
    assert recorded.statuses("bad") == ["cancelled" if error is GeneratorExit else "error"]
    scheduler.run_in(called, 0.01)
    await until(lambda: CALLS)


def unpicklable_error() -> None:
    """Raises what a process pool cannot send back."""

    class Local(Exception):
        pass

    raise Local("cannot travel")


def unpicklable_result() -> Any:
    """Returns what a process pool cannot send back."""
    return lambda: None


def dies() -> None:
    """Kills its worker process."""
    os.kill(os.getpid(), signal.SIGKILL)


async def test_failures_on_other_executors_reach_the_handler() -> None:
    """9.4: APScheduler's thread pool and asyncio executors, for jobs in our store and in a user's."""
    aps = AsyncIOScheduler(timezone="UTC", executors={"threads": ThreadPoolExecutor(2), "default": AsyncIOExecutor()})
    async with Scheduler(aps) as scheduler:
        contexts: list[SchedulerErrorContext] = []
        recorded = Recorded(scheduler)
        scheduler.on_error(contexts.append)
        scheduler.run_in(fails, 0.01, executor="threads", name="threads")
        scheduler.run_in(failing, 0.01, executor="default", name="asyncio")
        scheduler.run_in(called, 0.01, executor="threads", name="fine")
        scheduler.run_in(fails, 0.01, executor="threads", jobstore="default", name="row")
        await until(lambda: len(recorded.records) == 4 and len(contexts) == 3)
        assert {r.job_name: r.status for r in recorded.records} == {
            "threads": "error",
            "asyncio": "error",
            "fine": "success",
            "row": "error",
        }
        assert {ctx.job_name for ctx in contexts} == {"threads", "asyncio", "row"}
        await until(lambda: not scheduler.list_jobs())


async def test_losses_in_a_process_pool_reach_the_handler() -> None:
    """9.4: an unpicklable exception or result and a killed worker end as errors (APScheduler sends no event)."""
    aps = AsyncIOScheduler(timezone="UTC", executors={"processes": ProcessPoolExecutor(1)})
    async with Scheduler(aps) as scheduler:
        contexts: list[SchedulerErrorContext] = []
        scheduler.on_error(contexts.append)
        for job in (fails, unpicklable_error, unpicklable_result):
            scheduler.run_in(job, 0.01, executor="processes", name=job.__name__)
        await until(lambda: len(contexts) == 3, 30)
        scheduler.run_in(dies, 0.01, executor="processes", name="dies")
        await until(lambda: len(contexts) == 4, 30)
        assert {ctx.job_name for ctx in contexts} == {"fails", "unpicklable_error", "unpicklable_result", "dies"}
        assert isinstance(contexts[-1].exception, BrokenProcessPool)
        await until(lambda: not scheduler.list_jobs())


async def test_hooks_get_one_frozen_record_per_verdict(scheduler: Scheduler) -> None:
    """8.7: any number of hooks, sync or async, each isolated from the others."""
    one: list[ExecutionRecord] = []
    two: list[ExecutionRecord] = []

    def broken(record: ExecutionRecord) -> None:
        raise RuntimeError

    async def keep(record: ExecutionRecord) -> None:
        two.append(record)

    for hook in (one.append, broken, keep):
        scheduler.on_run(hook)
    scheduler.run_in(idle, 0.01, name="x")
    await until(lambda: one and two)
    assert one == two
    assert one[0].status == "success"
    await until(lambda: scheduler.error_handler_failures == 1)


async def test_a_handler_that_raises_cancelled_error_has_failed(
    scheduler: Scheduler, caplog: pytest.LogCaptureFixture
) -> None:
    """9.3: a handler that gives up with a CancelledError of its own is logged and counted like any other."""

    async def gives_up(ctx: SchedulerErrorContext) -> None:
        raise asyncio.CancelledError

    scheduler.run_in(failing, 0.01, on_error=gives_up)
    await until(lambda: scheduler.error_handler_failures == 1)
    assert "error handler gives_up failed" in caplog.text


@pytest.mark.parametrize("stubborn", [False, True], ids=["returns", "stubborn"])
async def test_a_handler_that_swallows_its_cancellation_is_counted_once(
    stubborn: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """9.3: the WARNING comes when the time is up, whatever the handler makes of its cancellation."""
    release = asyncio.Event()

    async def swallows(ctx: SchedulerErrorContext) -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                if not stubborn:
                    return

    async with Scheduler(timezone="UTC", handler_timeout=0.1) as scheduler:
        scheduler.run_in(failing, 0.01, on_error=swallows)
        try:
            await until(lambda: scheduler.error_handler_failures == 1)
            await asyncio.sleep(0.15)
            assert scheduler.error_handler_failures == 1
            assert caplog.text.count("exceeded its 0.1 s") == 1
        finally:
            release.set()


async def test_a_handlers_time_counts_from_its_start() -> None:
    """9.3, P7: handlers that wait for a thread are not overdue; each is called, also during a shutdown."""
    handled: list[str] = []

    def handler(ctx: SchedulerErrorContext) -> None:
        time.sleep(0.05)
        handled.append(ctx.job_name)

    scheduler = Scheduler(timezone="UTC", handler_timeout=0.4)
    async with scheduler:
        recorded = Recorded(scheduler)
        for n in range(60):
            scheduler.run_in(failing, 0.01, on_error=handler, name=str(n))
        await until(lambda: len(recorded.records) == 60)
        assert len(handled) < 60
    assert sorted(handled, key=int) == [str(n) for n in range(60)]
    assert scheduler.error_handler_failures == 0


async def test_a_handler_that_is_falsy_is_still_a_handler(scheduler: Scheduler) -> None:
    """9.1: the job's own handler wins even if ``bool(handler)`` is False."""
    seen: list[Any] = []

    class Alerts(list[Any]):
        def __call__(self, ctx: SchedulerErrorContext) -> None:
            seen.append(ctx)

    scheduler.on_error(lambda ctx: seen.append("wrong"))
    scheduler.run_in(failing, 0.01, on_error=Alerts(), name="x")
    await until(lambda: seen)
    assert seen[0] != "wrong"


async def test_a_predicate_that_fails_or_hangs(scheduler: Scheduler) -> None:
    """3: a predicate that raises means ``error`` and the handler, SystemExit included; the limit holds for it too."""
    contexts: list[Any] = []
    recorded = Recorded(scheduler)

    def exits() -> bool:
        raise SystemExit

    async def hangs() -> bool:
        await never()
        return True

    async def swallows() -> bool:
        try:
            return await hangs()
        except asyncio.CancelledError:
            return True

    scheduler.on_error(contexts.append)
    scheduler.run_in(called, 0.01, where=exits, name="exits")
    scheduler.run_in(called, 0.01, where=hangs, timeout=0.1, name="hangs")
    scheduler.run_in(called, 0.01, where=swallows, timeout=0.1, name="swallows")
    scheduler.run_in(called_async, 0.01, where=swallows, timeout=0.1, name="swallows too")
    await until(lambda: len(contexts) == 4)
    assert {r.job_name: r.status for r in recorded.records} == {
        "exits": "error",
        "hangs": "timed_out",
        "swallows": "timed_out",
        "swallows too": "timed_out",
    }
    await asyncio.sleep(0.02)
    assert CALLS == []


async def test_cancellation_on_another_executor() -> None:
    """9.3, 9.4: a run that is cancelled on APScheduler's asyncio executor is ``cancelled``, without a handler."""
    async with Scheduler(timezone="UTC") as scheduler:
        contexts: list[Any] = []
        recorded = Recorded(scheduler)
        scheduler.on_error(contexts.append)

        async def gives_up() -> None:
            raise asyncio.CancelledError

        scheduler.run_in(gives_up, 0.01, executor="default")
        await until(lambda: recorded.records)
        await asyncio.sleep(0.02)
        assert recorded.statuses() == ["cancelled"]
        assert contexts == []


async def test_a_cancelled_jobs_run_on_another_executor_has_its_verdict() -> None:
    """9.4, P2: cancelling a job while its run is on another executor loses neither its outcome nor its handler."""
    release = threading.Event()

    def slow() -> None:
        release.wait(20)
        raise ValueError("late")

    aps = AsyncIOScheduler(timezone="UTC", executors={"threads": ThreadPoolExecutor(2)})
    async with Scheduler(aps) as scheduler:
        contexts: list[Any] = []
        recorded = Recorded(scheduler)
        job = scheduler.run_every(slow, hours=1, executor="threads", on_error=contexts.append)
        job.submit()
        await in_progress(scheduler)
        job.cancel()
        release.set()
        await until(lambda: contexts)
        assert recorded.statuses() == ["error"]
