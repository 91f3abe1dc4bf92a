"""Starting, stopping, and what is left afterwards (section 10, 11.6, P5, P10)."""

import asyncio
import gc
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from hassette_aps import Scheduler
from hassette_aps.engine import engines_on
from tests.kit import CALLS, Recorded, called, fails, idle, in_progress, never, sql_scheduler, until


async def test_runs_in_progress_get_their_grace() -> None:
    """10.1: shutdown waits for runs, records them, and nothing fires afterwards."""
    begun: list[str] = []
    done: list[str] = []

    async def slow() -> None:
        begun.append("coroutine")
        await asyncio.sleep(0.1)
        done.append("coroutine")

    def slow_plain() -> None:
        begun.append("plain")
        time.sleep(0.1)
        done.append("plain")

    scheduler = Scheduler(timezone="UTC")
    async with scheduler:
        for job in (slow, slow_plain):
            scheduler.run_every(job, hours=1).submit()
        scheduler.run_every(called, seconds=0.05)
        await until(lambda: len(begun) == 2)
    assert sorted(done) == ["coroutine", "plain"]
    calls = len(CALLS)
    await asyncio.sleep(0.1)
    assert len(CALLS) == calls
    assert {record.status for record in await scheduler.history()} == {"success"}


async def test_what_exceeds_the_grace_is_cancelled_and_recorded(caplog: pytest.LogCaptureFixture) -> None:
    """10.1: after ``grace`` seconds runs are cancelled and recorded so; a thread is left behind."""
    release = threading.Event()
    scheduler = Scheduler(timezone="UTC")
    await scheduler.start()
    scheduler.run_every(never, hours=1).submit()
    scheduler.run_every(release.wait, hours=1, args=[20]).submit()
    await in_progress(scheduler, 2)
    await asyncio.sleep(0.02)
    before = time.monotonic()
    await scheduler.shutdown(grace=0.1)
    assert time.monotonic() - before < 3
    assert [record.status for record in await scheduler.history()] == ["cancelled", "cancelled"]
    assert "left behind" in caplog.text
    release.set()


async def test_waiting_and_due_runs_do_not_start() -> None:
    """10.1, P5: queued runs and jobs due during the drain do not start."""
    started: list[int] = []

    async def slow() -> None:
        started.append(1)
        await asyncio.sleep(0.1)

    scheduler = Scheduler(timezone="UTC")
    await scheduler.start()
    job = scheduler.run_every(slow, hours=1, mode="queued")
    for _ in range(3):
        job.submit()
    scheduler.run_in(called, 0.05)
    await until(lambda: started)
    await scheduler.shutdown()
    assert len(started) == 1
    assert CALLS == []


async def test_a_run_that_reschedules_during_the_drain(caplog: pytest.LogCaptureFixture) -> None:
    """10.1: in-flight reschedules do not fire after the shutdown."""
    scheduler = Scheduler(timezone="UTC")
    entered = asyncio.Event()

    async def again() -> None:
        entered.set()
        await asyncio.sleep(0.05)
        scheduler.run_in(called, 0.01)

    await scheduler.start()
    scheduler.run_in(again, 0.01)
    await entered.wait()
    await scheduler.shutdown()
    await asyncio.sleep(0.05)
    assert CALLS == []
    assert scheduler.list_jobs() == []
    assert "is shutting down" in caplog.text


async def test_handlers_and_records_are_flushed() -> None:
    """10.1: error handlers have run and records are written when ``shutdown`` returns."""
    handled: list[Any] = []

    async def slow_handler(ctx: object) -> None:
        entered.set()
        await asyncio.sleep(0.05)
        handled.append(ctx)

    entered = asyncio.Event()
    scheduler = Scheduler(timezone="UTC")
    async with scheduler:
        scheduler.on_error(slow_handler)
        scheduler.run_every(fails, hours=1).submit()
        await entered.wait()
    assert len(handled) == 1
    assert len(await scheduler.history()) == 1


async def test_nothing_is_left() -> None:
    """P10: 0 jobs, 0 tasks, 0 timers, 0 registrations; the names are free."""
    loop = asyncio.get_running_loop()
    tasks, threads = asyncio.all_tasks(), set(threading.enumerate())
    scheduler = Scheduler(timezone="UTC")
    async with scheduler:
        scheduler.on_error(lambda ctx: None)
        for n in range(10):
            scheduler.run_every(idle, seconds=0.02, name=f"a{n}", timeout=5)
            scheduler.run_every(fails, seconds=0.02, name=f"b{n}", timeout=5)
        await asyncio.sleep(0.15)
    aps = scheduler.aps
    assert scheduler.list_jobs() == []
    assert asyncio.all_tasks() == tasks
    timers = [handle for handle in loop._scheduled if not handle.cancelled()]  # type: ignore[attr-defined]
    assert timers == []
    assert "hassette_aps" not in aps._jobstores
    assert "hassette_aps" not in aps._executors
    assert aps._listeners == []
    await until(lambda: not [t for t in set(threading.enumerate()) - threads if "hassette" in t.name])
    del scheduler
    gc.collect()
    assert engines_on(loop) == []


async def test_it_stops_the_apscheduler_only_if_it_started_it() -> None:
    """1.2: a wrapped AsyncIOScheduler that ran before runs on."""
    aps = AsyncIOScheduler(timezone="UTC")
    aps.start()
    async with Scheduler(aps) as scheduler:
        scheduler.run_every(idle, hours=1)
    assert aps.running
    aps.shutdown()
    await until(lambda: not aps.running)
    aps = AsyncIOScheduler(timezone="UTC")
    async with Scheduler(aps):
        assert aps.running
    assert not aps.running


async def test_started_by_the_user() -> None:
    """11.6: ``aps.start()`` instead of the facade's start runs our jobs all the same."""
    aps = AsyncIOScheduler(timezone="UTC")
    scheduler = Scheduler(aps)
    scheduler.run_in(called, 0.01)
    aps.start()
    await until(lambda: CALLS)
    await scheduler.shutdown()
    aps.shutdown()
    await until(lambda: not aps.running)


async def test_other_owners_notice_nothing() -> None:
    """10.2: one owner's shutdown leaves the others' jobs running, even if it started the AsyncIOScheduler."""
    aps = AsyncIOScheduler(timezone="UTC")
    one, two = Scheduler(aps, owner="one"), Scheduler(aps, owner="two")
    await one.start()
    await two.start()
    two.run_every(called, seconds=0.02)
    one.run_every(idle, seconds=0.02)
    await one.shutdown()
    before = len(CALLS)
    await until(lambda: len(CALLS) > before + 3)
    await two.shutdown()
    assert not aps.running


async def test_apschedulers_shutdown_ends_every_owner() -> None:
    """10.3: ``aps.shutdown()`` ends every owner as ``shutdown(0)`` does."""
    aps = AsyncIOScheduler(timezone="UTC")
    one, two = Scheduler(aps, owner="one"), Scheduler(aps, owner="two")
    aps.start()
    recorded = Recorded(one)
    job = one.run_every(never, hours=1)
    job.submit()
    two.run_every(called, seconds=0.02)
    await in_progress(one)
    aps.shutdown()
    await until(lambda: recorded.statuses() == ["cancelled"])
    assert one.list_jobs() == two.list_jobs() == []
    assert not one.running
    calls = len(CALLS)
    await asyncio.sleep(0.05)
    assert len(CALLS) == calls
    job.cancel()
    await one.shutdown()
    await two.shutdown()


async def test_start_after_shutdown_begins_empty(caplog: pytest.LogCaptureFixture) -> None:
    """10.4: starting again works; a WARNING counts the in-memory jobs that were not registered again."""
    scheduler = Scheduler(timezone="UTC")
    for _ in range(3):
        async with scheduler:
            assert scheduler.list_jobs() == []
            scheduler.run_every(idle, hours=1, name="a")
            scheduler.run_every(idle, hours=1, name="b")
        scheduler.run_in(called, 0.01, name="a")
        caplog.clear()
        async with scheduler:
            await until(lambda: CALLS)
            assert "1 in-memory jobs of the previous start were not registered again: 'b'" in caplog.text
        CALLS.clear()
    await scheduler.shutdown()


async def test_start_again_after_apschedulers_shutdown() -> None:
    """10.3, 10.4: after ``aps.shutdown()`` both a bare ``aps.start()`` and the facade's start work."""
    aps = AsyncIOScheduler(timezone="UTC")
    scheduler = Scheduler(aps)
    aps.start()
    aps.shutdown()
    await until(lambda: not aps.running)
    scheduler.run_in(called, 0.01)
    aps.start()
    await until(lambda: CALLS)
    aps.shutdown()
    await until(lambda: not aps.running)
    await scheduler.start()
    scheduler.run_in(called, 0.01, args=["again"])
    await until(lambda: ("again",) in CALLS)
    await scheduler.shutdown()


async def test_shutdown_from_inside_a_run() -> None:
    """10.5: the caller is neither waited for nor cancelled, and is put on record."""
    scheduler = Scheduler(timezone="UTC")
    done: list[str] = []

    async def last() -> None:
        await scheduler.shutdown(grace=5)
        await asyncio.sleep(0.05)
        done.append("finished")

    scheduler.run_in(last, 0.01, name="last")
    before = time.monotonic()
    await scheduler.start()
    await until(lambda: done)
    assert time.monotonic() - before < 3
    deadline = time.monotonic() + 5
    while not (history := await scheduler.history()):
        assert time.monotonic() < deadline
    assert [record.status for record in history] == ["success"]


async def test_shutdown_from_inside_a_handler() -> None:
    """10.5: from a handler as well."""
    scheduler = Scheduler(timezone="UTC")
    done: list[str] = []

    async def handler(ctx: object) -> None:
        await scheduler.shutdown(grace=5)
        done.append("finished")

    scheduler.on_error(handler)
    scheduler.run_in(fails, 0.01)
    before = time.monotonic()
    await scheduler.start()
    await until(lambda: done)
    assert time.monotonic() - before < 3
    assert not scheduler.aps.running


async def test_shutdown_is_idempotent_and_concurrent_calls_wait() -> None:
    """1.2: a second call is silent; one made meanwhile returns when the first is through."""
    scheduler = Scheduler(timezone="UTC")
    done: list[int] = []

    begun = asyncio.Event()

    async def slow() -> None:
        begun.set()
        await asyncio.sleep(0.1)
        done.append(1)

    await scheduler.start()
    scheduler.run_every(slow, hours=1).submit()
    await begun.wait()
    first = asyncio.create_task(scheduler.shutdown())
    await asyncio.sleep(0.01)
    await scheduler.shutdown()
    assert done == [1]
    await first
    await scheduler.shutdown()


async def test_shutdown_before_start() -> None:
    """1.2: a Scheduler that never started can be shut down; its jobs are gone."""
    scheduler = Scheduler(timezone="UTC")
    job = scheduler.run_every(idle, hours=1)
    await scheduler.shutdown()
    assert job not in scheduler.list_jobs()
    assert job.next_run is None


async def test_attaching_to_a_running_scheduler() -> None:
    """1.1: a Scheduler made on a running AsyncIOScheduler works at once, without a start."""
    aps = AsyncIOScheduler(timezone="UTC")
    aps.start()
    scheduler = Scheduler(aps)
    scheduler.run_in(called, 0.01)
    await until(lambda: CALLS)
    assert scheduler.running
    await scheduler.shutdown()
    aps.shutdown()
    await until(lambda: not aps.running)


async def test_six_hundred_cancels_from_as_many_threads() -> None:
    """P5: of 600 plain jobs due at one instant, each cancelled by a thread of its own, none starts after its cancel."""
    started: dict[int, int] = {}
    cancelled: dict[int, int] = {}
    together = threading.Barrier(601)

    def work(n: int) -> None:
        started[n] = time.perf_counter_ns()

    def cancel(n: int) -> None:
        together.wait(30)
        jobs[n].cancel()
        cancelled[n] = time.perf_counter_ns()

    async with Scheduler(timezone="UTC", max_workers=8) as scheduler:
        at = datetime.now(UTC) + timedelta(seconds=0.8)
        jobs = [scheduler.run_once(work, at, args=[n], name=str(n)) for n in range(600)]
        threads = [threading.Thread(target=cancel, args=(n,)) for n in range(600)]
        for thread in threads:
            thread.start()
        await asyncio.sleep(max((at - datetime.now(UTC)).total_seconds(), 0))
        await asyncio.to_thread(together.wait, 30)
        await asyncio.to_thread(lambda: [thread.join() for thread in threads])
        await until(lambda: scheduler.health().running == 0)
        assert scheduler.list_jobs() == []
    assert len(cancelled) == 600
    assert [n for n in started if started[n] > cancelled[n]] == []


async def test_health(scheduler: Scheduler) -> None:
    """P6: ``health()`` says whether jobs are being started."""
    scheduler.run_every(idle, seconds=0.01)
    await until(lambda: scheduler.health().last_wakeup)
    health = scheduler.health()
    assert (health.alive, health.jobs, health.recording, health.dropped_records) == (True, 1, True, 0)
    await scheduler.shutdown()
    assert not scheduler.health().alive


async def test_apschedulers_shutdown_gives_waiting_runs_a_verdict() -> None:
    """10.3, P2: runs that wait in a queue when ``aps.shutdown()`` is called are recorded ``cancelled``."""
    aps = AsyncIOScheduler(timezone="UTC")
    scheduler = Scheduler(aps)
    recorded = Recorded(scheduler)
    aps.start()
    job = scheduler.run_every(never, hours=1, mode="queued")
    for _ in range(3):
        job.submit()
    await in_progress(scheduler)
    aps.shutdown()
    await until(lambda: recorded.statuses() == ["cancelled"] * 3)
    await scheduler.shutdown()


async def test_apschedulers_shutdown_from_inside_a_run() -> None:
    """10.3, 10.5: ``aps.shutdown()`` does not cancel the run that calls it."""
    scheduler = Scheduler(timezone="UTC")
    recorded = Recorded(scheduler)
    done: list[int] = []

    async def last() -> None:
        scheduler.aps.shutdown()
        await asyncio.sleep(0.05)
        done.append(1)

    scheduler.run_in(last, 0.01)
    await scheduler.start()
    await until(lambda: recorded.statuses() == ["success"])
    assert done == [1]
    await scheduler.shutdown()


async def test_shutdown_from_inside_a_plain_function() -> None:
    """10.5: a plain function that waits for the shutdown in its thread is neither waited for nor lost."""
    loop = asyncio.get_running_loop()
    scheduler = Scheduler(timezone="UTC")
    done: list[int] = []

    def last() -> None:
        asyncio.run_coroutine_threadsafe(scheduler.shutdown(5), loop).result(20)
        done.append(1)

    scheduler.run_in(last, 0.01)
    before = time.monotonic()
    await scheduler.start()
    await until(lambda: done)
    assert time.monotonic() - before < 4
    while not (history := await scheduler.history()):
        assert time.monotonic() - before < 10
    assert [record.status for record in history] == ["success"]
    await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})


async def test_two_runs_shut_down_at_once() -> None:
    """10.5: two runs that call shutdown do not wait for each other for ever."""
    scheduler = Scheduler(timezone="UTC")
    ready, done = asyncio.Barrier(2), []

    async def last(n: int) -> None:
        await ready.wait()
        await scheduler.shutdown(5)
        done.append(n)

    for n in range(2):
        scheduler.run_in(last, 0.01, args=[n], name=str(n))
    before = time.monotonic()
    await scheduler.start()
    await until(lambda: len(done) == 2)
    assert time.monotonic() - before < 4
    await until(lambda: not scheduler.aps.running)


async def test_an_impatient_caller_of_shutdown() -> None:
    """10.1, P10: a shutdown that is cancelled itself ends its grace, leaves nothing and is then cancelled."""
    scheduler = Scheduler(timezone="UTC")
    await scheduler.start()
    scheduler.run_every(never, hours=1).submit()
    await in_progress(scheduler)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(scheduler.shutdown(30), 0.1)
    assert not scheduler.aps.running
    assert "hassette_aps" not in scheduler.aps._jobstores
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert [record.status for record in await scheduler.history()] == ["cancelled"]


async def test_a_new_scheduler_after_apschedulers_shutdown() -> None:
    """10.3, 11.5: ``aps.shutdown()`` frees the owner's name for another Scheduler; before, it was refused."""
    aps = AsyncIOScheduler(timezone="UTC")
    old = Scheduler(aps)
    with pytest.raises(ValueError, match="attached to this AsyncIOScheduler already"):
        Scheduler(aps)
    aps.start()
    aps.shutdown()
    await until(lambda: not aps.running)
    new = Scheduler(aps)
    new.run_in(called, 0.01)
    aps.start()
    await until(lambda: CALLS)
    await old.shutdown()
    assert new.running
    await new.shutdown()
    aps.shutdown()
    await until(lambda: not aps.running)


async def test_a_refused_scheduler_leaves_nothing() -> None:
    """P13: a Scheduler whose settings are refused registers nothing on the AsyncIOScheduler."""
    aps = AsyncIOScheduler(timezone="UTC")
    with pytest.raises(ValueError, match="nonsense"):
        Scheduler(aps, database="nonsense://x")
    with pytest.raises(TypeError):
        Scheduler(aps, graace=5)
    assert aps._jobstores == aps._executors == {}
    assert aps._listeners == []


async def test_runs_on_another_executor_get_their_grace() -> None:
    """10.1: a run on an executor of the user's is waited for and has its own verdict."""
    aps = AsyncIOScheduler(timezone="UTC")
    aps.start()
    scheduler = Scheduler(aps)
    recorded = Recorded(scheduler)

    async def slow() -> None:
        await asyncio.sleep(0.1)

    scheduler.run_every(slow, hours=1, executor="default").submit()
    await in_progress(scheduler)
    await scheduler.shutdown()
    assert recorded.statuses() == ["success"]
    aps.shutdown()
    await until(lambda: not aps.running)


async def test_one_store_and_one_executor_for_all_owners() -> None:
    """11.20: both are shared under one alias and taken off with the last owner."""
    aps = AsyncIOScheduler(timezone="UTC")
    aps.start()
    one, two = Scheduler(aps, owner="one"), Scheduler(aps, owner="two")
    assert [alias for alias in aps._jobstores if alias != "default"] == ["hassette_aps"]
    assert [alias for alias in aps._executors if alias != "default"] == ["hassette_aps"]
    await one.shutdown()
    assert "hassette_aps" in aps._jobstores
    assert "hassette_aps" in aps._executors
    Scheduler(aps, owner="one")
    await two.shutdown()
    assert "hassette_aps" in aps._jobstores
    aps.shutdown()
    await until(lambda: not aps.running)


async def test_attaching_late_to_persistent_stores_warns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """11.20: a running AsyncIOScheduler may have deleted overdue rows of ours; one with memory stores cannot have."""
    aps = AsyncIOScheduler(timezone="UTC")
    aps.start()
    await Scheduler(aps).shutdown()
    assert caplog.text == ""
    aps.shutdown()
    aps = sql_scheduler(tmp_path / "jobs.db")
    aps.start()
    await Scheduler(aps).shutdown()
    assert "make the Scheduler before aps.start()" in caplog.text
    aps.shutdown()
    await until(lambda: not aps.running)


async def test_a_failed_start_fires_nothing(tmp_path: Path) -> None:
    """10.1, 11.3: after an initialisation that failed nothing is registered, started or left."""
    async with Scheduler(sql_scheduler(tmp_path / "jobs.db")) as earlier:
        earlier.run_every(called, hours=1, jobstore="db", name="x")
    scheduler = Scheduler(sql_scheduler(tmp_path / "jobs.db"))
    scheduler.run_in(called, 0.01, name="once")
    scheduler.run_every(called, hours=2, jobstore="db", name="x")
    with pytest.raises(ValueError, match="'x'"):
        async with scheduler:
            pytest.fail("it must not get here")
    await asyncio.sleep(0.05)
    assert CALLS == []
    assert not scheduler.aps.running
    await scheduler.shutdown()
    assert scheduler.list_jobs() == []
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("grace", [-1, float("nan"), float("inf"), True, "5", None])
async def test_a_grace_that_is_none(scheduler: Scheduler, grace: Any) -> None:
    """P13: a grace that is no number of seconds is refused, and the scheduler goes on."""
    with pytest.raises(ValueError, match="grace"):
        await scheduler.shutdown(grace)
    assert scheduler.running
