"""The limit: a heap, one timer, one task per run, nothing else."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from heapq import heappop, heappush
from typing import Any

from common import Burst, Figures, Spread, Wakeups, due_in, idle, main

Body = Callable[[], Awaitable[Any]]


class Heap:
    """Jobs by due time."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.heap: list[tuple[float, int, float, Body]] = []
        self.tasks: set[Any] = set()

    def add(self, when: float, interval: float, body: Body) -> None:
        """Run ``body`` at ``when`` and every ``interval`` seconds after."""
        heappush(self.heap, (when, len(self.heap), interval, body))

    def fire(self) -> None:
        """Start what is due, then sleep until the next."""
        now = time.time()
        while self.heap[0][0] <= now:
            when, number, interval, body = heappop(self.heap)
            heappush(self.heap, (when + interval, number, interval, body))
            task: Any = self.loop.create_task(body())  # type: ignore[arg-type]
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
        self.loop.call_later(max(0.0, self.heap[0][0] - time.time()), self.fire)


async def burst(count: int) -> Figures:
    """Repeating jobs, due at one instant."""
    due = due_in(1 + count * 20e-6)
    work, heap = Burst(count), Heap()
    for _ in range(count):
        heap.add(due.timestamp(), 3600, work.body)
    heap.fire()
    return await work.measure(due)


async def spread(count: int) -> Figures:
    """One-second jobs over the second."""
    begin = due_in(1.5)
    work, heap = Spread(count), Heap()
    for n in range(count):
        heap.add(begin.timestamp() + work.phase(n), 1.0, work.body(n))
    heap.fire()
    return await work.measure(begin)


async def far(count: int) -> Figures:
    """One active job among many far ahead."""
    work, heap, now = Wakeups(), Heap(), time.time()
    for n in range(count):
        heap.add(now + 3600 * (1000 + n % 1000), 3600, idle)
    heap.add(now + 0.5, work.INTERVAL, work.body)
    heap.fire()
    await asyncio.sleep(1)
    return await work.measure()


if __name__ == "__main__":
    main({f.__name__: f for f in (burst, spread, far)})
