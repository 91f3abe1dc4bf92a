"""Elapsed time: After and Every. Neither looks at a wall clock, so daylight saving does not touch them."""

from datetime import UTC, datetime, timedelta, tzinfo
from typing import ClassVar
from zoneinfo import ZoneInfo

from whenever import ZonedDateTime

from hassette_aps.instants import Micros
from hassette_aps.triggers.base import DbType, Trigger
from hassette_aps.triggers.wallclock import LAST
from hassette_aps.triggers.written import Duration, Moment, duration, elapsed, moment, seconds_text

_SHORTEST: Micros = 1_000


class After(Trigger):
    """Once, after a delay that counts from the moment the schedule starts running.

    Args:
        seconds: Delay in seconds; fractions are kept to the microsecond.
        minutes: Delay in minutes, added to the seconds.
        timedelta: The delay as a ``datetime.timedelta`` or ``whenever.TimeDelta``, instead of the two.
        timezone: Accepted for APScheduler, which passes it to every trigger; without effect.

    Raises:
        TypeError: a value of another type.
        ValueError: no delay, a negative or endless one, or ``timedelta`` together with the others.
    """

    __slots__ = ("_delay",)
    one_shot = True
    _state: ClassVar[tuple[str, ...]] = ("_delay",)

    _delay: Micros

    def __init__(
        self,
        seconds: float = 0,
        minutes: float = 0,
        timedelta: Duration | None = None,
        *,
        timezone: str | tzinfo | None = None,
    ) -> None:
        super().__init__(timezone)
        if timedelta is None:
            self._delay = duration("After", seconds=seconds, minutes=minutes)
        elif seconds or minutes:
            raise ValueError("After: give either timedelta= or seconds= and minutes=, not both")
        else:
            self._delay = elapsed(timedelta, "After")
        if self._delay <= 0:
            raise ValueError(f"After needs a delay > 0, got {seconds_text(self._delay)} s; give seconds= or minutes=")

    def first(self, now: Micros, zone: ZoneInfo) -> Micros | None:
        return _on_the_calendar(now + self._delay)

    def after(self, previous: Micros, zone: ZoneInfo) -> None:
        return None

    def trigger_label(self) -> str:
        return "after"

    def trigger_detail(self) -> str:
        return f"{seconds_text(self._delay)}s"

    def trigger_db_type(self) -> DbType:
        return "after"

    def trigger_id(self) -> str:
        return f"after:{seconds_text(self._delay)}"

    def __repr__(self) -> str:
        return f"After(seconds={seconds_text(self._delay)})"


class Every(Trigger):
    """Again and again on a grid of elapsed time, without drift.

    The first run is one interval after the schedule starts, or at ``start``, or on the next grid point
    strictly after now if ``start`` is past.

    Args:
        seconds, minutes, hours: The interval, added up; at least a millisecond, kept to the microsecond.
        start: A point of the grid; a naive ``datetime`` is in the scheduler's zone.
        timezone: Accepted for APScheduler; the zone of a naive ``start`` there.

    Raises:
        TypeError: a value of another type.
        ValueError: no interval, a negative or endless one, or one under a millisecond.
    """

    __slots__ = ("_interval", "_start", "_step")
    _state: ClassVar[tuple[str, ...]] = ("_interval", "_start")

    _interval: Micros
    _start: Moment | None
    _step: timedelta

    def __init__(
        self,
        seconds: float = 0,
        minutes: float = 0,
        hours: float = 0,
        start: ZonedDateTime | datetime | None = None,
        *,
        timezone: str | tzinfo | None = None,
    ) -> None:
        super().__init__(timezone)
        self._interval = duration("Every", seconds=seconds, minutes=minutes, hours=hours)
        if self._interval < _SHORTEST:
            raise ValueError(
                f"Every needs an interval of at least 0.001 s, got {seconds_text(self._interval)} s;"
                " give seconds=, minutes= or hours="
            )
        self._start = None if start is None else moment(start, "Every: start")
        self._prepare()

    @property
    def interval(self) -> Micros:
        """The interval in microseconds."""
        return self._interval

    def first(self, now: Micros, zone: ZoneInfo) -> Micros | None:
        if self._start is None:
            return _on_the_calendar(now + self._interval)
        start = self._start.instant(zone)
        return start if start >= now else self._on_grid_after(now, zone)

    def after(self, previous: Micros, zone: ZoneInfo) -> Micros | None:
        if self._start is None:
            return _on_the_calendar(previous + self._interval)
        return self._on_grid_after(previous, zone)

    def latest(self, previous: Micros, now: Micros, zone: ZoneInfo) -> Micros:
        origin = previous if self._start is None else self._start.instant(zone)
        return max(previous, now - (now - origin) % self._interval)

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        """APScheduler's question, with a short cut for the ordinary case: one interval on."""
        if previous_fire_time is not None and self._start is None:
            try:
                target = (previous_fire_time.astimezone(UTC) + self._step).astimezone(now.tzinfo)
            except OverflowError:  # beyond the calendar
                return None
            if target > now and not now.fold:  # compares what the clocks show, which is cheap and lies in a fold only
                return target
        return super().get_next_fire_time(previous_fire_time, now)

    def settle(self, now: Micros, zone: ZoneInfo) -> Trigger:
        if self._start is not None and self._start.is_wall:
            self._refuse_other_zone(zone)
        return self

    def trigger_label(self) -> str:
        return "every"

    def trigger_detail(self) -> str:
        return f"{seconds_text(self._interval)}s" + (f" from {self._start.text}" if self._start else "")

    def trigger_db_type(self) -> DbType:
        return "interval"

    def trigger_id(self) -> str:
        return f"every:{seconds_text(self._interval)}" + (f"@{self._start.text}" if self._start else "")

    def __repr__(self) -> str:
        start = f", start={self._start.text!r}" if self._start else ""
        return f"Every(seconds={seconds_text(self._interval)}{start})"

    def _prepare(self) -> None:
        self._start = self._start and Moment(*self._start)
        self._step = timedelta(microseconds=self._interval)

    def _on_grid_after(self, instant: Micros, zone: ZoneInfo) -> Micros | None:
        assert self._start is not None
        start = self._start.instant(zone)
        if instant < start:
            return start
        return _on_the_calendar(instant + self._interval - (instant - start) % self._interval)


def _on_the_calendar(instant: Micros) -> Micros | None:
    return instant if instant <= LAST else None
