"""Only type-checked, never run: what editors and type checkers must accept, and what they must refuse.

An ``ignore`` that is not needed is an error here, so each one asserts that the line above its rule is refused.
"""

from datetime import datetime
from typing import assert_type

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from whenever import ZonedDateTime

from hassette_aps import (
    Cron,
    Daily,
    ExecutionRecord,
    Run,
    ScheduledJob,
    Scheduler,
    SchedulerErrorContext,
    SchedulerHealth,
    current_run,
    preview,
)


async def report(name: str) -> int:
    return len(name)


def handler(ctx: SchedulerErrorContext) -> None:
    assert_type(ctx.exception, BaseException)
    assert_type(ctx.job_group, str | None)


async def accepted() -> None:
    scheduler = Scheduler(AsyncIOScheduler(), owner="reports", timezone="Europe/Berlin", max_workers=4)
    scheduler.on_error(handler)
    job = scheduler.run_every(report, minutes=5, args=["a"], name="r", group="g", jitter=30, mode="single")
    assert_type(job, ScheduledJob)
    assert_type(await job, ScheduledJob)
    assert_type(await scheduler.run_cron(report, "0 7 * * *", kwargs={"name": "b"}), ScheduledJob)
    assert_type(job.next_run, ZonedDateTime | None)
    assert_type(job.db_id, int | None)
    assert_type(scheduler.list_jobs(group="g"), list[ScheduledJob])
    assert_type(scheduler.get_job("r"), ScheduledJob | None)
    assert_type(job.submit(), str)
    assert_type(await scheduler.history(job, since=datetime.now().astimezone(), status="error"), list[ExecutionRecord])
    assert_type(scheduler.health(), SchedulerHealth)
    assert_type(current_run(), Run | None)
    assert_type(preview(Cron("0 7 * * *"), 3), list[ZonedDateTime])
    async with scheduler as entered:
        assert_type(entered, Scheduler)


scheduler = Scheduler()


@scheduler.scheduled(Daily("07:00"), args=["c"])
async def decorated(name: str) -> int:
    return len(name)


async def decorated_keeps_its_type() -> None:
    assert_type(await decorated("d"), int)


def refused() -> None:
    scheduler.run_every(report, minutes=5, nmae="typo")  # pyright: ignore[reportCallIssue]
    scheduler.run_every(report, minutes=5, mode="serial")  # pyright: ignore[reportArgumentType]
    scheduler.run_every(report, minutes=5, if_exists="update")  # pyright: ignore[reportArgumentType]
    scheduler.run_minutely(report, minutes="5")  # pyright: ignore[reportArgumentType]
    scheduler.run_in("report", 5)  # pyright: ignore[reportArgumentType]
    scheduler.run_in(report, 5, jitter="1s")  # pyright: ignore[reportArgumentType]
    scheduler.run_once(report, "07:00", if_past="skip")  # pyright: ignore[reportArgumentType]
