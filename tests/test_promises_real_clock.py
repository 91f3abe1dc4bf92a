"""P11 with a real clock step: the process's clock is set by libfaketime (Debian package ``libfaketime``)."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketime*MT*.so.1"), None)

PROGRAM = """
import asyncio, sys, time
from datetime import datetime, timedelta, timezone
from hassette_aps import Scheduler, current_run

async def main():
    async def tick():
        run = current_run()
        print(run.name, time.monotonic(), time.time(), run.target / 1e6, run.attempt, flush=True)
    async with Scheduler(timezone="UTC", database=None) as scheduler:
        if sys.argv[2] == "busy":
            scheduler.run_every(tick, seconds=0.5, name="every")
            scheduler.run_cron(tick, "* * * * * *", name="cron")
            scheduler.run_in(tick, 4, name="after")
        else:
            scheduler.run_every(tick, minutes=10, name="every")
            scheduler.run_cron(tick, "*/10 * * * *", name="cron")
        now = datetime.now(timezone.utc)
        scheduler.run_once(tick, now + timedelta(minutes=30), name="once")
        scheduler.aps.add_job(lambda: print("raw", time.monotonic(), 0, 0, 1, flush=True), "interval", minutes=20,
                              misfire_grace_time=None, coalesce=True)
        print("ready", 0, 0, 0, 0, flush=True)
        await asyncio.sleep(float(sys.argv[1]))
asyncio.run(main())
"""


class Line:
    """One run as the child saw it."""

    def __init__(self, text: str) -> None:
        self.job, *numbers = text.split()
        self.elapsed, self.wall, self.target = map(float, numbers[:3])
        self.attempt = int(numbers[3])


@contextmanager
def faked(folder: Path, seconds: float, jobs: str) -> Iterator[tuple["subprocess.Popen[str]", Path]]:
    """A child whose wall clock is what the file says."""
    if LIBRARY is None:
        pytest.skip("libfaketime is not installed (Debian: apt-get install libfaketime)")
    clock = folder / "clock"
    clock.write_text("+0")
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(seconds), jobs],
        cwd=Path(__file__).resolve().parent.parent,
        env={
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(clock),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "PYTHONPATH": str(Path(__file__).resolve().parent.parent),
        },
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield child, clock
    finally:
        child.kill()
        child.communicate()


def step(clock: Path, offset: str) -> None:
    """Set the child's clock at once: the file is never half written."""
    fresh = clock.with_suffix(".new")
    fresh.write_text(offset)
    fresh.rename(clock)


def runs_around(folder: Path, offset: str, jobs: str) -> tuple[list[Line], list[Line], float]:
    """Runs before and after the step, and when it was made."""
    with faked(folder, 8.0, jobs) as (child, clock):
        assert child.stdout is not None
        assert child.stdout.readline().startswith("ready")
        time.sleep(1.8)
        stepped = time.monotonic()
        step(clock, offset)
        lines = [Line(text) for text in child.stdout.read().splitlines()]
    before = [line for line in lines if line.elapsed < stepped]
    return before, [line for line in lines if line.elapsed > stepped + 0.1], stepped


def named(lines: list[Line], job: str) -> list[Line]:
    """The runs of one job."""
    return [line for line in lines if line.job == job]


def test_a_step_back_of_an_hour_silences_no_interval(tmp_path: Path) -> None:
    """P11: intervals and delays go on by elapsed time; ``Cron`` and ``Once`` wait and repeat nothing."""
    before, after, stepped = runs_around(tmp_path, "-3600", "busy")
    assert len(named(before, "every")) >= 3
    every = named(after, "every")
    assert len(every) >= 10
    assert every[0].elapsed - stepped < 5.5
    assert all(line.attempt == 2 for line in every)
    assert max(b.elapsed - a.elapsed for a, b in zip(every, every[1:], strict=False)) < 2
    (delayed,) = named([*before, *after], "after")
    assert delayed.elapsed - before[0].elapsed < 6
    assert not named(after, "cron")
    assert not named(after, "once")
    targets = [(line.job, line.target, line.attempt) for line in [*before, *after]]
    assert len(set(targets)) == len(targets)


def test_a_step_forward_of_an_hour_is_noticed_within_five_seconds(tmp_path: Path) -> None:
    """P11: though nothing is due soon, what fell due runs within 5 s, raw APScheduler jobs too; no target twice."""
    before, after, stepped = runs_around(tmp_path, "+3600", "quiet")
    for job in ("every", "cron", "once", "raw"):
        assert named(after, job), job
        assert named(after, job)[0].elapsed - stepped < 5.5, job
    targets = [(line.job, line.target, line.attempt) for line in [*before, *after] if line.job != "raw"]
    assert len(set(targets)) == len(targets)
