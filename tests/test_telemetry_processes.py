"""Processes that share a database: the dead are found and reported, the living are left alone."""

import logging
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from hassette_aps.records import ExecutionRecord
from hassette_aps.telemetry import Telemetry
from hassette_aps.telemetry.process import ProcessIdentity, is_alive, this_process
from tests.telemetry_kit import (
    START,
    FakeRun,
    a_job,
    child,
    kill,
    recording,
    registered_id,
    running_markers,
    wait_until,
)

pytest_plugins = ["tests.telemetry_fixtures"]

VICTIM = """
flying = [kit.FakeRun("long", 5, status="interrupted", started_at=kit.START)]
telemetry = kit.Telemetry(sys.argv[1], in_flight=lambda: list(flying), heartbeat_seconds=0.2)
telemetry.start()
for name in ("long", "ticking", "quiet"):
    kit.registered_id(telemetry, kit.a_job(name, registered_at=kit.START - kit.timedelta(seconds=100)))
past = -60
telemetry.record(kit.FakeRun("ticking", past, next_target=kit.START + kit.timedelta(seconds=past + 10)))
telemetry.record(kit.FakeRun("quiet", past, next_target=kit.START + kit.timedelta(days=1)))
telemetry.flush(10)
kit.wait_until(lambda: kit.running_markers(telemetry) == 1)
print(telemetry.instance, kit.START.isoformat(), flying[0].fields["execution_id"], flush=True)
time.sleep(60)
"""


def killed_victim(url: str) -> list[str]:
    """A process with a run in flight, killed; its instance, its start and the id of that run."""
    process = child(VICTIM, url)
    assert process.stdout is not None
    words = process.stdout.readline().split()
    kill(process)
    return words


class Reports:
    """Collects what ``on_interrupted`` is told."""

    def __init__(self) -> None:
        self.records: list[ExecutionRecord] = []

    def __call__(self, records: Sequence[ExecutionRecord]) -> None:
        self.records += records


def test_a_killed_process_is_reported_at_the_next_start(url: str, caplog: Any) -> None:
    """After SIGKILL the run in flight is ``interrupted``; a range stands for targets that may be missing."""
    instance, start, execution_id = killed_victim(url)
    reports = Reports()
    with recording(url, on_interrupted=reports) as telemetry:
        wait_until(lambda: reports.records)
        by_job = {one.job_name: one for one in telemetry.history("tests", status="interrupted")}
    assert sorted(by_job) == ["long", "ticking"]  # "quiet" owed nothing before tomorrow
    assert {one.execution_id for one in reports.records} == {one.execution_id for one in by_job.values()}
    cut_off, owed = by_job["long"], by_job["ticking"]
    assert (cut_off.execution_id, cut_off.instance) == (execution_id, instance)
    assert cut_off.started_at is not None
    assert cut_off.coalesced_from is None
    assert owed.instance == instance
    assert owed.coalesced_from == owed.scheduled_for
    assert owed.coalesced_from is not None
    assert owed.coalesced_from.isoformat() == (cut_off.started_at - timedelta(seconds=50)).isoformat()
    assert owed.coalesced_to is not None
    assert owed.coalesced_to >= cut_off.started_at
    (warning,) = [one for one in caplog.records if one.levelno == logging.WARNING]
    assert execution_id in warning.getMessage()
    assert "'ticking'" in warning.getMessage()
    assert start


def test_the_dead_are_reported_once(url: str) -> None:
    """Of two processes that start after a death, one reports it; later starts do not repeat it."""
    killed_victim(url)
    reports = Reports()
    with recording(url, on_interrupted=reports), recording(url, on_interrupted=reports) as second:
        wait_until(lambda: reports.records)
        assert second.flush(10)
    with recording(url, on_interrupted=reports, heartbeat_seconds=0.1) as third:
        third.record(FakeRun())
        assert third.flush(10)
    assert len(reports.records) == 2


NEIGHBOUR = """
flying = [kit.FakeRun("neighbour", 1, execution_id=sys.argv[2], status="interrupted")]
with kit.recording(sys.argv[1], in_flight=lambda: list(flying), heartbeat_seconds=0.2) as telemetry:
    kit.registered_id(telemetry, kit.a_job("neighbour"))
    kit.wait_until(lambda: kit.running_markers(telemetry) == 1)
    print("ready", flush=True)
    sys.stdin.readline()
    flying.clear()
    telemetry.record(kit.FakeRun("neighbour", 1, execution_id=sys.argv[2], status="success"))
    for n in range(2, 102):
        telemetry.record(kit.FakeRun("neighbour", n))
"""


def test_a_living_neighbour_is_left_alone(url: str) -> None:
    """Two processes on one database: neither's runs are touched, silent or not, and both record."""
    reports = Reports()
    execution_id = FakeRun().fields["execution_id"]
    process = child(NEIGHBOUR, url, execution_id, stdin=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    with recording(url, on_interrupted=reports, heartbeat_seconds=0.1) as telemetry:
        with telemetry._database.writing() as conn:  # as if it had been suspended for an hour
            conn.exec_driver_sql("UPDATE instances SET heartbeat_at = heartbeat_at - 3600000000")
        for n in range(100):
            telemetry.record(FakeRun("mine", n))
        assert telemetry.flush(10)
        first = telemetry.health().last_write
        wait_until(lambda: looks(telemetry) and first, 10)
        process.communicate("go\n", timeout=20)
        assert process.returncode == 0
        assert {one.name: one.by_status for one in telemetry.summary("tests")} == {
            "mine": {"success": 100},
            "neighbour": {"success": 101},
        }
    assert reports.records == []


def looks(telemetry: Telemetry) -> bool:
    """Whether a few heartbeats, each with a look at the others, have passed since the first call."""
    with telemetry._database.reading() as conn:
        query = "SELECT max(heartbeat_at) FROM instances"
        beats = _beats.setdefault(telemetry.instance, set())
        beats.add(conn.exec_driver_sql(query).scalar_one())
    return len(beats) > 4


_beats: dict[str, set[int]] = {}


def test_a_process_elsewhere_is_dead_after_it_was_silent(url: str) -> None:
    """A process of another host is reported when it stays silent for three heartbeats, and not before."""
    instance, *_ = killed_victim(url)
    relocate = f"UPDATE instances SET place = 'elsewhere' WHERE instance = '{instance}'"
    telemetry = Telemetry(url)
    with telemetry._database.writing() as conn:
        conn.exec_driver_sql(relocate)
    reports = Reports()
    with recording(url, on_interrupted=reports, heartbeat_seconds=0.3) as telemetry:
        registered_id(telemetry, a_job("ticking"))  # the new process takes the job over before it can know
        wait_until(lambda: reports.records)
    assert {one.job_name for one in reports.records} == {"long", "ticking"}


def test_a_process_elsewhere_that_beats_is_alive(url: str) -> None:
    """After a suspend everybody looks silent for a moment; whoever beats again is left alone."""
    reports = Reports()
    with recording(url, heartbeat_seconds=0.1) as other:
        registered_id(other, a_job("theirs", registered_at=START - timedelta(hours=1)))
        with other._database.writing() as conn:
            conn.exec_driver_sql("UPDATE instances SET place = 'elsewhere', heartbeat_at = heartbeat_at - 3600000000")
        with recording(url, on_interrupted=reports, heartbeat_seconds=0.5) as telemetry:
            wait_until(lambda: looks(telemetry))
            time.sleep(1.2)
    assert reports.records == []


def test_a_clean_stop_owes_nothing(url: str) -> None:
    """After ``close`` nothing is reported, except runs that close itself had to leave unfinished."""
    flying = [FakeRun("leaked", status="interrupted")]
    with recording(url, in_flight=lambda: list(flying)) as telemetry:
        registered_id(telemetry, a_job(registered_at=START - timedelta(hours=1)))
        wait_until(lambda: running_markers(telemetry) == 1)
    reports = Reports()
    with recording(url, on_interrupted=reports, heartbeat_seconds=0.1) as telemetry:
        wait_until(lambda: looks(telemetry))
        (left,) = telemetry.history("tests", status="interrupted")
        assert left.job_name == "leaked"
        telemetry.record(FakeRun("leaked", execution_id=left.execution_id, status="timed_out"))
        (late,) = telemetry.history("tests")
        assert late.status == "timed_out"
    assert reports.records == []


def test_jobs_that_are_over_owe_nothing(url: str) -> None:
    """A cancelled job and a one-shot that ran get no range; one that was due and has no record does."""
    code = """
telemetry = kit.Telemetry(sys.argv[1], heartbeat_seconds=0.2)
telemetry.start()
past = kit.START - kit.timedelta(hours=1)
once = dict(trigger_type="once", registered_at=past)
kit.registered_id(telemetry, kit.a_job("cancelled", registered_at=past))
telemetry.cancelled("tests", "cancelled", kit.START_US)
kit.registered_id(telemetry, kit.a_job("ran", **once))
telemetry.record(kit.FakeRun("ran", -60))
kit.registered_id(telemetry, kit.a_job("future", **once, next_target=kit.START + kit.timedelta(days=1)))
kit.registered_id(telemetry, kit.a_job("due", **once, next_target=kit.START - kit.timedelta(seconds=5)))
kit.registered_id(telemetry, kit.a_job("submitted", trigger_type="interval", registered_at=kit.START))
telemetry.record(kit.FakeRun("submitted", 60, triggered_by="submit"))
telemetry.flush(10)
print("ready", flush=True)
time.sleep(60)
"""
    process = child(code, url)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    kill(process)
    reports = Reports()
    with recording(url, on_interrupted=reports):
        wait_until(lambda: reports.records)
    assert sorted(one.job_name for one in reports.records) == ["due", "submitted"]


def test_a_hook_that_raises_is_logged(url: str, caplog: Any) -> None:
    """``on_interrupted`` may raise: the report is in the database all the same."""
    killed_victim(url)

    def fail(_: Sequence[ExecutionRecord]) -> None:
        raise RuntimeError("hook is broken")

    with recording(url, on_interrupted=fail) as telemetry:
        wait_until(lambda: "hook is broken" in caplog.text)
        assert len(telemetry.history("tests", status="interrupted")) == 2


def test_two_processes_record_at_once(url: str) -> None:
    """Two processes write 3,000 runs each to one database at once; all are there."""
    code = """
with kit.recording(sys.argv[1]) as telemetry:
    kit.registered_id(telemetry, kit.a_job("shared"))
    for n in range(3000):
        telemetry.record(kit.FakeRun("shared", n))
        if n % 100 == 0:
            time.sleep(0.005)
"""
    processes = [child(code, url) for _ in range(2)]
    for process in processes:
        process.communicate(timeout=30)
        assert process.returncode == 0
    with recording(url) as telemetry:
        (summary,) = telemetry.summary("tests")
    assert summary.total == 6000


def test_short_runs_cost_no_second_write(sqlite_url: str) -> None:
    """Only runs seen in two samples are marked, and each of them once."""
    samples: list[FakeRun] = []
    long = FakeRun("long")

    def sample() -> list[FakeRun]:
        samples.append(FakeRun(f"short-{len(samples)}"))
        return [long, samples[-1]]

    with recording(sqlite_url, in_flight=sample) as telemetry:
        wait_until(lambda: len(samples) > 3)
        assert [one.name for one in telemetry.summary("tests")] == ["long"]


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs /proc")
def test_a_process_is_known_by_more_than_its_number() -> None:
    """A process is alive under its number and start time; a reused number is another process."""
    mine = this_process()
    assert is_alive(mine) is True
    assert mine.started is not None
    assert is_alive(ProcessIdentity(mine.place, mine.pid, mine.started - 1)) is False
    assert is_alive(ProcessIdentity("elsewhere", mine.pid, mine.started)) is None
    assert is_alive(ProcessIdentity(mine.place, mine.pid, None)) is None
    zombie = subprocess.Popen(["true"])
    wait_until(lambda: is_alive(ProcessIdentity(mine.place, zombie.pid, mine.started)) is False)
    zombie.wait()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_fork_is_an_instance_of_its_own(any_url: str) -> None:
    """A fork while the writer runs: the child starts anew under its own id, the parent notices nothing."""
    with recording(any_url) as telemetry:
        registered_id(telemetry, a_job())
        for n in range(1000):
            telemetry.record(FakeRun(n=n))
        parent = telemetry.instance
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(20)
                own = telemetry.instance != parent and not telemetry.health().alive
                telemetry.start()
                telemetry.record(FakeRun("child"))
                code = 0 if own and len(telemetry.history("tests", "child")) == 1 and telemetry.close(10) else 2
            finally:
                os._exit(code)
        telemetry.record(FakeRun(n=1000))
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        telemetry.record(FakeRun(n=1001))
        (found,) = telemetry.history("tests", "job", limit=1)
        assert found.instance == parent == telemetry.instance
        totals = {one.name: one.total for one in telemetry.summary("tests")}
        assert totals == ({"job": 1002} if any_url == "sqlite://" else {"child": 1, "job": 1002})
        assert telemetry.health().write_errors == 0
