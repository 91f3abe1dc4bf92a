"""Every code example of the user's document, as it stands there, in real Hassette.

Changed are only the base class (the mixin is added) and the import of ``ScheduledJob`` and ``SchedulerErrorContext``.
"""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hassette import App, AppConfig
from hassette.testing import AppTestHarness
from whenever import ZonedDateTime

from hassette_aps import ScheduledJob, SchedulerErrorContext
from hassette_aps.hassette import APSchedulerMixin
from hassette_aps.testing import FrozenClock
from tests.kit import until


def harness(app: type[Any], tmp_path: Path) -> Any:
    """Hassette's own harness around an app."""
    return AppTestHarness(app, config={"instance_name": "demo"}, tmp_path=tmp_path)


class JobApp(APSchedulerMixin, App[AppConfig]):
    async def on_initialize(self):
        job = await self.scheduler.run_every(self.task, seconds=60, name="my_task")
        self.logger.info("Scheduled: %s", job.name)
        self.logger.info("Next run:  %s", job.next_run)
        self.logger.info("Trigger:   %s", job.trigger)
        self.logger.info("Job ID:    %s", job.db_id)

    async def task(self):
        pass


async def test_the_scheduled_job_object(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The ScheduledJob Object: the awaited call gives name, next run, trigger and an int as database id."""
    caplog.set_level("INFO")
    async with harness(JobApp, tmp_path) as h:
        (job,) = h.app.scheduler.list_jobs()
        assert "Scheduled: my_task" in caplog.text
        assert f"Job ID:    {job.db_id}" in caplog.text
        assert isinstance(job.db_id, int)
        assert isinstance(job.next_run, ZonedDateTime)


class CancelApp(APSchedulerMixin, App[AppConfig]):
    async def on_initialize(self):
        # Store the job
        self.my_job = await self.scheduler.run_every(self.task, seconds=60)

    async def cancel_later(self):
        # Later...
        self.my_job.cancel()

    async def task(self):
        pass


async def test_cancelling_jobs(tmp_path: Path) -> None:
    """Cancelling Jobs: ``cancel()`` takes it out of the scheduler."""
    async with harness(CancelApp, tmp_path) as h:
        assert h.app.scheduler.list_jobs() == [h.app.my_job]
        await h.app.cancel_later()
        assert h.app.scheduler.list_jobs() == []


class GroupApp(APSchedulerMixin, App[AppConfig]):
    async def on_initialize(self):
        await self.scheduler.run_daily(self.task, at="08:00", name="blinds", group="morning")
        await self.scheduler.run_daily(self.task, at="08:05", name="music", group="morning")
        await self.scheduler.run_daily(self.task, at="22:00", name="lights")

    async def cancel_morning_jobs(self) -> None:
        self.scheduler.cancel_group("morning")

    async def show_jobs(self) -> None:
        all_jobs = self.scheduler.list_jobs()  # pyright: ignore[reportUnusedVariable]

        morning_jobs = self.scheduler.list_jobs(group="morning")  # pyright: ignore[reportUnusedVariable]
        self.shown = (all_jobs, morning_jobs)

    async def task(self):
        pass


async def test_groups_and_listing(tmp_path: Path) -> None:
    """Cancelling Job Groups, Listing Jobs: removed, recorded as cancelled, the group entry cleared."""
    async with harness(GroupApp, tmp_path) as h:
        await h.app.show_jobs()
        shown = [[job.name for job in jobs] for jobs in h.app.shown]
        assert shown == [["blinds", "music", "lights"], ["blinds", "music"]]
        await h.app.cancel_morning_jobs()
        await h.app.show_jobs()
        assert [[job.name for job in jobs] for jobs in h.app.shown] == [["lights"], []]
        h.app.scheduler.cancel_group("nothing of that name")
        summary = {row.name: row.cancelled_at is not None for row in await h.app.scheduler.facade.summary()}
        assert summary == {"blinds": True, "music": True, "lights": False}


class StateApp(APSchedulerMixin, App[AppConfig]):
    async def on_initialize(self):
        self.my_job = await self.scheduler.run_every(self.task, seconds=60)

    def is_running(self) -> bool:
        return self.my_job in self.scheduler.list_jobs()

    async def safe_cancel(self) -> None:
        if self.my_job is not None:
            self.my_job.cancel()
            self.my_job = None

    async def task(self):
        pass


async def test_checking_cancellation_state(tmp_path: Path) -> None:
    """Checking Cancellation State: ``is_running`` and ``safe_cancel``; cancelling twice is a silent no-op."""
    async with harness(StateApp, tmp_path) as h:
        job = h.app.my_job
        assert not hasattr(job, "cancelled")
        assert h.app.is_running()
        job.cancel()
        assert not h.app.is_running()
        await h.app.safe_cancel()
        await h.app.safe_cancel()
        assert h.app.my_job is None


class NamedJobApp(APSchedulerMixin, App[AppConfig]):
    async def on_initialize(self):
        await self.scheduler.run_every(
            self.tick,
            seconds=60,
            name="heartbeat_monitor",
        )

    async def tick(self):
        pass


async def test_name_your_jobs(tmp_path: Path) -> None:
    """Name your jobs: the name is the key of idempotent registration, with bound methods as well."""
    async with harness(NamedJobApp, tmp_path) as h:
        app = h.app
        (job,) = app.scheduler.list_jobs()
        again = await app.scheduler.run_every(app.tick, seconds=60, name="heartbeat_monitor", if_exists="skip")
        assert again is job
        replaced = await app.scheduler.run_every(app.tick, seconds=30, name="heartbeat_monitor", if_exists="replace")
        assert app.scheduler.list_jobs() == [replaced]


class MyApp(APSchedulerMixin, App[AppConfig]):
    async def on_initialize(self) -> None:
        self.sync_lock = asyncio.Lock()
        await self.scheduler.run_every(self.sync_data, seconds=30)

    async def sync_data(self) -> None:
        if self.sync_lock.locked():
            return  # previous run still in progress — skip this tick
        async with self.sync_lock:
            ...  # do work
            await self.work()

    async def work(self) -> None:
        self.works = [*getattr(self, "works", []), 1]
        await asyncio.Event().wait()


async def test_avoid_overlapping_jobs(tmp_path: Path) -> None:
    """Avoid Overlapping Jobs: several instances run concurrently, and the lock guards the body."""
    async with harness(MyApp, tmp_path) as h:
        with FrozenClock(patience=0.05) as clock:
            await clock.advance(seconds=100)
        assert h.app.works == [1]
        (record,) = [r for r in await h.app.scheduler.facade.history() if r.status != "success"][:1] or [None]
        assert record is None


class PollApp(APSchedulerMixin, App[AppConfig]):
    _poll_job: ScheduledJob | None = None

    async def on_initialize(self):
        # Store a reference so the handler can cancel itself.
        self._poll_job = await self.scheduler.run_every(
            self.wait_for_device,
            seconds=10,
            name="device_poll",
        )

    async def wait_for_device(self):
        state = await self.api.get_state_or_none("sensor.device_status")
        if state is not None and not state.is_unavailable and state.value == "online":
            self.logger.info("Device is online — stopping poll")
            if self._poll_job is not None:
                self._poll_job.cancel()
                self._poll_job = None


async def test_self_cancelling_job_pattern(tmp_path: Path, frozen_clock: FrozenClock) -> None:
    """Self-Cancelling Job Pattern: polls until the device is online, then takes itself out, in the harness's time."""
    async with harness(PollApp, tmp_path) as h:
        answers = [None, SimpleNamespace(is_unavailable=False, value="offline")]
        answers += [SimpleNamespace(is_unavailable=False, value="online")] * 9
        asked: list[str] = []

        async def get_state_or_none(entity: str) -> Any:
            asked.append(entity)
            return answers[len(asked) - 1]

        h.app.api.get_state_or_none = get_state_or_none
        await frozen_clock.advance(minutes=5)
        assert len(asked) == 3
        assert h.app.scheduler.list_jobs() == []
        assert h.app._poll_job is None


class AppErrorApp(APSchedulerMixin, App[AppConfig]):
    async def on_initialize(self) -> None:
        self.scheduler.on_error(self.on_job_error)

        await self.scheduler.run_every(self.check_sensors, minutes=5)

    async def on_job_error(self, ctx: SchedulerErrorContext) -> None:
        self.logger.error(
            "Job '%s' failed: %s\n%s",
            ctx.job_name,
            ctx.exception,
            ctx.traceback,
        )

    async def check_sensors(self) -> None:
        raise ValueError("sensor unavailable")


async def test_app_level_error_handler(
    tmp_path: Path, frozen_clock: FrozenClock, caplog: pytest.LogCaptureFixture
) -> None:
    """App-level error handler: registered in ``on_initialize`` it stays (Hassette loses it); the job is not removed."""
    async with harness(AppErrorApp, tmp_path) as h:
        (job,) = h.app.scheduler.list_jobs()
        await frozen_clock.advance(minutes=11)
        assert caplog.text.count("failed: sensor unavailable") == 2
        assert f"Job error (job_db_id={job.db_id}" in caplog.text
        assert "ValueError: sensor unavailable" in caplog.text
        assert h.app.scheduler.list_jobs() == [job]


class JobErrorApp(APSchedulerMixin, App[AppConfig]):
    async def on_initialize(self) -> None:
        await self.scheduler.run_every(
            self.sync_data,
            minutes=10,
            on_error=self.on_sync_error,
        )

    async def on_sync_error(self, ctx: SchedulerErrorContext) -> None:
        self.logger.warning("Sync failed: %s", ctx.exception)

    async def sync_data(self) -> None:
        raise RuntimeError("sync error")


async def test_per_registration_error_handler(
    tmp_path: Path, frozen_clock: FrozenClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Per-registration error handler: takes precedence over the app-level one."""
    async with harness(JobErrorApp, tmp_path) as h:
        app_level: list[object] = []
        h.app.scheduler.on_error(app_level.append)
        await frozen_clock.advance(minutes=10)
        await until(lambda: "Sync failed: sync error" in caplog.text)
        assert app_level == []
