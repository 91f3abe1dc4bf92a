"""APScheduler 4.0 alpha, its data store in memory."""

from datetime import timedelta

from apscheduler import AsyncScheduler, TaskDefaults
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger
from common import Burst, Figures, Stopwatch, due_in, idle, main


async def register(count: int) -> Figures:
    """Named schedules."""
    async with AsyncScheduler() as aps:
        await aps.start_in_background()
        watch = Stopwatch()
        for n in range(count):
            await aps.add_schedule(idle, IntervalTrigger(seconds=3600), id=f"job-{n}")
        return watch.per(count)


async def burst(count: int) -> Figures:
    """Repeating schedules, due at one instant."""
    due = due_in(2 + count * 1500e-6)
    work = Burst(count)
    defaults = TaskDefaults(max_running_jobs=None, misfire_grace_time=timedelta(hours=1))
    async with AsyncScheduler(task_defaults=defaults, max_concurrent_jobs=1000) as aps:
        await aps.start_in_background()
        await aps.configure_task("body", func=work.body, max_running_jobs=None)
        for n in range(count):
            await aps.add_schedule("body", IntervalTrigger(hours=1, start_time=due), id=f"job-{n}")
        return await work.measure(due)


async def cron(count: int) -> Figures:
    """Cron schedules, due at one instant."""
    due = due_in(2 + count * 1500e-6)
    work = Burst(count)
    async with AsyncScheduler(max_concurrent_jobs=1000) as aps:
        await aps.start_in_background()
        await aps.configure_task("body", func=work.body, max_running_jobs=None)
        for n in range(count):
            await aps.add_schedule("body", CronTrigger(second=due.second, timezone="UTC"), id=f"job-{n}")
        return await work.measure(due)


if __name__ == "__main__":
    main({f.__name__: f for f in (register, burst, cron)})
