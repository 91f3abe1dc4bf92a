"""What every workload needs: the jobs, the clocks, how long the loop was held, one line of JSON."""

import asyncio
import gc
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from statistics import median, quantiles
from time import perf_counter, process_time
from typing import Any

Figures = dict[str, float]
CANCELLED = 1_000
"""Size of the group that is cancelled."""


def main(rows: dict[str, Callable[[int], Any]]) -> None:
    """``python peer.py ROW COUNT``: run one row, print its figures."""
    result = rows[sys.argv[1]](int(sys.argv[2]))
    figures: Figures = asyncio.run(result) if asyncio.iscoroutine(result) else result
    sys.stdout.write("\n" + json.dumps(figures) + "\n")
    sys.stdout.flush()
    os._exit(0)  # threads of a peer must not hold up the table


async def idle() -> None:
    """A job that does nothing."""


def due_in(seconds: float) -> datetime:
    """A whole second at least that far ahead."""
    return datetime.fromtimestamp(int(time.time() + seconds) + 1, UTC)


def rss() -> int:
    """Resident memory of this process in bytes."""
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Stopwatch:
    """Microseconds since it was made, on the wall and of this process's processors."""

    def __init__(self) -> None:
        gc.collect()
        self.wall, self.cpu = perf_counter(), process_time()

    def per(self, count: int) -> Figures:
        """Figures for each of ``count`` pieces of work."""
        return {"us": (perf_counter() - self.wall) / count * 1e6, "cpu_us": (process_time() - self.cpu) / count * 1e6}


class Burst:
    """Many jobs due at one instant: when the first body starts, when the last is over, how long the loop is held."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.done = 0
        self.first = self.last = self.held = 0.0
        self.over = asyncio.Event()

    async def body(self) -> None:
        """The job."""
        self.last = perf_counter()
        if not self.done:
            self.first = self.last
        self.done += 1
        if self.done == self.count:
            self.over.set()

    async def measure(self, due: datetime, written: Callable[[], Awaitable[Any]] | None = None) -> Figures:
        """Wait for ``due``, watch until the last body is over, and then until all records are written."""
        gc.collect()
        left = due.timestamp() - time.time() - 0.1
        if left < 0:
            raise RuntimeError("registration took longer than planned")
        await asyncio.sleep(left)
        start, cpu = perf_counter() + due.timestamp() - time.time(), process_time()
        before = perf_counter()
        await asyncio.sleep(start - perf_counter() - 0.005)
        before = perf_counter()
        while not self.over.is_set():  # one pass per loop turn
            await asyncio.sleep(0)
            now = perf_counter()
            self.held, before = max(self.held, now - before), now
            if now - start > 120:
                break
        figures = {
            "us": (self.last - start) / self.count * 1e6,
            "cpu_us": (process_time() - cpu) / self.count * 1e6,
            "first_ms": (self.first - start) * 1e3,
            "held_ms": self.held * 1e3,
            "lost": float(self.count - self.done),
        }
        if written is not None:
            await written()
            figures["cpu_us_written"] = (process_time() - cpu) / self.count * 1e6
        return figures


class Spread:
    """Jobs that run every second, spread over it: how late they start, what a run costs."""

    SECONDS = 5

    def __init__(self, count: int) -> None:
        self.count = count
        self.late: list[float] = []
        self.watching = False

    def body(self, n: int) -> Callable[[], Awaitable[None]]:
        """The nth job, due at ``n / count`` of each second."""
        phase = self.phase(n)

        async def run() -> None:
            if self.watching:
                self.late.append((time.time() - phase + 0.1) % 1.0 - 0.1)

        return run

    def phase(self, n: int) -> float:
        """Its fraction of the second."""
        return n / self.count

    async def measure(self, begin: datetime, written: Callable[[], Awaitable[Any]] | None = None) -> Figures:
        """Watch for some seconds."""
        await asyncio.sleep(max(0.0, begin.timestamp() - time.time()) + 1)
        gc.collect()
        self.watching, cpu = True, process_time()
        await asyncio.sleep(self.SECONDS)
        self.watching = False
        if written is not None:
            await written()
        cpu = process_time() - cpu
        return {
            "p50_ms": median(self.late) * 1e3,
            "p99_ms": quantiles(self.late, n=100)[98] * 1e3,
            "cpu_us": cpu / len(self.late) * 1e6,
            "runs": float(len(self.late)),
        }


class Wakeups:
    """One job that runs often among many that do not: what a wakeup costs."""

    INTERVAL = 0.02
    COUNT = 200

    def __init__(self) -> None:
        self.runs = 0
        self.enough = asyncio.Event()

    async def body(self) -> None:
        """The active job."""
        self.runs += 1
        if self.runs >= self.COUNT:
            self.enough.set()

    async def measure(self, written: Callable[[], Awaitable[Any]] | None = None) -> Figures:
        """Processor time per wakeup."""
        self.runs = 0
        self.enough.clear()
        gc.collect()
        cpu = process_time()
        await self.enough.wait()
        runs = self.runs
        if written is not None:
            await written()
        return {"cpu_us": (process_time() - cpu) / runs * 1e6}
