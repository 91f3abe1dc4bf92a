"""Take an existing APScheduler program across, without losing a row.

    python examples/migrate_apscheduler.py [jobs.db]

``before()`` is the program as it was: SQLAlchemyJobStore on SQLite, ``replace_existing=True``, a listener.
``after()`` is the same program with the facade. Both run here one after the other, on one file, as two releases of
a service would.
"""

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Any

from apscheduler.events import EVENT_JOB_EXECUTED
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from hassette_aps import Scheduler

EXECUTED: list[str] = []


def send_report(to: str) -> None:
    """A job of the program."""
    print(f"    report sent to {to}")


def clean_up() -> None:
    """Another one."""


def archive() -> None:
    """A third one, which nobody registers any more: it lives in the store only."""


def on_executed(event: Any) -> None:
    """The listener that the program always had."""
    EXECUTED.append(event.job_id)


def make_aps(path: Path) -> AsyncIOScheduler:
    """The AsyncIOScheduler, the same before and after."""
    aps = AsyncIOScheduler(timezone="Europe/Berlin", jobstores={"default": SQLAlchemyJobStore(url=f"sqlite:///{path}")})
    aps.add_listener(on_executed, EVENT_JOB_EXECUTED)
    return aps


def show(aps: AsyncIOScheduler) -> None:
    """Print the rows."""
    for job in aps.get_jobs():
        when = f"{job.next_run_time:%Y-%m-%d %H:%M:%S %Z}"
        print(f"    {job.id:8} next run {when}  {job.trigger}  executor={job.executor}")


async def before(path: Path) -> None:
    """The program as it was."""
    aps = make_aps(path)
    aps.start()
    # weekday 0 is Monday here, and a report that is more than a second late is dropped in silence
    aps.add_job(send_report, "cron", day_of_week=0, hour=7, args=["alice"], id="report", replace_existing=True)
    aps.add_job(clean_up, "interval", hours=24, id="cleanup", replace_existing=True)
    aps.add_job(archive, "interval", days=7, id="archive", replace_existing=True)
    show(aps)
    aps.shutdown()
    await asyncio.sleep(0)


async def after(path: Path) -> None:
    """The same program with the facade: the names are the ids, ``"replace"`` takes the rows over where they are."""
    aps = make_aps(path)
    scheduler = Scheduler(aps, jobstore="default")
    # in crontab's numbers Monday is 1
    scheduler.run_cron(send_report, "0 7 * * 1", args=["alice"], name="report", if_exists="replace")
    scheduler.run_every(clean_up, hours=24, name="cleanup", if_exists="replace", mode="single", timeout=600)
    async with scheduler:
        show(aps)
        print(f"  ours:  {', '.join(job.name for job in scheduler.list_jobs())}")
        print(f"  raw:   {', '.join(job.id for job in aps.get_jobs() if scheduler.get_job(job.id) is None)}")
        report = scheduler.get_job("report")
        assert report is not None
        report.submit()
        while "report" not in EXECUTED:
            await asyncio.sleep(0.01)
        print(f"  the old listener heard of: {', '.join(EXECUTED)}")


async def main(path: Path) -> None:
    for title, release in (
        ("before: raw APScheduler", before),
        ("after: the facade takes the rows over", after),
        ("the next restart: nothing moves", after),
    ):
        print(title)
        EXECUTED.clear()
        await release(path)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(main(Path(sys.argv[1])))
    else:
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(main(Path(folder) / "jobs.db"))
