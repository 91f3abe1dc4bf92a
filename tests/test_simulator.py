"""P1 to P11 in virtual time: a million targets under faults, judged by the checker. See ``tests/simulator``."""

import os
from typing import Any

import pytest

from tests.simulator.checker import check, report
from tests.simulator.world import Setup, simulate

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


def test_an_episode_repeats_from_its_seed() -> None:
    """A failing seed can be looked at again: everything but the ids of runs is the same."""

    def events(seed: int) -> list[Any]:
        history, _ = simulate(seed)
        starts = [(start.when, start.job, start.target, start.attempt) for start in history.starts]
        verdicts = [verdict._replace(execution_id="") for verdict in history.verdicts]
        return [*starts, *verdicts, *history.lives.values(), *history.trace]

    assert events(3) == events(3)
