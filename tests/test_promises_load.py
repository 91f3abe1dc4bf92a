"""P5 and P12 under load: cancels from threads, ten thousand jobs at one instant, memory over many runs."""

import asyncio
import gc
import logging
import os
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hassette_aps import Scheduler
from hassette_aps.triggers import Once
from tests.kit import until


async def test_600_jobs_cancelled_from_threads_start_no_more(scheduler: Scheduler) -> None:
    """P5: once ``cancel()`` has returned, in whatever thread, no run of that job starts."""
    cancelled: dict[int, int] = {}
    late: list[int] = []
    starts = 0

    async def on_loop(number: int) -> None:
        nonlocal starts
        starts += 1
        if number in cancelled:
            late.append(number)

    def in_thread(number: int) -> None:
        if number in cancelled:
            late.append(number)

    jobs = [
        scheduler.run_every(
            on_loop if number % 3 else in_thread, seconds=0.01 + number % 7 / 500, name=f"job-{number}", args=(number,)
        )
        for number in range(600)
    ]
    go = threading.Event()

    def cancel(first: int) -> None:
        go.wait()
        for number in range(first, 600, 12):
            jobs[number].cancel()
            cancelled[number] = 1
            time.sleep(0.001)

    threads = [threading.Thread(target=cancel, args=(first,)) for first in range(12)]
    for thread in threads:
        thread.start()
    await until(lambda: starts > 600)
    go.set()
    await until(lambda: len(cancelled) == 600)
    for thread in threads:
        thread.join()
    await asyncio.sleep(0.1)
    assert not late
    assert scheduler.list_jobs() == []


class Watch:
    """How long the loop was held, in CPU time of its own thread: other processes do not count."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._last = time.thread_time()
        self._handle: asyncio.Handle | None = None

    def __enter__(self) -> "Watch":
        self._last = time.thread_time()
        self._turn()
        return self

    def _turn(self) -> None:
        now = time.thread_time()
        self.longest = max(self.longest, now - self._last)
        self._last = now
        self._handle = asyncio.get_running_loop().call_soon(self._turn)

    def __exit__(self, *exc: object) -> None:
        assert self._handle is not None
        self._handle.cancel()


async def ten_thousand_at_once() -> tuple[int, float, float]:
    """How many of 10,000 ran, how late the latest was, how long the loop was held at most."""
    lateness: list[float] = []
    async with Scheduler(timezone="UTC", database=None) as scheduler:
        at = datetime.now(UTC) + timedelta(seconds=1.5)

        async def job() -> None:
            lateness.append(time.time() - at.timestamp())

        trigger = Once(at)
        for number in range(10_000):
            scheduler.schedule(job, trigger, name=f"job-{number}")
        gc.collect()
        with Watch() as watch:
            await until(lambda: len(lateness) == 10_000)
    return len(lateness), max(lateness), watch.longest


@pytest.mark.no_cover  # a tracer would be measured along
async def test_ten_thousand_jobs_at_one_instant() -> None:
    """P12: all run, none later than a second, and the loop is never held for more than 50 ms; the best of three."""
    best = (0, 9.0, 9.0)
    for _ in range(3):
        found = await ten_thousand_at_once()
        assert found[0] == 10_000
        best = min(best, found, key=lambda one: max(one[1] / 1.0, one[2] / 0.05))
        if best[1] < 1 and best[2] < 0.05:
            break
    assert best[1] < 1.0, best
    assert best[2] < 0.05, best


RUNS = int(os.environ.get("TEST_RUNS", "120000"))
"""``TEST_RUNS=500000 pytest tests/test_promises_load.py -k flat`` makes half a million."""


@pytest.mark.no_cover  # a tracer would be measured along
@pytest.mark.timeout(900)
async def test_memory_stays_flat_over_many_runs(tmp_path: Path) -> None:
    """P12: runs, failures, one-shots, replacements and their records leave nothing behind in memory."""
    done = 0

    async def quick() -> None:
        nonlocal done
        done += 1

    async def failing() -> None:
        nonlocal done
        done += 1
        raise ValueError("on purpose")

    async def handler(context: Any) -> None:
        pass

    logger = logging.getLogger("hassette_aps.test_memory")
    logger.setLevel(logging.CRITICAL + 1)
    database = f"sqlite:///{tmp_path}/runs.db"
    async with Scheduler(timezone="UTC", database=database, retention_rows=5_000, logger=logger) as scheduler:
        scheduler.on_error(handler)
        jobs = [scheduler.run_every(quick, hours=1, name=f"quick-{number}") for number in range(20)]
        jobs.append(scheduler.run_every(quick, hours=1, name="single", mode="single"))
        jobs.append(scheduler.run_every(quick, hours=1, name="queued", mode="queued"))
        seldom = scheduler.run_every(failing, hours=1, name="failing", jitter=1)

        async def up_to(count: int) -> tuple[int, int]:
            turns = 0
            while done < count:
                for job in jobs:
                    job.submit()
                turns += 1
                if turns % 25 == 0:
                    seldom.submit()
                    scheduler.run_in(quick, 0.001)
                    scheduler.run_every(quick, hours=1, name="replaced", if_exists="replace")
                    while scheduler.health().queue_length > 2_000:
                        await asyncio.sleep(0.005)
                await asyncio.sleep(0)
            await until(lambda: scheduler.health().running == 0 and scheduler.health().queue_length == 0, 60)
            gc.collect()
            return len(gc.get_objects()), _resident()

        await up_to(RUNS // 3)
        objects, resident = await up_to(RUNS // 2)
        objects_after, resident_after = await up_to(RUNS)
        assert scheduler.health().dropped_records == 0
        assert objects_after - objects < 2_000
        assert resident_after - resident < 4_000_000


def _resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
