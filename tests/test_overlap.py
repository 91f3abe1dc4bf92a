"""Overlap modes (8.4, P8)."""

import asyncio
import logging
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from hassette_aps import EVENT_RUN_CANCELLED, Scheduler
from hassette_aps.testing import FrozenClock
from tests.kit import Recorded, in_progress, until


class Gate:
    """A job that stays in progress until it is let go."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.started = 0
        self.running = 0
        self.most = 0

    async def run(self) -> None:
        self.started += 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.open.wait()
        finally:
            self.running -= 1


@pytest.fixture
async def gate() -> Gate:
    """A closed gate."""
    return Gate()


async def test_parallel_starts_every_due_run(scheduler: Scheduler, gate: Gate) -> None:
    """8.4: the default is ``parallel``."""
    job = scheduler.run_every(gate.run, hours=1)
    assert job.mode == "parallel"
    for _ in range(5):
        job.submit()
    await until(lambda: gate.running == 5)
    gate.open.set()


async def test_single_suppresses(scheduler: Scheduler, gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    """8.4: ``single`` drops a run while one is in progress: recorded ``suppressed``, logged at DEBUG."""
    caplog.set_level(logging.DEBUG, "hassette_aps")
    recorded = Recorded(scheduler)
    job = scheduler.run_every(gate.run, hours=1, mode="single", name="x")
    for _ in range(3):
        job.submit()
    await until(lambda: len(recorded.records) == 2)
    gate.open.set()
    await until(lambda: len(recorded.records) == 3)
    assert recorded.statuses() == ["suppressed", "suppressed", "success"]
    assert gate.most == 1
    assert {r.levelno for r in caplog.records if "suppressed" in r.message} == {logging.DEBUG}


async def test_queued_runs_in_order_at_most_ten_waiting(scheduler: Scheduler, gate: Gate) -> None:
    """8.4: ``queued`` runs one after the other in order; the newest beyond ten waiting is dropped."""
    recorded = Recorded(scheduler)
    job = scheduler.run_every(gate.run, hours=1, mode="queued")
    ids = [job.submit() for _ in range(13)]
    await until(lambda: len(recorded.records) == 2)
    gate.open.set()
    await until(lambda: len(recorded.records) == 13)
    assert gate.most == 1
    assert [r.execution_id for r in recorded.records if r.status == "dropped"] == ids[11:]
    assert [r.execution_id for r in recorded.records if r.status == "success"] == ids[:11]


async def test_restart_cancels_the_running_one_first(scheduler: Scheduler, gate: Gate) -> None:
    """8.4, 11.15: ``restart`` cancels: no handler, no EVENT_JOB_ERROR, an event of our own; never two at once."""
    recorded = Recorded(scheduler)
    contexts: list[object] = []
    events: list[object] = []
    scheduler.on_error(contexts.append)
    scheduler.aps.add_listener(events.append)
    cancelled: list[object] = []
    scheduler.aps.add_listener(cancelled.append, EVENT_RUN_CANCELLED)
    job = scheduler.run_every(gate.run, hours=1, mode="restart")
    for n in range(3):
        job.submit()
        await until(lambda n=n: gate.started == n + 1)
    gate.open.set()
    await until(lambda: len(recorded.records) == 3)
    assert recorded.statuses() == ["cancelled", "cancelled", "success"]
    assert gate.most == 1
    assert contexts == []
    assert len(cancelled) == 2
    assert not [event for event in events if getattr(event, "exception", None)]


async def test_restart_waits_for_a_slow_cleanup(scheduler: Scheduler) -> None:
    """P8: the new run starts only when the cancelled one has its verdict."""
    running: list[int] = []
    most: list[int] = []

    async def cleans_up() -> None:
        running.append(1)
        most.append(len(running))
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0.05)
            raise
        finally:
            running.pop()

    job = scheduler.run_every(cleans_up, hours=1, mode="restart")
    for _ in range(4):
        job.submit()
        await asyncio.sleep(0.02)
    assert max(most) == 1


async def test_restart_leaves_a_thread_behind(scheduler: Scheduler, caplog: pytest.LogCaptureFixture) -> None:
    """P8: a plain function cannot be cancelled; it is recorded, its thread reported as left behind."""
    release = threading.Event()
    recorded = Recorded(scheduler)
    job = scheduler.run_every(release.wait, hours=1, mode="restart", args=[10], name="x")
    job.submit()
    await in_progress(scheduler)
    await asyncio.sleep(0.05)
    job.submit()
    await until(lambda: recorded.statuses() == ["cancelled"])
    assert "left behind" in caplog.text
    assert scheduler.health().leaked_threads == 1
    release.set()
    await until(lambda: recorded.statuses() == ["cancelled", "success"])
    await until(lambda: scheduler.health().leaked_threads == 0)


async def test_the_next_tick_is_from_the_grid(scheduler: Scheduler, frozen_clock: FrozenClock, gate: Gate) -> None:
    """8.4: the next tick is computed from the grid, never from when a run ended."""
    frozen_clock.freeze("2026-05-01T10:00:00+00:00")
    job = scheduler.run_every(gate.run, minutes=1, mode="single")
    await frozen_clock.advance(seconds=90)
    gate.open.set()
    await frozen_clock.trigger_due_jobs()
    assert str(job.next_run) == "2026-05-01T10:02:00+00:00[UTC]"


async def test_a_guard_held_for_long_is_named_once(
    scheduler: Scheduler, frozen_clock: FrozenClock, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    """8.4: a guard held for over 60 s gives one WARNING that names the run."""
    scheduler.run_every(gate.run, seconds=10, mode="single", name="stuck")
    await frozen_clock.advance(minutes=5)
    warnings = [r.getMessage() for r in caplog.records if "holds back" in r.message]
    assert len(warnings) == 1
    assert "'stuck'" in warnings[0]
    gate.open.set()


async def test_a_failed_run_releases_its_guard(scheduler: Scheduler) -> None:
    """8.4: an error is a verdict; the next run starts."""

    async def fails() -> None:
        raise ValueError

    recorded = Recorded(scheduler)
    job = scheduler.run_every(fails, hours=1, mode="single")
    for _ in range(3):
        before = len(recorded.records)
        job.submit()
        await until(lambda before=before: len(recorded.records) > before)
    assert recorded.statuses() == ["error"] * 3


async def test_waiting_runs_of_a_cancelled_job_do_not_start(scheduler: Scheduler, gate: Gate) -> None:
    """P5: runs that wait in a queue do not start after ``cancel()``."""
    recorded = Recorded(scheduler)
    job = scheduler.run_every(gate.run, hours=1, mode="queued")
    for _ in range(4):
        job.submit()
    await until(lambda: gate.started == 1)
    job.cancel()
    gate.open.set()
    await until(lambda: len(recorded.records) == 4)
    assert gate.started == 1
    assert recorded.statuses() == ["success", "cancelled", "cancelled", "cancelled"]


async def test_default_mode_is_a_setting() -> None:
    """11.19: ``default_mode`` holds for jobs that name none."""
    async with Scheduler(timezone="UTC", default_mode="single") as scheduler:
        assert scheduler.run_every(time.time, hours=1).mode == "single"
        assert scheduler.run_every(time.time, hours=2, mode="queued").mode == "queued"


@pytest.mark.parametrize("how", ["cancel", "cancel_job", "cancel_group"])
@pytest.mark.parametrize("plain", [True, False], ids=["plain", "coroutine"])
async def test_a_job_that_cancels_itself_finishes(scheduler: Scheduler, how: str, plain: bool) -> None:
    """4.3, P5: self-cancel, by handle, scheduler or group, never kills its own caller; no further run starts."""
    recorded = Recorded(scheduler)
    done: list[int] = []

    def cancel() -> None:
        {
            "cancel": job.cancel,
            "cancel_job": lambda: scheduler.cancel_job(job),
            "cancel_group": lambda: scheduler.cancel_group("g"),
        }[how]()

    def plain_job() -> None:
        cancel()
        done.append(1)

    async def coroutine_job() -> None:
        cancel()
        await asyncio.sleep(0.02)
        done.append(1)

    job = scheduler.run_every(plain_job if plain else coroutine_job, seconds=0.02, mode="queued", group="g")
    await until(lambda: "success" in recorded.statuses())
    assert done == [1]
    assert [status for status in recorded.statuses() if status != "coalesced"] == ["success"]
    assert scheduler.list_jobs() == []
    await asyncio.sleep(0.05)
    assert done == [1]


async def test_a_cancelled_group_starts_no_run(scheduler: Scheduler) -> None:
    """P5: of a group cancelled at the instant at which all of it is due, nothing starts after the call."""
    started: list[int] = []
    at = datetime.now(UTC) + timedelta(seconds=0.2)

    async def work() -> None:
        started.append(1)

    for n in range(300):
        scheduler.run_once(work, at, name=str(n), group="g")
    await asyncio.sleep(0.15)
    while datetime.now(UTC) < at:  # hold the loop until all are due
        pass
    scheduler.cancel_group("g")
    before = len(started)
    await asyncio.sleep(0.1)
    assert len(started) == before
    assert scheduler.list_jobs() == []
