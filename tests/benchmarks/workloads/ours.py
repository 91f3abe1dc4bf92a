"""This package: a default ``Scheduler()``, all its duties on, the record of runs in memory or in a file."""

import asyncio
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from time import perf_counter
from typing import Any

from common import CANCELLED, Burst, Figures, Spread, Stopwatch, Wakeups, due_in, idle, main, rss


def scheduler(**settings: Any) -> Any:
    """One that is not started yet."""
    from hassette_aps import Scheduler

    if os.environ.get("EAGER"):
        settings["eager_tasks"] = True
    return Scheduler(**settings)


def written(s: Any) -> Callable[[], Awaitable[bool]]:
    """Wait until everything queued so far is on record."""
    telemetry = s._lifecycle.telemetry
    return lambda: asyncio.to_thread(telemetry.flush, 60)


async def register(count: int) -> Figures:
    """Named jobs; ``cpu_us_written`` includes the writing of their records by another thread."""
    async with scheduler() as s:
        watch = Stopwatch()
        for n in range(count):
            s.run_every(idle, seconds=3600, name=f"job-{n}")
        figures = watch.per(count)
        await written(s)()
        figures["cpu_us_written"] = watch.per(count)["cpu_us"]
        return figures


async def skip(count: int) -> Figures:
    """The same jobs again with ``if_exists="skip"``."""
    async with scheduler() as s:
        for n in range(count):
            s.run_every(idle, seconds=3600, name=f"job-{n}")
        await written(s)()
        watch = Stopwatch()
        for n in range(count):
            s.run_every(idle, seconds=3600, name=f"job-{n}", if_exists="skip")
        return watch.per(count)


async def cancel(count: int) -> Figures:
    """One group."""
    async with scheduler() as s:
        for n in range(count):
            s.run_every(idle, seconds=3600, name=f"job-{n}", group="some" if n < CANCELLED else "rest")
        await written(s)()
        watch = Stopwatch()
        s.cancel_group("some")
        return watch.per(CANCELLED)


async def _burst(s: Any, count: int, due: datetime, trigger: Any, *, records: bool = True) -> Figures:
    work = Burst(count)
    async with s:
        for n in range(count):
            s.schedule(work.body, trigger, name=f"job-{n}")
        if records:
            await written(s)()
        figures = await work.measure(due, written(s) if records else None)
        if records:
            figures["dropped"] = float(s._lifecycle.telemetry.health().dropped)
        return figures


async def burst(count: int) -> Figures:
    """Repeating jobs, due at one instant."""
    from hassette_aps import Every

    due = due_in(2 + count * 250e-6)
    return await _burst(scheduler(), count, due, Every(hours=1, start=due))


async def unrecorded(count: int) -> Figures:
    """The burst with ``database=None``."""
    from hassette_aps import Every

    due = due_in(2 + count * 250e-6)
    return await _burst(scheduler(database=None), count, due, Every(hours=1, start=due), records=False)


async def stored(count: int) -> Figures:
    """The burst, every run stored in a SQLite file."""
    from hassette_aps import Every

    due = due_in(3 + count * 300e-6)
    with tempfile.TemporaryDirectory() as folder:
        s = scheduler(database=f"sqlite:///{folder}/runs.db")
        return await _burst(s, count, due, Every(hours=1, start=due))


async def cron(count: int) -> Figures:
    """Cron jobs, due at one instant."""
    from hassette_aps import Cron

    due = due_in(2 + count * 400e-6)
    return await _burst(scheduler(timezone="UTC"), count, due, Cron(f"* * * * * {due.second}"))


async def spread(count: int) -> Figures:
    """One-second jobs over the second."""
    from hassette_aps import Every

    begin = due_in(1.5)
    work = Spread(count)
    async with scheduler() as s:
        for n in range(count):
            s.schedule(work.body(n), Every(seconds=1, start=begin + timedelta(seconds=work.phase(n))), name=f"job-{n}")
        await written(s)()
        return await work.measure(begin, written(s))


async def far(count: int) -> Figures:
    """One active job among many far ahead."""
    work = Wakeups()
    async with scheduler() as s:
        for n in range(count):
            s.run_every(idle, hours=1000 + n % 1000, name=f"job-{n}")
        await written(s)()
        s.run_every(work.body, seconds=work.INTERVAL, name="active")
        await asyncio.sleep(0.5)
        return await work.measure(written(s))


async def memory(count: int) -> Figures:
    """Resident bytes per job, its row in the database in memory included."""
    return await _memory(scheduler(), count)


async def memory_unrecorded(count: int) -> Figures:
    """Resident bytes per job with ``database=None``."""
    return await _memory(scheduler(database=None), count)


async def _memory(s: Any, count: int) -> Figures:
    async with s:
        recorded = s._lifecycle.telemetry is not None
        before = rss()
        for n in range(count):
            s.run_every(idle, seconds=3600, name=f"job-{n}")
            if recorded and n % 1000 == 0:
                await written(s)()  # or what waits to be written would count as well
        if recorded:
            await written(s)()
        return {"bytes": (rss() - before) / count}


def imported(count: int) -> Figures:
    """Importing the package."""
    begin = perf_counter()
    import hassette_aps  # noqa: F401

    return {"ms": (perf_counter() - begin) * 1e3, "sqlalchemy": float("sqlalchemy" in sys.modules)}


if __name__ == "__main__":
    main(
        {
            f.__name__: f
            for f in (
                register,
                skip,
                cancel,
                burst,
                unrecorded,
                stored,
                cron,
                spread,
                far,
                memory,
                memory_unrecorded,
                imported,
            )
        }
    )
