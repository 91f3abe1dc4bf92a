"""Apps loaded from files by real Hassette: start, stop, reload, failures; afterwards nothing is left (P10)."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hassette.apps import app_of, left_of, loaded, made
from tests.kit import until

TICKING = """
class TheApp(APSchedulerMixin, App[AppConfig]):
    ticks = 0
    async def on_initialize(self):
        await self.scheduler.run_every(self.tick, seconds=0.02, name="tick")
        await self.scheduler.run_every(self.plain, seconds=0.02, name="plain")
    async def tick(self):
        self.ticks += 1
    def plain(self):
        pass
"""


async def test_start_stop_start(tmp_path: Path) -> None:
    """Start, stop and start again: the new instance ticks, nothing of the old one is left."""
    async with loaded(tmp_path, one=TICKING) as harness:
        first = app_of(harness, "one")
        await until(lambda: first.ticks > 2)
        await harness.app_handler.stop_app("one")
        assert left_of(first) == []
        ticks = first.ticks
        await harness.app_handler.start_app("one")
        second = app_of(harness, "one")
        assert second is not first
        await until(lambda: second.ticks > 2)
        assert first.ticks == ticks
    assert left_of(second) == []


@pytest.mark.parametrize("force", [False, True])
async def test_reload(tmp_path: Path, force: bool) -> None:
    """Reload, forced or not: the same names are free again, the old jobs are gone."""
    async with loaded(tmp_path, one=TICKING) as harness:
        first = app_of(harness, "one")
        await until(lambda: first.ticks > 2)
        await harness.app_handler.reload_app("one", force_reload=force)
        second = app_of(harness, "one")
        await until(lambda: second.ticks > 2)
        assert left_of(first) == []
        assert [job.name for job in second.scheduler.list_jobs()] == ["tick", "plain"]


async def test_restart_of_the_same_object(tmp_path: Path) -> None:
    """Hassette's ``restart`` shuts down and initializes the same object: it begins empty and registers again."""
    from hassette.resources.operations import restart

    async with loaded(tmp_path, one=TICKING) as harness:
        app = app_of(harness, "one")
        await until(lambda: app.ticks > 2)
        await restart(app)
        ticks = app.ticks
        await until(lambda: app.ticks > ticks + 2)
        assert len(app.scheduler.list_jobs()) == 2


async def test_a_failing_initialisation(tmp_path: Path) -> None:
    """``on_initialize`` raises after registering jobs: core calls ``remove_all_jobs()`` only, and nothing is left."""
    async with loaded(
        tmp_path,
        unawaited="one",
        one="""
        MADE = []
        class TheApp(APSchedulerMixin, App[AppConfig]):
            ticks = 0
            async def on_initialize(self):
                MADE.append(self)
                await self.scheduler.run_every(self.tick, seconds=0.01)
                raise RuntimeError("cannot start")
            async def tick(self):
                self.ticks += 1
        """,
        two=TICKING,
    ) as harness:
        await until(lambda: made(tmp_path))
        (broken,) = made(tmp_path)
        await until(lambda: app_of(harness, "two").ticks > 3)
        await until(lambda: left_of(broken) == [])
        assert broken.ticks == 0


async def test_a_user_on_shutdown_without_super(tmp_path: Path) -> None:
    """Clean-up does not depend on what the author overrides."""
    async with loaded(
        tmp_path,
        one=TICKING
        + """
    async def on_shutdown(self):
        self.ticks = -1
    async def before_shutdown(self):
        pass
    async def after_shutdown(self):
        pass
""",
    ) as harness:
        app = app_of(harness, "one")
        await until(lambda: app.ticks > 2)
        await harness.app_handler.stop_app("one")
        assert left_of(app) == []
        assert app.ticks == -1


@pytest.fixture
def sharing(tmp_path: Path) -> Iterator[str]:
    """The source of a ticking app on an AsyncIOScheduler that every app of this source shares."""
    (tmp_path / "common.py").write_text(
        "from apscheduler.schedulers.asyncio import AsyncIOScheduler\naps = AsyncIOScheduler(timezone='UTC')\n"
    )
    yield f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\nimport common\nsys.path.pop(0)\n" + TICKING.replace(
        "    ticks = 0\n", "    ticks = 0\n    shared_apscheduler = common.aps\n"
    )
    sys.modules.pop("common", None)


@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
async def test_two_apps_with_the_same_names(tmp_path: Path, sharing: str, shared: bool) -> None:
    """One app stops, the other's jobs go on for many ticks: the task-bucket trap, with a shared scheduler too."""
    source = sharing if shared else TICKING
    async with loaded(tmp_path, one=source, two=source) as harness:
        one, two = app_of(harness, "one"), app_of(harness, "two")
        await until(lambda: one.ticks > 2 and two.ticks > 2)
        assert (one.scheduler.facade.aps is two.scheduler.facade.aps) == shared
        await harness.app_handler.stop_app("one")
        assert left_of(one) == []
        ticks = two.ticks
        await until(lambda: two.ticks > ticks + 10)
        records = await two.scheduler.facade.history(limit=5)
        assert {record.status for record in records} <= {"success", "coalesced"}
        await harness.app_handler.start_app("one")
        await until(lambda: app_of(harness, "one").ticks > 2)
    assert left_of(two) == []
    assert not two.scheduler.facade.aps.running


@pytest.mark.parametrize("force", [False, True])
async def test_reload_on_a_shared_scheduler(tmp_path: Path, sharing: str, force: bool) -> None:
    """The app that started the shared AsyncIOScheduler is reloaded while it is the only one there."""
    async with loaded(tmp_path, one=sharing) as harness:
        first = app_of(harness, "one")
        await until(lambda: first.ticks > 2)
        await harness.app_handler.reload_app("one", force_reload=force)
        second = app_of(harness, "one")
        await until(lambda: second.ticks > 2)
        assert left_of(first) == []


async def test_a_failing_initialisation_on_a_shared_scheduler(tmp_path: Path, sharing: str) -> None:
    """An app that cannot start leaves the other's scheduler as it was, and its own name free for the next try."""
    broken = sharing.replace(
        "    async def tick", "        if not GOOD:\n            raise RuntimeError('cannot start')\n    async def tick"
    ).replace("class TheApp", "GOOD = []\nMADE = [GOOD]\nclass TheApp")
    async with loaded(tmp_path, unawaited="one", one=broken, two=sharing) as harness:
        (good,) = made(tmp_path)
        two = app_of(harness, "two")
        await until(lambda: two.ticks > 2)
        await until(lambda: harness.app_handler.registry.get_snapshot().failed_count == 1)
        good.append(True)
        await harness.app_handler.start_app("one")
        ticks = two.ticks
        await until(lambda: app_of(harness, "one").ticks > 2 and two.ticks > ticks + 2)


async def test_several_instances_of_one_app(tmp_path: Path) -> None:
    """Two configured instances of one class: the same job names, each with jobs of its own."""
    async with loaded(tmp_path, configs={"one": [{"instance_name": "a"}, {"instance_name": "b"}]}, one=TICKING) as h:
        a, b = (h.app_handler.registry.get("one", index) for index in (0, 1))
        await until(lambda: a.ticks > 2 and b is not None and b.ticks > 2)
        assert [job.owner for job in (*a.scheduler.list_jobs()[:1], *b.scheduler.list_jobs()[:1])] == ["a", "b"]
        await h.app_handler.stop_app("one")
        assert left_of(a) == left_of(b) == []


async def test_the_record_goes_on_over_a_reload(tmp_path: Path) -> None:
    """A database of the app's choice: a reload neither loses a verdict nor calls a run interrupted."""
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    source = TICKING.replace("    ticks = 0\n", f"    ticks = 0\n    scheduler_settings = {{'database': {url!r}}}\n")
    async with loaded(tmp_path, one=source) as harness:
        first = app_of(harness, "one")
        await until(lambda: first.ticks > 2)
        await harness.app_handler.reload_app("one")
        second = app_of(harness, "one")
        await until(lambda: second.ticks > 2)
        await harness.app_handler.stop_app("one")
        statuses = [r.status for r in await second.scheduler.facade.history("tick", limit=1000)]
        assert len(statuses) >= first.ticks + second.ticks
        assert set(statuses) <= {"success", "cancelled", "coalesced"}


async def test_runs_in_flight_when_the_app_stops(tmp_path: Path) -> None:
    """A coroutine in flight is cancelled with the app, a plain function finishes in its grace; no task is left."""
    async with loaded(
        tmp_path,
        one="""
        import time
        class TheApp(APSchedulerMixin, App[AppConfig]):
            async def on_initialize(self):
                self.seen = []
                self.scheduler.run_in(self.slow, 0.01)
                self.scheduler.run_in(self.slow_plain, 0.01)
            async def slow(self):
                self.seen.append("slow")
                await asyncio.sleep(60)
            def slow_plain(self):
                self.seen.append("plain")
                time.sleep(0.2)
                self.seen.append("finished")
        """,
    ) as harness:
        app = app_of(harness, "one")
        await until(lambda: {"slow", "plain"} <= set(app.seen))
        await harness.app_handler.stop_app("one")
        assert "finished" in app.seen
        assert left_of(app) == []
        statuses = {r.job_name: r.status for r in await app.scheduler.facade.history()}
        assert statuses == {"slow:after:0.01": "cancelled", "slow_plain:after:0.01": "success"}


async def test_a_job_due_between_sealing_and_shutdown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Between the sealing of the bucket and the child's shutdown a due job is skipped quietly."""
    async with loaded(tmp_path, one=TICKING) as harness:
        app = app_of(harness, "one")
        await until(lambda: app.ticks > 2)
        app.task_bucket.seal()
        ticks = app.ticks
        caplog.clear()
        await asyncio.sleep(0.1)
        assert app.ticks == ticks
        assert [r for r in caplog.records if r.levelname in ("ERROR", "WARNING")] == []
        app.task_bucket.reopen()
        await until(lambda: app.ticks > ticks)


async def test_app_sync(tmp_path: Path) -> None:
    """``AppSync``: hooks register through ``scheduler.sync`` or the plain calls; blocking the loop is refused."""
    async with loaded(
        tmp_path,
        one="""
        class TheApp(APSchedulerMixin, AppSync[AppConfig]):
            def on_initialize_sync(self):
                self.ticks = 0
                self.job = self.scheduler.sync.run_every(self.tick, seconds=0.02, name="tick")
                self.other = self.scheduler.run_every(self.tick, seconds=0.02, name="other")
                assert isinstance(self.job.db_id, int)
            def tick(self):
                self.ticks += 1
            def manage(self):
                sync = self.scheduler.sync
                sync.on_error(print)
                with_group = [sync.run_daily(self.tick, at="07:00", name=str(n), group="g") for n in range(3)]
                assert sync.list_jobs("g") == with_group and sync.get_job("1") is with_group[1]
                sync.remove_job(with_group[0])
                sync.remove_group("g")
                assert sync.list_jobs("g") == []
                sync.remove_all_jobs()
                assert sync.list_jobs() == []
                try:
                    sync.run_every(self.tick, seconds=-1)
                except ValueError:
                    return
                raise AssertionError("a bad value passed")
        """,
    ) as harness:
        app = app_of(harness, "one")
        await until(lambda: app.ticks > 3)
        with pytest.raises(
            RuntimeError, match=r"This sync method \(Scheduler.sync\) was called from within an event loop"
        ):
            app.scheduler.sync.run_in(app.tick, 5)
        assert [job.name for job in app.scheduler.list_jobs()] == ["tick", "other"]
        await asyncio.to_thread(app.manage)
        await harness.app_handler.stop_app("one")
        assert left_of(app) == []


async def test_the_mixin_alone_and_in_the_wrong_place(tmp_path: Path) -> None:
    """``APSchedulerMixin[Cfg]`` is an App by itself; listed after ``App`` Python refuses the class."""
    alone = TICKING.replace("(APSchedulerMixin, App[AppConfig])", "(APSchedulerMixin[AppConfig])")
    async with loaded(tmp_path, one=alone) as h:
        app = app_of(h, "one")
        await until(lambda: app.ticks > 2)
    from hassette import App, AppConfig

    from hassette_aps.hassette import APSchedulerMixin

    with pytest.raises(TypeError, match="MRO"):
        type("Wrong", (App[AppConfig].__origin__, APSchedulerMixin), {})  # type: ignore[attr-defined]


async def test_hassettes_names_for_the_same_things(tmp_path: Path) -> None:
    """``remove``, ``remove_job``, ``remove_group``, ``remove_all_jobs``: a current app moves over."""
    async with loaded(tmp_path, one=TICKING) as harness:
        scheduler: Any = app_of(harness, "one").scheduler
        jobs = [scheduler.run_every(print, hours=n, name=str(n), group="g") for n in range(1, 5)]
        jobs[0].remove()
        scheduler.remove_job(jobs[1])
        assert [job.name for job in scheduler.list_jobs(group="g")] == ["3", "4"]
        scheduler.remove_group("g")
        assert scheduler.list_jobs(group="g") == []
        scheduler.remove_all_jobs()
        assert scheduler.list_jobs() == []
        await scheduler.remove_all_jobs()
        assert scheduler.get_job_db_ids() == []
        ran: list[int] = []
        scheduler.run_in(lambda: ran.append(1), 0.01)
        await until(lambda: ran)


async def test_hassettes_triggers(tmp_path: Path) -> None:
    """Triggers imported from Hassette work, except the one that follows an entity, which is refused."""
    from hassette.scheduler import After, Cron, Daily, EntityTime, Every, Once

    async with loaded(tmp_path, one=TICKING) as harness:
        app = app_of(harness, "one")
        triggers = (Every(hours=1), Daily(at="07:00"), Cron("*/5 * * * *"), After(seconds=300), Once(at="23:59"))
        for trigger in triggers:
            job = await app.scheduler.schedule(app.tick, trigger, name=type(trigger).__name__)
            assert job.next_run == trigger.first_run_time(app.now()) or isinstance(trigger, After | Every)
        before = app.scheduler.list_jobs()
        with pytest.raises(TypeError, match="EntityTime.*Hassette's own scheduler"):
            app.scheduler.schedule(app.tick, EntityTime("sensor.phone_next_alarm"), name="alarm")
        assert app.scheduler.list_jobs() == before


def test_without_hassette() -> None:
    """Importing the mixin where Hassette is not installed says what to install."""
    program = "import sys; sys.modules['hassette'] = None; import hassette_aps.hassette"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stderr.strip().endswith(
        "ImportError: hassette_aps.hassette needs Hassette: pip install 'hassette-aps[hassette]'"
    )


async def test_zone_logger_and_execution_id_are_the_apps(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Zone from ``app.now()``, logs through a child of the app's logger, Hassette's execution id is our run's."""
    async with loaded(
        tmp_path,
        one="""
        from hassette.context import CURRENT_EXECUTION_ID
        from hassette_aps import current_run
        class TheApp(APSchedulerMixin, App[AppConfig]):
            async def on_initialize(self):
                self.seen = []
                self.scheduler.run_in(self.look, 0.01)
                self.scheduler.run_in(self.look_plain, 0.01)
                self.scheduler.run_in(self.fail, 0.01)
            async def look(self):
                self.seen.append((CURRENT_EXECUTION_ID.get(), current_run().execution_id))
            def look_plain(self):
                self.seen.append((CURRENT_EXECUTION_ID.get(), current_run().execution_id))
            async def fail(self):
                raise ValueError("on purpose")
        """,
    ) as harness:
        app = app_of(harness, "one")
        await until(lambda: len(app.seen) == 2)
        assert all(hassette == ours for hassette, ours in app.seen)
        assert app.scheduler.facade.timezone.key == app.now().tz_id
        assert app.scheduler.facade.aps._eventloop is asyncio.get_running_loop()
        await until(lambda: any(r.name == f"{app.logger.name}.scheduler" for r in caplog.records))
