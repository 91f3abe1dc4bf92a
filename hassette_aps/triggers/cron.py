"""Cron expressions. croniter knows the calendar, ``wallclock`` knows the clock."""

from collections.abc import Mapping, Sequence
from datetime import tzinfo
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple, cast
from zoneinfo import ZoneInfo

from croniter import croniter

from hassette_aps.instants import Micros
from hassette_aps.triggers.base import DbType, Trigger
from hassette_aps.triggers.timetable import DayRule, Timetable
from hassette_aps.triggers.wallclock import DAY, LAST, LocalClock, local_clock

_FIELDS = ("minute", "hour", "day of month", "month", "day of week", "second")
_ALIASES = "@yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly"
_LONGEST = 1_000


class Cron(Trigger):
    """Whenever the clock on the wall matches a cron expression.

    The dialect is croniter's: minute, hour, day of month, month, day of week, and optionally seconds as
    a 6th field; names, lists, ranges, steps, ``L``, ``#``, ``W``, ``?`` and ``@daily`` with its kin.
    Sunday is 0 and 7; day of month and day of week are OR-ed when both are restricted, but for ``W`` and
    ``#`` or ``L5``, which want ``*`` in the other field.

    A schedule whose minute or hour field starts with ``*`` follows the clock: nothing in the spring gap,
    twice in the autumn fold. Any other runs once in each, at the first instant after the gap or the first
    occurrence (semantics 6.8).

    Args:
        expression: 5 or 6 fields, or an alias.
        timezone: For a plain APScheduler only: the zone of the wall clock, if it is not the scheduler's.

    Raises:
        TypeError: not a string.
        ValueError: not a valid expression (the message names the field), or one that can never fire.
    """

    __slots__ = ("_expression", "_timetable")
    _state: ClassVar[tuple[str, ...]] = ("_expression",)

    _expression: str
    _timetable: Timetable

    def __init__(self, expression: str, *, timezone: str | tzinfo | None = None) -> None:
        super().__init__(timezone)
        if not isinstance(expression, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"Cron: expression must be a string such as '0 7 * * *', got {expression!r}")
        if len(expression) > _LONGEST:
            raise ValueError(f"Cron: expression {expression[:40]!r}... is longer than {_LONGEST} characters")
        if not expression.isascii():
            raise ValueError(f"invalid cron expression {expression!r}: only ASCII characters are allowed")
        self._expression = " ".join(expression.split())
        self._prepare()

    def first(self, now: Micros, zone: ZoneInfo) -> Micros | None:
        return self.after(now, zone)

    def after(self, previous: Micros, zone: ZoneInfo) -> Micros | None:
        clock = local_clock(zone)
        if self._timetable.wild:
            return _next_on_the_clock(self._timetable, clock, previous)
        wall = self._timetable.at_or_after(clock.reached(previous) + 1)
        return None if wall is None or wall > LAST else clock.resolve(wall)

    def settle(self, now: Micros, zone: ZoneInfo) -> Trigger:
        self._refuse_other_zone(zone)
        return self

    def trigger_label(self) -> str:
        return "cron"

    def trigger_detail(self) -> str:
        return self._expression

    def trigger_db_type(self) -> DbType:
        return "cron"

    def trigger_id(self) -> str:
        return f"cron:{self._expression}"

    def __repr__(self) -> str:
        return f"Cron({self._expression!r})"

    def _prepare(self) -> None:
        self._timetable = _compiled(self._expression)


def _next_on_the_clock(timetable: Timetable, clock: LocalClock, previous: Micros) -> Micros | None:
    """The first instant after ``previous`` at which the clock shows a matching time."""
    instant = previous + 1
    while True:
        _, end, offset, _ = clock.segment(instant)
        wall = timetable.at_or_after(instant + offset)
        if wall is None or wall > LAST:
            return None
        if wall - offset < end:
            return wall - offset
        # Times before `wall` come again within two days or never: after that, leap to shortly before `wall`.
        instant = max(end, wall - 2 * DAY) if end - instant >= 2 * DAY else end


@lru_cache(maxsize=1024)
def _compiled(expression: str) -> Timetable:
    """The timetable of an expression, checked; shared by all triggers that have it."""
    expanded = _expand(expression)
    fields, texts = expanded.fields, expanded.texts
    timetable = Timetable(
        hours=_values(fields[1], range(24)),
        minutes=_values(fields[0], range(60)),
        seconds=_values(fields[5], range(60)) if len(fields) > 5 else (0,),
        months=_values(fields[3], range(1, 13)),
        rule=_day_rule(expanded),
        wild=texts[0].startswith("*") or texts[1].startswith("*"),
    )
    if not timetable.can_fire():
        raise ValueError(
            f"cron expression {expression!r} can never fire: no month it names has such a day;"
            " check day of month and month"
        )
    return timetable


class _Expanded(NamedTuple):
    """An expression as croniter understands it; the only strings in it are ``*`` and ``l`` (last)."""

    fields: Sequence[Sequence[int | str]]
    nth: Mapping[int, set[int | str]]
    nearest: set[int]
    texts: Sequence[str]


def _expand(expression: str) -> _Expanded:
    texts = expression.split(" ")
    if len(texts) == 7:
        raise ValueError(f"cron expression {expression!r}: a 7th field (year) is not supported; leave it out")
    if len(texts) not in (5, 6) and not expression.startswith("@"):
        count = len(expression.split())
        raise ValueError(f"invalid cron expression {expression!r}: needs 5 fields, or 6 with seconds, got {count}")
    for name, text in zip(_FIELDS, texts, strict=False):
        if text[:1] in "hHrR":
            raise ValueError(
                f"cron expression {expression!r}: {name} {text!r} is not supported (H and R draw values); give a value"
            )
    try:
        expanded = _croniter(expression)
    except (ValueError, TypeError, KeyError) as exc:
        raise ValueError(f"invalid cron expression {expression!r}: {_fault(expression, texts)}") from exc
    if (expanded.nth or expanded.nearest) and "*" not in expanded.fields[2] and "*" not in expanded.fields[4]:
        raise ValueError(
            f"cron expression {expression!r}: day of month {texts[2]!r} together with day of week {texts[4]!r} is not"
            " supported (croniter ignores one of them); with #, L or W in one, give * in the other"
        )
    return expanded


def _croniter(expression: str) -> _Expanded:
    parsed = cast(Any, croniter)(expression, 0)
    return _Expanded(parsed.expanded, parsed.nth_weekday_of_month, parsed.nearest_weekday, parsed.expressions)


def _fault(expression: str, texts: Sequence[str]) -> str:
    """Which field is at fault: the first that is refused alone."""
    if expression.startswith("@"):
        return f"unknown alias; there are {_ALIASES}"
    for index, (name, text) in enumerate(zip(_FIELDS, texts, strict=False)):
        alone = ["*"] * len(texts)
        alone[index] = text
        try:
            _croniter(" ".join(alone))
        except (ValueError, TypeError, KeyError):
            return f"{name} {text!r} is not valid"
    return "its fields do not go together"


def _values(field: Sequence[int | str], everything: range) -> list[int]:
    return list(everything) if "*" in field else sorted(value for value in field if isinstance(value, int))


def _day_rule(expanded: _Expanded) -> DayRule:
    """Day of month and day of week put together: OR-ed if both are restricted, as in crontab (semantics 6.6)."""
    days, weekdays, nth, nearest = expanded.fields[2], expanded.fields[4], expanded.nth, expanded.nearest
    any_day, any_weekday = "*" in days, "*" in weekdays

    def by_day(day: int, first_weekday: int, length: int) -> bool:
        if nearest:
            return any(day == _nearest_weekday(wanted, first_weekday, length) for wanted in nearest)
        return day in days or (day == length and "l" in days)

    def by_weekday(day: int, first_weekday: int, length: int) -> bool:
        weekday = (first_weekday + day - 1) % 7
        if nth:
            wanted = nth.get(weekday, ())
            return (day + 6) // 7 in wanted or ("l" in wanted and day + 7 > length)
        return weekday in weekdays

    def by_either(day: int, first_weekday: int, length: int) -> bool:
        return by_day(day, first_weekday, length) or by_weekday(day, first_weekday, length)

    if any_day:
        return _every_day if any_weekday else by_weekday
    return by_day if any_weekday else by_either


def _every_day(day: int, first_weekday: int, length: int) -> bool:
    return True


def _nearest_weekday(day: int, first_weekday: int, length: int) -> int:
    """Monday to Friday nearest to ``day`` in the same month."""
    day = min(day, length)
    weekday = (first_weekday + day - 1) % 7
    if weekday == 6:
        return day - 1 if day > 1 else day + 2
    if weekday == 0:
        return day + 1 if day < length else day - 2
    return day
