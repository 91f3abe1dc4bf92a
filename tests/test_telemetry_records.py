"""What goes into the database of runs comes out of it, whatever it holds."""

import json
import sqlite3
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import TypeAdapter

from hassette_aps.records import ExecutionRecord, JobRecord, Status, Verdict
from hassette_aps.telemetry import JobSummary, Telemetry
from hassette_aps.telemetry.rows import MAX_KEY, MAX_TEXT
from tests.telemetry_kit import (
    START,
    START_US,
    FakeRun,
    a_job,
    recording,
    register,
    registered_id,
    running_markers,
    wait_until,
)

pytest_plugins = ["tests.telemetry_fixtures"]


def test_a_job_has_one_id_for_ever(any_url: str) -> None:
    """The id of an owner and a name survives re-registration, cancellation and other jobs."""
    with recording(any_url) as telemetry:
        first = registered_id(telemetry, a_job())
        telemetry.cancelled("tests", "job", START_US)
        other = registered_id(telemetry, a_job("other"))
        elsewhere = registered_id(telemetry, a_job(owner="someone"))
        assert len({first, other, elsewhere}) == 3
        (summary,) = [one for one in telemetry.summary("tests") if one.name == "job"]
        assert summary.cancelled_at == START
        assert registered_id(telemetry, a_job(group="night")) == first
        (summary,) = [one for one in telemetry.summary("tests") if one.name == "job"]
        assert (summary.cancelled_at, summary.group, summary.db_id) == (None, "night", first)


def test_the_id_survives_a_restart(url: str) -> None:
    """A later process gets the same id for the same job."""
    with recording(url) as telemetry:
        first = registered_id(telemetry, a_job())
    with recording(url) as telemetry:
        assert registered_id(telemetry, a_job()) == first


def test_a_record_comes_back_as_it_went_in(any_url: str) -> None:
    """Every field of a record survives the database, to the microsecond."""
    moment = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    run = FakeRun(
        status="error",
        scheduled_for=moment,
        started_at=moment + timedelta(milliseconds=2),
        duration_ms=12.5,
        lateness_ms=2.0,
        attempt=2,
        triggered_by="submit",
        error_type="ValueError",
        error_message="déjà vu",
        error_traceback="Traceback\n  ...",
        coalesced_from=moment - timedelta(hours=2),
        coalesced_to=moment - timedelta(hours=1),
        next_target=moment + timedelta(hours=1),
    )
    with recording(any_url) as telemetry:
        job_id = registered_id(telemetry, a_job(group="g"))
        telemetry.record(run)
        (found,) = telemetry.history("tests", "job")
        assert found == ExecutionRecord(
            **{**run.fields, "db_id": job_id, "job_group": "g", "instance": telemetry.instance}
        )


def test_history_filters_and_limits(any_url: str) -> None:
    """History is newest first, of one job or of all of an owner, by status and time, limited."""
    with recording(any_url) as telemetry:
        for n in range(10):
            telemetry.record(FakeRun("even" if n % 2 == 0 else "odd", n, status="error" if n == 4 else "success"))
        telemetry.record(FakeRun("even", owner="someone"))
        seconds: Callable[[list[ExecutionRecord]], list[int]] = lambda found: [  # noqa: E731
            round((one.scheduled_for - START).total_seconds()) for one in found
        ]
        assert seconds(telemetry.history("tests")) == list(range(9, -1, -1))
        assert seconds(telemetry.history("tests", "even", limit=3)) == [8, 6, 4]
        assert seconds(telemetry.history("tests", since=START + timedelta(seconds=7))) == [9, 8, 7]
        assert seconds(telemetry.history("tests", status="error")) == [4]
        assert telemetry.history("tests", "nobody") == []


def test_summary_figures(any_url: str) -> None:
    """A summary counts verdicts by status and gives percentiles, lateness, last run and last error."""
    with recording(any_url) as telemetry:
        registered_id(telemetry, a_job("idle"))
        for n in range(1, 101):
            started = START + timedelta(seconds=n)
            telemetry.record(FakeRun(n=n, duration_ms=float(n), lateness_ms=2.0, started_at=started))
        failure = {"error_type": "KeyError", "error_message": "'x'"}
        telemetry.record(FakeRun(n=101, status="error", **failure))
        telemetry.record(FakeRun(n=102, status="missed"))
        idle, busy = telemetry.summary("tests")
        assert (idle.name, idle.total, idle.last_run, idle.p50_ms, idle.last_error) == (
            "idle",
            0,
            None,
            None,
            None,
        )
        assert busy.total == 102
        assert busy.by_status == {"success": 100, "error": 1, "missed": 1}
        assert (busy.p50_ms, busy.p95_ms, busy.mean_lateness_ms) == (50.0, 95.0, 2.0)
        assert busy.last_run == START + timedelta(seconds=100)
        assert busy.last_error == "KeyError: 'x'"
        assert busy.last_error_at == START + timedelta(seconds=101)
        assert telemetry.summary("nobody") == []


STATUSES: tuple[Status, ...] = Status.__args__  # type: ignore[attr-defined]


def test_every_status_is_kept(any_url: str) -> None:
    """Each of the ten verdicts can be recorded and asked for."""
    with recording(any_url) as telemetry:
        for n, status in enumerate(STATUSES):
            telemetry.record(FakeRun(n=n, status=status))
        for n, status in enumerate(STATUSES):
            (found,) = telemetry.history("tests", status=status)
            assert found.scheduled_for == START + timedelta(seconds=n)


def test_runs_without_a_target_of_their_own_do_not_collide(any_url: str) -> None:
    """Submitted runs and ranges may share an instant with each other and with a scheduled run."""
    with recording(any_url) as telemetry:
        runs = [FakeRun(triggered_by="submit") for _ in range(3)]
        runs += [FakeRun(), FakeRun(status="coalesced", coalesced_from=START, coalesced_to=START)]
        for run in runs:
            telemetry.record(run)
        ids = {one.execution_id for one in telemetry.history("tests")}
        assert ids == {run.fields["execution_id"] for run in runs}
        assert telemetry.health().rejected == 0


def test_a_second_verdict_on_one_target_is_not_lost(any_url: str) -> None:
    """Two records of one target, which should not exist, are both kept; the same record twice is one row."""
    with recording(any_url) as telemetry:
        first, second = FakeRun(), FakeRun(status="error")
        for run in (first, second, FakeRun(n=1), first):
            telemetry.record(run)
        assert len(telemetry.history("tests")) == 3
        telemetry.record(first)
        assert len(telemetry.history("tests")) == 3
        assert telemetry.health().rejected == 0


HOSTILE = ["nul \0 byte", "lone \udc80 surrogate", "x" * 300_000, "é" * 300_000, ""]


@pytest.mark.parametrize("text", HOSTILE, ids=["nul", "surrogate", "long", "wide", "empty"])
def test_any_text_can_be_stored(any_url: str, text: str) -> None:
    """NUL, lone surrogates and megabytes are stored as well as can be, in every text column."""
    fields = dict.fromkeys(("error_type", "error_message", "error_traceback"), text)
    with recording(any_url) as telemetry:
        job = a_job(text, owner=text, group=text, func=text, source=text, args=(text,), kwargs={text: text})
        job_id = registered_id(telemetry, job)
        telemetry.record(FakeRun(text, owner=text, **fields))
        (found,) = telemetry.history(text, text)
        assert found.db_id == job_id
        assert found.error_message is not None
        assert len(found.error_message) < MAX_TEXT + 100
        assert found.error_message[:4] == text[:4]
        assert found.error_message[-5:] == text[-5:]
        assert len(found.job_name) <= MAX_KEY
        (summary,) = telemetry.summary(text)
        assert summary.total == 1
        assert telemetry.health().rejected == 0


def test_long_names_stay_apart(any_url: str) -> None:
    """Names that differ only after the stored length are two jobs."""
    with recording(any_url) as telemetry:
        assert registered_id(telemetry, a_job("n" * 5000 + "1")) != registered_id(telemetry, a_job("n" * 5000 + "2"))


class Broken:
    def __init__(self, exc: BaseException) -> None:
        self.exc = exc

    def as_verdict(self) -> Verdict:
        raise self.exc


def test_a_record_that_cannot_be_stored_takes_no_other_along(any_url: str, caplog: Any) -> None:
    """Records that raise, or hold what no column can, are counted and logged; their batch is written."""
    naive = START.replace(tzinfo=None)
    bad: list[Any] = [
        Broken(ValueError("no")),
        Broken(SystemExit(1)),
        FakeRun(attempt=2**70),
        FakeRun(attempt="one"),
        FakeRun(duration_ms="fast"),
        FakeRun(scheduled_for=naive),
        FakeRun(scheduled_for=None),
        object(),
    ]
    with recording(any_url) as telemetry:
        for n, one in enumerate(bad):
            telemetry.record(FakeRun(n=n))
            telemetry.record(one)
        register(telemetry, a_job("bad", registered_at=naive))
        registered_id(telemetry, a_job("good"))
        assert len(telemetry.history("tests")) == len(bad)
        health = telemetry.health()
        assert (health.rejected, health.alive, health.written) == (len(bad) + 1, True, len(bad))
    assert "cannot be stored" in caplog.text


def test_a_run_of_an_unknown_job_is_recorded(any_url: str) -> None:
    """A run whose job was never registered gets a job row; registering it later keeps the id."""
    with recording(any_url) as telemetry:
        telemetry.record(FakeRun("stranger"))
        (found,) = telemetry.history("tests", "stranger")
        assert registered_id(telemetry, a_job("stranger", func="m:known")) == found.db_id


def test_a_callback_that_raises_changes_nothing(any_url: str, caplog: Any) -> None:
    """An ``on_id`` that raises is logged; others are called, and writing goes on."""

    def fail(_: int) -> None:
        raise RuntimeError("not my id")

    with recording(any_url) as telemetry:
        register(telemetry, a_job("one"), fail)
        registered_id(telemetry, a_job("two"))
        telemetry.record(FakeRun())
        assert telemetry.flush(10)
    assert "not my id" in caplog.text


def test_ten_thousand_registrations(url: str) -> None:
    """10,000 jobs registered at once all get an id, within seconds."""
    ids: list[int] = []
    with recording(url) as telemetry:
        for n in range(10_000):
            register(telemetry, a_job(f"job-{n}"), ids.append)
        assert telemetry.flush(20)
    assert len(set(ids)) == 10_000


def test_registering_and_cancelling_in_one_batch_ends_in_the_last_state(any_url: str) -> None:
    """Changes of one job that are written together leave it in the state of the last of them."""
    ids: list[int] = []
    telemetry = Telemetry(any_url)
    register(telemetry, a_job("kept"), ids.append)
    telemetry.cancelled("tests", "kept", START_US)
    register(telemetry, a_job("kept", group="new"), ids.append)
    register(telemetry, a_job("gone"), ids.append)
    telemetry.cancelled("tests", "gone", START_US)
    telemetry.cancelled("tests", "never", START_US)
    telemetry.start()
    gone, kept = telemetry.summary("tests")
    assert (gone.name, gone.cancelled_at) == ("gone", START)
    assert (kept.name, kept.cancelled_at, kept.group) == ("kept", None, "new")
    assert ids == [kept.db_id, kept.db_id, gone.db_id]
    assert telemetry.close(10)


def test_calls_from_many_threads(any_url: str) -> None:
    """Eight threads record 500 runs each, register and read meanwhile; nothing is lost."""
    with recording(any_url) as telemetry:

        def work(thread: int) -> None:
            for n in range(500):
                telemetry.record(FakeRun(f"job-{thread}", n))
            register(telemetry, a_job(f"job-{thread}"))
            assert telemetry.history("tests", f"job-{thread}", limit=1)

        threads = [threading.Thread(target=work, args=(thread,)) for thread in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {one.total for one in telemetry.summary("tests")} == {500}


class NoRepr:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


def test_records_become_json_whatever_they_hold() -> None:
    """Pydantic turns every record into JSON: hostile arguments, lone surrogates, nan."""
    hostile = "a\udc80"
    job = a_job(hostile, args=(NoRepr(), float("nan"), b"\xff"), kwargs={hostile: {1, 2}})
    found = json.loads(TypeAdapter(JobRecord).dump_json(job))
    assert found["name"] == "a\\udc80"
    assert found["args"] == [f"<unprintable {__name__}.NoRepr>", "nan", "/w=="]
    run = FakeRun(hostile, error_message=hostile, duration_ms=float("inf"), started_at=START).as_verdict().as_record()
    found = json.loads(TypeAdapter(ExecutionRecord).dump_json(run))
    assert found["error_message"] == "a\\udc80"
    assert datetime.fromisoformat(found["started_at"]) == START
    summary = JobSummary(name=hostile, group=None, db_id=1, total=1, by_status={"error": 1}, last_error=hostile)
    assert json.loads(TypeAdapter(JobSummary).dump_json(summary))["by_status"] == {"error": 1}


def test_arguments_are_readable_json_in_the_table(sqlite_url: str) -> None:
    """Anyone can read the tables with SQL: arguments as JSON, times as microseconds."""
    with recording(sqlite_url) as telemetry:
        registered_id(telemetry, a_job(args=(1, "two"), kwargs={"when": START}))
    connection = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))
    ((args, kwargs, when),) = connection.execute("SELECT args, kwargs, registered_at FROM jobs")
    connection.close()
    assert json.loads(args) == [1, "two"]
    assert json.loads(kwargs) == {"when": START.isoformat()}
    assert when == START.timestamp() * 1_000_000


def test_a_verdict_replaces_the_marker_of_its_run(url: str) -> None:
    """A run that takes a while has one row, and it ends with the verdict."""
    long = FakeRun("long", status="interrupted", started_at=START)
    flying = [long]
    with recording(url, in_flight=lambda: list(flying)) as telemetry:
        assert telemetry.flush(10)
        wait_until(lambda: running_markers(telemetry) == 1)
        assert telemetry.history("tests") == []
        assert telemetry.summary("tests")[0].total == 0
        flying.clear()
        telemetry.record(FakeRun(**{**long.fields, "status": "success", "duration_ms": 5.0}))
        (found,) = telemetry.history("tests")
        assert (found.status, found.duration_ms) == ("success", 5.0)
        assert running_markers(telemetry) == 0
