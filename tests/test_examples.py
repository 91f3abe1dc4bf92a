"""The examples, run as a user runs them."""

import json
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


def run(name: str, *arguments: str) -> str:
    """Standard output of an example; it must exit with 0 and print nothing on standard error."""
    done = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / name, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
    )
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout


def test_quickstart() -> None:
    """An interval job, a cron job, a cancelled group, a handled failure, a replaced job, all on record."""
    out = run("quickstart.py")
    assert out.count("heartbeat  on its grid") >= 4
    seconds = re.findall(r"by cron, on even seconds, due at \d\d:\d\d:(\d\d\.\d+)", out)
    assert seconds
    assert all(float(second) % 2 == 0 for second in seconds)
    assert "handler    job 'sync' failed: ConnectionError('the sensor does not answer')" in out
    before, after = out.split("cancelled  the group 'lights'")
    assert "lights in the kitchen" in before
    assert "lights in the kitchen" not in after.split("On record:")[0]
    assert "poll       the device is online" in out
    assert re.search(r"sync +1 runs \{'error': 1\}, last error: ConnectionError", out)


def test_migrate_apscheduler(tmp_path: Path) -> None:
    """No row is lost, next run times are kept, the raw job stays raw, the old listener still hears."""
    out = run("migrate_apscheduler.py", str(tmp_path / "jobs.db"))
    before, after, again = re.split(r"^after.*\n|^the next restart.*\n", out, flags=re.M)
    rows = [dict(re.findall(r"^ {4}(\w+) +next run (.{23})", part, flags=re.M)) for part in (before, after, again)]
    assert set(rows[0]) == {"report", "cleanup", "archive"}
    assert rows[0] == rows[1] == rows[2]
    for part in (after, again):
        assert "ours:  report, cleanup" in part
        assert "raw:   archive" in part
        assert "the old listener heard of: report" in part


def get(port: int, path: str, method: str = "GET") -> Any:
    """The JSON that the service answers."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
    with urllib.request.urlopen(request, timeout=5) as answer:
        return json.load(answer)


def wait_for(port: int, path: str, fits: Any) -> Any:
    """Ask until the answer fits, with a deadline."""
    deadline = time.monotonic() + 20
    while True:
        try:
            answer = get(port, path)
        except OSError:  # not up yet, or busy
            answer = None
        if answer is not None and fits(answer):
            return answer
        assert time.monotonic() < deadline, f"{path} answers {answer}"
        time.sleep(0.05)


def test_fastapi_service(tmp_path: Path) -> None:
    """Raw and facade jobs run beside each other under uvicorn; jobs are listed, submitted, handled and on record."""
    log = tmp_path / "log"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with log.open("w") as stream:
        service = subprocess.Popen(
            [sys.executable, EXAMPLES / "fastapi_service.py", "--port", str(port)],
            cwd=ROOT,
            stdout=stream,
            stderr=stream,
        )
    try:
        wait_for(port, "/", lambda state: state["raw ticks"] >= 1 and state["refreshed"] >= 1)
        listed = get(port, "/jobs")
        assert [job["name"] for job in listed["jobs"]] == ["refresh cache", "flaky import"]
        assert set(listed["apscheduler"]) == {"raw tick", "refresh cache", "flaky import"}
        assert len(get(port, "/jobs/refresh%20cache/submit", "POST")["execution_id"]) == 36
        for method, path, code in (("POST", "/jobs/nothing/submit", 404), ("GET", "/history?limit=0", 422)):
            with pytest.raises(urllib.error.HTTPError, match=str(code)) as refused:
                get(port, path, method)
            refused.value.close()
        wait_for(port, "/history?name=refresh%20cache", lambda rows: len(rows) >= 2 and rows[0]["status"] == "success")
        wait_for(port, "/", lambda state: "flaky import: the upstream is away" in state["alerts"])
        wait_for(port, "/history?name=flaky%20import", lambda rows: any(row["status"] == "error" for row in rows))
        assert get(port, "/health")["alive"] is True
    finally:
        service.terminate()
        service.wait(20)
    printed = log.read_text()
    assert f"Uvicorn running on http://127.0.0.1:{port}" in printed
    assert "Application shutdown complete" in printed
    assert printed.count("Traceback") == printed.count("Job error (job_db_id=") == printed.count("away\n")
