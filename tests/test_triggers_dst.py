"""Daylight saving (6.8, 11.14): every distinct behaviour of the clocks in all zones, against the brute-force oracle.

The whole campaign, every zone and transition, is ``python -m tests.dst_campaign``.
"""

import zoneinfo
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import pytest
from whenever import ZonedDateTime

from hassette_aps import Cron, Daily, Every, Once, preview
from tests.dst_campaign import windows
from tests.oracle import transitions

ODDITIES = [
    ("Pacific/Apia", 2011),  # skipped a whole day
    ("Pacific/Kwajalein", 1993),  # another one
    ("America/Sao_Paulo", 2017),  # a gap at midnight
    ("Africa/Casablanca", 2024),  # negative daylight saving around Ramadan
    ("Europe/Dublin", 2024),  # winter time is the exception
    ("Australia/Lord_Howe", 2024),  # half an hour
    ("Antarctica/Troll", 2024),  # two hours
    ("Asia/Pyongyang", 2015),  # half an hour, for good
    ("America/Caracas", 2016),
    ("Europe/Moscow", 1991),
    ("Europe/London", 1947),  # double summer time
    ("Asia/Kolkata", 2024),  # no transitions at all
]


@cache
def distinct_transitions() -> dict[tuple[int, int], tuple[str, int]]:
    """One zone and transition for every (shift, wall time of day) that occurs in any zone from 2020 to 2030."""
    found: dict[tuple[int, int], tuple[str, int]] = {}
    for key in sorted(zoneinfo.available_timezones() - {"localtime", "posixrules", "Factory"}):
        zone = ZoneInfo(key)
        for minute in transitions(zone, 2020, 2030):
            before = datetime.fromtimestamp(minute * 60 - 60, zone)
            after = datetime.fromtimestamp(minute * 60, zone)
            shift = (after.utcoffset() or timedelta()) - (before.utcoffset() or timedelta())
            wall = before.hour * 60 + before.minute + 1
            found.setdefault((shift // timedelta(minutes=1), wall), (key, minute))
    return found


def test_every_distinct_behaviour_of_the_clocks() -> None:
    """6.8: walks across a transition and cold starts around it agree with the oracle, 29 expressions each."""
    found = distinct_transitions()
    assert len(found) > 20
    differences = [
        difference
        for key, minute in found.values()
        for difference in windows(ZoneInfo(key), minute)
        if difference is not None
    ]
    assert differences == []


@pytest.mark.parametrize(("key", "year"), ODDITIES)
def test_historical_oddities(key: str, year: int) -> None:
    """6.8: skipped days, half hours, two hours, negative and double daylight saving, permanent changes, none at all."""
    zone = ZoneInfo(key)
    found = transitions(zone, year, year) or [int(datetime(year, 6, 1, tzinfo=UTC).timestamp()) // 60]
    assert [difference for minute in found for difference in windows(zone, minute) if difference] == []


@pytest.mark.parametrize("trigger", [Daily("02:30"), Cron("30 2 * * *"), Once("02:30")])
def test_one_function_for_all_wall_times(trigger: Daily | Cron | Once) -> None:
    """6.8: ``Daily``, ``Cron`` and ``Once`` agree: right after the gap in spring, the first occurrence in autumn."""
    spring = ZonedDateTime(2026, 3, 28, 12, tz="Europe/Berlin")
    autumn = ZonedDateTime(2026, 10, 24, 12, tz="Europe/Berlin")
    assert str(preview(trigger, 1, start=spring)[0]) == "2026-03-29T03:00:00+02:00[Europe/Berlin]"
    assert str(preview(trigger, 1, start=autumn)[0]) == "2026-10-25T02:30:00+02:00[Europe/Berlin]"


def test_several_times_in_one_gap_make_one_run() -> None:
    """6.8: 02:00, 02:15, 02:30 and 02:45 do not exist: one run at 03:00."""
    start = ZonedDateTime(2026, 3, 29, 1, tz="Europe/Berlin")
    assert [str(moment.time()) for moment in preview(Cron("0,15,30,45 2-3 * * *"), 3, start=start)] == [
        "03:00:00",
        "03:15:00",
        "03:30:00",
    ]


def test_a_skipped_day() -> None:
    """11.14: a fixed time on a day that the zone skipped runs at the first instant after the gap."""
    start = ZonedDateTime(2011, 12, 29, 12, tz="Pacific/Apia")
    assert [str(moment) for moment in preview(Daily("07:00"), 2, start=start)] == [
        "2011-12-31T00:00:00+14:00[Pacific/Apia]",
        "2011-12-31T07:00:00+14:00[Pacific/Apia]",
    ]


def test_wildcards_have_no_hole_in_autumn() -> None:
    """6.8: every 15 minutes through both passes (Hassette leaves up to two hours of silence)."""
    start = ZonedDateTime(2026, 10, 25, 1, 50, tz="Europe/Berlin")
    moments = preview(Cron("*/15 * * * *"), 12, start=start)
    assert {(after - before).total("minutes") for before, after in zip(moments, moments[1:], strict=False)} == {15}


def test_elapsed_time_is_unaffected() -> None:
    """6.8: ``Every`` keeps its distance on both nights."""
    for start in (
        ZonedDateTime(2026, 3, 29, 1, tz="Europe/Berlin"),
        ZonedDateTime(2026, 10, 25, 1, tz="Europe/Berlin"),
    ):
        moments = preview(Every(minutes=20), 12, start=start)
        assert {(after - before).total("minutes") for before, after in zip(moments, moments[1:], strict=False)} == {20}
