"""Triggers: ids, the three interfaces, values, pickles, foreign ones, APScheduler's plug-in names (section 6)."""

import copy
import pickle
import time
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.date import DateTrigger
from apscheduler.triggers.interval import IntervalTrigger
from whenever import TimeDelta, ZonedDateTime

from hassette_aps import After, Cron, Daily, Every, Once, TriggerProtocol, preview
from hassette_aps.instants import SECOND, from_datetime
from hassette_aps.triggers import Trigger, as_trigger
from tests.kit import called, idle

BERLIN = ZoneInfo("Europe/Berlin")
UTC_ZONE = ZoneInfo("UTC")
NOON = ZonedDateTime(2026, 5, 1, 12, tz="Europe/Berlin")
SEVEN = ZonedDateTime(2026, 5, 2, 7, tz="Europe/Berlin")
PICKLES = Path(__file__).parent / "data" / "triggers-1.pickle"

SAMPLES: list[Trigger] = [
    After(seconds=90),
    After(minutes=1, seconds=0.5),
    Once("07:00"),
    Once("07:00", if_past="error"),
    Once(SEVEN),
    Every(seconds=60),
    Every(hours=1, start=NOON),
    Daily("07:30"),
    Cron("*/5 8-18 * * mon-fri"),
    Cron("0 0 L * *"),
    Cron("* * * * * */10"),
    Cron("@daily"),
]


@pytest.mark.parametrize(
    ("trigger", "trigger_id", "label", "db_type", "detail"),
    [
        (After(seconds=5), "after:5", "after", "after", "5s"),
        (After(minutes=1, seconds=0.5), "after:60.5", "after", "after", "60.5s"),
        (After(timedelta=timedelta(minutes=2)), "after:120", "after", "after", "120s"),
        (After(timedelta=TimeDelta(hours=1)), "after:3600", "after", "after", "3600s"),
        (Once("07:00"), "once:07:00", "once", "once", "07:00"),
        (Once(SEVEN), f"once:{SEVEN.format_iso()}", "once", "once", SEVEN.format_iso()),
        (Every(minutes=1), "every:60", "every", "interval", "60s"),
        (Every(hours=1, minutes=1, seconds=1), "every:3661", "every", "interval", "3661s"),
        (Daily("07:05"), "cron:5 7 * * *", "daily", "cron", "07:05"),
        (Cron("0  7 * *  1"), "cron:0 7 * * 1", "cron", "cron", "0 7 * * 1"),
    ],
)
def test_ids_labels_and_types(trigger: Trigger, trigger_id: str, label: str, db_type: str, detail: str) -> None:
    """6.1, 11.9: ids without ``.0``, labels, details and database types."""
    assert trigger.trigger_id() == trigger_id
    assert trigger.trigger_label() == label
    assert trigger.trigger_db_type() == db_type
    assert trigger.trigger_detail() == detail
    assert isinstance(trigger, TriggerProtocol)


def test_an_explicit_start_is_part_of_the_id() -> None:
    """11.9: ``Every`` with a start is another schedule than one without."""
    assert Every(minutes=1, start=NOON).trigger_id().startswith("every:60@2026-05-01T12:00:00")
    assert Every(minutes=1, start=NOON) != Every(minutes=1)


def test_once_settles_at_registration(caplog: pytest.LogCaptureFixture) -> None:
    """6.5, 11.8: ``"07:00"`` is today, or tomorrow if it is not in the future, with a WARNING."""
    noon, six = from_datetime(NOON.to_stdlib()), from_datetime(NOON.to_stdlib()) - 6 * 3600 * SECOND
    today = Once("07:00").settle(six, BERLIN)
    assert today.trigger_id() == "once:2026-05-01T07:00:00+02:00[Europe/Berlin]"
    assert "past" not in caplog.text
    tomorrow = Once("07:00").settle(noon, BERLIN)
    assert tomorrow.trigger_id() == "once:2026-05-02T07:00:00+02:00[Europe/Berlin]"
    assert "it runs tomorrow" in caplog.text
    assert (today.written, tomorrow.written) == ("once:07:00", "once:07:00")
    with pytest.raises(ValueError, match="07:00.*past"):
        Once("07:00", if_past="error").settle(noon, BERLIN)


def test_a_past_moment(caplog: pytest.LogCaptureFixture) -> None:
    """6.5: a past absolute time fires at once with a WARNING, or raises under ``if_past="error"``."""
    past = NOON.subtract(hours=1)
    assert Once(past).first_run_time(NOON) == past
    assert "at once" in caplog.text
    with pytest.raises(ValueError, match="past"):
        Once(past, if_past="error").first_run_time(NOON)
    assert Once(datetime(2026, 5, 1, 13)).first_run_time(NOON) == NOON.add(hours=1)


def test_every_first_and_next() -> None:
    """6.4, 11.13: one interval later, or at ``start``; a past start gives the next grid point; then the grid."""
    assert Every(minutes=10).first_run_time(NOON) == NOON.add(minutes=10)
    assert Every(minutes=10, start=NOON.add(minutes=3)).first_run_time(NOON) == NOON.add(minutes=3)
    assert Every(minutes=10, start=NOON).first_run_time(NOON) == NOON
    assert Every(minutes=10, start=NOON.subtract(minutes=25)).first_run_time(NOON) == NOON.add(minutes=5)
    assert Every(minutes=10).next_run_time(NOON, NOON.add(minutes=34)) == NOON.add(minutes=40)
    assert Every(minutes=10).next_run_time(NOON, NOON.add(minutes=40)) == NOON.add(minutes=50)


def test_every_moves_against_the_wall_clock_and_daily_does_not() -> None:
    """6.4: a 24-hour ``Every`` counts elapsed time over a change of the clocks; ``Daily`` keeps the wall time."""
    saturday = ZonedDateTime(2026, 3, 28, 7, tz="Europe/Berlin")
    sunday = Every(hours=24).next_run_time(saturday, saturday)
    assert sunday is not None
    assert sunday.hour == 8
    daily = Daily("07:00").next_run_time(saturday, saturday)
    assert daily is not None
    assert daily.hour == 7


def test_at_an_exact_target_the_next_one_is_strictly_after() -> None:
    """11.13: ``first_run_time(now)`` at a target gives the next one."""
    seven = ZonedDateTime(2026, 5, 1, 7, tz="Europe/Berlin")
    assert Daily("07:00").first_run_time(seven) == seven.add(days=1)
    assert Cron("0 7 * * *").first_run_time(seven.subtract(nanoseconds=1000)) == seven


def test_one_shots_end() -> None:
    """6.2: after its target a one-shot has no next time."""
    for trigger in (After(seconds=5), Once(SEVEN)):
        assert trigger.one_shot
        assert trigger.next_run_time(NOON, NOON) is None


@pytest.mark.parametrize("trigger", SAMPLES, ids=str)
def test_values(trigger: Trigger) -> None:
    """6.3: equal triggers compare equal, hash alike, survive copying and pickling; ``repr`` makes one again."""
    again = pickle.loads(pickle.dumps(trigger))
    assert again == trigger
    assert hash(again) == hash(trigger)
    assert again.trigger_id() == trigger.trigger_id()
    assert copy.copy(trigger) == copy.deepcopy(trigger) == trigger
    assert eval(repr(trigger)) == trigger
    assert trigger != object()
    assert len({trigger, again}) == 1
    assert again.first(0, BERLIN) == trigger.first(0, BERLIN) if "error" not in repr(trigger) else True


def test_pickles_of_this_version_are_read_for_ever() -> None:
    """6.2: the pickles kept in ``tests/data`` were made by version 1 of the state."""
    kept: list[Trigger] = pickle.loads(PICKLES.read_bytes())
    assert kept == SAMPLES


def test_newer_pickles_are_refused() -> None:
    """A state of a newer version says so instead of being misread."""
    with pytest.raises(ValueError, match="upgrade hassette_aps"):
        Every(seconds=5).__setstate__({"version": 99})


def test_apscheduler_asks_twice_and_far_behind() -> None:
    """Idempotent answers, strictly after the previous one; far behind, the newest due slot in constant time."""
    now = datetime(2026, 5, 31, 12, 0, 0, 500_000, tzinfo=BERLIN)
    previous = now - timedelta(days=30)
    for trigger in (Every(seconds=1), Cron("* * * * * *")):
        before = time.perf_counter()
        newest = trigger.get_next_fire_time(previous, now)
        assert time.perf_counter() - before < 0.05
        assert newest == trigger.get_next_fire_time(previous, now)
        assert newest is not None
        assert now - timedelta(seconds=1) < newest <= now
        following = trigger.get_next_fire_time(newest, now)
        assert following is not None
        assert following > now
        assert following.tzinfo is now.tzinfo


@pytest.mark.parametrize("tz", [UTC, timezone(timedelta(hours=5, minutes=45)), ZoneInfo("Asia/Kathmandu")])
def test_zones_without_a_name_work_in_a_plain_apscheduler(tz: Any) -> None:
    """6.3: the zone comes in with ``now``; a built-in trigger never raises, whatever ``tzinfo`` that is."""
    now = datetime(2026, 5, 1, 12, tzinfo=tz)
    assert Daily("07:00").get_next_fire_time(None, now) == datetime(2026, 5, 2, 7, tzinfo=tz)


async def test_apschedulers_plugin_names() -> None:
    """The entry points of ``apscheduler.triggers`` work in a plain APScheduler, with its ``timezone=``."""
    aps = AsyncIOScheduler(timezone="Europe/Berlin")
    aps.start()
    made = {
        "hassette_after": {"seconds": 5},
        "hassette_once": {"at": "07:00"},
        "hassette_every": {"minutes": 5},
        "hassette_daily": {"at": "07:00"},
        "hassette_cron": {"expression": "0 7 * * 1"},
    }
    for name, arguments in made.items():
        job = aps.add_job(idle, name, **arguments)
        assert job.next_run_time > datetime.now(UTC)
        assert job.trigger.trigger_label() == name.removeprefix("hassette_")
    assert aps.add_job(idle, "hassette_daily", at="07:00").next_run_time.hour == 7
    assert aps.add_job(idle, Daily("07:00")).trigger == Daily("07:00")
    aps.shutdown()


def test_foreign_triggers_are_adapted() -> None:
    """2, 11.9: APScheduler's triggers keep their schedule; the id is class and ``str()``; the object is ``inner``."""
    inner = CronTrigger(hour=7, timezone="Europe/Berlin")
    adapted = as_trigger(inner)
    assert adapted.inner is inner  # type: ignore[attr-defined]
    assert adapted.trigger_id() == "CronTrigger:cron[hour='7']"
    assert adapted.trigger_db_type() == "custom"
    assert adapted.first_run_time(NOON) == SEVEN
    assert as_trigger(DateTrigger(SEVEN.to_stdlib())).one_shot
    assert as_trigger(IntervalTrigger(hours=1)) == as_trigger(IntervalTrigger(hours=1))
    assert as_trigger(Daily("07:00")) == Daily("07:00")
    with pytest.raises(TypeError, match="not a trigger"):
        as_trigger(called)


class Answers:
    """A foreign trigger that answers what it is told."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def first_run_time(self, current_time: ZonedDateTime) -> Any:
        return self.answer

    def next_run_time(self, previous_run: ZonedDateTime, current_time: ZonedDateTime) -> Any:
        return self.answer

    def trigger_label(self) -> str:
        return "answers"

    def trigger_detail(self) -> str | None:
        return None

    def trigger_db_type(self) -> str:
        return "custom"

    def trigger_id(self) -> str:
        return "answers"


@pytest.mark.parametrize(
    ("answer", "error", "word"),
    [
        ("07:00", TypeError, "ZonedDateTime"),
        (datetime(2026, 5, 1), TypeError, "ZonedDateTime"),
        (NOON, ValueError, "after"),
    ],
)
def test_faulty_answers_are_clear_errors(answer: Any, error: type[Exception], word: str) -> None:
    """11.22: a foreign trigger that answers nonsense, or stands still, is an error and never a loop."""
    with pytest.raises(error, match=word):
        as_trigger(Answers(answer)).after(from_datetime(NOON.to_stdlib()), BERLIN)


def test_preview() -> None:
    """``preview(trigger, count, start, timezone)`` gives the next targets; fewer when a schedule ends."""
    assert preview(Every(hours=1), 2, start=NOON) == [NOON.add(hours=1), NOON.add(hours=2)]
    assert len(preview(After(seconds=5), 3, start=NOON)) == 1
    tokyo = preview(Daily("07:00"), 1, start=datetime(2026, 5, 1, tzinfo=UTC), timezone="Asia/Tokyo")
    assert [str(moment) for moment in tokyo] == ["2026-05-02T07:00:00+09:00[Asia/Tokyo]"]
    assert len(preview(Cron("* * * * *"))) == 5


def test_catching_up_is_constant() -> None:
    """6.4: thirty days behind on a one-second interval costs what one second costs."""
    month = 30 * 86_400 * SECOND
    every = Every(seconds=1)
    before = time.perf_counter()
    for _ in range(1_000):
        every.latest(0, month, UTC_ZONE)
    assert (time.perf_counter() - before) / 1_000 < 0.001
    assert every.latest(0, month + 1, UTC_ZONE) == month
