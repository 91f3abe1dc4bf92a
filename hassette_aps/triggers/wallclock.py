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
from typing import NamedTuple, TypeAlias

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

_PROBE_BITS = 38  # 76 hours; no two transitions of any zone in history are nearer than 95
_SLOT_BITS = _PROBE_BITS + 2
_KEPT_SLOTS = 4_096


class Segment(NamedTuple):
    """A span of constant offset, cut where a slot ends."""

    start: Micros
    end: Micros
    """The first instant after it."""
    offset: Micros
    """Wall-clock time minus instant."""
    peak: Wall
    """The latest wall-clock time shown in the days before it."""


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
        """The span of constant offset around ``instant``."""
        slot = instant >> _SLOT_BITS
        for segment in self._slots.get(slot) or self._survey(slot):
            if instant < segment[1]:
                return segment
        raise AssertionError("the segments of a slot cover it")

    def resolve(self, wall: Wall) -> Micros:
        """The first instant at which the clock shows ``wall`` or later."""
        instant = wall - DAY  # offsets are shorter than a day, so the clock cannot show `wall` yet
        while True:
            start, end, offset, _ = self.segment(instant)
            if wall < end + offset:
                return max(start, wall - offset)
            instant = end

    def reached(self, instant: Micros) -> Wall:
        """The latest wall-clock time shown up to and including ``instant``."""
        _, _, offset, peak = self.segment(instant)
        return max(peak, instant + offset)

    def repeats(self, instant: Micros) -> bool:
        """Whether the time it shows comes twice: in a fold, on either pass."""
        _, end, offset, peak = self.segment(instant)
        wall = instant + offset
        return wall <= peak or wall >= end + self.segment(end).offset

    def next_at(self, time: Micros, instant: Micros) -> Micros:
        """The first instant after ``instant`` that is due at ``time`` (from midnight) of some day."""
        reached = self.reached(instant)
        return self.resolve(reached + DAY - (reached - time) % DAY)

    def _survey(self, slot: int) -> tuple[Segment, ...]:
        """Finds the segments of a slot. Two offsets that differ have one transition between them."""
        begin, stop = slot << _SLOT_BITS, (slot + 1) << _SLOT_BITS
        start = begin - (1 << _PROBE_BITS)  # so far back, no fold matters any more
        offset, peak = self._offset(start), start + self._offset(start)
        segments: list[Segment] = []
        for probe in range(begin, stop + 1, 1 << _PROBE_BITS):
            following = self._offset(probe)
            if following != offset:
                end = self._transition(probe - (1 << _PROBE_BITS), probe)
                segments.append(Segment(start, end, offset, peak))
                peak = max(peak, end - 1 + offset)
                start, offset = end, following
        segments.append(Segment(start, stop, offset, peak))
        found = tuple(
            Segment(max(start, begin), min(end, stop), offset, peak)
            for start, end, offset, peak in segments
            if start < stop and end > begin
        )
        if len(self._slots) >= _KEPT_SLOTS:
            self._slots.clear()
        self._slots[slot] = found
        return found

    def _transition(self, low: Micros, high: Micros) -> Micros:
        """The first instant with another offset than ``low``."""
        offset = self._offset(low)
        while high - low > 1:
            middle = (low + high) // 2
            if self._offset(middle) == offset:
                low = middle
            else:
                high = middle
        return high

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
