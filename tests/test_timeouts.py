"""Timeouts of coroutines and of plain functions (8.5, P8)."""

import asyncio
import threading
import time
from typing import Any

import pytest

from hassette_aps import Scheduler
from tests.kit import Recorded, called, never, until


async def test_a_coroutine_is_cancelled_inside(scheduler: Scheduler, caplog: pytest.LogCaptureFixture) -> None:
    """8.5: CancelledError inside, ``timed_out`` with a WARNING, the handler gets a TimeoutError, the job stays."""
    seen: list[type[BaseException]] = []
    contexts: list[Any] = []
    recorded = Recorded(scheduler)

    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        except BaseException as exc:
            seen.append(type(exc))
            raise

    job = scheduler.run_every(slow, hours=1, timeout=0.05, on_error=contexts.append, name="slow")
    job.submit()
    await until(lambda: contexts)
    assert seen == [asyncio.CancelledError]
    assert recorded.statuses() == ["timed_out"]
    assert isinstance(contexts[0].exception, TimeoutError)
    assert "0.05 s" in str(contexts[0].exception)
    assert "await asyncio.sleep(60)" in contexts[0].traceback
    assert "job 'slow' timed out after 0.05 s" in caplog.text
    assert job in scheduler.list_jobs()


async def test_a_coroutine_that_ignores_its_cancellation(
    scheduler: Scheduler, caplog: pytest.LogCaptureFixture
) -> None:
    """P8: the verdict falls all the same, and the next target is not held up."""
    recorded = Recorded(scheduler)
    release = asyncio.Event()

    async def stubborn() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    job = scheduler.run_every(stubborn, hours=1, timeout=0.05, mode="single")
    job.submit()
    await until(lambda: recorded.statuses() == ["timed_out"])
    assert "ignored its cancellation" in caplog.text
    release.set()
    job.submit()
    await until(lambda: recorded.statuses() == ["timed_out", "success"])


async def test_a_swallowed_cancellation_is_still_a_timeout(scheduler: Scheduler) -> None:
    """8.5: a coroutine that catches the cancellation and returns has timed out."""
    recorded = Recorded(scheduler)

    async def swallows() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return

    scheduler.run_in(swallows, 0.01, timeout=0.05)
    await until(lambda: recorded.records)
    assert recorded.statuses() == ["timed_out"]


async def test_a_timeout_error_of_the_jobs_own_is_an_error(scheduler: Scheduler) -> None:
    """8.5: only our limit gives ``timed_out``."""
    recorded = Recorded(scheduler)

    async def own() -> None:
        async with asyncio.timeout(0.01):
            await asyncio.sleep(60)

    scheduler.run_in(own, 0.01, timeout=30)
    await until(lambda: recorded.records)
    assert recorded.statuses() == ["error"]


async def test_a_plain_function_leaves_its_thread_behind(caplog: pytest.LogCaptureFixture) -> None:
    """8.5: ``timed_out`` at the deadline, the thread reported until it returns, its place refilled."""
    release = threading.Event()
    async with Scheduler(timezone="UTC", max_workers=1) as scheduler:
        recorded = Recorded(scheduler)
        scheduler.run_in(release.wait, 0.01, args=[20], timeout=0.1, name="stuck")
        await until(lambda: recorded.statuses() == ["timed_out"])
        assert scheduler.health().leaked_threads == 1
        assert "'stuck': its thread cannot be stopped" in caplog.text
        scheduler.run_in(called, 0.01, name="next")
        await until(lambda: recorded.statuses("next") == ["success"])
        scheduler.run_in(release.wait, 0.01, args=[20], timeout=0.1, name="stuck too")
        await until(lambda: recorded.statuses("stuck too") == ["timed_out"])
        assert "plain functions wait until one returns" in caplog.text
        scheduler.run_in(called, 0.01, name="waits")
        await asyncio.sleep(0.1)
        assert recorded.statuses("waits") == []
        release.set()
        await until(lambda: recorded.statuses("waits") == ["success"])
        await until(lambda: scheduler.health().leaked_threads == 0)


async def test_the_limit_counts_from_the_functions_start() -> None:
    """8.5: waiting for a thread does not count."""
    async with Scheduler(timezone="UTC", max_workers=1) as scheduler:
        recorded = Recorded(scheduler)
        scheduler.run_in(time.sleep, 0.01, args=[0.5], timeout_disabled=True, name="in its way")
        for n in range(4):
            scheduler.run_in(time.sleep, 0.02, args=[0.05], timeout=0.3, name=str(n))
        await until(lambda: len(recorded.records) == 5)
        assert recorded.statuses() == ["success"] * 5


async def test_the_default_is_a_setting_and_can_be_switched_off() -> None:
    """3: None means the scheduler's default, ``timeout_disabled`` means none, whatever the default."""
    async with Scheduler(timezone="UTC", default_timeout=0.05) as scheduler:
        recorded = Recorded(scheduler)
        scheduler.run_in(never, 0.01, name="default")
        scheduler.run_in(asyncio.sleep, 0.01, args=[0.15], timeout_disabled=True, name="disabled")
        scheduler.run_in(asyncio.sleep, 0.01, args=[0.15], timeout=5, name="own")
        await until(lambda: len(recorded.records) == 3)
        assert {r.job_name: r.status for r in recorded.records} == {
            "default": "timed_out",
            "disabled": "success",
            "own": "success",
        }


async def test_many_limits_at_once(scheduler: Scheduler) -> None:
    """8.5: every run has its own deadline, in whatever order they come."""
    recorded = Recorded(scheduler)
    for n in range(6):
        scheduler.run_in(never, 0.01, timeout=1.3 - n * 0.2, name=str(n))
    await until(lambda: len(recorded.records) == 6)
    assert {r.status for r in recorded.records} == {"timed_out"}
    assert [r.job_name for r in recorded.records] == ["5", "4", "3", "2", "1", "0"]
    assert all(0 <= r.duration_ms / 1000 - (1.3 - int(r.job_name) * 0.2) < 0.2 for r in recorded.records)


async def test_a_predicates_time_does_not_delay_another_deadline(scheduler: Scheduler) -> None:
    """8.5: the limit counts from the function's start, and a run whose predicate took long holds up nobody's."""
    recorded = Recorded(scheduler)

    async def thinks() -> bool:
        await asyncio.sleep(0.9)
        return True

    first = scheduler.run_every(never, hours=1, name="first", timeout=1, where=thinks)
    second = scheduler.run_every(never, hours=1, name="second", timeout=1)
    first.submit()
    await asyncio.sleep(0.1)
    second.submit()
    await until(lambda: len(recorded.records) == 2)
    assert [r.job_name for r in recorded.records] == ["second", "first"]
    assert all(1 <= r.duration_ms / 1000 < 1.9 for r in recorded.records)


async def test_waiting_for_a_thread_after_the_predicate_does_not_count() -> None:
    """8.5: neither does the queue for a thread behind a predicate."""

    async def yes() -> bool:
        return True

    async with Scheduler(timezone="UTC", max_workers=1) as scheduler:
        recorded = Recorded(scheduler)
        for n in range(4):
            scheduler.run_in(time.sleep, 0.01, args=[0.15], timeout=0.35, where=yes, name=str(n))
        await until(lambda: len(recorded.records) == 4)
        assert recorded.statuses() == ["success"] * 4


async def test_with_a_task_factory_of_the_applications_own(scheduler: Scheduler) -> None:
    """8.5: limits of runs and handlers hold under a custom or eager task factory as well."""
    loop = asyncio.get_running_loop()
    plain = lambda loop, coro, **options: asyncio.Task(coro, loop=loop, **options)  # noqa: E731
    loop.set_task_factory(getattr(asyncio, "eager_task_factory", plain))
    try:
        recorded = Recorded(scheduler)
        scheduler.run_in(never, 0.01, timeout=0.05, name="slow")
        scheduler.run_in(called, 0.01, name="fine")
        await until(lambda: len(recorded.records) == 2)
        assert recorded.statuses("slow") == ["timed_out"]
        assert recorded.statuses("fine") == ["success"]
    finally:
        loop.set_task_factory(None)
