"""The database stays small, and its tables keep up with the code."""

import os
import sqlite3
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from hassette_aps.execution_id import first_execution_id
from hassette_aps.telemetry import DatabaseRefused, Telemetry, schema
from tests.telemetry_kit import START, START_US, FakeRun, a_job, recording, register, registered_id, wait_until

pytest_plugins = ["tests.telemetry_fixtures"]


def aged(days: float, n: int = 0, name: str = "job", **fields: Any) -> FakeRun:
    """A run of ``days`` ago."""
    then = START - timedelta(days=days) + timedelta(seconds=n)
    execution_id = first_execution_id(then)[:24] + os.urandom(6).hex()
    return FakeRun(name, execution_id=execution_id, scheduled_for=then, **fields)


def totals(telemetry: Telemetry) -> dict[str, int]:
    """Runs of each job that has any."""
    return {one.name: one.total for one in telemetry.summary("tests") if one.total}


def count(telemetry: Telemetry, table: str) -> int:
    with telemetry._database.reading() as conn:
        return conn.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one()


def test_old_runs_go(any_url: str) -> None:
    """Executions older than ``retention_days`` are removed; younger ones stay."""
    with recording(any_url, retention_days=10) as telemetry:
        for n in range(1500):
            telemetry.record(aged(11, n))
            telemetry.record(aged(9, n))
        assert telemetry.close(20)
        telemetry.start()
        wait_until(lambda: totals(telemetry) == {"job": 1500})


def test_the_newest_rows_stay(any_url: str) -> None:
    """Beyond ``retention_rows`` the oldest executions are removed, while recording goes on."""
    with recording(any_url, retention_rows=500) as telemetry:
        for n in range(5000):
            telemetry.record(FakeRun(n=n))
        assert telemetry.flush(20)
        wait_until(lambda: totals(telemetry)["job"] <= 1500)
        newest = telemetry.history("tests", limit=500)
        assert newest[0].scheduled_for == START + timedelta(seconds=4999)
        assert newest[-1].scheduled_for == START + timedelta(seconds=4500)


def test_jobs_without_runs_count_too(any_url: str) -> None:
    """Jobs that ended and have no runs are kept up to ``retention_rows``; those still registered always."""
    with recording(any_url, retention_rows=50) as telemetry:
        for n in range(200):
            register(telemetry, a_job(f"gone-{n}"))
            telemetry.cancelled("tests", f"gone-{n}", START_US)
            register(telemetry, a_job(f"once-{n}", trigger_type="once"))
            telemetry.record(FakeRun(f"once-{n}", n))
            register(telemetry, a_job(f"live-{n}"))
        for n in range(1100):
            telemetry.record(FakeRun("busy", n))
        assert telemetry.flush(10)
        wait_until(lambda: count(telemetry, "jobs") == 200 + 50 + 1)  # live, ended, busy
        names = {one.name for one in telemetry.summary("tests")}
        assert {f"live-{n}" for n in range(200)} <= names
        job_id = registered_id(telemetry, a_job("gone-0"))
        telemetry.record(FakeRun("gone-0", 10_000))
        assert telemetry.history("tests", "gone-0")[0].db_id == job_id


def test_an_old_process_and_its_cancelled_job_are_forgotten(url: str) -> None:
    """Rows of processes and jobs go when nothing refers to them and they are old."""
    with recording(url) as telemetry:
        registered_id(telemetry, a_job("ancient", registered_at=START - timedelta(days=100)))
        with telemetry._database.writing() as conn:
            conn.exec_driver_sql(
                "INSERT INTO instances (instance, place, pid, started_at, heartbeat_at, stopped_at) "
                "VALUES ('old', '', 1, 1, 1, 1)"
            )
    with recording(url) as telemetry:
        assert telemetry.flush(10)
        wait_until(lambda: count(telemetry, "jobs") == 0 and count(telemetry, "instances") == 2)


def file_size(path: Path) -> int:
    return path.stat().st_size + Path(f"{path}-wal").stat().st_size


def test_the_file_shrinks(tmp_path: Path) -> None:
    """When old rows go, the SQLite file gives the space back to the disk."""
    path = tmp_path / "runs.db"
    with recording(f"sqlite:///{path}") as telemetry:
        for n in range(3000):
            telemetry.record(aged(20, n, error_traceback="x" * 2000))
        telemetry.record(FakeRun("young"))
        assert telemetry.flush(20)
    before = path.stat().st_size
    assert before > 5_000_000
    with recording(f"sqlite:///{path}", retention_days=10) as telemetry:
        wait_until(lambda: totals(telemetry) == {"young": 1})
        wait_until(lambda: file_size(path) < before / 2)
    assert path.stat().st_size < before / 10


def test_a_file_that_existed_before_works_too(tmp_path: Path) -> None:
    """A file that somebody else made without incremental vacuum is used; it only does not shrink."""
    path = tmp_path / "runs.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    with recording(f"sqlite:///{path}", retention_days=10) as telemetry:
        telemetry.record(aged(11))
        telemetry.record(aged(9))
        wait_until(lambda: totals(telemetry) == {"job": 1})


def test_retention_does_not_hold_up_recording(sqlite_url: str) -> None:
    """While 20,000 old rows are removed, new records are written within a second."""
    with recording(sqlite_url) as telemetry:
        for n in range(20_000):
            telemetry.record(aged(20, n))
        assert telemetry.flush(30)
    with recording(sqlite_url, retention_days=10) as telemetry:
        for n in range(10):
            before = time.perf_counter()
            telemetry.record(FakeRun("new", n))
            assert telemetry.flush(10)
            assert time.perf_counter() - before < 1
        wait_until(lambda: totals(telemetry) == {"new": 10})


def version(telemetry: Telemetry) -> int:
    with telemetry._database.reading() as conn:
        return conn.exec_driver_sql("SELECT version FROM hassette_aps_schema").scalar_one()


def test_a_newer_version_is_refused(url: str, caplog: Any) -> None:
    """Tables of a newer version are not touched: an error in the log and in health, records are dropped."""
    with recording(url) as telemetry:
        registered_id(telemetry, a_job())
        with telemetry._database.writing() as conn:
            conn.exec_driver_sql(f"UPDATE hassette_aps_schema SET version = {schema.VERSION + 1}")
    telemetry = Telemetry(url)
    with pytest.raises(DatabaseRefused, match="newer version"):
        telemetry.check()
    telemetry.start()
    telemetry.record(FakeRun())
    wait_until(lambda: "are not recorded" in caplog.text)
    telemetry.record(FakeRun())
    health = telemetry.health()
    assert not health.alive
    assert "upgrade hassette-aps" in (health.error or "")
    assert (health.dropped, health.queue_length) == (2, 0)
    assert not telemetry.flush(0.1)
    with pytest.raises(DatabaseRefused):
        telemetry.history("tests")
    telemetry.close(1)
    with telemetry._database.writing() as conn:
        conn.exec_driver_sql(f"UPDATE hassette_aps_schema SET version = {schema.VERSION}")
    telemetry.check()
    telemetry.start()
    telemetry.record(FakeRun())
    assert totals(telemetry) == {"job": 1}
    assert telemetry.close(10)


def test_tables_of_somebody_else_are_refused(url: str) -> None:
    """Another application's ``jobs`` table is left as it is, and the message says what to do."""
    telemetry = Telemetry(url)
    with telemetry._database.writing() as conn:
        conn.exec_driver_sql("CREATE TABLE jobs (title TEXT)")
    with pytest.raises(DatabaseRefused, match="tables of its own called jobs"):
        telemetry.check()
    telemetry.start()
    wait_until(lambda: telemetry.health().error)
    telemetry.close(1)
    with telemetry._database.writing() as conn:
        conn.exec_driver_sql("INSERT INTO jobs (title) VALUES ('cook')")


def test_an_older_version_is_upgraded_step_by_step(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step runs once, in order, and what was recorded before is still there."""
    with recording(url) as telemetry:
        telemetry.record(FakeRun())
    steps: list[int] = []

    def step(number: int, statement: str) -> Any:
        def run(conn: Connection) -> None:
            steps.append(number)
            conn.exec_driver_sql(statement)

        return run

    old = schema.VERSION
    monkeypatch.setattr(schema, "VERSION", old + 2)
    monkeypatch.setitem(schema.MIGRATIONS, old, step(1, "ALTER TABLE jobs ADD COLUMN remark TEXT"))
    monkeypatch.setitem(schema.MIGRATIONS, old + 1, step(2, "UPDATE jobs SET remark = 'hello'"))
    for _ in range(2):
        with recording(url) as telemetry:
            assert totals(telemetry) == {"job": 1}
            assert version(telemetry) == old + 2
    assert steps == [1, 2]


def test_an_upgrade_that_fails_leaves_the_old_version(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a step fails nothing is changed; records wait, and are written once it succeeds."""
    with recording(url) as telemetry:
        telemetry.record(FakeRun())
    old = schema.VERSION
    broken = True

    def step(conn: Connection) -> None:
        conn.exec_driver_sql("ALTER TABLE jobs ADD COLUMN remark TEXT")
        if broken:
            raise RuntimeError("power cut")

    monkeypatch.setattr(schema, "VERSION", old + 1)
    monkeypatch.setitem(schema.MIGRATIONS, old, step)
    with recording(url) as telemetry:
        telemetry.record(FakeRun(n=1))
        wait_until(lambda: telemetry.health().write_errors >= 2)
        assert version(telemetry) == old
        broken = False
        assert telemetry.flush(10)
        assert version(telemetry) == old + 1
        assert totals(telemetry) == {"job": 2}


def test_every_older_version_has_a_step() -> None:
    """There is a migration from every version before the current one."""
    assert sorted(schema.MIGRATIONS) == list(range(1, schema.VERSION))


def test_many_processes_create_the_tables_at_once(url: str) -> None:
    """Several starting on an empty database do not get into each other's way."""
    all_of_them = [Telemetry(url) for _ in range(6)]
    for telemetry in all_of_them:
        telemetry.start()
        telemetry.record(FakeRun())
    for telemetry in all_of_them:
        assert telemetry.flush(20)
    assert totals(all_of_them[0]) == {"job": 6}
    for telemetry in all_of_them:
        assert telemetry.close(10)
        assert telemetry.health().write_errors == 0


def test_one_shots_leave_nothing_behind(any_url: str) -> None:
    """P12: the writer keeps nothing of one-shots that have run or were cancelled, and they are no one's any more."""
    with recording(any_url) as telemetry:
        for n in range(20):
            register(telemetry, a_job(f"once-{n}", trigger_type="once"))
        for n in range(10):
            telemetry.record(FakeRun(f"once-{n}"))
            telemetry.cancelled("tests", f"once-{n + 10}", START_US)
        assert telemetry.flush(10)
        assert count(telemetry, "registrations") == 0
        assert not telemetry._writer._store._one_shots


def test_a_name_that_comes_back_has_its_new_row(any_url: str) -> None:
    """A job that was cancelled and removed with its row is recorded under its new id when it is registered again."""
    with recording(any_url) as telemetry:
        registered_id(telemetry, a_job())
        telemetry.cancelled("tests", "job", START_US)  # finds the id by name
        assert telemetry.flush(10)
        with telemetry._database.writing() as conn:
            conn.exec_driver_sql("DELETE FROM jobs")
        known = registered_id(telemetry, a_job())
        telemetry.record(FakeRun())
        assert [run.db_id for run in telemetry.history("tests", "job")] == [known]
        assert telemetry._writer._store._trusted  # no statement failed on the way
