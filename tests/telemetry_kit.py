"""What the tests of the database of runs share: records, databases, and waiting with a deadline."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hassette_aps.execution_id import new_execution_id
from hassette_aps.instants import from_datetime
from hassette_aps.records import JobRecord, Verdict
from hassette_aps.telemetry import Telemetry

START = datetime.now(UTC).replace(microsecond=0)
"""The first target of every job here: recent, or retention would remove what the tests write."""
START_US = from_datetime(START)


class FakeRun:
    """A run that ended, or is in flight; target number ``n`` of its job."""

    def __init__(self, name: str = "job", n: int = 0, **fields: Any) -> None:
        self.fields = {
            "execution_id": new_execution_id(),
            "owner": "tests",
            "job_name": name,
            "job_group": None,
            "db_id": None,
            "status": "success",
            "scheduled_for": START + timedelta(seconds=n),
            **fields,
        }

    def as_verdict(self) -> Verdict:
        return Verdict(
            **{
                name: from_datetime(value) if isinstance(value, datetime) else value
                for name, value in self.fields.items()
            }
        )


class FakeRegistration:
    """A registration of a job that says what is asked of it."""

    def __init__(self, job: JobRecord, on_id: Callable[[int], object]) -> None:
        self.job = job
        self.recorded_as = on_id

    def as_record(self) -> JobRecord:
        return self.job


def register(telemetry: Telemetry, job: JobRecord, on_id: Callable[[int], object] = lambda _: None) -> None:
    """Put a registration on record; ``on_id`` hears the id of its row."""
    telemetry.registered(FakeRegistration(job, on_id))


def a_job(name: str = "job", **fields: Any) -> JobRecord:
    """A registration."""
    defaults: dict[str, Any] = {
        "owner": "tests",
        "name": name,
        "auto_named": False,
        "group": None,
        "func": "module:function",
        "trigger_type": "interval",
        "trigger_label": "every",
        "trigger_detail": "60",
        "args": (),
        "kwargs": {},
        "jitter": None,
        "mode": "parallel",
        "source": "app.py:1",
        "registered_at": START,
    }
    return JobRecord(**{**defaults, **fields})


def wait_until(condition: Callable[[], Any], seconds: float = 15) -> Any:
    """Poll ``condition`` until it holds, and return what it returned."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, "gave up waiting"
        time.sleep(0.01)
    return result


@contextmanager
def recording(url: str, **options: Any) -> Iterator[Telemetry]:
    """A started ``Telemetry``, closed at the end."""
    telemetry = Telemetry(url, **options)
    telemetry.start()
    try:
        yield telemetry
    finally:
        assert telemetry.close(20)


def registered_id(telemetry: Telemetry, job: JobRecord) -> int:
    """Register ``job`` and wait for its id."""
    ids: list[int] = []
    register(telemetry, job, ids.append)
    return wait_until(lambda: ids)[0]


def running_markers(telemetry: Telemetry) -> int:
    """How many runs the database has as still running."""
    with telemetry._database.reading() as conn:
        return conn.exec_driver_sql("SELECT count(*) FROM executions WHERE status = 'running'").scalar_one()


def child(code: str, *args: str, **options: Any) -> subprocess.Popen[str]:
    """A process that runs ``code`` with this module imported as ``kit``."""
    root = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        [sys.executable, "-c", f"import sys, time\nfrom tests import telemetry_kit as kit\n{code}", *args],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )


def kill(process: subprocess.Popen[str]) -> None:
    """SIGKILL, and wait until it is gone."""
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=10)
