"""The checker must be able to fail: histories made by hand, each with one broken promise."""

from dataclasses import replace
from typing import Any

import pytest

from tests.simulator.checker import check
from tests.simulator.history import History, Life, Moment, Start, Verdict

SECOND = 1_000_000
BORN = 1000 * SECOND
OFFSET = 1_800_000_000 * SECOND


def at(seconds: float, seq: int | None = None) -> Moment:
    """A moment so many seconds after the beginning; by default events are in order of time."""
    elapsed = BORN + int(seconds * SECOND)
    return Moment(int(seconds * 1000) if seq is None else seq, elapsed, elapsed + OFFSET)


def verdict(second: float, **changes: Any) -> Verdict:
    """A successful run of the target at ``second``."""
    made = Verdict(
        1, f"run-{second}", "success", at(second).wall, 1, True, None, None, 0, 1.0, "schedule", at(second).elapsed
    )
    return made._replace(**changes)


def start(second: float, **changes: Any) -> Start:
    """The function called on time."""
    return Start(at(second), 1, f"run-{second}", at(second).wall, 1)._replace(**changes)


def good() -> History:
    """A job every 10 s for a minute, without fault."""
    history = History(0, [(BORN, OFFSET)], [])
    history.lives[1] = Life(1, "every", 10 * SECOND, at(0))
    for second in (10, 20, 30, 40, 50, 60):
        history.starts.append(start(second))
        history.verdicts.append(verdict(second))
    history.end = at(65)
    return history


def kinds(history: History) -> set[str]:
    """What the checker finds."""
    return check(history).kinds


def test_a_history_without_fault_passes() -> None:
    """Six targets, six runs, no problem."""
    found = check(good())
    assert (found.problems, found.targets, found.runs) == ([], 6, 6)


def test_a_lost_target_is_found() -> None:
    """P2: a target without a verdict."""
    history = good()
    del history.starts[2], history.verdicts[2]
    assert kinds(history) == {"silent loss"}


def test_a_start_without_verdict_is_found() -> None:
    """P2: a function that was called, and nobody says how it ended."""
    history = good()
    history.starts.append(start(60, execution_id="another", attempt=2))
    assert kinds(history) == {"silent loss"}


def test_a_doubled_run_is_found() -> None:
    """P1: one target, two runs."""
    history = good()
    history.starts.append(start(20, execution_id="again"))
    history.verdicts.append(verdict(20, execution_id="again"))
    assert kinds(history) == {"double run", "double verdict"}


def test_a_target_both_run_and_coalesced_is_found() -> None:
    """P2: exactly one verdict: a range must not cover what ran."""
    history = good()
    history.verdicts.append(
        verdict(
            20,
            execution_id="range",
            status="coalesced",
            started=False,
            first=at(20).wall,
            last=at(30).wall,
            told=at(41).elapsed,
        )
    )
    assert kinds(history) == {"double verdict"}


def test_a_range_is_the_verdict_of_all_it_covers() -> None:
    """11.7: targets coalesced into a later run are not lost."""
    history = good()
    del history.starts[1:3], history.verdicts[1:3]
    history.verdicts.append(
        verdict(
            20,
            execution_id="range",
            status="coalesced",
            started=False,
            first=at(20).wall,
            last=at(30).wall,
            told=at(41).elapsed,
        )
    )
    assert kinds(history) == set()


def test_an_early_start_is_found() -> None:
    """P3: a millisecond early is early."""
    history = good()
    history.starts[0] = history.starts[0]._replace(when=at(9.999))
    assert kinds(history) == {"early"}


@pytest.mark.parametrize(("delay", "found"), [(0.01, set()), (2.0, {"late"})])
def test_a_late_start_is_found_unless_the_loop_was_held(delay: float, found: set[str]) -> None:
    """P3: late only as long as something held the loop."""
    history = good()
    history.starts[0] = history.starts[0]._replace(when=at(10 + delay))
    assert kinds(history) == found
    history.blocks.append((at(9.5).elapsed, at(12).elapsed))
    assert kinds(history) == set()


@pytest.mark.parametrize(("zone", "found"), [("UTC", {"late"}), ("America/New_York", set())])
def test_a_late_row_is_found_unless_its_store_failed_or_the_hour_comes_twice(zone: str, found: set[str]) -> None:
    """P11: APScheduler may oversleep a row in the fold, for as long as it takes until it is woken."""
    fold = 1_825_563_600 * SECOND  # 1:00 in New York, for the first time
    history = good()
    history.trace[0] = (BORN, fold - BORN)
    shift = fold - OFFSET - BORN
    history.lives[1] = replace(history.lives[1], born=at(0)._replace(wall=fold), row=True, zone=zone)
    history.starts = [
        one._replace(when=one.when._replace(wall=one.when.wall + shift), target=one.target + shift)
        for one in history.starts
    ]
    history.verdicts = [one._replace(target=one.target + shift) for one in history.verdicts]
    assert kinds(history) == set()
    late = at(12)
    history.starts[0] = history.starts[0]._replace(when=late._replace(wall=late.wall + shift))
    assert kinds(history) == found
    history.rough.append((at(9).elapsed, at(11).elapsed))
    assert kinds(history) == set()


@pytest.mark.parametrize(("stepped", "found"), [(27, set()), (21, {"silent loss"})])
@pytest.mark.parametrize("verb", ["pause", "cancel"])
def test_what_a_step_forward_made_due_is_lost_unless_nobody_can_have_noticed(
    verb: str, stepped: float, found: set[str]
) -> None:
    """P2, P11: a step is noticed within 5 s: paused or cancelled sooner, the job may owe no verdict for it."""
    history = good()
    history.trace.append((at(stepped).elapsed, OFFSET + 10 * SECOND))
    del history.starts[2:], history.verdicts[2:]
    over = at(28)._replace(wall=at(38).wall)
    if verb == "pause":
        history.lives[1].pauses.append([over])
    else:
        history.lives[1] = replace(history.lives[1], leaving=over, gone=over)
    assert kinds(history) == found


def test_drift_is_found() -> None:
    """6.4: a grid that moves with each run."""
    history = good()
    history.starts = [start(second) for second in (10, 20.2, 30.4, 40.6, 50.8, 61)]
    history.verdicts = [verdict(second) for second in (10, 20.2, 30.4, 40.6, 50.8, 61)]
    assert "unknown target" in kinds(history)


def cancelled(**changes: Any) -> History:
    """As ``good``, cancelled at 35 s."""
    history = good()
    history.lives[1] = replace(history.lives[1], leaving=at(35), gone=at(35), **changes)
    del history.starts[3:], history.verdicts[3:]
    return history


def test_a_start_after_cancel_is_found() -> None:
    """P5: it does not matter that the target was due before: the order of events decides."""
    history = cancelled()
    assert kinds(history) == set()
    history.starts[2] = history.starts[2]._replace(when=at(30, seq=35_001))
    assert kinds(history) == {"start after cancel"}


def test_a_target_after_cancel_is_found() -> None:
    """P5: a cancelled job has no targets."""
    history = cancelled()
    history.starts.append(start(40))
    history.verdicts.append(verdict(40))
    assert kinds(history) == {"not owed", "start after cancel"}


def test_a_run_during_a_pause_is_found() -> None:
    """11.21: a paused job owes no targets."""
    history = good()
    history.lives[1].pauses = [[at(25), at(45)]]
    assert kinds(history) == {"not owed"}
    del history.starts[2:4], history.verdicts[2:4]
    assert kinds(history) == set()


def test_an_overlap_is_found() -> None:
    """P8: ``single`` means one at a time."""
    history = good()
    history.lives[1].mode = "single"
    assert kinds(history) == set()
    history.verdicts[0] = history.verdicts[0]._replace(duration=10_001.0)
    assert kinds(history) == {"overlap"}


@pytest.mark.parametrize(("calls", "found"), [(0, {"error handler"}), (1, set()), (2, {"error handler"})])
def test_error_handlers_are_counted(calls: int, found: set[str]) -> None:
    """P7: exactly one call for a failed run."""
    history = good()
    history.lives[1].handler = True
    history.verdicts[0] = history.verdicts[0]._replace(status="error")
    history.handled = [("run-10", 1)] * calls
    assert kinds(history) == found


def test_a_handler_call_for_a_good_run_is_found() -> None:
    """P7: and none for any other."""
    history = good()
    history.lives[1].handler = True
    history.handled = [("run-20", 1)]
    assert kinds(history) == {"error handler"}


def test_a_false_record_is_found() -> None:
    """P2: a verdict says whether the function was called."""
    history = good()
    del history.starts[0]
    assert kinds(history) == {"false record"}
    history = good()
    history.verdicts[0] = history.verdicts[0]._replace(status="suppressed")
    assert kinds(history) == {"false record"}


def test_a_submitted_run_without_verdict_is_found() -> None:
    """P2: ``submit()`` names a run, and that run has a verdict."""
    history = good()
    history.submitted = [("asked", 1)]
    assert kinds(history) == {"silent loss"}


def test_a_step_back_makes_new_targets() -> None:
    """P11: after a step back an interval goes on by elapsed time, as another attempt."""
    history = good()
    history.trace.append((at(25).elapsed, OFFSET - 3600 * SECOND))
    assert {"silent loss", "unknown target"} == kinds(history)
    for index in range(2, 6):
        target = history.starts[index].target - 3600 * SECOND
        history.starts[index] = history.starts[index]._replace(target=target, attempt=2)
        history.verdicts[index] = history.verdicts[index]._replace(target=target, attempt=2)
    assert kinds(history) == set()


def test_silence_after_a_step_back_is_found() -> None:
    """P11: nothing runs until the old wall time comes again: what both ancestors do."""
    history = good()
    history.trace.append((at(25).elapsed, OFFSET - 3600 * SECOND))
    del history.starts[2:], history.verdicts[2:]
    assert kinds(history) == {"silent loss"}


def test_a_wall_clock_schedule_waits_and_repeats_nothing() -> None:
    """P11: ``Cron`` after a step back of a minute: the minute that comes again is not run again."""
    history = History(0, [(BORN, OFFSET), (at(60).elapsed, OFFSET - 60 * SECOND)], [])
    history.lives[1] = Life(1, "cron", "* * * * *", at(0))
    history.end = at(170)
    first = (at(0).wall // (60 * SECOND) + 1) * 60 * SECOND
    since = (first - at(0).wall) / SECOND
    assert 0 < since < 60
    for name, second, target in (("one", since, first), ("two", since + 120, first + 60 * SECOND)):
        history.starts.append(Start(at(second), 1, name, target, 1))
        history.verdicts.append(Verdict(1, name, "success", target, 1, True, None, None, 0, 1.0, "schedule", 0))
    assert kinds(history) == set()
    history.starts.append(Start(at(since + 60), 1, "again", first, 2))
    history.verdicts.append(Verdict(1, "again", "success", first, 2, True, None, None, 0, 1.0, "schedule", 0))
    assert "unknown target" in kinds(history)


def test_what_is_left_over_is_found() -> None:
    """P10: tasks, timers and jobs after the last owner has gone."""
    history = good()
    history.leftovers.append("a timer")
    assert kinds(history) == {"left over"}
