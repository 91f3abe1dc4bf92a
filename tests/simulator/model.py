"""Which targets a registration owed, computed from its schedule and the clocks by other means than the package."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from zoneinfo import ZoneInfo

from .clock import SECOND, Trace
from .history import History, Life

OWED, OPTIONAL, FORBIDDEN = "owed", "optional", "forbidden"
STEP = SECOND
"""Steps back of up to a second are not told from slewing: intervals wait for their wall time then."""

BEAT = 5 * SECOND
"""A clock step is noticed within this time."""

STORE_RETRY = 20 * SECOND
"""A row may wait so long for a store that fails; cancelled meanwhile, it has no run and no verdict."""


@dataclass(slots=True)
class Slot:
    """One target. ``other`` is what one that was pending at a step back, delayed by jitter or because the loop was
    held until then, may be named as well."""

    target: int
    attempt: int | None
    due: int
    epoch: int = 0
    other: int | None = None
    state: str = OWED
    waits: bool = False
    """Delayed by jitter when the clock was set back: it waits for its wall time again."""


def slots(life: Life, history: History, trace: Trace) -> list[Slot]:
    """Every target whose time passed between the start of the schedule and the end of the episode."""
    end = history.end.elapsed
    if life.kind in ("every", "after", "custom"):
        found = list(_elapsed(life, history, trace, end))
    else:
        found = [
            Slot(target, 1, due)
            for target in _wall_clock(life, trace, end)
            if (due := trace.reaches(target, life.born.elapsed)) is not None and due <= end
        ]
    for slot in found:
        _classify(slot, life, history, trace)
    return found


def _elapsed(life: Life, history: History, trace: Trace, end: int) -> Iterator[Slot]:
    assert isinstance(life.value, int)
    target = life.born.wall + life.value
    since = life.born.elapsed
    marks: list[int] = []
    backs = [] if life.kind == "custom" else [(at, back) for at, back in steps_back(trace) if at > since]
    epoch = 0
    while True:
        due = trace.reaches(target, since)
        if backs and (due is None or due >= backs[0][0]):
            at, back = backs.pop(0)
            marks.append(target)
            target -= back
            since, epoch = at, epoch + 1
            continue
        if due is None or due > end:
            return
        attempt = None if (life.jitter or life.pauses) and marks else 1 + sum(mark > target for mark in marks)
        slot = Slot(target, attempt, due, epoch)
        if backs and due + life.jitter >= unsettled(backs[0][0], history):
            slot.other, slot.attempt = target - backs[0][1], None
        yield slot
        if life.kind == "after":
            return
        target += life.value


def steps_back(trace: Trace) -> list[tuple[int, int]]:
    """(elapsed, by how much) of every step back that is told from slewing."""
    found: list[tuple[int, int]] = []
    for (_, before), (at, after) in zip(trace.steps, trace.steps[1:], strict=False):
        if before - after > STEP:
            found.append((at, before - after))
    return found


def _wall_clock(life: Life, trace: Trace, end: int) -> list[int]:
    latest = max(trace.wall(moment) for moment in [end, *(start - 1 for start, _ in trace.steps[1:]), end])
    latest = max(latest, *(trace.wall(start) for start, _ in trace.steps))
    born = life.born.wall
    if life.kind == "once":
        assert isinstance(life.value, int)
        return [max(life.value, 0)] if life.value <= latest else []
    first, last = born // SECOND, latest // SECOND
    if life.kind == "daily":
        assert isinstance(life.value, int)
        times = _daily(life.value, life.zone, first - 2 * 86400, last + 2 * 86400)
    else:
        assert isinstance(life.value, str)
        times = _cron(life.value, life.zone, first, last)
    return [time * SECOND for time in times if born < time * SECOND <= latest]


@lru_cache(maxsize=256)
def _daily(second_of_day: int, zone: str, first: int, last: int) -> list[int]:
    """Once a day at the first instant whose wall clock shows the time, or is past it, minute by minute."""
    tz = ZoneInfo(zone)
    day = datetime.fromtimestamp(first, tz).date()
    found: list[int] = []
    while (start := int(datetime(day.year, day.month, day.day, tzinfo=tz).timestamp())) <= last:
        for moment in range(start + max(second_of_day - 7200, 0) // 60 * 60, start + 100_000):
            local = datetime.fromtimestamp(moment, tz)
            if local.date() == day and local.hour * 3600 + local.minute * 60 + local.second >= second_of_day:
                found.append(moment)
                break
        day += timedelta(days=1)
    return found


@lru_cache(maxsize=256)
def _cron(expression: str, zone: str, first: int, last: int) -> list[int]:
    """Expressions of ``*`` and ``*/n``, plus fixed seconds: a walk over every second (minute) of the wall clock."""
    fields = expression.split()
    tz = ZoneInfo(zone)
    minute, hour = _values(fields[0], 60), _values(fields[1], 24)
    second = _values(fields[5], 60) if len(fields) == 6 else {0}
    stride = 1 if len(second) > 1 else 60
    found: list[int] = []
    for moment in range(first - first % 60 + min(second), last + 1, stride):
        local = datetime.fromtimestamp(moment, UTC if zone == "UTC" else tz)
        if local.second in second and local.minute in minute and local.hour in hour:
            found.append(moment)
    return found


def _values(field: str, size: int) -> set[int]:
    if field == "*":
        return set(range(size))
    if field.startswith("*/"):
        return set(range(0, size, int(field[2:])))
    return {int(one) for one in field.split(",")}


# What was owed of it


def _classify(slot: Slot, life: Life, history: History, trace: Trace) -> None:
    due, late = slot.due, slot.due + life.jitter
    if life.kind not in ("every", "after") and any(due <= at <= late for at, _ in steps_back(trace)):
        slot.waits, slot.state = True, OPTIONAL
        return
    for pause in life.pauses:
        begun = pause[0]
        over = pause[1].elapsed if len(pause) > 1 else None
        if late < unsettled(begun.elapsed, history):
            break
        if over is not None and due > over:
            continue
        if over is not None and due > begun.elapsed and life.kind not in ("every", "after"):
            again = trace.reaches(slot.target, over)
            if again is None or again > over:  # the clock went back meanwhile: its time is still to come
                slot.due = due = again if again is not None else history.end.elapsed + 1
                late = due + life.jitter
                if again is None or again > history.end.elapsed:
                    slot.state = OPTIONAL
                    return
                continue
        if life.kind in ("after", "once"):
            if over is None:
                slot.state = OPTIONAL
            else:
                slot.due = max(due, over)
            continue
        slot.state = OPTIONAL if due <= begun.elapsed or due == over else FORBIDDEN
        break
    if life.leaving is not None:
        gone = life.gone or life.leaving
        if due > gone.elapsed:
            slot.state = FORBIDDEN
        elif slot.state == OWED and slot.due + life.jitter >= unsettled(life.leaving.elapsed, history) - (
            STORE_RETRY if life.row and history.store_failed else 0
        ):
            slot.state = OPTIONAL
    elif late >= unsettled(history.end.elapsed, history) and slot.state == OWED:
        slot.state = OPTIONAL


def unsettled(moment: int, history: History) -> int:
    """What fell due from here on may not have been looked at by ``moment``: the loop was held, the clock had just
    gone forward, or it is the same."""
    for begun, ended in reversed(history.blocks):
        if ended < moment:
            break
        if begun <= moment <= ended:
            moment = begun
            break
    steps = pairwise(history.trace)
    return min(
        (at for (_, before), (at, after) in steps if after > before and at <= moment <= at + BEAT), default=moment
    )
