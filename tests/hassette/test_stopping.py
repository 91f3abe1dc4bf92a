"""Apps that stop in the middle of something: what was told, what is left."""

import asyncio
from pathlib import Path

import pytest

from tests.hassette.apps import app_of, left_of, loaded, made
from tests.kit import until

QUIET = {"ERROR", "WARNING"}


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Errors and warnings in the log, without Hassette's remark that the harness has no database session."""
    texts = [r.getMessage() for r in caplog.records if r.levelname in QUIET]
    return [text for text in texts if "session_id unavailable" not in text]


@pytest.mark.parametrize("what", ["app", "Hassette"])
async def test_hooks_hear_of_runs_that_the_stop_cancels(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    """10.1: buckets are sealed when Hassette cancels a run; its verdict reaches hooks and record all the same."""
    async with loaded(
        tmp_path,
        one="""
        class TheApp(APSchedulerMixin, App[AppConfig]):
            async def on_initialize(self):
                self.heard = []
                self.scheduler.on_run(self.hear)
                self.scheduler.on_run(self.hear_plain)
                self.job = self.scheduler.run_in(self.slow, 0.01, name="slow")
                self.begun = asyncio.Event()
            async def slow(self):
                self.begun.set()
                await asyncio.sleep(60)
            async def hear(self, record):
                self.heard.append(record.status)
            def hear_plain(self, record):
                self.heard.append(record.status)
        """,
    ) as harness:
        app = app_of(harness, "one")
        await app.begun.wait()
        if what == "Hassette":  # all of it stops: its own bucket, that of tasks without another one, is sealed first
            harness.hassette.task_bucket.seal()
        await app.shutdown()
        harness.hassette.task_bucket.reopen()
        assert app.heard == ["cancelled", "cancelled"]
        assert left_of(app) == []
        assert [r.status for r in await app.scheduler.facade.history()] == ["cancelled"]
        assert complaints(caplog) == []


async def test_a_run_that_fails_while_it_is_cancelled(tmp_path: Path) -> None:
    """9.1: an exception raised during the cancellation is told to the app's handler, which may take its time."""
    async with loaded(
        tmp_path,
        one="""
        class TheApp(APSchedulerMixin, App[AppConfig]):
            async def on_initialize(self):
                self.told = []
                self.scheduler.on_error(self.on_job_error)
                self.scheduler.run_in(self.slow, 0.01, name="slow")
                self.begun = asyncio.Event()
            async def slow(self):
                self.begun.set()
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    raise RuntimeError("could not tidy up")
            async def on_job_error(self, ctx):
                await asyncio.sleep(0.05)
                self.told.append(str(ctx.exception))
        """,
    ) as harness:
        app = app_of(harness, "one")
        await app.begun.wait()
        await harness.app_handler.stop_app("one")
        assert app.told == ["could not tidy up"]
        assert left_of(app) == []


async def test_what_jobs_and_handlers_start_is_the_apps(tmp_path: Path) -> None:
    """Tasks that a job or an error handler starts are tracked in their own app's bucket, and end with it."""
    async with loaded(
        tmp_path,
        one="""
        class TheApp(APSchedulerMixin, App[AppConfig]):
            async def on_initialize(self):
                self.tasks = []
                self.scheduler.run_in(self.start, 0.01)
                self.scheduler.run_in(self.start_plain, 0.01)
                self.scheduler.run_in(self.fail, 0.01, on_error=self.start_from_handler)
            async def start(self):
                self.tasks.append(asyncio.create_task(asyncio.sleep(60)))
            def start_plain(self):
                self.tasks.append(self.task_bucket.spawn(asyncio.sleep(60)))
            async def fail(self):
                raise ValueError
            async def start_from_handler(self, ctx):
                self.tasks.append(asyncio.create_task(asyncio.sleep(60)))
        """,
        two="""
        class TheApp(APSchedulerMixin, App[AppConfig]):
            pass
        """,
    ) as harness:
        app = app_of(harness, "one")
        await until(lambda: len(app.tasks) == 3)
        assert set(app.tasks) <= set(app.task_bucket.pending_tasks())
        await harness.app_handler.stop_app("one")
        assert all(task.cancelled() for task in app.tasks)
        assert left_of(app) == []


async def test_a_stop_that_runs_out_of_time(tmp_path: Path) -> None:
    """Hassette gives a stop its time, then cuts it off: the timers end all the same, nothing fires afterwards."""
    async with loaded(
        tmp_path,
        settings={"lifecycle": {"app_shutdown_timeout_seconds": 2}},
        one="""
        import threading
        class TheApp(APSchedulerMixin, App[AppConfig]):
            ticks = 0
            async def on_initialize(self):
                self.release = threading.Event()
                self.begun = []
                self.scheduler.run_in(self.plain, 0.01)
                self.scheduler.run_in(self.fail, 0.01, on_error=self.stuck)
                self.scheduler.run_every(self.tick, seconds=0.01)
            def tick(self):
                self.ticks += 1
            def plain(self):
                self.begun.append("plain")
                self.release.wait(20)
            async def fail(self):
                raise ValueError
            async def stuck(self, ctx):
                self.begun.append("handler")
                await asyncio.sleep(60)
        """,
    ) as harness:
        app = app_of(harness, "one")
        await until(lambda: len(app.begun) == 2 and app.ticks)
        try:
            await harness.app_handler.stop_app("one")
            ticks = app.ticks
            await until(lambda: left_of(app) == [], 1)
            await asyncio.sleep(0.05)
            assert app.ticks == ticks
            assert app.scheduler.facade.health().recording is False
            assert [r.status for r in await app.scheduler.facade.history("plain:after:0.01")] == ["cancelled"]
        finally:
            app.release.set()


async def test_an_initialisation_that_takes_too_long(tmp_path: Path) -> None:
    """Hassette gives up an ``on_initialize`` that hangs: its jobs end with it."""
    async with loaded(
        tmp_path,
        unawaited="one",
        settings={"lifecycle": {"app_startup_timeout_seconds": 1}},
        one="""
        MADE = []
        class TheApp(APSchedulerMixin, App[AppConfig]):
            async def on_initialize(self):
                await self.scheduler.run_every(self.tick, seconds=0.01)
                MADE.append(self)
                await asyncio.sleep(60)
            async def tick(self):
                pass
        """,
    ):
        await until(lambda: made(tmp_path))
        (broken,) = made(tmp_path)
        await until(lambda: left_of(broken) == [])


ENDS = {
    "coroutine": 'async def end(self):\n        await self.hassette.app_handler.stop_app("one")',
    "plain": 'def end(self):\n        self.task_bucket.run_sync(self.hassette.app_handler.stop_app("one"))',
    "reload": 'def end(self):\n        self.hassette.task_bucket.spawn(self.hassette.app_handler.reload_app("one"))',
}


@pytest.mark.parametrize("way", ENDS)
async def test_a_job_that_stops_its_own_app(tmp_path: Path, way: str) -> None:
    """10.5: a job may have its own app stopped or reloaded; it ends with the app, as all that it started."""
    async with loaded(
        tmp_path,
        unawaited="one",
        one=f"""
MADE = []
class TheApp(APSchedulerMixin, App[AppConfig]):
    async def on_initialize(self):
        MADE.append(self)
        if len(MADE) == 1:
            self.scheduler.run_in(self.end, 0.01)
    {ENDS[way]}
""",
    ) as harness:
        await until(lambda: made(tmp_path) and made(tmp_path)[0].status == "stopped")
        first = made(tmp_path)[0]
        await until(lambda: left_of(first) == [])
        if way == "reload":
            await until(lambda: (app := app_of(harness, "one")) not in (None, first) and app.status == "running")
