"""APScheduler 3.11 as it is; grace None, because its default of a second drops most of what is due at one instant."""

import asyncio
import sqlite3
import tempfile
from datetime import timedelta
from time import perf_counter
from typing import Any

from common import CANCELLED, Burst, Figures, Spread, Stopwatch, Wakeups, due_in, idle, main, rss


def scheduler() -> Any:
    """A running one."""
    from apscheduler.schedulers.asyncio import AsyncIOScheduler

    aps = AsyncIOScheduler(timezone="UTC", job_defaults={"misfire_grace_time": None})
    aps.start()
    return aps


async def register(count: int) -> Figures:
    """Named jobs; the wakeups that each one queues are not counted in ``us``."""
    aps = scheduler()
    watch = Stopwatch()
    for n in range(count):
        aps.add_job(idle, "interval", seconds=3600, id=f"job-{n}")
    figures = watch.per(count)
    await asyncio.sleep(0.01)
    figures["cpu_us_written"] = watch.per(count)["cpu_us"]
    return figures


async def filled(count: int) -> Any:
    """One with that many jobs."""
    aps = scheduler()
    for n in range(count):
        aps.add_job(idle, "interval", seconds=3600, id=f"job-{n}")
    await asyncio.sleep(0.01)
    return aps


async def skip(count: int) -> Figures:
    """The same jobs again with ``replace_existing``."""
    aps = await filled(count)
    watch = Stopwatch()
    for n in range(count):
        aps.add_job(idle, "interval", seconds=3600, id=f"job-{n}", replace_existing=True)
    return watch.per(count)


async def cancel(count: int) -> Figures:
    """A thousand jobs one by one: there are no groups."""
    aps = await filled(count)
    watch = Stopwatch()
    for n in range(CANCELLED):
        aps.remove_job(f"job-{n}")
    return watch.per(CANCELLED)


async def burst(count: int) -> Figures:
    """Repeating jobs, due at one instant."""
    due = due_in(1 + count * 250e-6)
    work = Burst(count)
    aps = scheduler()
    for n in range(count):
        aps.add_job(work.body, "interval", hours=1, start_date=due, id=f"job-{n}")
    await asyncio.sleep(0.01)
    return await work.measure(due)


async def stored(count: int) -> Figures:
    """The burst, with a listener that writes a row per run to a SQLite file (WAL, synchronous=NORMAL)."""
    from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_EXECUTED, EVENT_JOB_MISSED

    due = due_in(1 + count * 250e-6)
    work = Burst(count)
    aps = scheduler()
    with tempfile.TemporaryDirectory() as folder:
        conn = sqlite3.connect(f"{folder}/runs.db", isolation_level=None)
        conn.execute("pragma journal_mode=wal")
        conn.execute("pragma synchronous=normal")
        conn.execute("create table runs (id integer primary key, job text, scheduled text, status int, error text)")

        def record(event: Any) -> None:
            error = None if event.exception is None else repr(event.exception)
            row = (event.job_id, event.scheduled_run_time.isoformat(), event.code, error)
            conn.execute("insert into runs (job, scheduled, status, error) values (?, ?, ?, ?)", row)

        aps.add_listener(record, EVENT_JOB_EXECUTED | EVENT_JOB_ERROR | EVENT_JOB_MISSED)
        for n in range(count):
            aps.add_job(work.body, "interval", hours=1, start_date=due, id=f"job-{n}")
        await asyncio.sleep(0.01)

        async def written() -> None:
            while conn.execute("select count(*) from runs").fetchone()[0] < count:
                await asyncio.sleep(0.001)

        return await work.measure(due, written)


async def cron(count: int) -> Figures:
    """Cron jobs, due at one instant."""
    due = due_in(1 + count * 400e-6)
    work = Burst(count)
    aps = scheduler()
    for n in range(count):
        aps.add_job(work.body, "cron", second=due.second, id=f"job-{n}")
    await asyncio.sleep(0.01)
    return await work.measure(due)


async def spread(count: int) -> Figures:
    """One-second jobs over the second."""
    begin = due_in(1.5)
    work = Spread(count)
    aps = scheduler()
    for n in range(count):
        aps.add_job(
            work.body(n), "interval", seconds=1, start_date=begin + timedelta(seconds=work.phase(n)), id=f"job-{n}"
        )
    return await work.measure(begin)


async def far(count: int) -> Figures:
    """One active job among many far ahead."""
    work = Wakeups()
    aps = scheduler()
    for n in range(count):
        aps.add_job(idle, "interval", hours=1000 + n % 1000, id=f"job-{n}")
    await asyncio.sleep(0.01)
    aps.add_job(work.body, "interval", seconds=work.INTERVAL, id="active")
    await asyncio.sleep(0.5)
    return await work.measure()


async def memory(count: int) -> Figures:
    """Resident bytes per job."""
    aps = scheduler()
    before = rss()
    for n in range(count):
        aps.add_job(idle, "interval", seconds=3600, id=f"job-{n}")
        if n % 1000 == 0:
            await asyncio.sleep(0)  # or its queued wakeups would count as well
    await asyncio.sleep(0.01)
    return {"bytes": (rss() - before) / count}


def imported(count: int) -> Figures:
    """Importing its asyncio scheduler, and the two libraries that this package is built on."""
    begin = perf_counter()
    import croniter  # noqa: F401
    from apscheduler.schedulers.asyncio import AsyncIOScheduler  # noqa: F401
    from pydantic import BaseModel  # noqa: F401

    return {"ms": (perf_counter() - begin) * 1e3}


if __name__ == "__main__":
    main({f.__name__: f for f in (register, skip, cancel, burst, stored, cron, spread, far, memory, imported)})
