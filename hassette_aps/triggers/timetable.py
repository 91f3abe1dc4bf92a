"""Which wall-clock times a cron schedule names: next-value tables over days, minutes and seconds.

No time zone here, and no croniter. Which days match depends only on the month, its length and the weekday
of its first day. Such months are few, so looking at all of them decides whether a schedule can ever fire.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from typing import TypeAlias

from hassette_aps.instants import SECOND
from hassette_aps.triggers.wallclock import DAY, Wall

DayRule: TypeAlias = Callable[[int, int, int], bool]
"""Does a day match: (day of the month, weekday of the first with 0 for Sunday, length of the month)."""

_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
_LAST_YEAR = 9999
_LENGTHS = {2: (28, 29), 4: (30,), 6: (30,), 9: (30,), 11: (30,)}
_KEPT_MONTHS = 1_024


class Timetable:
    """The wall-clock times of a schedule. Equal expressions share one.

    Args:
        hours, minutes, seconds: The values that match, ascending.
        months: The months that match.
        rule: Which days of such a month match.
        wild: True if the schedule follows the clock on the wall through gaps and folds, instead of running
            each named time once (semantics 6.8).
    """

    __slots__ = ("_every_day", "_minutes", "_months", "_opening", "_rule", "_seconds", "_shapes", "_spans", "wild")

    def __init__(
        self,
        *,
        hours: Sequence[int],
        minutes: Sequence[int],
        seconds: Sequence[int],
        months: Iterable[int],
        rule: DayRule,
        wild: bool,
    ) -> None:
        self.wild = wild
        self._minutes = tuple(hour * 60 + minute for hour in hours for minute in minutes)
        self._seconds = tuple(seconds)
        self._months = frozenset(months)
        self._rule = rule
        self._opening = (self._minutes[0] * 60 + self._seconds[0]) * SECOND
        self._spans: dict[int, tuple[int, ...]] = {}
        self._shapes: dict[tuple[int, int], tuple[int, ...]] = {}
        self._every_day = len(self._months) == 12 and all(
            len(self._days(first_weekday, length)) == length
            for length in (28, 29, 30, 31)
            for first_weekday in range(7)
        )

    def can_fire(self) -> bool:
        """Is there any month in which a day matches?"""
        return any(
            self._days(first_weekday, length)
            for month in self._months
            for length in _LENGTHS.get(month, (31,))
            for first_weekday in range(7)
        )

    def at_or_after(self, wall: Wall) -> Wall | None:
        """The first matching time that is not before ``wall``; None beyond the calendar."""
        day, time = divmod(wall, DAY)
        match = day if self._every_day else self._day_at_or_after(day)
        if match == day:
            minute, second = divmod(-(-time // SECOND), 60)
            minutes, seconds = self._minutes, self._seconds
            if second > seconds[-1]:
                minute, second = minute + 1, 0
            index = bisect_left(minutes, minute)
            if index < len(minutes):
                found = minutes[index]
                due = seconds[bisect_left(seconds, second)] if found == minute else seconds[0]
                return day * DAY + (found * 60 + due) * SECOND
            match = day + 1 if self._every_day else self._day_at_or_after(day + 1)
        return None if match is None else match * DAY + self._opening

    def _day_at_or_after(self, day: int) -> int | None:
        """Days count from 1970-01-01."""
        try:
            today = date.fromordinal(day + _EPOCH_ORDINAL)
        except ValueError:  # off the calendar: there is nothing after it, but all of it before
            return None if day > 0 else self._day_at_or_after(1 - _EPOCH_ORDINAL)
        month = today.year * 12 + today.month - 1
        days = self._spans.get(month) or self._span(month)
        if days and days[-1] < day:
            days = self._spans.get(month + 1) or self._span(month + 1)
            return days[0] if days else None
        return days[bisect_left(days, day)] if days else None

    def _span(self, month: int) -> tuple[int, ...]:
        """The matching days of the first month that has any, from ``month`` on; kept.

        Months and days count through: year * 12 + month - 1, and from 1970-01-01.
        """
        if len(self._spans) >= _KEPT_MONTHS:
            self._spans.clear()
        days: tuple[int, ...] = ()
        for candidate in range(month, (_LAST_YEAR + 1) * 12):
            if candidate % 12 + 1 in self._months:
                year, index = divmod(candidate, 12)
                first = date(year, index + 1, 1).toordinal()
                matching = self._days(first % 7, _month_length(year, index + 1))
                if matching:
                    days = tuple(first - _EPOCH_ORDINAL + day - 1 for day in matching)
                    break
        self._spans[month] = days
        return days

    def _days(self, first_weekday: int, length: int) -> tuple[int, ...]:
        shape = first_weekday, length
        if shape not in self._shapes:
            days = range(1, length + 1)
            self._shapes[shape] = tuple(day for day in days if self._rule(day, first_weekday, length))
        return self._shapes[shape]


def _month_length(year: int, month: int) -> int:
    lengths = _LENGTHS.get(month, (31,))
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    return lengths[-1] if leap else lengths[0]
