"""Laws that hold for every trigger, zone and instant (hypothesis draws them)."""

import pickle
import zoneinfo
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from croniter import croniter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from whenever import ZonedDateTime

from hassette_aps.instants import SECOND, from_datetime, to_datetime, to_zoned
from hassette_aps.triggers import After, Cron, Daily, Every, Once, Trigger
from hassette_aps.triggers.wallclock import local_clock

ORDINARY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])

ZONES = sorted(key for key in zoneinfo.available_timezones() if key not in ("localtime", "posixrules", "Factory"))
zones = st.sampled_from(ZONES).map(ZoneInfo)
instants = st.integers(from_datetime(datetime(1960, 1, 1, tzinfo=UTC)), from_datetime(datetime(2060, 1, 1, tzinfo=UTC)))
days = st.integers(0, 365).map(lambda days: days * 86_400 * SECOND)


def field(low: int, high: int) -> st.SearchStrategy[str]:
    """A cron field: a star, a step, numbers, ranges, lists of them."""
    number = st.integers(low, high).map(str)
    span = st.tuples(st.integers(low, high), st.integers(low, high)).map(lambda ends: f"{min(ends)}-{max(ends)}")
    step = st.tuples(st.one_of(st.just("*"), span), st.integers(1, high)).map(lambda parts: f"{parts[0]}/{parts[1]}")
    item = st.one_of(number, span, step)
    return st.one_of(st.just("*"), item, st.lists(item, min_size=2, max_size=4).map(",".join))


days_of_month = st.one_of(field(1, 31), st.sampled_from(["L", "?", "15W", "1W", "31W", "10,L"]))
weekdays = st.one_of(
    field(0, 6),
    st.sampled_from(["7", "mon-fri", "sat,sun", "fri-mon", "5#1", "mon#5", "tue#2,thu#4", "L5", "L0", "?", "5-7"]),
)
months = st.one_of(st.just("*"), field(1, 12), st.sampled_from(["jan", "feb-apr", "nov-feb", "*/3"]))
expressions = st.one_of(
    st.tuples(field(0, 59), field(0, 23), days_of_month, months, weekdays).map(" ".join),
    st.tuples(field(0, 59), field(0, 23), st.just("*"), st.just("*"), st.just("*"), field(0, 59)).map(" ".join),
    st.sampled_from(["@yearly", "@monthly", "@weekly", "@daily", "@hourly", "@midnight", "@annually"]),
)


def cron(expression: str) -> Cron | None:
    """The trigger, or None for an expression that can never fire, or combines what cannot be combined."""
    try:
        return Cron(expression)
    except ValueError as exc:
        if "never fire" in str(exc) or "together" in str(exc):
            return None
        raise


crons = expressions.map(cron).filter(lambda trigger: trigger is not None)
seconds = st.one_of(st.integers(1, 1_000_000), st.floats(0.001, 10_000))
times = st.tuples(st.integers(0, 23), st.integers(0, 59)).map(lambda parts: "{:02}:{:02}".format(*parts))
starts = st.one_of(st.none(), st.datetimes(datetime(1990, 1, 1), datetime(2040, 1, 1)))
repeating = st.one_of(crons, times.map(Daily), st.builds(Every, seconds=seconds, start=starts))
triggers = st.one_of(repeating, st.builds(After, seconds=seconds), st.builds(Once, times))


@ORDINARY
@given(repeating, zones, instants)
def test_the_next_time_is_strictly_later(trigger: Trigger, zone: ZoneInfo, now: int) -> None:
    """P4: strictly increasing, from any instant, in any zone."""
    for _ in range(4):
        target = trigger.after(now, zone)
        assert target is not None
        assert target > now
        now = target


@ORDINARY
@given(repeating, zones, instants, st.integers(1, 100_000_000_000))
def test_the_next_time_is_constant_between_two_targets(trigger: Trigger, zone: ZoneInfo, now: int, on: int) -> None:
    """P4: asked from anywhere before it, the next target is the same (for `Every` without a start there is no grid)."""
    if isinstance(trigger, Every) and "@" not in trigger.trigger_id():
        return
    target = trigger.after(now, zone)
    assert target is not None
    between = now + on % (target - now)
    assert trigger.after(between, zone) == target
    assert trigger.after(target - 1, zone) == target


@ORDINARY
@given(st.one_of(crons, times.map(Daily)), zones, instants)
def test_a_target_shows_a_wall_time_that_exists(trigger: Trigger, zone: ZoneInfo, now: int) -> None:
    """6.8: what the clock shows at a target is a time that the schedule names, or the end of a gap."""
    target = trigger.after(now, zone)
    assert target is not None
    moment = to_datetime(target, zone)
    assert moment.astimezone(UTC).astimezone(zone).replace(tzinfo=None) == moment.replace(tzinfo=None)
    assert from_datetime(moment) == target
    assert target % SECOND == 0


@ORDINARY
@given(crons, instants)
def test_in_utc_a_cron_is_what_croniter_says(trigger: Cron, now: int) -> None:
    """6.6: without daylight saving, every expression both accept has croniter's times."""
    plain = croniter(trigger.trigger_detail(), to_datetime(now).replace(tzinfo=None), ret_type=datetime)
    target: int | None = now
    for _ in range(4):
        assert target is not None
        target = trigger.after(target, ZoneInfo("UTC"))
        assert target == from_datetime(plain.get_next().replace(tzinfo=UTC)), trigger


@ORDINARY
@given(repeating, zones, instants, st.integers(0, 30 * 86_400 * SECOND))
def test_the_latest_is_the_last_of_the_walk(trigger: Trigger, zone: ZoneInfo, start: int, late: int) -> None:
    """11.7: the newest target that is due is the one that a walk over all of them ends with."""
    target = trigger.first(start, zone)
    assert target is not None
    now = target + late
    if isinstance(trigger, Every):
        now = target + late % (trigger.interval * 50)
    newest = trigger.latest(target, now, zone)
    assert target <= newest <= now
    following = trigger.after(newest, zone)
    assert following is None or following > now
    assert newest == target or trigger.after(newest - 1, zone) in (newest, newest - 1 + getattr(trigger, "interval", 0))
    assert trigger.following(target, now, zone) == following


@ORDINARY
@given(repeating, zones, instants, days)
def test_apscheduler_gets_the_same_answer_however_often_it_asks(
    trigger: Trigger, zone: ZoneInfo, now: int, late: int
) -> None:
    """6.3: idempotent, strictly after the previous time, and far behind in one step to the newest slot that is due."""
    previous = trigger.after(now, zone)
    assert previous is not None
    current = to_datetime(previous + late, zone)
    first = trigger.get_next_fire_time(to_datetime(previous, zone), current)
    assert first is not None
    assert first == trigger.get_next_fire_time(to_datetime(previous, zone), current)
    assert first.tzinfo is zone
    assert from_datetime(first) > previous
    if from_datetime(first) <= previous + late:
        second = trigger.get_next_fire_time(first, current)
        assert second is not None
        assert from_datetime(second) > previous + late


@ORDINARY
@given(repeating, zones, instants, days)
def test_both_interfaces_give_the_core_s_answer(trigger: Trigger, zone: ZoneInfo, now: int, late: int) -> None:
    """6.1: the protocol's next time is the first target strictly after both times."""
    target = trigger.first_run_time(to_zoned(now, zone))
    assert target is not None
    assert target == to_zoned(trigger.first(now, zone) or 0, zone)
    current = to_zoned(now + late, zone)
    following = trigger.next_run_time(target, current)
    assert following is not None
    assert following > max(target, current)


@ORDINARY
@given(triggers, zones, instants)
def test_equal_triggers_are_interchangeable(trigger: Trigger, zone: ZoneInfo, now: int) -> None:
    """6.3: a pickled copy is equal, hashes alike, has the same id and the same times; a copy is the trigger itself."""
    copy = pickle.loads(pickle.dumps(trigger))
    assert copy == trigger
    assert hash(copy) == hash(trigger)
    assert copy.trigger_id() == trigger.trigger_id()
    assert (repr(copy), str(copy)) == (repr(trigger), str(trigger))
    assert copy.first(now, zone) == trigger.first(now, zone)
    assert copy.after(now, zone) == trigger.after(now, zone)


@ORDINARY
@given(zones, instants, instants)
def test_reached_and_resolve_are_monotonic_inverses(zone: ZoneInfo, one: int, other: int) -> None:
    """6.8: a wall time is due after an instant exactly if it is later than what the clock had reached."""
    clock = local_clock(zone)
    low, high = min(one, other), max(one, other)
    assert clock.reached(low) <= clock.reached(high)
    assert clock.resolve(low) <= clock.resolve(high)
    assert clock.resolve(clock.reached(one)) <= one
    assert clock.resolve(clock.reached(one) + 1) > one
    assert clock.reached(clock.resolve(one)) >= one


@ORDINARY
@given(times, zones, instants)
def test_once_runs_at_the_next_such_time(time: str, zone: ZoneInfo, now: int) -> None:
    """6.5: a time of day is in the future, and it is the time that `Daily` has next."""
    once = Once(time)
    target = once.first(now, zone)
    assert target == Daily(time).first(now, zone)
    settled = once.settle(now, zone)
    assert settled.first(now + 10**15, zone) == target
    assert settled.after(now, zone) is None
    assert settled.written == once.written == f"once:{time}"


@pytest.mark.parametrize(
    "trigger",
    [Daily("07:00"), Cron("* * * * *"), Cron("0 0 29 2 *"), Cron("0 0 * * 1#5"), Every(hours=24), Every(seconds=0.001)],
    ids=str,
)
@pytest.mark.parametrize("key", ["UTC", "Pacific/Kiritimati", "America/New_York", "Etc/GMT+12"])
def test_the_ends_of_the_calendar_raise_nothing(trigger: Trigger, key: str) -> None:
    """6.3: a built-in trigger never raises while computing a next time, in the years 1 and 9999 neither."""
    zone = ZoneInfo(key)
    for moment in (datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, 12, tzinfo=UTC)):
        for _ in range(3):
            now = from_datetime(moment)
            for target in (trigger.first(now, zone), trigger.after(now, zone)):
                assert target is None or target > now
            trigger.get_next_fire_time(moment, moment)
            trigger.next_run_time(ZonedDateTime(9999, 12, 31, 23, tz="UTC"), ZonedDateTime(9999, 12, 31, 23, tz="UTC"))
            moment += timedelta(hours=7)
