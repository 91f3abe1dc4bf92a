"""Every day at a time on the wall."""

from datetime import tzinfo
from typing import ClassVar
from zoneinfo import ZoneInfo

from hassette_aps.instants import SECOND, Micros
from hassette_aps.triggers.base import DbType, Trigger
from hassette_aps.triggers.wallclock import LAST, local_clock
from hassette_aps.triggers.written import time_of_day, time_text


class Daily(Trigger):
    """Every day at one time of the scheduler's wall clock.

    Exactly once a day: at the first instant after a spring gap that swallows the time, at the first of two
    occurrences in autumn.

    Args:
        at: ``"HH:MM"`` or ``"HH:MM:SS"``.
        timezone: For a plain APScheduler only: the zone of the wall clock, if it is not the scheduler's.

    Raises:
        TypeError: not a string.
        ValueError: not a time of day.
    """

    __slots__ = ("_time",)
    _state: ClassVar[tuple[str, ...]] = ("_time",)

    _time: Micros

    def __init__(self, at: str, *, timezone: str | tzinfo | None = None) -> None:
        super().__init__(timezone)
        self._time = time_of_day(at, "Daily: at")

    def first(self, now: Micros, zone: ZoneInfo) -> Micros | None:
        return self.after(now, zone)

    def after(self, previous: Micros, zone: ZoneInfo) -> Micros | None:
        return None if previous >= LAST else local_clock(zone).next_at(self._time, previous)

    def settle(self, now: Micros, zone: ZoneInfo) -> Trigger:
        self._refuse_other_zone(zone)
        return self

    def trigger_label(self) -> str:
        return "daily"

    def trigger_detail(self) -> str:
        return time_text(self._time)

    def trigger_db_type(self) -> DbType:
        return "cron"

    def trigger_id(self) -> str:
        minutes, second = divmod(self._time // SECOND, 60)
        return f"cron:{minutes % 60} {minutes // 60} * * *" + (f" {second}" if second else "")

    def __repr__(self) -> str:
        return f"Daily({time_text(self._time)!r})"
