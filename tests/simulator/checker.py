"""Matches what ran to what was owed, as Jepsen's checker for Chronos does, and names everything that does not fit."""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

from .clock import SECOND, Trace
from .history import RAN, History, Life, Start, Verdict
from .model import BEAT, FORBIDDEN, OPTIONAL, OWED, STORE_RETRY, Slot, slots

SLACK = SECOND // 20
ROUNDING = 2e-6


@dataclass(slots=True)
class Findings:
    """``problems`` are broken promises: (kind, sentence)."""

    problems: list[tuple[str, str]] = field(default_factory=list)
    targets: int = 0
    runs: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)

    def add(self, kind: str, text: str) -> None:
        """One broken promise."""
        self.problems.append((kind, text))

    @property
    def kinds(self) -> set[str]:
        """The kinds of broken promises."""
        return {kind for kind, _ in self.problems}


def check(history: History) -> Findings:
    """Judge one episode."""
    found = Findings()
    trace = Trace(history.trace)
    starts_of: dict[str, list[Start]] = defaultdict(list)
    starts_by_job: dict[int, list[Start]] = defaultdict(list)
    for start in history.starts:
        starts_of[start.execution_id].append(start)
        starts_by_job[start.job].append(start)
    verdicts_by_job: dict[int, list[Verdict]] = defaultdict(list)
    for verdict in history.verdicts:
        verdicts_by_job[verdict.job].append(verdict)
        found.verdicts[verdict.status] += 1
    found.runs = len(history.starts)
    for number, life in history.lives.items():
        verdicts = verdicts_by_job.pop(number, [])
        planned = slots(life, history, trace)
        found.targets += sum(slot.state == OWED for slot in planned)
        due = _match(found, life, planned, verdicts)
        _timely(found, life, due, starts_by_job[number], history, trace)
        _overlap(found, life, verdicts, starts_of)
        _after_cancel(found, life, starts_by_job[number])
    for number, verdicts in verdicts_by_job.items():
        found.add("unknown job", f"{len(verdicts)} verdicts of a job {number} that was never registered")
    _runs(found, history, starts_of)
    _handlers(found, history)
    for what in history.leftovers:
        found.add("left over", what)
    return found


def _match(found: Findings, life: Life, planned: list[Slot], verdicts: list[Verdict]) -> dict[str, Slot]:
    """Every target that was owed has one verdict; every verdict has a target. Execution id -> target."""
    cover: dict[int, int] = defaultdict(int)  # slot number -> verdicts
    due: dict[str, Slot] = {}
    by_target: dict[int, list[int]] = defaultdict(list)
    epochs: dict[int, list[int]] = defaultdict(list)
    for index, slot in enumerate(planned):
        by_target[slot.target].append(index)
        if slot.other is not None:
            by_target[slot.other].append(index)
        epochs[slot.epoch].append(index)
    for verdict in verdicts:
        if verdict.triggered_by != "schedule":
            continue
        if verdict.first is None:
            index = _slot_of(verdict, planned, by_target, cover)
            if index is None:
                found.add("unknown target", f"job {life.job} ({life.kind}): {verdict} has no target")
                continue
            cover[index] += 1
            due[verdict.execution_id] = planned[index]
        else:
            assert verdict.last is not None
            covered = _range(verdict, planned, epochs)
            if not covered:
                found.add("unknown target", f"job {life.job} ({life.kind}): the range {verdict} holds no target")
            for index in covered:
                cover[index] += 1
    for index, slot in enumerate(planned):
        count = cover[index]
        if count > 1:
            found.add("double verdict", f"job {life.job} ({life.kind}): {count} verdicts on {slot}")
        elif count == 0 and slot.state == OWED:
            found.add("silent loss", f"job {life.job} ({life.kind}, {life.value}): no verdict on {slot}")
        elif count and slot.state == FORBIDDEN:
            found.add("not owed", f"job {life.job} ({life.kind}): a verdict on {slot}")
    return due


def _slot_of(
    verdict: Verdict, planned: list[Slot], by_target: dict[int, list[int]], cover: dict[int, int]
) -> int | None:
    fitting = [
        index for index in by_target.get(verdict.target, ()) if planned[index].attempt in (None, verdict.attempt)
    ]
    return min(fitting, key=lambda index: (cover[index], planned[index].state == FORBIDDEN), default=None)


def _range(verdict: Verdict, planned: list[Slot], epochs: dict[int, list[int]]) -> list[int]:
    """The targets of the range, in the newest stretch between two clock steps in which it can have been recorded.

    Grids before and after a step may interleave: the one that has the range's first target is meant.
    """
    assert verdict.first is not None
    assert verdict.last is not None
    newest: list[int] = []
    for epoch in sorted(epochs, reverse=True):
        indexes = epochs[epoch]
        low = bisect_left(indexes, verdict.first, key=lambda index: planned[index].target)
        high = bisect_left(indexes, verdict.last + 1, key=lambda index: planned[index].target)
        inside = indexes[low:high]
        if inside and planned[inside[-1]].due <= verdict.told:
            if planned[inside[0]].target == verdict.first:
                newest = inside
                break
            newest = newest or inside
    return [index for index in newest if planned[index].state != FORBIDDEN or len(newest) == 1]


def _timely(
    found: Findings, life: Life, due: dict[str, Slot], starts: Iterable[Start], history: History, trace: Trace
) -> None:
    """P3 and P11: never early, and late only as long as the loop was held or a clock step went unnoticed."""
    stepped = [at for at, _ in trace.steps[1:]]
    for start in starts:
        slot = due.get(start.execution_id)
        if slot is None:
            continue
        begun = start.when.elapsed
        if begun < slot.due:
            found.add("early", f"job {life.job}: {start} began {slot.due - begun} us before {slot}")
        if life.mode != "parallel" or life.waits or slot.waits:
            continue  # it may wait: for another run, for a thread
        if life.row and any(since <= begun and slot.due <= until + STORE_RETRY for since, until in history.rough):
            continue
        limit = slot.due + life.jitter + SLACK + _held(history, slot.due, begun)
        if any(at <= begun and slot.due - BEAT <= at <= slot.due + life.jitter for at in stepped):
            limit += BEAT
        if life.row and any(_comes_twice(wall, life.zone) for wall in (trace.wall(slot.due), start.when.wall)):
            limit += BEAT
        if begun > limit:
            found.add("late", f"job {life.job}: {start} began {(begun - slot.due) / SECOND:.3f} s after {slot}")


def _comes_twice(wall: int, zone: str) -> bool:
    """Whether the clock shows that time twice: APScheduler may take a row's next time for a later one."""
    local = datetime.fromtimestamp(wall // SECOND, ZoneInfo(zone))
    return local.replace(fold=0).timestamp() != local.replace(fold=1).timestamp()


def _held(history: History, since: int, until: int) -> int:
    held = 0
    for begun, ended in reversed(history.blocks):
        if ended < since:
            break
        held += max(0, min(ended, until) - max(begun, since))
    return held


def _overlap(found: Findings, life: Life, verdicts: Iterable[Verdict], starts_of: dict[str, list[Start]]) -> None:
    """P8: one run without a verdict at a time, unless the mode is parallel."""
    if life.mode == "parallel":
        return
    spans = sorted(
        (start.when.elapsed / SECOND, start.when.elapsed / SECOND + verdict.duration / 1000, verdict.execution_id)
        for verdict in verdicts
        if verdict.duration is not None
        for start in starts_of[verdict.execution_id]
    )
    for (_, ended, one), (begun, _, other) in pairwise(spans):
        if begun < ended - ROUNDING:
            found.add(
                "overlap", f"job {life.job} ({life.mode}): {other} began {ended - begun:.6f} s before {one} ended"
            )


def _after_cancel(found: Findings, life: Life, starts: Iterable[Start]) -> None:
    """P5: nothing starts once cancel, replace, group cancel or shutdown has returned."""
    if life.gone is None:
        return
    for start in starts:
        if start.when.seq > life.gone.seq:
            found.add("start after cancel", f"job {life.job}: {start} after {life.gone}")


def _runs(found: Findings, history: History, starts_of: dict[str, list[Start]]) -> None:
    """P1 and P2 by execution id: a function called has one verdict that says so; none is called twice."""
    seen: dict[str, Verdict] = {}
    submitted = dict(history.submitted)
    named: Counter[tuple[int, int, int]] = Counter()
    for verdict in history.verdicts:
        if verdict.execution_id in seen:
            found.add("double verdict", f"two records of one run: {seen[verdict.execution_id]} and {verdict}")
        seen[verdict.execution_id] = verdict
        count = len(starts_of.get(verdict.execution_id, ()))
        if count != verdict.started:
            found.add("false record", f"{verdict} but its function was called {count} times")
        if verdict.started and verdict.status not in RAN:
            found.add("false record", f"{verdict} did run")
    for execution_id, starts in starts_of.items():
        if execution_id not in seen:
            found.add("silent loss", f"no verdict on {starts[0]}")
        if execution_id not in submitted:
            named.update((start.job, start.target, start.attempt) for start in starts)
    for name, count in named.items():
        if count > 1:
            found.add("double run", f"(job, target, attempt) = {name} ran {count} times")
    for execution_id, job in history.submitted:
        if execution_id not in seen:
            found.add("silent loss", f"no verdict on the run that submit() of job {job} named {execution_id}")


def _handlers(found: Findings, history: History) -> None:
    """P7: one call for a failed run, none for any other."""
    calls = Counter(execution_id for execution_id, _ in history.handled)
    for verdict in history.verdicts:
        life = history.lives.get(verdict.job)
        expected = int(verdict.status in ("error", "timed_out") and life is not None and life.handler)
        count = calls.pop(verdict.execution_id, 0)
        if count != expected:
            found.add("error handler", f"called {count} times instead of {expected} for {verdict}")
    for execution_id, count in calls.items():
        found.add("error handler", f"called {count} times for {execution_id}, which has no verdict")


def report(findings: Findings, limit: int = 12) -> str:
    """The first problems, one a line."""
    lines = [f"{kind}: {text}" for kind, text in findings.problems[:limit]]
    more = len(findings.problems) - limit
    return "\n".join([*lines, f"... and {more} more"] if more > 0 else lines)


__all__ = ["FORBIDDEN", "OPTIONAL", "OWED", "Findings", "check", "report"]
