"""The examples of the user's document, line by line, on a plain Scheduler."""

import asyncio
import logging
from typing import Any

import pytest
from whenever import ZonedDateTime

from hassette_aps import ScheduledJob, Scheduler, SchedulerErrorContext
from hassette_aps.testing import FrozenClock
from tests.kit import until


class App:
    """What a Hassette app has at hand."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.logger = logging.getLogger("tests.app")
        self.calls: list[str] = []

    async def task(self) -> None:
        self.calls.append("task")


@pytest.fixture
def app(scheduler: Scheduler) -> App:
    """An app with a started scheduler."""
    return App(scheduler)


async def test_the_scheduled_job_object(app: App) -> None:
    """The ScheduledJob Object: awaited registration, name, next run, trigger, id."""
    job = await app.scheduler.run_every(app.task, seconds=60, name="my_task")
    assert job.name == "my_task"
    assert isinstance(job.next_run, ZonedDateTime)
    assert job.trigger is not None
    assert isinstance(job.db_id, int)
    assert isinstance(job.job_id, int)
    assert job.group is None
    assert job.jitter is None


async def test_cancelling_jobs(app: App, frozen_clock: FrozenClock) -> None:
    """Cancelling Jobs: to stop a job from running, call ``cancel()``."""
    my_job = await app.scheduler.run_every(app.task, seconds=60)
    await frozen_clock.advance(seconds=60)
    my_job.cancel()
    await frozen_clock.advance(seconds=600)
    assert app.calls == ["task"]


async def test_cancelling_job_groups(app: App) -> None:
    """Cancelling Job Groups: each job of the group is removed and recorded; no-op if it does not exist."""
    morning = [await app.scheduler.run_every(app.task, seconds=n, group="morning") for n in (60, 61)]
    evening = await app.scheduler.run_every(app.task, seconds=62, group="evening")
    app.scheduler.cancel_group("morning")
    app.scheduler.cancel_group("nothing")
    assert app.scheduler.list_jobs() == [evening]
    assert app.scheduler.list_jobs(group="morning") == []
    summary = {row.name: row for row in await app.scheduler.summary()}
    assert all(summary[job.name].cancelled_at is not None for job in morning)
    assert summary[evening.name].cancelled_at is None


async def test_checking_cancellation_state(app: App) -> None:
    """Checking Cancellation State: ask ``list_jobs()``; there is no ``cancelled``; cancelling twice is silent."""
    my_job = await app.scheduler.run_every(app.task, seconds=60)
    assert my_job in app.scheduler.list_jobs()
    my_job.cancel()
    my_job.cancel()
    assert my_job not in app.scheduler.list_jobs()
    assert not hasattr(my_job, "cancelled")


async def test_name_your_jobs(app: App) -> None:
    """Best Practices: ``if_exists="skip"`` never duplicates a job, ``"replace"`` takes effect at once."""
    first = await app.scheduler.run_every(app.task, seconds=60, name="sensor_check", if_exists="skip")
    again = await app.scheduler.run_every(app.task, seconds=60, name="sensor_check", if_exists="skip")
    assert again is first
    replaced = await app.scheduler.run_every(app.task, seconds=30, name="sensor_check", if_exists="replace")
    assert app.scheduler.list_jobs() == [replaced]


async def test_avoiding_overlap_with_a_lock(app: App) -> None:
    """Avoid Overlapping Jobs: runs overlap by default; a lock in the body guards it."""
    sync_lock = asyncio.Lock()
    entered: list[str] = []
    go = asyncio.Event()

    async def sync_data() -> None:
        if sync_lock.locked():
            entered.append("skipped")
            return
        async with sync_lock:
            entered.append("working")
            await go.wait()

    job = await app.scheduler.run_every(sync_data, seconds=30)
    job.submit()
    job.submit()
    await until(lambda: len(entered) == 2)
    assert entered == ["working", "skipped"]
    go.set()


async def test_self_cancelling_job_pattern(app: App, frozen_clock: FrozenClock) -> None:
    """Self-Cancelling Job Pattern: poll until a condition is met, then cancel from inside."""
    poll_job: ScheduledJob | None = None
    polls: list[int] = []

    async def wait_for_device() -> None:
        nonlocal poll_job
        polls.append(1)
        if len(polls) == 3 and poll_job is not None:
            poll_job.cancel()
            poll_job = None

    poll_job = await app.scheduler.run_every(wait_for_device, seconds=10, name="device_poll")
    await frozen_clock.advance(minutes=5)
    assert len(polls) == 3
    assert app.scheduler.list_jobs() == []


async def test_run_once_today_or_tomorrow(frozen_clock: FrozenClock) -> None:
    """Job Not Running?: ``run_once(at="07:00")`` fires at 7 AM today, or tomorrow if that has passed."""
    frozen_clock.freeze("2026-05-01T06:00:00+00:00")
    async with Scheduler(timezone="UTC") as scheduler:
        task = App(scheduler).task
        assert str(scheduler.run_once(task, at="07:00").next_run) == "2026-05-01T07:00:00+00:00[UTC]"
        assert str(scheduler.run_once(task, at="05:00").next_run) == "2026-05-02T05:00:00+00:00[UTC]"
        assert str(scheduler.run_cron(task, "5 * * * *").next_run) == "2026-05-01T06:05:00+00:00[UTC]"


async def test_app_level_error_handler(app: App, caplog: pytest.LogCaptureFixture) -> None:
    """App-level error handler: registered first, called with name, exception and traceback; the job goes on."""

    async def on_job_error(ctx: SchedulerErrorContext) -> None:
        app.logger.error("Job '%s' failed: %s\n%s", ctx.job_name, ctx.exception, ctx.traceback)
        app.calls.append(ctx.job_name)

    async def check_sensors() -> None:
        raise ValueError("sensor unavailable")

    app.scheduler.on_error(on_job_error)
    job = await app.scheduler.run_every(check_sensors, minutes=5)
    job.submit()
    await until(lambda: app.calls)
    assert f"Job '{job.name}' failed: sensor unavailable" in caplog.text
    assert f"Job error (job_db_id={job.db_id}" in caplog.text
    assert job in app.scheduler.list_jobs()


async def test_per_registration_error_handler(app: App) -> None:
    """Per-registration error handler: takes precedence over the app-level one; both kinds may be sync."""
    got: list[Any] = []
    app.scheduler.on_error(lambda ctx: got.append("app"))

    async def sync_data() -> None:
        raise RuntimeError("sync error")

    job = await app.scheduler.run_every(sync_data, minutes=10, on_error=lambda ctx: got.append(str(ctx.exception)))
    job.submit()
    await until(lambda: got)
    assert got == ["sync error"]


async def test_error_handler_failures_are_counted(app: App, caplog: pytest.LogCaptureFixture) -> None:
    """Error handler failures: logged and counted; the job's record is unaffected."""

    def broken(ctx: object) -> None:
        raise RuntimeError("handler broke")

    async def fails() -> None:
        raise ValueError

    job = await app.scheduler.run_every(fails, minutes=10, on_error=broken)
    job.submit()
    await until(lambda: app.scheduler.error_handler_failures == 1)
    assert "handler broke" in caplog.text
    assert [record.status for record in await app.scheduler.history(job)] == ["error"]
