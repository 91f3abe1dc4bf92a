"""Whatever happens to the database, jobs are not delayed, and everything is written afterwards."""

import asyncio
import contextlib
import logging
import os
import shutil
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hassette_aps.records import JobRecord
from hassette_aps.telemetry import Telemetry, writer
from tests.postgres import PostgresServer, run_server
from tests.telemetry_kit import FakeRun, a_job, recording, register, registered_id, wait_until

pytest_plugins = ["tests.telemetry_fixtures"]


@contextlib.contextmanager
def locked(url: str) -> Iterator[None]:
    """Another connection holds the write lock of a SQLite file."""
    connection = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


def total(telemetry: Telemetry) -> int:
    return sum(one.total for one in telemetry.summary("tests"))


def record_many(telemetry: Telemetry, start: int, count: int) -> float:
    """Record ``count`` runs; the longest any of the calls took, in seconds."""
    longest = 0.0
    for n in range(start, start + count):
        run = FakeRun(n=n)
        before = time.perf_counter()
        telemetry.record(run)
        longest = max(longest, time.perf_counter() - before)
    return longest


def test_the_loop_is_not_held_by_10_000_records(any_url: str, capsys: Any) -> None:
    """While 10,000 executions are recorded and written, a loop stalls for less than 50 ms (best of five)."""

    async def largest_stall(telemetry: Telemetry, start: int) -> float:
        worst = 0.0
        written = asyncio.ensure_future(asyncio.to_thread(telemetry.flush, 0.001))
        for n in range(start, start + 10_000):
            telemetry.record(FakeRun(n=n))
            if n % 100 == 0:
                before = time.perf_counter()
                await asyncio.sleep(0.001)
                worst = max(worst, time.perf_counter() - before - 0.001)
        await written
        written = asyncio.ensure_future(asyncio.to_thread(telemetry.flush, 20))
        while not written.done():
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            worst = max(worst, time.perf_counter() - before - 0.001)
        assert await written
        return worst

    stalls: list[float] = []
    with recording(any_url) as telemetry:
        for attempt in range(5):
            stalls.append(asyncio.run(largest_stall(telemetry, attempt * 10_000)))
            if min(stalls) < 0.05:
                break
        assert total(telemetry) == 10_000 * len(stalls)
    with capsys.disabled():
        print(f" [largest stall {min(stalls) * 1000:.1f} ms]", end="")
    assert min(stalls) < 0.05


def test_a_locked_database_delays_nobody(sqlite_url: str, caplog: Any) -> None:
    """While another process holds the lock for seconds, calls return at once; afterwards all is written."""
    with recording(sqlite_url) as telemetry:
        job_id = registered_id(telemetry, a_job())
        ids: list[int] = []
        with locked(sqlite_url):
            before = time.perf_counter()
            longest = record_many(telemetry, 0, 1000)
            register(telemetry, a_job("second"), ids.append)
            telemetry.health()
            assert time.perf_counter() - before < 1
            assert longest < 0.1
            wait_until(lambda: telemetry.health().write_errors >= 2)
            record_many(telemetry, 1000, 500)
            health = telemetry.health()
            assert not health.alive
            assert health.error is not None
            assert "locked" in health.error
            assert not telemetry.flush(0.05)
            assert ids == []
        assert telemetry.flush(10)
        wait_until(lambda: telemetry.health().alive)
        assert total(telemetry) == 1500
        assert telemetry.health().dropped == 0
        assert len(ids) == 1
        assert ids[0] != job_id
    assert caplog.text.count("will go on trying") == 1


def test_a_database_locked_from_the_start(sqlite_url: str) -> None:
    """Starting on a locked database does not block; it is opened when the lock is gone."""
    sqlite3.connect(sqlite_url.removeprefix("sqlite:///")).close()
    with locked(sqlite_url):
        telemetry = Telemetry(sqlite_url)
        before = time.perf_counter()
        telemetry.start()
        telemetry.record(FakeRun())
        assert time.perf_counter() - before < 0.2
        wait_until(lambda: telemetry.health().write_errors >= 1)
    assert total(telemetry) == 1
    assert telemetry.close(10)


def test_closing_while_the_database_is_locked_keeps_its_deadline(sqlite_url: str) -> None:
    """``close`` gives up in time; what was not written is written by the next start."""
    telemetry = Telemetry(sqlite_url)
    telemetry.start()
    registered_id(telemetry, a_job())
    with locked(sqlite_url):
        record_many(telemetry, 0, 100)
        before = time.perf_counter()
        assert not telemetry.close(0.3)
        assert time.perf_counter() - before < 1
        telemetry.start()
        record_many(telemetry, 100, 100)
    assert telemetry.flush(10)
    assert total(telemetry) == 200
    assert telemetry.close(10)


def test_many_registrations_at_once_are_all_kept(sqlite_url: str) -> None:
    """Registrations beyond the limit for runs wait for the database as well, up to ten times as many."""
    ids: list[int] = []
    with recording(sqlite_url, queue_limit=200) as telemetry:
        registered_id(telemetry, a_job())
        with locked(sqlite_url):
            for n in range(2300):
                register(telemetry, a_job(f"job-{n}"), ids.append)
            dropped = telemetry.health().dropped
            assert 50 <= dropped <= 300  # 2,000 may wait, up to 200 more were in the writer's hands
        assert telemetry.flush(10)
        assert len(ids) == 2300 - dropped


def test_a_full_queue_drops_the_newest_and_says_so_once(sqlite_url: str, caplog: Any) -> None:
    """Beyond the queue's limit records are dropped, counted exactly, and logged once per interval."""
    with recording(sqlite_url, queue_limit=1000) as telemetry:
        registered_id(telemetry, a_job())
        with locked(sqlite_url):
            threads = [threading.Thread(target=record_many, args=(telemetry, n * 500, 500)) for n in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            health = telemetry.health()
            assert health.queue_length + health.dropped == 2000
            assert 700 <= health.dropped <= 1000  # less what was in the writer's hands already
            wait_until(lambda: "dropped" in caplog.text)
            record_many(telemetry, 5000, 10)
        assert telemetry.flush(10)
        dropped = telemetry.health().dropped
        assert total(telemetry) == 2010 - dropped
        assert dropped == health.dropped + 10
        assert len([one for one in caplog.messages if "dropped" in one]) == 1


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small tmpfs takes root")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let tests mount a tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_waited_out(tiny_disk: Path) -> None:
    """With the disk full nothing is lost or corrupted: once there is room, everything is written."""
    ballast = tiny_disk / "ballast"
    with recording(f"sqlite:///{tiny_disk / 'runs.db'}") as telemetry:
        registered_id(telemetry, a_job())
        with contextlib.suppress(OSError), ballast.open("wb") as file:
            while True:
                file.write(b"x" * 4096)
                file.flush()
        record_many(telemetry, 0, 2000)
        wait_until(lambda: telemetry.health().write_errors >= 2)
        assert "full" in (telemetry.health().error or "")
        ballast.unlink()
        assert telemetry.flush(15)
        assert total(telemetry) == 2000
        assert telemetry.health().alive
    connection = sqlite3.connect(tiny_disk / "runs.db")
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


@pytest.fixture
def mortal_postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL of its own, to be killed."""
    yield from run_server()


def test_postgres_killed_and_restarted_under_load(mortal_postgres: PostgresServer) -> None:
    """PostgreSQL is killed, and started again: no call waits, no record is lost, none is there twice."""
    recorded = 0
    stop = threading.Event()
    longest = 0.0

    def load() -> None:
        nonlocal recorded, longest
        while not stop.wait(0.01):
            longest = max(longest, record_many(telemetry, recorded, 20))
            recorded += 20

    with recording(mortal_postgres.url()) as telemetry:
        job_id = registered_id(telemetry, a_job())
        thread = threading.Thread(target=load)
        thread.start()
        try:
            for _ in range(2):
                written = telemetry.health().written
                wait_until(lambda written=written: telemetry.health().written > written + 100)
                errors = telemetry.health().write_errors
                mortal_postgres.kill()
                wait_until(lambda errors=errors: telemetry.health().write_errors > errors)
                assert not telemetry.health().alive
                mortal_postgres.start()
                wait_until(lambda: telemetry.health().alive)
        finally:
            stop.set()
            thread.join()
        assert telemetry.flush(20)
        assert total(telemetry) == recorded
        assert telemetry.health().dropped == 0
        assert registered_id(telemetry, a_job()) == job_id
        assert longest < 0.2


def test_a_database_that_hangs_is_noticed(mortal_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that keeps its connections and answers nothing delays nobody, and health says so."""
    monkeypatch.setattr(writer, "SILENT_SECONDS", 0.3)
    with recording(mortal_postgres.url()) as telemetry:
        registered_id(telemetry, a_job())
        mortal_postgres.freeze()
        try:
            assert record_many(telemetry, 0, 1000) < 0.1
            wait_until(lambda: not telemetry.health().alive)
            assert "has not answered" in (telemetry.health().error or "")
            before = time.perf_counter()
            assert not telemetry.flush(0.1)
            assert time.perf_counter() - before < 1
        finally:
            mortal_postgres.thaw()
        assert telemetry.flush(10)
        assert total(telemetry) == 1000
        assert telemetry.health().alive


def test_tables_dropped_under_it_are_made_again(url: str) -> None:
    """If somebody drops the tables, they are created again and recording goes on."""
    with recording(url) as telemetry:
        registered_id(telemetry, a_job())
        with telemetry._database.writing() as conn:
            for table in ("executions", "registrations", "jobs", "instances", "hassette_aps_schema"):
                conn.exec_driver_sql(f"DROP TABLE {table}")
        telemetry.record(FakeRun())
        assert telemetry.flush(10)
        assert total(telemetry) == 1


def test_an_unreachable_server_costs_nothing(caplog: Any) -> None:
    """With no server at the address, everything runs on, health says so, and close returns in time."""
    telemetry = Telemetry("postgresql+psycopg://u:secret@127.0.0.1:9/x")
    telemetry.start()
    telemetry.record(FakeRun())
    wait_until(lambda: telemetry.health().write_errors)
    assert not telemetry.health().alive
    before = time.perf_counter()
    assert not telemetry.close(0.1)
    assert time.perf_counter() - before < 2
    assert "secret" not in caplog.text
    telemetry._thread.join(10)  # type: ignore[union-attr]


def test_lifecycle_is_forgiving(any_url: str) -> None:
    """Start twice, close twice, start again: one thread at a time, nothing lost, history stays readable."""
    telemetry = Telemetry(any_url)
    assert not telemetry.health().alive
    assert telemetry.history("tests") == []
    assert telemetry.close(1)
    telemetry.record(FakeRun())
    assert not telemetry.flush(0.1)
    threads = threading.active_count()
    for n in range(1, 4):
        telemetry.start()
        telemetry.start()
        assert threading.active_count() == threads + 1
        assert telemetry.flush(10)
        assert telemetry.health().alive
        assert telemetry.close(10)
        assert telemetry.close(10)
        assert not telemetry.health().alive
        assert total(telemetry) == n
        telemetry.record(FakeRun(n=n))
    assert threading.active_count() == threads


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("oracle://u:secret@h/x", "neither SQLite nor PostgreSQL"),
        ("mysql+pymysql://u:secret@h/x", "neither SQLite nor PostgreSQL"),
        ("postgresql+asyncpg://u:secret@h/x", "postgresql"),
        ("sqlite+aiosqlite:///x.db", "sqlite:///jobs.db"),
        ("postgresql+nonsense://u:secret@h/x", "unknown driver"),
        ("postgresql+pg8000://u:secret@h/x", "hassette-aps[postgresql]"),
        ("jobs.db", "not a database URL"),
        ("", "not a database URL"),
        ("sqlite:////no/such/directory/x.db", "does not exist"),
        ("postgres://u:secret@h/x", "postgresql+psycopg://"),
    ],
)
def test_a_url_that_cannot_work_is_refused_at_once(url: str, says: str) -> None:
    """A wrong URL is a ``ValueError`` at construction that names the fix and hides the password."""
    with pytest.raises(ValueError) as refused:
        Telemetry(url)
    assert says in str(refused.value)
    assert "secret" not in str(refused.value)
    assert url.split(":", maxsplit=1)[0] in str(refused.value)


@pytest.mark.parametrize("options", [{"retention_days": 0}, {"retention_rows": 0}, {"queue_limit": 0}])
def test_numbers_that_cannot_work_are_refused(options: dict[str, Any]) -> None:
    """Limits must be positive."""
    with pytest.raises(ValueError, match="must be positive"):
        Telemetry("sqlite://", **options)


def test_postgresql_without_a_driver_means_psycopg(postgres_url: str) -> None:
    """``postgresql://`` is taken to mean psycopg 3."""
    with recording(postgres_url.replace("+psycopg", "")) as telemetry:
        telemetry.record(FakeRun())
        assert total(telemetry) == 1


def test_in_flight_that_raises_is_survived(sqlite_url: str, caplog: Any) -> None:
    """An ``in_flight`` that raises does not stop the recording."""

    def fail() -> Any:
        raise RuntimeError("dictionary changed size during iteration")

    with recording(sqlite_url, in_flight=fail) as telemetry:
        telemetry.record(FakeRun())
        assert telemetry.flush(10)
        assert total(telemetry) == 1
    assert not [one for one in caplog.records if one.levelno >= logging.ERROR]


def test_a_registration_that_cannot_be_put_into_words() -> None:
    """A job whose trigger raises when it is described is counted as rejected; the others are recorded."""

    class Broken:
        def as_record(self) -> JobRecord:
            raise RuntimeError("no label today")

        def recorded_as(self, db_id: int) -> None:
            ids.append(db_id)

    ids: list[int] = []
    with recording("sqlite://") as telemetry:
        telemetry.registered(Broken())
        register(telemetry, a_job("fine"), ids.append)
        wait_until(lambda: ids)
        assert len(ids) == 1
        assert telemetry.health().rejected == 1
