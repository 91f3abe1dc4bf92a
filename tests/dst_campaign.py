"""The daylight-saving campaign: every zone, every transition, every class of expression, against the oracle.

    python -m tests.dst_campaign            all zones, 2020 to 2030 (about ten minutes on one core)
    python -m tests.dst_campaign --jobs 2   in two processes

A window is one expression around one transition of one zone. In each, a walk from the day before must give exactly the
oracle's targets, and so must cold starts around the transition and inside the gap or fold.
"""

import argparse
import sys
import zoneinfo
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from time import perf_counter
from typing import NamedTuple
from zoneinfo import ZoneInfo

from hassette_aps.instants import SECOND
from hassette_aps.triggers import Cron
from tests.oracle import Expression, targets, transitions, wall_minutes

EXPRESSIONS = (
    # fixed times
    "0 0 * * *",
    "30 0 * * *",
    "30 1 * * *",
    "0 2 * * *",
    "30 2 * * *",
    "0 3 * * *",
    "59 23 * * *",
    "@daily",
    # fixed lists, ranges, steps
    "15,45 2 * * *",
    "0-59 2 * * *",
    "5-59/15 1-3 * * *",
    "30 0,1,2,3,23 * * *",
    "0-59/10 0-23 * * *",
    # fixed on certain days
    "0 2 * * sun",
    "30 2 1-7 3,11 0",
    "0 0 L * *",
    "30 2 * * L0",
    "0 1 * * sun#2,sun#5",
    "30 23 31W * ?",
    # wild
    "* * * * *",
    "*/15 * * * *",
    "30 * * * *",
    "@hourly",
    "*/20 2 * * *",
    "0 */2 * * *",
    "*/7 0-3 * * 6-1",
    # with seconds
    "0 2 * * * */20",
    "30 0-2 * * * 15,45",
    "*/30 * * * * 59",
)
PARSED = tuple((Cron(text), Expression(text)) for text in EXPRESSIONS)

DAY = 1440
REACH = 30 * 60


class Difference(NamedTuple):
    """A window in which the trigger and the oracle disagree."""

    zone: str
    transition: int
    expression: str
    start: int
    expected: list[int]
    got: list[int]


def windows(zone: ZoneInfo, transition: int) -> Iterator[Difference | None]:
    """One result per expression around a transition (a UTC minute): None if everything agrees."""
    begin, end = transition - REACH, transition + REACH
    shown = wall_minutes(zone, begin - 2 * DAY, end)
    walls = dict(shown)
    shift = walls[transition] - walls[transition - 1] - 1
    cold = {transition * 60 + seconds for seconds in (-60, -1, 0, 1, 59)}
    cold |= {(transition + minutes) * 60 for minutes in (abs(shift) // 2, abs(shift), abs(shift) + 1, -abs(shift))}
    for cron, expression in PARSED:
        expected = targets(expression, shown, begin)
        yield _walk(zone, transition, cron, expected, begin, end) or _cold(zone, transition, cron, expected, cold, end)


def _walk(zone: ZoneInfo, transition: int, cron: Cron, expected: list[int], begin: int, end: int) -> Difference | None:
    got: list[int] = []
    target = cron.after(begin * 60 * SECOND - 1, zone)
    while target is not None and target < end * 60 * SECOND:
        got.append(target // SECOND if target % SECOND == 0 else -target)
        target = cron.after(target, zone)
    return None if got == expected else Difference(zone.key, transition, cron.trigger_id(), begin, expected, got)


def _cold(
    zone: ZoneInfo, transition: int, cron: Cron, expected: list[int], starts: Iterable[int], end: int
) -> Difference | None:
    for start in starts:
        first = cron.first(start * SECOND, zone)
        assert first is not None
        due = next((target for target in expected if target > start), None)
        if first != due * SECOND if due is not None else first < end * 60 * SECOND:
            wanted = [] if due is None else [due]
            return Difference(zone.key, transition, cron.trigger_id(), start, wanted, [first // SECOND])
    return None


def check_zone(key: str, first_year: int = 2020, last_year: int = 2030) -> tuple[int, int, list[Difference]]:
    """All windows of one zone: transitions, windows, differences. A zone without transitions has one quiet window."""
    zone = ZoneInfo(key)
    found = transitions(zone, first_year, last_year)
    results = [result for transition in found or [28_401_120] for result in windows(zone, transition)]
    return len(found), len(results), [result for result in results if result is not None]


def zones() -> list[str]:
    """All zones there are."""
    return sorted(key for key in zoneinfo.available_timezones() if key not in ("localtime", "posixrules", "Factory"))


def distinct(first_year: int = 2020, last_year: int = 2030) -> list[tuple[str, int]]:
    """One zone for each behaviour there is, with one transition of each kind it has (shift and time of day)."""
    behaviours: dict[tuple[tuple[int, int], ...], str] = {}
    chosen: list[tuple[str, int]] = []
    for key in zones():
        zone = ZoneInfo(key)
        changes: list[tuple[int, int]] = []
        kinds: dict[tuple[int, int], int] = {}
        for transition in transitions(zone, first_year, last_year):
            before, after = (wall for _, wall in wall_minutes(zone, transition - 1, transition + 1))
            changes.append((transition, after))
            kinds.setdefault((after - before - 1, after % DAY), transition)
        if behaviours.setdefault(tuple(changes), key) == key:
            chosen += [(key, transition) for transition in kinds.values()]
    return chosen


def main() -> int:
    """Run the campaign; the exit status is 0 if nothing differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1, help="processes (default 1)")
    parser.add_argument("--years", type=int, nargs=2, default=(2020, 2030), metavar=("FIRST", "LAST"))
    options = parser.parse_args()
    keys = zones()
    begun = perf_counter()
    changes = count = 0
    differences: list[Difference] = []
    with ProcessPoolExecutor(options.jobs) as pool:
        first, last = ([year] * len(keys) for year in options.years)
        for zone_changes, zone_count, zone_differences in pool.map(check_zone, keys, first, last):
            changes += zone_changes
            count += zone_count
            differences += zone_differences
    for difference in differences[:20]:
        print(difference)
    print(
        f"{len(keys)} zones, {changes} transitions {options.years[0]} to {options.years[1]},"
        f" {len(EXPRESSIONS)} expressions: {count} windows, {len(differences)} differ ({perf_counter() - begun:.0f} s)"
    )
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
