"""Between instants and wall-clock time: the one place that knows gaps and folds.

A wall-clock time is an integer too: microseconds from 1970-01-01T00:00 on the local clock. Two functions,
inverse to each other, carry every rule (semantics 6.8):

- ``resolve(wall)``: the first instant at which the local clock shows ``wall`` or later. For a time that
  comes twice that is its first occurrence, for one that is skipped the first instant after the gap.
- ``reached(instant)``: the latest wall-clock time that the local clock has shown up to ``instant``.

A fixed time is therefore due after ``instant`` exactly if it is later than ``reached(instant)``, and
several that fall into one gap have one instant.
"""

from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import TypeAlias

from hassette_aps.instants import Micros, from_datetime

Wall: TypeAlias = int
"""Microseconds since 1970-01-01T00:00 on a local clock."""

DAY: Micros = 86_400_000_000
FIRST: Micros = from_datetime(datetime(1, 1, 3, tzinfo=UTC))
LAST: Micros = from_datetime(datetime(9999, 12, 29, tzinfo=UTC))
"""Schedules lie between these two: instants that have a date in every zone."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAIVE_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 (a wall-clock time has no zone)
_MICROSECOND = timedelta(microseconds=1)

_SLOT_BITS = 44  # about 203 days
_PROBE: Micros = 1 << 36  # 19 hours; no two transitions of any zone in history are nearer than 95 hours

Segment: TypeAlias = tuple[Micros, Micros, Micros]
"""A span of constant offset: first instant, first instant after it, offset (wall = instant + offset)."""


def from_naive(moment: datetime) -> Wall:
    """The wall-clock time that a naive ``datetime`` shows."""
    return (moment - _NAIVE_EPOCH) // _MICROSECOND


class LocalClock:
    """The clock on the wall in one zone: spans of constant offset, found on demand and kept."""

    __slots__ = ("_slots", "_tz")

    def __init__(self, tz: tzinfo) -> None:
        self._tz = tz
        self._slots: dict[int, tuple[Segment, ...]] = {}

    def segment(self, instant: Micros) -> Segment:
        """The span of constant offset around ``instant`` (cut where a slot of the table ends)."""
        slot = instant >> _SLOT_BITS
        segments = self._slots.get(slot)
        if segments is None:
            segments = self._slots[slot] = tuple(self._survey(slot << _SLOT_BITS, (slot + 1) << _SLOT_BITS))
        for segment in segments:
            if instant < segment[1]:
                return segment
        raise AssertionError("the segments of a slot cover it")

    def resolve(self, wall: Wall) -> Micros:
        """The first instant at which the clock shows ``wall`` or later."""
        instant = wall - DAY  # offsets are shorter than a day, so the clock cannot show `wall` yet
        while True:
            start, end, offset = self.segment(instant)
            if wall < end + offset:
                return max(start, wall - offset)
            instant = end

    def reached(self, instant: Micros) -> Wall:
        """The latest wall-clock time shown up to and including ``instant``."""
        start, _, offset = self.segment(instant)
        latest = instant + offset
        cursor = instant - 2 * DAY  # two offsets differ by less than this
        while cursor < start:
            _, end, offset = self.segment(cursor)
            if end > instant:
                break
            latest = max(latest, end + offset - 1)
            cursor = end
        return latest

    def next_at(self, time: Micros, instant: Micros) -> Micros:
        """The first instant after ``instant`` that is due at ``time`` (from midnight) of some day."""
        reached = self.reached(instant)
        return self.resolve(reached + DAY - (reached - time) % DAY)

    def _survey(self, begin: Micros, stop: Micros) -> list[Segment]:
        segments: list[Segment] = []
        start, offset = begin, self._offset(begin)
        for probe in range(begin + _PROBE, stop + 1, _PROBE):
            following = self._offset(probe)
            if following != offset:
                low, high = probe - _PROBE, probe
                while high - low > 1:
                    middle = (low + high) // 2
                    if self._offset(middle) == offset:
                        low = middle
                    else:
                        high = middle
                if high < stop:
                    segments.append((start, high, offset))
                    start, offset = high, following
        segments.append((start, stop, offset))
        return segments

    def _offset(self, instant: Micros) -> Micros:
        clamped = min(max(instant, FIRST), LAST)
        offset = (_EPOCH + timedelta(microseconds=clamped)).astimezone(self._tz).utcoffset()
        return 0 if offset is None else offset // _MICROSECOND


def local_clock(tz: tzinfo) -> LocalClock:
    """The clock of a zone, one per ``tzinfo`` object."""
    try:
        return _kept(tz)
    except TypeError:  # unhashable, as dateutil's zones are
        return LocalClock(tz)


@lru_cache(maxsize=1024)
def _kept(tz: tzinfo) -> LocalClock:
    return LocalClock(tz)
