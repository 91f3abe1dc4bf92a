"""What the simulator found, each as the smallest case that shows it."""

import asyncio
from typing import Any

from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from hassette_aps import Scheduler
from tests.kit import CALLS, called_async, fails, until


async def test_plain_error_handlers_work_after_a_second_start() -> None:
    """10.4: shutdown and start again: a plain error handler is called as before."""
    told: list[Any] = []
    scheduler = Scheduler(timezone="UTC", database=None)
    scheduler.on_error(told.append)
    for _ in range(2):
        told.clear()
        async with scheduler:
            scheduler.run_in(fails, 0.001)
            await until(lambda: told, 3)


async def test_rows_of_an_earlier_start_run_on_our_executor(tmp_path: Any) -> None:
    """11.17: a row that nobody registers again keeps running, and its runs succeed."""
    statuses: list[str] = []

    async def told(record: Any) -> None:
        statuses.append(record.status)

    for start in range(2):
        aps = AsyncIOScheduler(timezone="UTC")
        aps.add_jobstore(SQLAlchemyJobStore(f"sqlite:///{tmp_path}/jobs.db"), "kept")
        async with Scheduler(aps, database=None) as scheduler:
            scheduler.on_run(told)
            if start == 0:
                scheduler.run_every(called_async, seconds=0.05, name="row", jobstore="kept")
            else:
                await until(lambda: len(CALLS) >= 2)
                await asyncio.sleep(0)
    assert set(statuses) == {"success"}
