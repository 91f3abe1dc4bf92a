"""A look at what a schedule will do."""

from datetime import datetime, tzinfo
from typing import Any, cast
from zoneinfo import ZoneInfo

import whenever
from whenever import ZonedDateTime

from hassette_aps.instants import as_zone, from_datetime, from_zoned, now_us, to_zoned
from hassette_aps.triggers.base import TriggerProtocol, zone_of
from hassette_aps.triggers.foreign import as_trigger


def preview(
    trigger: TriggerProtocol | object,
    count: int = 5,
    start: ZonedDateTime | datetime | None = None,
    timezone: str | tzinfo | None = None,
) -> list[ZonedDateTime]:
    """The next ``count`` targets of a schedule that starts at ``start`` (default: now); fewer if it ends.

    Wall-clock times are in ``timezone``, else in the zone of ``start``, else in the system's.

    Raises:
        TypeError: not a trigger, or ``start`` is neither a ``ZonedDateTime`` nor a ``datetime``.
        ValueError: a negative ``count``, a naive ``start``, an unknown ``timezone``.
    """
    if isinstance(count, bool) or not isinstance(count, int):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"preview: count must be an int, got {count!r}")
    if count < 0:
        raise ValueError(f"preview: count must be >= 0, got {count}")
    if isinstance(start, ZonedDateTime):
        now, own_zone = from_zoned(start), zone_of(start)
    elif isinstance(start, datetime):
        if start.tzinfo is None or start.utcoffset() is None:
            raise ValueError(f"preview: start must have a time zone, got {start!r}; give a ZonedDateTime")
        now, own_zone = from_datetime(start), None if timezone else as_zone(start.tzinfo)
    elif start is None:
        now, own_zone = now_us(), None
    else:
        raise TypeError(f"preview: start must be a ZonedDateTime or a datetime, got {start!r}")
    zone = as_zone(timezone) if timezone is not None else own_zone or _system_zone()
    schedule = as_trigger(trigger)
    targets: list[ZonedDateTime] = []
    target = schedule.first(now, zone) if count else None
    while target is not None:
        targets.append(to_zoned(target, zone))
        target = schedule.after(target, zone) if len(targets) < count else None
    return targets


def _system_zone() -> ZoneInfo:
    # SYSTEM_TZ is missing from whenever's type stubs
    return zone_of(cast(Any, ZonedDateTime).now(cast(Any, whenever).SYSTEM_TZ))
