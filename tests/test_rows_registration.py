"""Registering against rows that are there already, and failures on the way (5.2 to 5.5, 11.1 to 11.5, 11.17)."""

import asyncio
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.date import DateTrigger
from apscheduler.triggers.interval import IntervalTrigger

from hassette_aps import Scheduler
from hassette_aps.testing import FrozenClock
from tests.kit import CALLS, Recorded, called, called_too, idle, sql_scheduler, until


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The SQLite file of a job store."""
    return tmp_path / "jobs.db"


class Opaque:
    """Pickles, but has no ``==`` of its own."""

    def __init__(self, number: int) -> None:
        self.number = number

    def tick(self) -> None:
        CALLS.append((self.number,))


class Report:
    """A callable object."""

    def __call__(self) -> None: ...


def disk_full(job: object) -> None:
    raise OSError("disk full")


async def leave_behind(path: Path, **options: object) -> None:
    """A row ``x`` of an earlier process."""
    async with Scheduler(sql_scheduler(path)) as scheduler:
        scheduler.run_every(called, **{"hours": 1, "name": "x", "jobstore": "db", **options})  # type: ignore[arg-type]


def spoil(path: Path) -> None:
    """Make every row unreadable."""
    store = sql_scheduler(path)._jobstores["db"]
    with store.engine.begin() as connection:
        connection.execute(store.jobs_t.update().values(job_state=b"not a pickle", next_run_time=4e9))
    store.engine.dispose()


async def stop(aps: AsyncIOScheduler) -> None:
    """APScheduler's own shutdown, waited for."""
    aps.shutdown()
    await until(lambda: not aps.running)


# A registration that fails leaves no trace


@pytest.mark.parametrize("jobstore", [None, "db"])
async def test_a_store_that_fails_leaves_the_replaced_job_alone(path: Path, jobstore: str | None) -> None:
    """5.4: when the store cannot write the new job, the one it would have replaced goes on, in its place."""
    async with Scheduler(sql_scheduler(path)) as scheduler:
        old = scheduler.run_every(called, hours=1, name="x", group="g", jobstore=jobstore)
        other = scheduler.run_every(called, hours=1, name="y")
        store = scheduler.aps._jobstores["db"]
        store.add_job = store.update_job = disk_full
        with pytest.raises(OSError, match="disk full"):
            scheduler.run_every(called, hours=2, name="x", jobstore="db", if_exists="replace")
        assert scheduler.list_jobs() == [old, other]
        assert scheduler.list_jobs(group="g") == [old]
        assert old.next_run is not None
        with pytest.raises(OSError, match="disk full"):
            scheduler.run_every(called, hours=2, name="new", jobstore="db")
        del store.add_job, store.update_job
        new = scheduler.run_every(called, hours=2, name="new", jobstore="db")
        assert scheduler.list_jobs() == [old, other, new]
        await scheduler.shutdown()


async def test_what_takes_over_a_row_must_be_storable(path: Path) -> None:
    """11.18, 5.4: a lambda that would replace a row is refused at the call, and the row stays."""
    await leave_behind(path)
    async with Scheduler(sql_scheduler(path)) as scheduler:
        with pytest.raises(ValueError, match=r"'x' in job store 'db'.*module level"):
            scheduler.run_every(lambda: None, hours=2, name="x", if_exists="replace")
        assert [job.func for job in scheduler.list_jobs()] == [called]
    scheduler = Scheduler(sql_scheduler(path))
    scheduler.run_every(called, hours=1, name="new", jobstore="db")
    scheduler.run_every(lambda: None, hours=2, name="x", if_exists="replace")
    with pytest.raises(ValueError, match=r"'x' in job store 'db'.*module level"):
        await scheduler.start()
    await scheduler.shutdown()
    async with Scheduler(sql_scheduler(path)) as scheduler:
        assert [job.name for job in scheduler.list_jobs()] == ["x"]


async def test_callable_instances_are_refused_in_a_store(path: Path) -> None:
    """11.18: read back, the reference of a callable instance would mean its class."""
    async with Scheduler(sql_scheduler(path)) as scheduler:
        with pytest.raises(ValueError, match="callable instance"):
            scheduler.run_every(Report(), hours=1, name="x", jobstore="db")
        with pytest.raises(ValueError, match="where="):
            scheduler.run_every(called, hours=1, name="x", jobstore="db", where=Report())
        assert scheduler.list_jobs() == []


DECORATED = """
import asyncio, sys
from hassette_aps import Every, Scheduler
from tests.kit import sql_scheduler

scheduler = Scheduler(sql_scheduler(sys.argv[1]))

@scheduler.scheduled(Every(seconds=0.05), name="tick", jobstore="db", if_exists="skip")
async def tick():
    print("tick", flush=True)
    done.set()

done = asyncio.Event()

async def main():
    async with scheduler:
        await asyncio.wait_for(done.wait(), 10)

asyncio.run(main())
"""


def test_the_decorator_form_with_a_job_store(path: Path, tmp_path: Path) -> None:
    """2: decorated at module level the function has no name there yet; it is stored, and found after a restart."""
    (tmp_path / "program.py").write_text(DECORATED)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, str(tmp_path / "program.py"), str(path)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env=environment,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert "tick" in done.stdout


# A start that fails


async def test_start_again_after_a_failed_start(path: Path) -> None:
    """11.3: after the conflict is resolved ``start()`` works, with everything that was registered."""
    await leave_behind(path)
    scheduler = Scheduler(sql_scheduler(path))
    scheduler.run_every(called, seconds=0.03, name="memory", args=["memory"])
    scheduler.run_every(called_too, hours=1, name="x", jobstore="db")
    with pytest.raises(ValueError, match="exists already in job store 'db'"):
        await scheduler.start()
    assert not scheduler.aps.running
    job = scheduler.run_every(called_too, hours=1, name="x", jobstore="db", if_exists="replace")
    await scheduler.start()
    assert [job.name for job in scheduler.list_jobs()] == ["memory", "x"]
    job.submit()
    await until(lambda: ("memory",) in CALLS and ("too",) in CALLS)
    await scheduler.shutdown()


async def test_start_again_after_a_bare_start_that_failed(path: Path) -> None:
    """11.3: after a bare ``aps.start()`` told of a conflict, resolving it and ``start()`` is the way on."""
    await leave_behind(path)
    aps = sql_scheduler(path)
    scheduler = Scheduler(aps)
    scheduler.run_every(called_too, hours=1, name="x", jobstore="db")
    aps.start()
    assert aps.get_job("x").next_run_time is None, "its owner does not run: the row is parked"
    with pytest.raises(ValueError, match="exists already"):
        await scheduler.start()
    job = scheduler.run_every(called_too, hours=1, name="x", jobstore="db", if_exists="replace")
    await scheduler.start()
    assert scheduler.list_jobs() == [job]
    assert aps.get_job("x").next_run_time is not None
    job.submit()
    await until(lambda: CALLS == [("too",)])
    await scheduler.shutdown()
    await stop(aps)


async def test_a_failed_start_uses_nothing_up(path: Path, frozen_clock: FrozenClock) -> None:
    """11.3, 11.2: rows and raw jobs that are due while a start fails keep their run."""
    frozen_clock.freeze("2026-05-01T10:00:00+00:00")
    async with Scheduler(sql_scheduler(path)) as scheduler:
        scheduler.run_in(called, 60, name="due", jobstore="db")
        scheduler.aps.add_job(called, DateTrigger(datetime(2026, 5, 1, 10, 1, tzinfo=UTC)), ["raw"], jobstore="db")
        scheduler.run_every(called, hours=1, name="x", jobstore="db")
    frozen_clock.freeze("2026-05-01T10:01:00+00:00")
    scheduler = Scheduler(sql_scheduler(path))
    scheduler.run_every(called, hours=1, name="x", jobstore="db")
    with pytest.raises(ValueError, match="exists already"):
        await scheduler.start()
    await scheduler.shutdown()
    assert CALLS == []
    async with Scheduler(sql_scheduler(path)):
        await frozen_clock.trigger_due_jobs()
        await until(lambda: len(CALLS) == 2)


async def test_one_owners_failed_start_costs_the_others_nothing(path: Path) -> None:
    """10.2, 11.3: what another owner registered on the same AsyncIOScheduler is still there at its own start."""
    async with Scheduler(sql_scheduler(path), owner="a") as scheduler:
        scheduler.run_every(called, hours=1, name="x", jobstore="db")
    aps = sql_scheduler(path)
    one, two = Scheduler(aps, owner="a"), Scheduler(aps, owner="b")
    one.run_every(called, hours=1, name="x", jobstore="db")
    job = two.run_every(called, seconds=0.03, name="y")
    with pytest.raises(ValueError, match="exists already"):
        await one.start()
    await two.start()
    assert two.list_jobs() == [job]
    await until(lambda: CALLS)
    await one.shutdown()
    await two.shutdown()


# Rows of an earlier process


async def test_unnamed_one_shots_step_aside_for_rows(path: Path) -> None:
    """11.1: the row of an earlier process takes the auto-name too, before start and after it."""
    async with Scheduler(sql_scheduler(path)) as scheduler:
        scheduler.run_in(called, 60, jobstore="db")
    scheduler = Scheduler(sql_scheduler(path))
    second = scheduler.run_in(called, 60, jobstore="db", group="g")
    async with scheduler:
        third = scheduler.run_in(called, 60, jobstore="db")
        assert [second.name, third.name] == ["called:after:60#2", "called:after:60#3"]
        assert scheduler.get_job("called:after:60#2") is second
        assert scheduler.list_jobs(group="g") == [second]
        assert len(scheduler.list_jobs()) == 3


@pytest.mark.parametrize("registered", ["before start", "after start"])
async def test_skip_compares_a_row_by_references_and_pickles(path: Path, registered: str) -> None:
    """5.3: func by its reference, arguments by their pickles, whenever it is registered; it runs on the live object."""
    async with Scheduler(sql_scheduler(path)) as scheduler:
        scheduler.run_every(Opaque(1).tick, hours=1, name="bound", jobstore="db")
        scheduler.run_every(called, hours=1, name="args", jobstore="db", args=[Opaque(2)], kwargs={"k": Opaque(3)})
    scheduler = Scheduler(sql_scheduler(path))
    if registered == "after start":
        await scheduler.start()
    live = Opaque(1)
    bound = scheduler.run_every(live.tick, hours=1, name="bound", jobstore="db", if_exists="skip")
    scheduler.run_every(
        called, hours=1, name="args", jobstore="db", args=[Opaque(2)], kwargs={"k": Opaque(3)}, if_exists="skip"
    )
    await scheduler.start()
    with pytest.raises(ValueError, match="another args, kwargs;"):
        scheduler.run_every(called, hours=1, name="args", jobstore="db", args=[Opaque(9)], if_exists="skip")
    assert len(scheduler.list_jobs()) == 2
    live.number = 7
    bound.submit()
    await until(lambda: CALLS == [(7,)])
    await scheduler.shutdown()


async def test_lambdas_in_a_memory_store_are_told_apart() -> None:
    """5.3: two functions without a reference are not the same function."""
    aps = AsyncIOScheduler(timezone="UTC", jobstores={"memory": MemoryJobStore()})
    async with Scheduler(aps) as scheduler:
        first = scheduler.run_every(lambda: 1, hours=1, name="x", jobstore="memory")
        with pytest.raises(ValueError, match="another func;"):
            scheduler.run_every(lambda: 2, hours=1, name="x", jobstore="memory", if_exists="skip")
        assert scheduler.list_jobs() == [first]


async def test_adopted_rows_are_on_record(path: Path) -> None:
    """1.4, 11.17: a listed row that nobody registered again has a ``db_id`` as well."""
    await leave_behind(path)
    async with Scheduler(sql_scheduler(path)) as scheduler:
        (job,) = scheduler.list_jobs()
        assert await job is job
        assert isinstance(job.db_id, int)


async def test_cancelled_before_start_the_row_goes_too(path: Path) -> None:
    """4.3: a job cancelled before start does not run, although a row of an earlier process was there to keep."""
    await leave_behind(path, hours=0, seconds=0.03)
    CALLS.clear()
    scheduler = Scheduler(sql_scheduler(path))
    scheduler.run_every(called, seconds=0.03, name="x", jobstore="db", if_exists="skip").cancel()
    async with scheduler:
        await asyncio.sleep(0.08)
        assert scheduler.list_jobs() == []
        assert scheduler.aps.get_jobs() == []
    assert CALLS == []


async def test_a_shutdown_before_start_keeps_the_row(path: Path) -> None:
    """10.1: a Scheduler that registered and never started leaves the store as it was."""
    await leave_behind(path)
    scheduler = Scheduler(sql_scheduler(path))
    scheduler.run_every(called, hours=1, name="x", jobstore="db", if_exists="skip")
    await scheduler.shutdown()
    async with scheduler:
        assert [job.name for job in scheduler.list_jobs()] == ["x"]


async def test_replacing_a_parked_row(path: Path) -> None:
    """11.2, 5.5: what replaces a parked row runs, with the new function, on the old phase."""
    aps = sql_scheduler(path)
    aps.start()
    scheduler = Scheduler(aps)
    before = scheduler.run_every(called, hours=1, name="x", jobstore="db").next_run
    await scheduler.shutdown()
    await stop(aps)
    aps = sql_scheduler(path)
    scheduler = Scheduler(aps)
    job = scheduler.run_every(called_too, hours=1, name="x", jobstore="db", group="new", if_exists="replace")
    async with scheduler:
        assert job.next_run == before
        assert aps.get_job("x").func is called_too
        assert aps.get_job("x").trigger.group == "new"


async def test_jitter_survives_a_restart(path: Path) -> None:
    """7: the delay drawn for the next target is the same after a restart."""
    await leave_behind(path, jitter=600)
    told = []
    for _ in range(2):
        async with Scheduler(sql_scheduler(path)) as scheduler:
            (job,) = scheduler.list_jobs()
            told.append((job.next_run, job.fire_at))
    assert told[0] == told[1]
    assert told[0][0] != told[0][1]


async def test_the_row_of_another_owner(path: Path) -> None:
    """11.5: a row's owner is read from it: the default owner's ``a/x`` is not owner a's ``x``, after a restart too."""
    async with Scheduler(sql_scheduler(path)) as scheduler:
        scheduler.run_every(called, hours=1, name="a/x", jobstore="db")
    scheduler = Scheduler(sql_scheduler(path), owner="a")
    scheduler.run_every(called, hours=1, name="x", if_exists="replace")
    with pytest.raises(ValueError, match=r"'x' of owner 'a'.*the default owner ''"):
        await scheduler.start()
    await scheduler.shutdown()
    async with Scheduler(sql_scheduler(path)) as scheduler, Scheduler(scheduler.aps, owner="a") as other:
        assert [job.name for job in scheduler.list_jobs()] == ["a/x"]
        assert other.list_jobs() == []


@pytest.mark.parametrize("registered", ["before start", "after start"])
async def test_a_row_that_cannot_be_read_is_taken(path: Path, registered: str) -> None:
    """11.4, P13: its name is taken; ``"error"`` and ``"skip"`` say so, ``"replace"`` replaces it."""
    await leave_behind(path)
    spoil(path)
    for if_exists in ("error", "skip"):
        scheduler = Scheduler(sql_scheduler(path))
        if registered == "after start":
            await scheduler.start()
        with pytest.raises(ValueError, match=r"'x'.*cannot be read.*if_exists='replace'"):
            scheduler.run_every(called, hours=1, name="x", jobstore="db", if_exists=if_exists)  # type: ignore[arg-type]
            await scheduler.start()
        await scheduler.shutdown()
    scheduler = Scheduler(sql_scheduler(path))
    if registered == "after start":
        await scheduler.start()
    job = scheduler.run_every(called, hours=1, name="x", jobstore="db", if_exists="replace")
    async with scheduler:
        assert scheduler.list_jobs() == [job]
        assert scheduler.aps.get_job("x").func is called


# The user's stores and executors


async def test_a_memory_store_keeps_nothing_after_a_shutdown(caplog: pytest.LogCaptureFixture) -> None:
    """10.1, 10.4: jobs in the user's MemoryJobStore are in-memory jobs: cancelled, counted, not parked."""
    aps = AsyncIOScheduler(timezone="UTC", jobstores={"memory": MemoryJobStore()})
    aps.start()
    scheduler = Scheduler(aps)
    aps.add_job(idle, IntervalTrigger(hours=1), id="raw", jobstore="memory")
    scheduler.run_every(called, hours=1, name="x", jobstore="memory")
    scheduler.run_in(called, 0.02, jobstore="memory")
    await until(lambda: CALLS)
    await scheduler.shutdown()
    assert [row.id for row in aps.get_jobs()] == ["raw"]
    await scheduler.start()
    assert "1 in-memory jobs of the previous start were not registered again: 'x'" in caplog.text
    assert scheduler.list_jobs() == []
    await scheduler.shutdown()
    await stop(aps)


async def test_submit_of_a_row_on_another_executor(path: Path) -> None:
    """4.5: ``submit()`` is one run, under the id it returned."""
    aps = sql_scheduler(path)
    aps.add_executor(ThreadPoolExecutor(2), "pool")
    async with Scheduler(aps) as scheduler:
        recorded = Recorded(scheduler)
        job = scheduler.run_every(called, hours=1, name="x", jobstore="db", executor="pool", args=["a"])
        told = [job.submit(), job.submit()]
        await until(lambda: len(recorded.records) == 2)
        assert [record.status for record in recorded.records] == ["success"] * 2
        assert sorted(record.execution_id for record in recorded.records) == sorted(told)
        assert scheduler.health().running == 0


async def test_a_raw_job_with_the_same_id_in_another_store() -> None:
    """1.1, 1.3: outcomes of a raw job are not taken for those of our job with the same id."""
    aps = AsyncIOScheduler(timezone="UTC")
    async with Scheduler(aps) as scheduler:
        recorded = Recorded(scheduler)
        scheduler.run_every(called, hours=1, name="x", executor="default")
        aps.add_job(called, IntervalTrigger(seconds=0.02), id="x", jobstore="default")
        await until(lambda: len(CALLS) >= 3)
        assert recorded.records == []


async def test_rows_are_out_of_reach_during_the_drain(path: Path) -> None:
    """10.1, P2: a row that would fall due while a shutdown waits keeps its run for the next process."""
    started, go = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        started.set()
        await go.wait()

    scheduler = Scheduler(sql_scheduler(path))
    await scheduler.start()
    scheduler.run_in(slow, 0.01)
    await started.wait()
    before = scheduler.run_in(called, 60, name="due", jobstore="db").next_run
    stopping = asyncio.ensure_future(scheduler.shutdown())
    await until(lambda: scheduler.aps.get_job("due").next_run_time is None)
    assert not stopping.done()
    go.set()
    await stopping
    async with Scheduler(sql_scheduler(path)) as scheduler:
        assert [job.next_run for job in scheduler.list_jobs()] == [before]


async def test_paused_before_start_a_kept_row_does_not_run(path: Path) -> None:
    """4.5, 5.5: ``pause()`` before start holds the row of an earlier process too, until ``resume()``."""
    await leave_behind(path, hours=0, seconds=0.03)
    CALLS.clear()
    scheduler = Scheduler(sql_scheduler(path))
    jobs = [
        scheduler.run_every(called, seconds=0.03, name=name, jobstore="db", if_exists="skip") for name in ("x", "new")
    ]
    for job in jobs:
        job.pause()
    async with scheduler:
        await asyncio.sleep(0.08)
        assert CALLS == []
        assert [job.next_run for job in jobs] == [None, None]
        for job in jobs:
            job.resume()
        await until(lambda: len(CALLS) > 2)
