"""What users write, as integers: durations, times of day, moments."""

import math
from datetime import datetime, timedelta
from typing import NamedTuple, TypeAlias
from zoneinfo import ZoneInfo

from whenever import TimeDelta, ZonedDateTime

from hassette_aps.instants import SECOND, Micros, from_datetime, from_zoned
from hassette_aps.triggers.wallclock import DAY, FIRST, LAST, from_naive, local_clock

Duration: TypeAlias = timedelta | TimeDelta

_LONGEST: Micros = 36_525 * DAY
_UNITS: dict[str, Micros] = {"seconds": SECOND, "minutes": 60 * SECOND, "hours": 3600 * SECOND}


class Moment(NamedTuple):
    """A point in time: an instant, or a wall-clock time that waits for a zone."""

    text: str
    micros: int
    is_wall: bool

    def instant(self, zone: ZoneInfo) -> Micros:
        """The instant meant, wall-clock times read in ``zone``."""
        return local_clock(zone).resolve(self.micros) if self.is_wall else self.micros


def moment(value: str | ZonedDateTime | datetime, what: str) -> Moment:
    """``value`` (a string in ISO 8601) as a moment; without an offset it waits for the scheduler's zone.

    Raises:
        TypeError: another type.
        ValueError: a string that is no ISO date and time, or a moment beyond the calendar.
    """
    if isinstance(value, str):
        return moment(_parse(value, what), what)
    if isinstance(value, ZonedDateTime):
        return _within_the_calendar(Moment(value.format_iso(), from_zoned(value), False), what)
    if isinstance(value, datetime):  # pyright: ignore[reportUnnecessaryIsInstance]
        if value.utcoffset() is None:
            naive = value.replace(tzinfo=None, fold=0)
            return _within_the_calendar(Moment(naive.isoformat(), from_naive(naive), True), what)
        return _within_the_calendar(Moment(value.isoformat(), from_datetime(value), False), what)
    raise TypeError(f"{what} must be a ZonedDateTime or a datetime, got {value!r}")


def _parse(text: str, what: str) -> ZonedDateTime | datetime:
    try:
        return ZonedDateTime.parse_iso(text) if text.endswith("]") else datetime.fromisoformat(text)
    except ValueError as exc:
        raise ValueError(f"{what} must be an ISO date and time such as '2026-03-01T07:00', got {text!r}") from exc


def _within_the_calendar(value: Moment, what: str) -> Moment:
    if not FIRST <= value.micros <= LAST:
        raise ValueError(f"{what} must lie in the years 1 to 9999, got {value.text}")
    return value


def duration(what: str, **parts: float) -> Micros:
    """The sum of ``seconds=``, ``minutes=`` and ``hours=`` in microseconds.

    Raises:
        TypeError: a part is not an int or a float.
        ValueError: a part is negative or not finite, or the sum is over 100 years.
    """
    total = 0
    for unit, amount in parts.items():
        if isinstance(amount, bool) or not isinstance(amount, (int, float)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"{what}: {unit} must be a number, got {amount!r}")
        if (isinstance(amount, float) and not math.isfinite(amount)) or amount < 0:
            raise ValueError(f"{what}: {unit} must be a finite number >= 0, got {amount!r}")
        if amount > _LONGEST:
            raise ValueError(f"{what}: {unit} is more than 100 years; give a shorter time")
        total += round(amount * _UNITS[unit])
    return within_a_century(total, what)


def elapsed(value: Duration, what: str) -> Micros:
    """A ``timedelta`` or ``whenever.TimeDelta`` in microseconds, a fraction of one rounded up.

    Raises:
        TypeError: another type.
        ValueError: over 100 years.
    """
    if isinstance(value, TimeDelta):
        return within_a_century(-(-int(value.total("nanoseconds")) // 1000), what)
    if isinstance(value, timedelta):  # pyright: ignore[reportUnnecessaryIsInstance]
        return within_a_century(value // timedelta(microseconds=1), what)
    raise TypeError(f"{what}: timedelta must be a datetime.timedelta or a whenever.TimeDelta, got {value!r}")


def within_a_century(micros: Micros, what: str) -> Micros:
    """``micros`` itself; ``ValueError`` if it is over 100 years."""
    if micros > _LONGEST:
        raise ValueError(f"{what} is more than 100 years; give a shorter time")
    return micros


def time_of_day(text: str, what: str) -> Micros:
    """``"HH:MM"`` or ``"HH:MM:SS"`` as microseconds from midnight.

    Raises:
        TypeError: not a string.
        ValueError: not a time of day.
    """
    if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"{what} must be a string such as '07:00', got {text!r}")
    parts = text.split(":")
    wanted = f"{what} must be 'HH:MM' or 'HH:MM:SS', such as '07:00', got {text!r}"
    if len(parts) not in (2, 3) or not all(part.isascii() and part.isdigit() and len(part) <= 2 for part in parts):
        raise ValueError(wanted)
    hour, minute, second = (int(part) for part in [*parts, "0"][:3])
    if hour > 23 or minute > 59 or second > 59:
        raise ValueError(f"{wanted}: hours go to 23, minutes and seconds to 59")
    return (hour * 3600 + minute * 60 + second) * SECOND


def time_text(time: Micros) -> str:
    """A time of day as ``HH:MM``, or ``HH:MM:SS`` where there are seconds."""
    minutes, second = divmod(time // SECOND, 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour:02}:{minute:02}" + (f":{second:02}" if second else "")


def seconds_text(micros: Micros) -> str:
    """A duration in seconds as ids and labels show it: ``60``, ``0.5``, never ``60.0``."""
    whole, fraction = divmod(micros, SECOND)
    return f"{whole}.{fraction:06}".rstrip("0") if fraction else str(whole)
