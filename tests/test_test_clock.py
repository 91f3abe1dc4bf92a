"""``hassette_aps.testing``: time in the hands of a test."""

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from whenever import Instant, ZonedDateTime

from hassette_aps import Scheduler, current_run
from hassette_aps.testing import FrozenClock
from tests.kit import CALLS, Recorded, called, never, sql_scheduler


async def test_a_week_of_minutes_takes_about_a_second(scheduler: Scheduler, frozen_clock: FrozenClock) -> None:
    """A week of a per-minute job: every run at its very instant, without sleeping."""
    seen: list[datetime] = []

    async def look() -> None:
        run = current_run()
        assert run is not None
        assert run.scheduled_for.to_stdlib() == datetime.now(UTC)
        seen.append(datetime.now(UTC))

    frozen_clock.freeze("2026-05-01T00:00:00+00:00")
    scheduler.run_every(look, minutes=1)
    before = time.perf_counter()
    assert await frozen_clock.advance(weeks=1) == 7 * 24 * 60
    assert time.perf_counter() - before < 15
    assert len(set(seen)) == 7 * 24 * 60


async def test_a_daylight_saving_night(frozen_clock: FrozenClock) -> None:
    """6.8: a daily job at 02:30 runs once on the night that has no 02:30, right after the gap."""
    frozen_clock.freeze("2026-03-28T12:00:00+01:00[Europe/Berlin]")
    async with Scheduler(timezone="Europe/Berlin") as scheduler:
        recorded = Recorded(scheduler)
        scheduler.run_daily(called, "02:30")
        await frozen_clock.advance(days=2)
        targets = [str(ZonedDateTime(r.scheduled_for.astimezone(scheduler.timezone))) for r in recorded.records]
    assert targets == ["2026-03-29T03:00:00+02:00[Europe/Berlin]", "2026-03-30T02:30:00+02:00[Europe/Berlin]"]


async def test_rows_and_raw_jobs_follow(tmp_path: Path, frozen_clock: FrozenClock) -> None:
    """Jobs in persistent stores and raw APScheduler jobs run at their instants as well."""
    async with Scheduler(sql_scheduler(tmp_path / "jobs.db")) as scheduler:
        scheduler.run_every(called, minutes=10, jobstore="db", args=["row"])
        scheduler.aps.add_job(called, "interval", minutes=10, args=["raw"])
        await asyncio.sleep(0)
        await frozen_clock.advance(hours=1)
        assert CALLS.count(("row",)) == 6
        assert CALLS.count(("raw",)) == 6


async def test_timeouts_follow(scheduler: Scheduler, frozen_clock: FrozenClock) -> None:
    """8.5: a run that hangs times out when its time has passed on the test clock."""
    recorded = Recorded(scheduler)
    scheduler.run_in(never, 10, timeout=300)
    await frozen_clock.advance(seconds=309)
    assert recorded.statuses() == []
    await frozen_clock.advance(seconds=2)
    assert recorded.statuses() == ["timed_out"]
    assert recorded.records[0].duration_ms == pytest.approx(300_000, abs=10)


async def test_it_waits_for_threads_handlers_and_hooks(scheduler: Scheduler, frozen_clock: FrozenClock) -> None:
    """When ``advance`` returns, plain functions, handlers and hooks have run."""
    handled: list[object] = []

    def slow() -> None:
        time.sleep(0.05)
        raise ValueError

    scheduler.run_in(slow, 10, on_error=handled.append)
    assert await frozen_clock.advance(seconds=10) == 1
    assert len(handled) == 1


async def test_a_run_that_hangs_does_not_hang_the_clock(scheduler: Scheduler) -> None:
    """A run in progress gets the clock's patience once, and then goes on beside the test."""
    with FrozenClock(patience=0.05) as clock:
        scheduler.run_every(never, minutes=1)
        before = time.perf_counter()
        await clock.advance(minutes=5)
        assert time.perf_counter() - before < 3


@pytest.mark.parametrize(
    "at",
    [
        "2026-05-01T10:00:00+00:00",
        "2026-05-01T12:00:00+02:00[Europe/Berlin]",
        datetime(2026, 5, 1, 10, tzinfo=UTC),
        ZonedDateTime(2026, 5, 1, 12, tz="Europe/Berlin"),
        Instant.from_utc(2026, 5, 1, 10),
    ],
)
def test_ways_to_say_an_instant(at: object) -> None:
    """A string, a ``datetime``, a ``ZonedDateTime`` or an ``Instant``; the wall clock stands there."""
    with FrozenClock(at) as clock:  # type: ignore[arg-type]
        assert clock.now == datetime(2026, 5, 1, 10, tzinfo=UTC) == datetime.now(UTC)
        time.sleep(0.01)
        assert datetime.now(UTC) == clock.now
    assert datetime.now(UTC) > datetime(2026, 5, 2, tzinfo=UTC)


async def test_misuse_of_the_clock() -> None:
    """Errors name what to do."""
    clock = FrozenClock()
    with pytest.raises(RuntimeError, match="freeze"):
        await clock.advance(seconds=1)
    with pytest.raises(TypeError, match="not an instant"):
        clock.freeze(5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="zone"):
        clock.freeze(datetime(2026, 5, 1))
    with clock, pytest.raises(ValueError, match="step"):
        await clock.advance(seconds=-1)
    clock.unfreeze()
