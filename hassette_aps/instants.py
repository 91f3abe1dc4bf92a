"""Instants as integers: microseconds since the epoch, and the way in and out of them.

Everything between a trigger and the executor computes on these integers; ``ZonedDateTime`` and
``datetime`` are for people and for APScheduler.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from typing import TypeAlias
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from whenever import Instant, ZonedDateTime

Micros: TypeAlias = int
"""Microseconds since 1970-01-01T00:00:00Z."""

SECOND: Micros = 1_000_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def now_us() -> Micros:
    """The wall clock, in microseconds since the epoch."""
    return time.time_ns() // 1000


_monotonic: Callable[[], float] = time.monotonic


def monotonic() -> float:
    """Seconds that never go back: ``time.monotonic()``, or what a test clock says."""
    return _monotonic()


def use_monotonic(source: Callable[[], float] | None) -> None:
    """Let a test clock stand in for ``time.monotonic``; None gives it back."""
    global _monotonic  # noqa: PLW0603  the one hook for time travel: wall clocks have libraries for it, this one has not
    _monotonic = source or time.monotonic


def from_datetime(moment: datetime) -> Micros:
    """The instant of an aware ``datetime``."""
    return (moment - _EPOCH) // _MICROSECOND


def to_datetime(instant: Micros, tz: tzinfo = UTC) -> datetime:
    """``instant`` as an aware ``datetime`` in ``tz``."""
    seconds, fraction = divmod(instant, SECOND)
    if not fraction and seconds >= 0:  # most targets; a third of the time
        return datetime.fromtimestamp(seconds, tz)
    moment = _EPOCH + timedelta(microseconds=instant)
    return moment if tz is UTC else moment.astimezone(tz)


def from_zoned(moment: ZonedDateTime) -> Micros:
    """The instant of a ``ZonedDateTime``; a fraction of a microsecond is rounded up, so never early."""
    return -(-moment.timestamp(unit="nanosecond") // 1000)


def to_zoned(instant: Micros, zone: ZoneInfo) -> ZonedDateTime:
    """``instant`` as a ``ZonedDateTime`` in ``zone``."""
    return Instant.from_timestamp(instant, unit="microsecond").to_tz(zone.key)  # pyright: ignore[reportUnknownMemberType]


def as_zone(tz: str | tzinfo) -> ZoneInfo:
    """``tz`` as a named zone: an IANA name, a ``ZoneInfo``, UTC, a pytz zone or a whole-hour fixed offset.

    Raises:
        ValueError: the name is unknown, or the ``tzinfo`` has no IANA name.
        TypeError: neither a string nor a ``tzinfo``.
    """
    if isinstance(tz, ZoneInfo) and tz.key:
        return tz
    if isinstance(tz, tzinfo):
        name = getattr(tz, "zone", None) or _fixed_offset_name(tz)
        if name is None:
            raise ValueError(f"timezone {tz!r} has no IANA name; give a name such as 'Europe/Berlin'")
    elif isinstance(tz, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        name = tz
    else:
        raise TypeError(f"timezone must be an IANA name or a tzinfo, got {tz!r}")
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
        raise ValueError(f"unknown timezone {name!r}; give an IANA name such as 'Europe/Berlin'") from exc


def _fixed_offset_name(tz: tzinfo) -> str | None:
    offset = tz.utcoffset(None)
    if offset is None or offset % timedelta(hours=1):
        return None
    hours = offset // timedelta(hours=1)
    return "UTC" if hours == 0 else f"Etc/GMT{-hours:+d}"  # POSIX signs: Etc/GMT-2 is two hours east
