"""Facade jobs in the user's own job stores (5.5, 11.2 to 11.5, 11.17 to 11.22, P1)."""

import asyncio
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger
from whenever import ZonedDateTime

from hassette_aps import Every, Scheduler
from hassette_aps.testing import FrozenClock
from tests.kit import CALLS, HANDLED, Recorded, called, called_async, called_too, fails, handler, sql_scheduler, until


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The SQLite file of a job store."""
    return tmp_path / "jobs.db"


async def test_a_row_runs_with_the_same_duties(path: Path) -> None:
    """2: a job with ``jobstore=`` runs through the same executor: arguments, record, handler, current target."""
    async with Scheduler(sql_scheduler(path)) as scheduler:
        recorded = Recorded(scheduler)
        job = scheduler.run_every(called, seconds=0.05, name="x", jobstore="db", args=[1], kwargs={"k": 2})
        scheduler.run_in(fails, 0.05, name="bad", jobstore="db", on_error=handler)
        await until(lambda: len(CALLS) >= 2 and HANDLED)
        assert CALLS[0] == (1, ("k", 2))
        assert recorded.statuses("bad") == ["error"]
        assert [ctx.job_name for ctx in HANDLED] == ["bad"]
        await until(lambda: scheduler.list_jobs() == [job])
        assert job.next_run is not None


async def test_registered_before_start(path: Path) -> None:
    """1.2: rows can be declared before any loop; they are written at start."""
    aps = sql_scheduler(path)
    scheduler = Scheduler(aps)
    job = scheduler.run_in(called, 0.05, name="x", jobstore="db")
    assert scheduler.list_jobs() == [job]
    async with scheduler:
        assert aps.get_job("x", "db") is not None
        await until(lambda: CALLS)
        await until(lambda: scheduler.list_jobs() == [])


async def restart(path: Path, **options: Any) -> Scheduler:
    """A new Scheduler on a new AsyncIOScheduler on the same file, as the next process has it."""
    return Scheduler(sql_scheduler(path), **options)


async def test_rows_survive_and_are_listed_unregistered(path: Path) -> None:
    """11.17: rows of an earlier process that nobody registers again keep running and are listed."""
    async with Scheduler(sql_scheduler(path)) as scheduler:
        before = scheduler.run_every(called, minutes=5, name="x", jobstore="db", group="g").next_run
    async with await restart(path) as scheduler:
        (job,) = scheduler.list_jobs(group="g")
        assert (job.name, job.next_run, job.trigger) == ("x", before, Every(minutes=5))
        job.submit()
        await until(lambda: CALLS)


async def test_skip_keeps_the_row(path: Path) -> None:
    """5.5: ``"skip"`` against a row keeps its next run and its paused state."""
    async with Scheduler(sql_scheduler(path)) as scheduler:
        before = scheduler.run_every(called, minutes=5, name="x", jobstore="db", args=[[1]]).next_run
        scheduler.run_every(called, minutes=5, name="paused", jobstore="db").pause()
    scheduler = await restart(path)
    job = scheduler.run_every(called, minutes=5, name="x", jobstore="db", args=[[1]], if_exists="skip")
    paused = scheduler.run_every(called, minutes=5, name="paused", jobstore="db", if_exists="skip")
    async with scheduler:
        assert job.next_run == before
        assert paused.next_run is None
        assert scheduler.list_jobs() == [job, paused]
        again = scheduler.run_every(called, minutes=5, name="x", jobstore="db", args=[[1]], if_exists="skip")
        assert again is job


async def test_replace_with_an_unchanged_trigger_keeps_the_phase(path: Path) -> None:
    """5.5: frequent restarts do not push a 24-hour interval ahead for ever."""
    async with Scheduler(sql_scheduler(path)) as scheduler:
        before = scheduler.run_every(called, hours=24, name="x", jobstore="db").next_run
    for _ in range(3):
        scheduler = await restart(path)
        job = scheduler.run_every(called_too, hours=24, name="x", jobstore="db", if_exists="replace")
        async with scheduler:
            assert job.next_run == before
            job.submit()
            await until(lambda: CALLS)
            assert CALLS == [("too",)]
        CALLS.clear()
    scheduler = await restart(path)
    job = scheduler.run_every(called, hours=12, name="x", jobstore="db", if_exists="replace")
    async with scheduler:
        assert job.next_run != before


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"func": called_too}, "func"),
        ({"trigger": Every(minutes=6)}, "trigger"),
        ({"args": [2]}, "args"),
        ({"on_error": None}, "on_error"),
        ({"mode": "single"}, "mode"),
    ],
)
async def test_a_changed_registration_is_refused_at_start(path: Path, change: dict[str, Any], field: str) -> None:
    """11.3: ``start()`` raises before anything is registered, names the way out, and stops the AsyncIOScheduler."""
    base: dict[str, Any] = {"func": called, "trigger": Every(minutes=5), "args": [1], "on_error": handler}
    async with Scheduler(sql_scheduler(path)) as scheduler:
        scheduler.schedule(**base, name="x", jobstore="db")
    aps = sql_scheduler(path)
    scheduler = Scheduler(aps)
    scheduler.schedule(called, Every(minutes=1), name="new", jobstore="db")
    scheduler.schedule(**{**base, **change}, name="x", jobstore="db", if_exists="skip")
    with pytest.raises(ValueError, match=rf"'x'.*another {field};.*if_exists='replace'"):
        await scheduler.start()
    assert not aps.running
    await scheduler.shutdown()
    async with await restart(path) as scheduler:
        assert [job.name for job in scheduler.list_jobs()] == ["x"]


async def test_error_against_a_row(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """11.3: ``"error"`` against a row of an earlier process; after a bare ``aps.start()`` it is an ERROR in the log."""
    async with Scheduler(sql_scheduler(path)) as scheduler:
        scheduler.run_every(called, minutes=5, name="x", jobstore="db")
    aps = sql_scheduler(path)
    scheduler = Scheduler(aps)
    scheduler.run_every(called, minutes=5, name="x", jobstore="db")
    raw: list[int] = []
    aps.add_job(lambda: raw.append(1), "interval", seconds=0.02)
    aps.start()
    assert "if_exists='skip'" in caplog.text
    await until(lambda: raw)
    with pytest.raises(ValueError, match="from an earlier process"):
        await scheduler.start()
    assert aps.running
    await scheduler.shutdown()
    aps.shutdown()
    await until(lambda: not aps.running)


async def test_raw_jobs_with_the_same_id(path: Path) -> None:
    """11.4: a raw job counts as taken; ``"replace"`` takes it over where it is; raw it is not listed, not cancelled."""
    aps = sql_scheduler(path)
    aps.start()
    aps.add_job(called, IntervalTrigger(hours=1), id="x", jobstore="db")
    aps.add_job(called, IntervalTrigger(hours=1), id="raw", jobstore="db")
    scheduler = Scheduler(aps)
    for if_exists in ("error", "skip"):
        with pytest.raises(ValueError, match="raw APScheduler job.*'db'.*take it over"):
            scheduler.run_every(called, hours=1, name="x", if_exists=if_exists)  # type: ignore[arg-type]
    assert scheduler.list_jobs() == []
    job = scheduler.run_every(called_async, hours=2, name="x", if_exists="replace")
    assert scheduler.list_jobs() == [job]
    assert {row.id for row in aps.get_jobs("db")} == {"x", "raw"}
    job.submit()
    await until(lambda: CALLS)
    await scheduler.shutdown()
    assert aps.get_job("raw", "db").next_run_time is not None
    aps.shutdown()
    await until(lambda: not aps.running)


async def test_raw_jobs_that_wait_for_the_same_start(path: Path) -> None:
    """11.4: before start as well."""
    aps = sql_scheduler(path)
    aps.add_job(called, IntervalTrigger(hours=1), id="x", jobstore="db")
    scheduler = Scheduler(aps)
    with pytest.raises(ValueError, match="raw"):
        scheduler.run_every(called, hours=1, name="x")
    job = scheduler.run_every(called, hours=1, name="x", if_exists="replace")
    async with scheduler:
        assert len(aps.get_jobs()) == 1
        assert job.next_run is not None


async def test_a_stopped_owners_rows_are_parked(path: Path) -> None:
    """11.2: nothing fires for a stopped owner, nothing is lost; other owners go on."""
    aps = sql_scheduler(path)
    aps.start()
    one, two = Scheduler(aps, owner="one"), Scheduler(aps, owner="two")
    one.run_every(called, seconds=0.05, name="x", jobstore="db", args=["one"])
    two.run_every(called, seconds=0.05, name="x", jobstore="db", args=["two"])
    await until(lambda: ("one",) in CALLS and ("two",) in CALLS)
    await one.shutdown()
    assert aps.get_job("one/x").next_run_time is None
    CALLS.clear()
    await until(lambda: len(CALLS) > 3)
    assert ("one",) not in CALLS
    await one.start()
    (job,) = one.list_jobs()
    assert job.next_run is not None
    await until(lambda: ("one",) in CALLS)
    await one.shutdown()
    await two.shutdown()
    assert {row.next_run_time for row in aps.get_jobs()} == {None}
    assert "hassette_aps" not in aps._jobstores
    aps.shutdown()
    await until(lambda: not aps.running)


async def test_rows_of_owners_without_a_scheduler_are_parked(path: Path) -> None:
    """11.2, 11.5: the owner is read from the row; a process without that owner does not run it."""
    async with Scheduler(sql_scheduler(path), owner="a") as scheduler:
        scheduler.run_every(called, seconds=0.05, name="x", jobstore="db")
    await asyncio.sleep(0.06)
    CALLS.clear()
    async with await restart(path, owner="b") as scheduler:
        await asyncio.sleep(0.1)
        assert scheduler.list_jobs() == []
        assert CALLS == []
    async with await restart(path, owner="a"):
        await until(lambda: CALLS)


async def test_pause_resume_cancel(path: Path) -> None:
    """4.5, 4.3: the verbs of a handle work on rows; the grid is kept."""
    async with Scheduler(sql_scheduler(path)) as scheduler:
        job = scheduler.run_every(called, minutes=5, name="x", jobstore="db")
        before = job.next_run
        job.pause()
        assert job.next_run is None
        assert job in scheduler.list_jobs()
        job.resume()
        assert job.next_run == before
        job.cancel()
        job.cancel()
        assert scheduler.list_jobs() == []
        assert scheduler.aps.get_jobs("db") == []


async def test_apschedulers_own_verbs(path: Path) -> None:
    """11.21: what others do to a row with APScheduler's verbs shows in the handle."""
    async with Scheduler(sql_scheduler(path)) as scheduler:
        aps = scheduler.aps
        job = scheduler.run_every(called, minutes=5, name="x", jobstore="db")
        before = job.next_run
        aps.pause_job("x")
        assert job.next_run is None
        aps.resume_job("x")
        assert job.next_run == before
        aps.modify_job("x", next_run_time=datetime.now(UTC), args=["extra"])
        await until(lambda: CALLS)
        assert CALLS == [("extra",)]
        assert job.next_run == before
        aps.reschedule_job("x", trigger="interval", hours=3)
        assert str(job.trigger) == "interval[3:00:00]"
        CALLS.clear()
        aps.modify_job("x", next_run_time=datetime.now(UTC))
        await until(lambda: CALLS)
        aps.remove_job("x")
        assert scheduler.list_jobs() == []


async def test_jitter_on_rows(path: Path, frozen_clock: FrozenClock) -> None:
    """7: jitter delays and never accumulates, although APScheduler asks twice and stores the jittered time."""
    frozen_clock.freeze("2026-05-01T10:00:00+00:00")
    async with Scheduler(sql_scheduler(path)) as scheduler:
        recorded = Recorded(scheduler)
        job = scheduler.run_every(called, minutes=1, jitter=30, name="x", jobstore="db")
        assert job.next_run is not None
        await frozen_clock.advance(minutes=30)
        lateness = [(r.started_at - r.scheduled_for).total_seconds() for r in recorded.records]
        assert 29 <= len(lateness) <= 30
        assert all(0 <= late < 30 for late in lateness)
        assert len(set(lateness)) > 20
        assert {r.scheduled_for.second for r in recorded.records} == {0}
        assert job.next_run.second == 0
    async with await restart(path) as scheduler:
        (job,) = scheduler.list_jobs()
        assert job.next_run is not None
        assert job.fire_at is not None
        assert job.next_run.second == 0


async def test_missed_targets_of_a_row_collapse(path: Path, frozen_clock: FrozenClock) -> None:
    """11.7, 8.1: a row that fell due while no process ran is run once, late, and the rest recorded as a range."""
    frozen_clock.freeze("2026-05-01T10:00:00+00:00")
    async with Scheduler(sql_scheduler(path)) as scheduler:
        scheduler.run_every(called, minutes=1, name="x", jobstore="db")
    frozen_clock.freeze("2026-05-01T12:00:30+00:00")
    scheduler = await restart(path)
    recorded = Recorded(scheduler)
    async with scheduler:
        await frozen_clock.trigger_due_jobs()
        assert recorded.statuses("x") == ["coalesced", "success"]
        assert recorded.records[1].scheduled_for == datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
        assert len(CALLS) == 1


class Strike:
    """A trigger that raises when asked for its next time, until it is told not to."""

    on_strike = True

    def first_run_time(self, current_time: ZonedDateTime) -> ZonedDateTime:
        return current_time.add(seconds=1)

    def next_run_time(self, previous_run: ZonedDateTime, current_time: ZonedDateTime) -> ZonedDateTime:
        if Strike.on_strike:
            raise RuntimeError("on strike")
        return current_time.add(hours=1)

    def trigger_label(self) -> str:
        return "strike"

    def trigger_detail(self) -> str | None:
        return None

    def trigger_db_type(self) -> str:
        return "custom"

    def trigger_id(self) -> str:
        return "strike"


async def test_a_raising_trigger_of_a_row_is_asked_again(
    path: Path, frozen_clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """11.22: ERROR, its handler called, asked again after 60 s; APScheduler and the other rows go on."""
    async with Scheduler(sql_scheduler(path)) as scheduler:
        job = scheduler.schedule(called, Strike(), name="x", jobstore="db", on_error=handler, args=["strike"])
        scheduler.run_every(called, seconds=10, name="y", jobstore="db")
        await frozen_clock.advance(seconds=45)
        assert [str(ctx.exception) for ctx in HANDLED] == ["on strike"]
        assert CALLS == [()] * 4
        assert job in scheduler.list_jobs()
        monkeypatch.setattr(Strike, "on_strike", False)
        await frozen_clock.advance(seconds=60)
        assert job.next_run is not None


async def test_unreadable_rows_are_left_alone(path: Path) -> None:
    """1.1: rows that cannot be unpickled right now are not deleted by our looking around."""
    store = SQLAlchemyJobStore(url=f"sqlite:///{path}")
    aps = AsyncIOScheduler(timezone="UTC", jobstores={"db": store})
    aps.start()
    far = datetime(2099, 1, 1, tzinfo=UTC)
    aps.add_job(called, IntervalTrigger(hours=1), id="broken", jobstore="db", next_run_time=far)
    with store.engine.begin() as connection:
        connection.execute(store.jobs_t.update().values(job_state=b"not a pickle"))
    scheduler = Scheduler(aps)
    scheduler.run_every(called, hours=1, name="x", jobstore="db")
    with store.engine.begin() as connection:
        ids = {row.id for row in connection.execute(store.jobs_t.select())}
    assert ids == {"broken", "x"}
    await scheduler.shutdown()
    aps.shutdown()
    await until(lambda: not aps.running)


async def test_the_first_registration_warns_of_a_persistent_default(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """11.19: if ``default`` is persistent and no job store is named, one WARNING names ``jobstore="default"``."""
    aps = AsyncIOScheduler(timezone="UTC", jobstores={"default": SQLAlchemyJobStore(url=f"sqlite:///{path}")})
    async with Scheduler(aps) as scheduler:
        scheduler.run_every(called, hours=1)
        scheduler.run_every(called, hours=2)
    assert caplog.text.count("jobstore='default'") == 1
    caplog.clear()
    aps = AsyncIOScheduler(timezone="UTC", jobstores={"default": SQLAlchemyJobStore(url=f"sqlite:///{path}")})
    async with Scheduler(aps, jobstore="default") as scheduler:
        job = scheduler.run_every(called, hours=1)
        assert aps.get_job(job.name, "default") is not None
    assert "jobstore='default'" not in caplog.text


async def test_attaching_late_is_warned_about(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """11.20: a Scheduler made after ``aps.start()`` on a persistent store warns that overdue rows may be gone."""
    aps = sql_scheduler(path)
    aps.start()
    scheduler = Scheduler(aps)
    assert "make the Scheduler before aps.start()" in caplog.text
    await scheduler.shutdown()
    aps.shutdown()
    await until(lambda: not aps.running)


class Counter:
    """An object whose bound method is stored with a copy of it."""

    def __init__(self) -> None:
        self.count = 0

    def tick(self) -> None:
        self.count += 1


async def test_bound_methods_run_on_the_live_object(path: Path) -> None:
    """5.3: in the process that registered it, a bound method's row runs on the object itself, not on a stale copy."""
    counter = Counter()
    async with Scheduler(sql_scheduler(path)) as scheduler:
        scheduler.run_every(counter.tick, seconds=0.03, name="x", jobstore="db")
        await until(lambda: counter.count >= 2)


PROGRAM = """
import asyncio, json, sys
from hassette_aps import Scheduler
from tests.kit import called, sql_scheduler

async def main(path):
    scheduler = Scheduler(sql_scheduler(path), owner="shop")
    job = scheduler.run_every(called, hours=24, name="report", jobstore="db", args=[1], if_exists=sys.argv[2])
    async with scheduler:
        print(json.dumps([str(job.next_run), len(scheduler.list_jobs())]))

asyncio.run(main(sys.argv[1]))
"""


def test_a_real_restart(path: Path) -> None:
    """5.5: across processes ``skip`` and ``replace`` find the row, and the phase stays."""
    told = [
        json.loads(
            subprocess.run(
                [sys.executable, "-c", PROGRAM, str(path), if_exists],
                capture_output=True,
                text=True,
                check=True,
                timeout=60,
                cwd=Path(__file__).parents[1],
            ).stdout
        )
        for if_exists in ("error", "skip", "replace", "skip")
    ]
    assert told == [told[0]] * 4
    assert told[0][1] == 1
