"""P1 to P11 in virtual time: a million targets under faults, judged by the checker. See ``tests/simulator``."""

import os
import sqlite3
import threading
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from hassette_aps.instants import from_datetime
from tests.simulator.checker import check, report
from tests.simulator.world import Setup, simulate

pytestmark = pytest.mark.no_cover  # traced, a million targets take four times as long

TARGETS = int(os.environ.get("TEST_TARGETS", "1000000"))
"""``python -m tests.simulator --targets 10000000`` is for more."""


def judge(seed: int, setup: Setup | None = None) -> int:
    """Run one episode; a broken promise fails the test and says how to see it again."""
    history, _ = simulate(seed, setup)
    found = check(history)
    if found.problems:
        flags = " --nights" if setup and setup.nights else ""
        pytest.fail(f"repeat it with: python -m tests.simulator --seed {seed}{flags}\n{report(found)}", pytrace=False)
    return found.targets


@pytest.mark.timeout(400)
@pytest.mark.parametrize("part", range(4))
def test_every_target_has_one_verdict_whatever_fails(part: int) -> None:
    """P1-P3, P5-P8, P10, P11: a quarter million each, with holds of the loop, steps of the clock, failing jobs,
    handlers, predicates, triggers and stores; cancel, replace, group cancel, pause, submit, reload at odd moments."""
    seed, targets = 10_000 * part + 1, 0
    while targets < TARGETS // 4:
        targets += judge(seed)
        seed += 1


def test_a_night_in_which_the_clocks_change() -> None:
    """P4, 6.8: fixed times run once in the gap and once in the fold, in four hours of either night."""
    night = Setup(seconds=4 * 3600, jobs=20, every=(600.0,), operations=80, clock_steps=False, nights=True)
    for seed in range(1, 13):
        judge(seed, night)


class Locker(threading.Thread):
    """Locks a SQLite database again and again, as another program would, in real time."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self.path = path
        self.over = threading.Event()
        self.locks = 0

    def run(self) -> None:
        with closing(sqlite3.connect(self.path, isolation_level=None, timeout=5)) as connection:
            while not self.over.wait(0.01):
                connection.execute("BEGIN EXCLUSIVE")
                self.locks += 1
                self.over.wait(0.04)
                connection.execute("ROLLBACK")


def test_the_database_has_every_verdict_though_it_is_locked_most_of_the_time(tmp_path: Path) -> None:
    """P2, P9: what hooks were told is what the database has: each verdict once, ranges included."""
    path = tmp_path / "runs.db"
    locker = Locker(path)
    locker.start()
    try:
        history, world = simulate(7, Setup(seconds=200, operations=15, database=f"sqlite:///{path}"))
    finally:
        locker.over.set()
        locker.join()
    assert locker.locks > 3
    assert not check(history).problems
    telemetry = world.scheduler._lifecycle.telemetry
    assert telemetry is not None
    telemetry.start()  # what a shutdown could not write in its five seconds waits for the next start
    records = telemetry.history("", limit=1_000_000) if telemetry.flush(60) else []
    telemetry.close(10)
    told = Counter(verdict.execution_id for verdict in history.verdicts if verdict.first is None)
    assert told == Counter(record.execution_id for record in records if record.coalesced_from is None)
    ranges = Counter((f"job-{one.job}", one.first, one.last) for one in history.verdicts if one.first is not None)
    assert ranges == Counter(
        (one.job_name, from_datetime(one.coalesced_from), from_datetime(one.coalesced_to))
        for one in records
        if one.coalesced_from is not None and one.coalesced_to is not None
    )


def test_an_episode_repeats_from_its_seed() -> None:
    """A failing seed can be looked at again: everything but the ids of runs is the same."""

    def events(seed: int) -> list[Any]:
        history, _ = simulate(seed)
        starts = [(start.when, start.job, start.target, start.attempt) for start in history.starts]
        verdicts = [verdict._replace(execution_id="") for verdict in history.verdicts]
        return [*starts, *verdicts, *history.lives.values(), *history.trace]

    assert events(3) == events(3)
