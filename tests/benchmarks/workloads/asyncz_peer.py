"""asyncz, a descendant of APScheduler 3."""

import asyncio
import logging
from typing import Any

from common import Burst, Figures, Stopwatch, due_in, idle, main

logging.disable(logging.WARNING)


def scheduler() -> Any:
    """A running one."""
    from asyncz.schedulers import AsyncIOScheduler

    asyncz = AsyncIOScheduler(timezone="UTC")
    asyncz.start()
    return asyncz


async def register(count: int) -> Figures:
    """Named jobs."""
    asyncz = scheduler()
    watch = Stopwatch()
    for n in range(count):
        asyncz.add_task(fn=idle, trigger="interval", seconds=3600, id=f"job-{n}")
    figures = watch.per(count)
    await asyncio.sleep(0.01)
    return figures


async def burst(count: int) -> Figures:
    """Repeating jobs, due at one instant."""
    due = due_in(2 + count * 500e-6)
    work = Burst(count)
    asyncz = scheduler()
    for n in range(count):
        asyncz.add_task(
            fn=work.body, trigger="interval", hours=1, start_at=due, id=f"job-{n}", mistrigger_grace_time=None
        )
    await asyncio.sleep(0.01)
    return await work.measure(due)


async def cron(count: int) -> Figures:
    """Cron jobs, due at one instant."""
    due = due_in(2 + count * 800e-6)
    work = Burst(count)
    asyncz = scheduler()
    for n in range(count):
        asyncz.add_task(fn=work.body, trigger="cron", second=due.second, id=f"job-{n}", mistrigger_grace_time=None)
    await asyncio.sleep(0.01)
    return await work.measure(due)


if __name__ == "__main__":
    main({f.__name__: f for f in (register, burst, cron)})
