"""Daylight saving: every rule of the table, in every kind of zone, from every starting point."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from whenever import ZonedDateTime

from hassette_aps.instants import SECOND, from_datetime
from hassette_aps.triggers import Cron, Daily, Every, Once, Trigger, preview
from hassette_aps.triggers.wallclock import DAY, local_clock
from tests.dst_campaign import check_zone, distinct, windows


def walls(trigger: Trigger, start: ZonedDateTime, count: int) -> list[str]:
    """The next targets as the clock on the wall shows them, with the offset."""
    return [moment.format_iso().partition("[")[0] for moment in preview(trigger, count, start)]


SPRING = ZonedDateTime(2026, 3, 28, 12, tz="Europe/Berlin")
AUTUMN = ZonedDateTime(2026, 10, 24, 12, tz="Europe/Berlin")
FIXED = [Daily("02:30"), Cron("30 2 * * *"), Cron("30 2 * * * 0"), Once("02:30")]


@pytest.mark.parametrize("trigger", FIXED, ids=repr)
def test_a_fixed_time_in_the_gap_runs_at_the_first_instant_after_it(trigger: Trigger) -> None:
    """6.8: 02:30 does not exist on the spring night in Berlin, so it is 03:00 that night, once."""
    assert walls(trigger, SPRING, 1) == ["2026-03-29T03:00:00+02:00"]


@pytest.mark.parametrize("trigger", FIXED, ids=repr)
def test_a_fixed_time_in_the_fold_runs_at_its_first_occurrence(trigger: Trigger) -> None:
    """6.8: 02:30 comes twice on the autumn night; the first is the one."""
    assert walls(trigger, AUTUMN, 1) == ["2026-10-25T02:30:00+02:00"]


def test_a_fixed_time_runs_once_on_either_night() -> None:
    """6.8: the run after the daylight-saving night is the next day's."""
    assert walls(Daily("02:30"), SPRING, 2)[1] == "2026-03-30T02:30:00+02:00"
    assert walls(Daily("02:30"), AUTUMN, 2)[1] == "2026-10-26T02:30:00+01:00"


def test_several_fixed_times_in_one_gap_make_one_run() -> None:
    """6.8: 02:00, 02:15, 02:30, 02:45 and 03:00 are one instant on the spring night."""
    assert walls(Cron("0,15,30,45 2-3 * * *"), SPRING, 2) == ["2026-03-29T03:00:00+02:00", "2026-03-29T03:15:00+02:00"]


def test_a_wildcard_skips_what_does_not_exist() -> None:
    """6.8: no extra run after the gap, and the grid of the clock goes on."""
    assert walls(Cron("*/30 2 * * *"), SPRING, 1) == ["2026-03-30T02:00:00+02:00"]
    start = ZonedDateTime(2026, 3, 29, 1, 30, tz="Europe/Berlin")
    assert walls(Cron("*/20 * * * *"), start, 2) == ["2026-03-29T01:40:00+01:00", "2026-03-29T03:00:00+02:00"]


def test_a_wildcard_runs_in_both_passes_of_the_fold() -> None:
    """6.8: every half hour means every half hour, without a hole."""
    assert walls(Cron("*/30 2 * * *"), AUTUMN, 4) == [
        "2026-10-25T02:00:00+02:00",
        "2026-10-25T02:30:00+02:00",
        "2026-10-25T02:00:00+01:00",
        "2026-10-25T02:30:00+01:00",
    ]


def test_only_a_leading_star_is_a_wildcard() -> None:
    """11.14: `5-59/15` and `0-59` are fixed and run in the first pass only, `@hourly` is wild, `@daily` fixed."""
    start = ZonedDateTime(2026, 10, 25, 1, 59, 59, tz="Europe/Berlin")
    assert walls(Cron("5-59/15 0-23 * * *"), start, 5)[3:] == ["2026-10-25T02:50:00+02:00", "2026-10-25T03:05:00+01:00"]
    assert walls(Cron("@hourly"), start, 3) == [
        "2026-10-25T02:00:00+02:00",
        "2026-10-25T02:00:00+01:00",
        "2026-10-25T03:00:00+01:00",
    ]
    cuba = ZonedDateTime(2026, 10, 31, 12, tz="America/Havana")  # the clock goes from 01:00 back to 00:00
    assert walls(Cron("@daily"), cuba, 2) == ["2026-11-01T00:00:00-04:00", "2026-11-02T00:00:00-05:00"]


def test_a_time_on_a_skipped_day_runs_at_the_first_instant_after_it() -> None:
    """11.14: Samoa had no 30 December 2011; what was due that day is due as the 31st begins."""
    start = ZonedDateTime(2011, 12, 29, 12, tz="Pacific/Apia")
    assert walls(Daily("07:00"), start, 2) == ["2011-12-31T00:00:00+14:00", "2011-12-31T07:00:00+14:00"]
    assert walls(Cron("0 7,8,9 30 12 *"), start, 2) == ["2011-12-31T00:00:00+14:00", "2012-12-30T07:00:00+14:00"]
    assert walls(Once("07:00"), start, 1) == ["2011-12-31T00:00:00+14:00"]


def test_every_goes_by_elapsed_time() -> None:
    """6.4, 6.8: a 24-hour interval moves against the wall clock, a daily time does not."""
    assert walls(Every(hours=24), SPRING, 2) == ["2026-03-29T13:00:00+02:00", "2026-03-30T13:00:00+02:00"]
    assert walls(Daily("12:00"), SPRING, 2) == ["2026-03-29T12:00:00+02:00", "2026-03-30T12:00:00+02:00"]


def test_midnight_runs_on_the_day_after_spring_forward() -> None:
    """6.8: a gap that swallows midnight (Beirut) delays one run and loses none."""
    start = ZonedDateTime(2026, 3, 28, 12, tz="Asia/Beirut")
    assert walls(Daily("00:00"), start, 2) == ["2026-03-29T01:00:00+03:00", "2026-03-30T00:00:00+03:00"]


def test_a_wildcard_leaves_no_hole_in_autumn() -> None:
    """6.8: a run every 15 minutes through both passes."""
    start = ZonedDateTime(2026, 10, 25, 1, 50, tz="Europe/Berlin")
    moments = preview(Cron("*/15 * * * *"), 12, start=start)
    assert {(after - before).total("minutes") for before, after in zip(moments, moments[1:], strict=False)} == {15}


@pytest.mark.timeout(600)
def test_every_distinct_zone_agrees_with_the_oracle() -> None:
    """6.8: one zone for each behaviour there is between 2020 and 2030, each kind of its transitions, 29 expressions.

    The whole campaign, with every zone and every transition: `python -m tests.dst_campaign`.
    """
    chosen = distinct()
    assert len({key for key, _ in chosen}) > 20
    results = [result for key, transition in chosen for result in windows(ZoneInfo(key), transition)]
    assert [result for result in results if result is not None] == []


@pytest.mark.parametrize(
    ("key", "first_year", "last_year"),
    [
        ("Pacific/Apia", 2011, 2011),  # a day skipped
        ("Pacific/Kwajalein", 1993, 1993),  # a day skipped
        ("Pacific/Kwajalein", 1969, 1969),  # nearly a day doubled
        ("Asia/Pyongyang", 2015, 2018),  # half an hour, for good
        ("America/Caracas", 2007, 2016),
        ("Antarctica/Casey", 2009, 2012),  # two and three hours
        ("America/Sao_Paulo", 2017, 2017),  # a gap at midnight
        ("Europe/Dublin", 2024, 2024),  # winter time is the exception
        ("Africa/Casablanca", 2024, 2024),  # and another one, around Ramadan
        ("Europe/Lisbon", 1992, 1996),  # another zone for four years
        ("Europe/London", 1941, 1941),  # double summer time
        ("UTC", 2026, 2026),
        ("Asia/Kolkata", 2026, 2026),
    ],
)
def test_oddities_of_history_agree_with_the_oracle(key: str, first_year: int, last_year: int) -> None:
    """6.8: skipped and doubled days, permanent changes, double summer time, zones without transitions."""
    _, count, differences = check_zone(key, first_year, last_year)
    assert count
    assert differences == []


@pytest.mark.parametrize("key", ["Africa/Monrovia", "Europe/Amsterdam", "America/New_York"])
def test_the_clock_agrees_with_a_second_by_second_walk(key: str) -> None:
    """6.8, offsets with seconds (Liberia until 1972, local mean times): resolve and reached are what a walk sees."""
    zone = ZoneInfo(key)
    clock = local_clock(zone)
    begin = {"Africa/Monrovia": (1972, 1, 7), "Europe/Amsterdam": (1937, 7, 1), "America/New_York": (1883, 11, 18)}
    start = datetime(*begin[key], tzinfo=UTC) - timedelta(hours=2)
    latest = None
    seen: dict[int, int] = {}
    for second in range(0, 86_400, 1):
        moment = start + timedelta(seconds=second)
        offset = moment.astimezone(zone).utcoffset()
        assert offset is not None
        instant = from_datetime(moment)
        wall = instant + offset // timedelta(microseconds=1)
        latest = wall if latest is None else max(latest, wall)
        seen.setdefault(latest, instant)
        if second % 7 == 0 and second > 7200:
            assert clock.reached(instant) // SECOND == latest // SECOND
    for wall, instant in list(seen.items())[::11]:
        assert clock.resolve(wall) == instant


@pytest.mark.parametrize(
    ("key", "around", "minutes"),
    [
        ("America/New_York", datetime(2027, 11, 7, 6, tzinfo=UTC), 120),
        ("Europe/Berlin", datetime(2027, 3, 28, 1, tzinfo=UTC), 0),  # a gap
        ("Europe/Dublin", datetime(2027, 10, 31, 1, tzinfo=UTC), 120),
        ("Australia/Lord_Howe", datetime(2027, 4, 3, 15, tzinfo=UTC), 60),
        ("Antarctica/Troll", datetime(2027, 10, 31, 1, tzinfo=UTC), 240),
        ("UTC", datetime(2027, 11, 7, 6, tzinfo=UTC), 0),
    ],
)
def test_the_clock_knows_what_it_shows_twice(key: str, around: datetime, minutes: int) -> None:
    """6.8: minute by minute over two days, both passes of a fold and nothing else, as ``datetime`` has it."""
    zone = ZoneInfo(key)
    found = 0
    for minute in range(-1440, 1440):
        moment = around + timedelta(minutes=minute)
        local = moment.astimezone(zone)
        first, second = local.replace(fold=0).utcoffset(), local.replace(fold=1).utcoffset()
        assert first is not None
        assert second is not None
        repeats = local_clock(zone).repeats(from_datetime(moment))
        assert repeats == (first > second)
        found += repeats
    assert found == minutes


def test_a_walk_over_decades_never_leaves_the_clock() -> None:
    """P4: 20,000 days of a daily job, one run each day, at noon on the wall."""
    zone = ZoneInfo("America/New_York")
    daily = Daily("12:00")
    target = from_datetime(datetime(2000, 1, 1, 12, tzinfo=zone))
    for _ in range(20_000):
        following = daily.after(target, zone)
        assert following is not None
        assert 23 * DAY // 24 <= following - target <= 25 * DAY // 24
        target = following
    local = datetime.fromtimestamp(target / SECOND, zone)
    assert (local.hour, local.minute) == (12, 0)
