"""Cron by brute force: the reference that the triggers are compared with.

Nothing here comes from croniter or from the package. Every UTC minute of a window is looked at, ``zoneinfo`` says
what the clock on the wall shows, and a schedule is the set of wall minutes that match its fields. The rules are the
table of semantics 6.8, word for word:

- minute or hour starts with ``*``: due whenever the clock shows a matching time, so twice in a fold and never in a gap;
- any other: a wall time is due when the clock reaches it for the first time, and what a gap skips is due, in one run,
  at the first minute after it.
"""

import calendar
from datetime import UTC, date, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

MONTHS = {name.lower(): number for number, name in enumerate(calendar.month_abbr) if name}
WEEKDAYS = {name: number for number, name in enumerate(["sun", "mon", "tue", "wed", "thu", "fri", "sat"])}
ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY = date(1970, 1, 1)


class Expression:
    """A cron expression: which days and minutes match, and the seconds of a matching minute."""

    def __init__(self, text: str) -> None:
        fields = ALIASES.get(text, text).lower().split()
        self.text = text
        self.wild = fields[0][0] == "*" or fields[1][0] == "*"
        self.minutes = {
            hour * 60 + minute
            for hour in self._numbers(fields[1], 0, 23, {})
            for minute in self._numbers(fields[0], 0, 59, {})
        }
        self.months = self._numbers(fields[3], 1, 12, MONTHS)
        self.seconds = sorted(self._numbers(fields[5], 0, 59, {})) if len(fields) > 5 else [0]
        self._day, self._weekday = fields[2].replace("?", "*"), fields[4].replace("?", "*")
        self._days: dict[int, bool] = {}

    def matches(self, wall_minute: int) -> bool:
        """Does a minute of wall time match? Minutes count from 1970-01-01T00:00."""
        day, minute = divmod(wall_minute, 1440)
        if minute not in self.minutes:
            return False
        if day not in self._days:
            self._days[day] = self._day_matches(_EPOCH_DAY + timedelta(days=day))
        return self._days[day]

    def _day_matches(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        by_day = self._by_day_of_month(day)
        by_weekday = self._by_weekday(day)
        either = "*" not in self._day and "*" not in self._weekday and "#" not in self._weekday
        return by_day or by_weekday if either else by_day and by_weekday

    def _by_day_of_month(self, day: date) -> bool:
        last = calendar.monthrange(day.year, day.month)[1]
        for item in self._day.split(","):
            if item == "l":
                if day.day == last:
                    return True
            elif item.endswith("w"):
                wanted = date(day.year, day.month, min(int(item[:-1]), last))
                candidates = [day.replace(day=number) for number in range(1, last + 1)]
                workdays = [candidate for candidate in candidates if candidate.isoweekday() <= 5]
                # Saturdays go back, Sundays go on, and neither leaves the month.
                lean = -1 if wanted.isoweekday() == 6 else 1
                if day == min(workdays, key=lambda c: (abs((c - wanted).days), -lean * (c - wanted).days)):
                    return True
            elif day.day in self._numbers(item, 1, 31, {}):
                return True
        return False

    def _by_weekday(self, day: date) -> bool:
        last = calendar.monthrange(day.year, day.month)[1]
        today = day.isoweekday() % 7
        for item in self._weekday.split(","):
            if "#" in item:
                names, nth = item.split("#")
                if today in self._numbers(names, 0, 7, WEEKDAYS) and (day.day + 6) // 7 == int(nth):
                    return True
            elif item.startswith("l"):
                if today == int(item[1:]) % 7 and day.day + 7 > last:
                    return True
            elif today in self._numbers(item, 0, 7, WEEKDAYS):
                return True
        return False

    @staticmethod
    def _numbers(field: str, low: int, high: int, names: dict[str, int]) -> set[int]:
        def number(text: str) -> int:
            return names[text] if text in names else int(text)

        found: set[int] = set()
        for item in field.split(","):
            span, _, step = item.partition("/")
            if span == "*":
                first, final = low, 6 if names is WEEKDAYS else high
            elif "-" in span:
                first, final = (number(part) for part in span.split("-"))
            else:
                first = number(span)
                final = (6 if names is WEEKDAYS else high) if step else first
            if first > final:  # around the end: sat-mon, nov-feb
                size = 7 if names is WEEKDAYS else high
                final += size
                found.update((value - low) % size + low for value in range(first, final + 1, int(step or 1)))
            else:
                found.update(range(first, final + 1, int(step or 1)))
        return {0 if names is WEEKDAYS and value == 7 else value for value in found}


def wall_minutes(zone: tzinfo, begin: int, end: int) -> list[tuple[int, int]]:
    """What the clock shows, minute by minute: (UTC minute, wall minute)."""
    shown: list[tuple[int, int]] = []
    for minute in range(begin, end):
        offset = datetime.fromtimestamp(minute * 60, zone).utcoffset()
        assert offset is not None
        shown.append((minute, minute + offset // timedelta(minutes=1)))
    return shown


def targets(expression: Expression, shown: list[tuple[int, int]], start: int) -> list[int]:
    """Every target from the UTC minute ``start`` on, in seconds since the epoch.

    ``shown`` must begin two days before ``start``, so that it is known what the clock had reached by then.
    """
    found: list[int] = []
    matches, seconds, wild = expression.matches, expression.seconds, expression.wild
    reached = shown[0][1] - 1
    for minute, wall in shown:
        if wild:
            if matches(wall):
                found.extend(minute * 60 + second for second in seconds)
            continue
        if wall <= reached:
            continue
        in_gap = wall > reached + 1 and any(matches(skipped) for skipped in range(reached + 1, wall))
        if matches(wall):
            due = [minute * 60 + second for second in seconds]
            if in_gap and due[0] != minute * 60:
                due.insert(0, minute * 60)
            found.extend(due)
        elif in_gap:
            found.append(minute * 60)
        reached = wall
    return [target for target in found if target >= start * 60]


def transitions(zone: ZoneInfo, first_year: int, last_year: int) -> list[int]:
    """The UTC minutes at which the offset of a zone changes, found by looking at every day."""

    def offset(minute: int) -> timedelta | None:
        return datetime.fromtimestamp(minute * 60, zone).utcoffset()

    begin = int(datetime(first_year, 1, 1, tzinfo=UTC).timestamp()) // 60
    end = int(datetime(last_year + 1, 1, 1, tzinfo=UTC).timestamp()) // 60
    found: list[int] = []
    before = offset(begin)
    for day in range(begin, end, 1440):
        after = offset(day)
        if after == before:
            continue
        low, high = day - 1440, day
        while high - low > 1:
            middle = (low + high) // 2
            if offset(middle) == before:
                low = middle
            else:
                high = middle
        found.append(high)
        before = after
    return found
