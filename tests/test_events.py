"""APScheduler's events for our jobs, and raw jobs beside them (8.7, 11.15, 1.1)."""

import asyncio
import io
from datetime import datetime
from typing import Any

import pytest
from apscheduler.events import (
    EVENT_ALL,
    EVENT_JOB_ADDED,
    EVENT_JOB_ERROR,
    EVENT_JOB_EXECUTED,
    EVENT_JOB_MAX_INSTANCES,
    EVENT_JOB_MISSED,
    EVENT_JOB_MODIFIED,
    EVENT_JOB_REMOVED,
    EVENT_JOB_SUBMITTED,
)
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

from hassette_aps import EVENT_RUN_CANCELLED, Daily, Every, RunEvent, Scheduler
from hassette_aps.testing import FrozenClock
from tests.kit import CALLS, called, fails, idle, in_progress, never, until


class Heard:
    """Collects events."""

    def __init__(self, scheduler: Scheduler, mask: int = EVENT_ALL) -> None:
        self.events: list[Any] = []
        scheduler.aps.add_listener(self.events.append, mask)

    def codes(self, job_id: str) -> list[int]:
        """The codes of one job's events, in order."""
        return [event.code for event in self.events if getattr(event, "job_id", None) == job_id]

    def last(self, code: int) -> Any:
        """The last event of a kind."""
        return [event for event in self.events if event.code == code][-1]


async def test_a_one_shots_events(scheduler: Scheduler) -> None:
    """8.7: ADDED, SUBMITTED, EXECUTED, REMOVED are dispatched for our jobs."""
    heard = Heard(scheduler)
    scheduler.run_in(idle, 0.01, name="x")
    await until(lambda: EVENT_JOB_REMOVED in heard.codes("x"))
    assert heard.codes("x") == [EVENT_JOB_ADDED, EVENT_JOB_SUBMITTED, EVENT_JOB_EXECUTED, EVENT_JOB_REMOVED]
    assert heard.last(EVENT_JOB_SUBMITTED).jobstore == "hassette_aps"


async def test_outcome_events_carry_more(scheduler: Scheduler) -> None:
    """11.15: outcome events have ``execution_id``, ``started_at`` (aware), ``duration`` in seconds, and the rest."""
    heard = Heard(scheduler)

    async def answer() -> int:
        await asyncio.sleep(0.01)
        return 42

    job = scheduler.run_every(answer, hours=1, name="x")
    execution_id = job.submit()
    await until(lambda: EVENT_JOB_EXECUTED in heard.codes("x"))
    event = heard.last(EVENT_JOB_EXECUTED)
    assert isinstance(event, RunEvent)
    assert (event.retval, event.execution_id, event.exception) == (42, execution_id, None)
    assert isinstance(event.started_at, datetime)
    assert event.started_at.tzinfo is not None
    assert 0.005 < event.duration < 5
    assert event.scheduled_run_time.tzinfo is not None


async def test_errors_and_timeouts_are_error_events(scheduler: Scheduler) -> None:
    """11.15: a failed run is EVENT_JOB_ERROR with exception and frames; a timed-out one with its TimeoutError."""
    heard = Heard(scheduler)
    scheduler.run_in(fails, 0.01, name="fails")
    scheduler.run_in(never, 0.01, name="slow", timeout=0.02)
    await until(lambda: EVENT_JOB_ERROR in heard.codes("fails") and EVENT_JOB_ERROR in heard.codes("slow"))
    errors = {event.job_id: event for event in heard.events if event.code == EVENT_JOB_ERROR}
    assert isinstance(errors["fails"].exception, ValueError)
    assert "in fails" in errors["fails"].traceback
    assert isinstance(errors["slow"].exception, TimeoutError)


async def test_suppressed_and_missed_runs(frozen_clock: FrozenClock) -> None:
    """11.15: ``single`` suppressing sends MAX_INSTANCES, ``max_lateness`` MISSED."""
    async with Scheduler(timezone="UTC", max_lateness=5) as scheduler:
        heard = Heard(scheduler)
        scheduler.run_every(never, seconds=1, name="single", mode="single")
        await frozen_clock.advance(seconds=2)
        assert EVENT_JOB_MAX_INSTANCES in heard.codes("single")
        scheduler.run_in(idle, 1, name="missed")
        frozen_clock.step(60)
        await frozen_clock.trigger_due_jobs()
        assert EVENT_JOB_MISSED in heard.codes("missed")


async def test_cancelled_runs_send_none_of_apschedulers_outcomes() -> None:
    """11.15: a run cancelled by the shutdown sends no EVENT_JOB_ERROR."""
    scheduler = Scheduler(timezone="UTC")
    heard = Heard(scheduler)
    async with scheduler:
        scheduler.run_every(never, hours=1, name="x").submit()
        await in_progress(scheduler)
        await scheduler.shutdown(grace=0)
    assert EVENT_JOB_ERROR not in heard.codes("x")


async def test_pausing_and_cancelling_are_announced(scheduler: Scheduler) -> None:
    """8.7: MODIFIED and REMOVED for the verbs of a handle."""
    heard = Heard(scheduler)
    job = scheduler.run_every(idle, hours=1, name="x")
    job.pause()
    job.resume()
    job.cancel()
    assert heard.codes("x") == [EVENT_JOB_ADDED, EVENT_JOB_MODIFIED, EVENT_JOB_MODIFIED, EVENT_JOB_REMOVED]


async def test_a_raising_listener_hurts_nobody(scheduler: Scheduler) -> None:
    """P6: what a listener raises stays with APScheduler's log."""

    def broken(event: object) -> None:
        raise SystemExit

    scheduler.aps.add_listener(broken)
    scheduler.run_in(called, 0.01)
    await until(lambda: CALLS and not scheduler.list_jobs())


async def test_raw_jobs_beside_ours_are_undisturbed() -> None:
    """1.1: raw jobs, their events and stores behave as without us, before, with and after our Schedulers."""
    aps = AsyncIOScheduler(timezone="UTC")
    raw: list[str] = []
    heard: list[Any] = []
    aps.add_listener(heard.append, EVENT_JOB_EXECUTED)
    aps.add_job(lambda: raw.append("raw"), "interval", seconds=0.03, id="raw")
    aps.start()
    scheduler = Scheduler(aps)
    scheduler.run_every(idle, seconds=0.02, name="ours")
    await until(lambda: raw.count("raw") > 2)
    assert {job.id for job in aps.get_jobs()} == {"raw", "ours"}
    assert [job.name for job in scheduler.list_jobs()] == ["ours"]
    await scheduler.shutdown()
    assert aps.running
    assert {job.id for job in aps.get_jobs()} == {"raw"}
    before = len(raw)
    await until(lambda: len(raw) > before + 2)
    assert {event.job_id for event in heard} == {"raw", "ours"}
    aps.shutdown()
    await until(lambda: not aps.running)


async def test_apscheduler_sees_real_jobs(scheduler: Scheduler) -> None:
    """11.21: ``get_jobs``, ``get_job`` and ``print_jobs`` show ours, with fire times and our trigger."""
    job = scheduler.run_daily(called, "07:00", name="x", args=[1])
    seen = scheduler.aps.get_job("x")
    assert (seen.id, seen.name, seen.args, seen.trigger) == ("x", "x", (1,), Daily("07:00"))
    assert job.fire_at is not None
    assert seen.next_run_time == job.fire_at.to_stdlib()
    out = io.StringIO()
    scheduler.aps.print_jobs(out=out)  # type: ignore[call-arg]
    assert "x (trigger: daily[07:00], next run at:" in out.getvalue()


async def test_apschedulers_own_verbs_on_our_jobs(scheduler: Scheduler, frozen_clock: FrozenClock) -> None:
    """11.21: pause, resume (on the grid), one extra run, reschedule, new arguments, remove."""
    frozen_clock.freeze("2026-05-01T10:00:00+00:00")
    aps = scheduler.aps
    job = scheduler.run_every(called, minutes=10, name="x")
    aps.pause_job("x")
    assert job.next_run is None
    await frozen_clock.advance(minutes=25)
    aps.resume_job("x")
    assert str(job.next_run) == "2026-05-01T10:30:00+00:00[UTC]"
    aps.modify_job("x", next_run_time=datetime.fromisoformat("2026-05-01T10:26:00+00:00"), args=["extra"])
    await frozen_clock.advance(minutes=1)
    assert CALLS == [("extra",)]
    assert str(job.next_run) == "2026-05-01T10:30:00+00:00[UTC]"
    aps.reschedule_job("x", trigger=Every(minutes=1))
    assert job.trigger == Every(minutes=1)
    assert str(job.next_run) == "2026-05-01T10:27:00+00:00[UTC]"
    aps.modify_job("x", func=fails)
    assert job.func is fails
    aps.remove_job("x")
    assert scheduler.list_jobs() == []


async def test_a_paused_one_shot_resumed_by_apscheduler(scheduler: Scheduler, frozen_clock: FrozenClock) -> None:
    """11.21: a one-shot whose time passed while it was paused runs at resume, by APScheduler's verb too."""
    scheduler.run_in(called, 60, name="x")
    scheduler.aps.pause_job("x")
    await frozen_clock.advance(minutes=5)
    scheduler.aps.resume_job("x")
    await frozen_clock.trigger_due_jobs()
    assert CALLS == [()]


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        ({"coalesce": False}, "always coalesce"),
        ({"misfire_grace_time": 5}, "max_lateness="),
        ({"max_instances": 3}, "mode="),
        ({"name": "y"}, "register the job again"),
    ],
)
async def test_changes_that_have_a_better_option(scheduler: Scheduler, change: dict[str, Any], remedy: str) -> None:
    """11.21: what modify_job may not change names the option that replaces it; the job is untouched."""
    job = scheduler.run_every(idle, minutes=10, name="x")
    before = job.next_run
    with pytest.raises(ValueError, match=remedy):
        scheduler.aps.modify_job("x", **change)
    assert (job.name, job.next_run) == ("x", before)


async def test_remove_all_jobs_removes_ours_too(scheduler: Scheduler) -> None:
    """11.21: ``aps.remove_all_jobs()`` cancels ours."""
    scheduler.run_every(idle, minutes=10)
    scheduler.aps.add_job(idle, IntervalTrigger(hours=1))
    scheduler.aps.remove_all_jobs()
    assert scheduler.list_jobs() == []


async def test_pausing_apscheduler_pauses_ours(scheduler: Scheduler) -> None:
    """1.1: ``aps.pause()`` holds our jobs as it holds raw ones, and ``resume()`` lets them go on."""
    scheduler.aps.pause()
    scheduler.run_in(called, 0.01)
    await asyncio.sleep(0.05)
    assert CALLS == []
    scheduler.aps.resume()
    await until(lambda: CALLS)


async def test_a_rows_events(scheduler: Scheduler) -> None:
    """8.7: a job in a user's store has APScheduler's events in APScheduler's order, with our outcome."""
    heard = Heard(scheduler)
    scheduler.run_in(called, 0.01, name="x", jobstore="default")
    await until(lambda: EVENT_JOB_EXECUTED in heard.codes("x"))
    assert heard.codes("x") == [EVENT_JOB_ADDED, EVENT_JOB_REMOVED, EVENT_JOB_SUBMITTED, EVENT_JOB_EXECUTED]
    event = heard.last(EVENT_JOB_EXECUTED)
    assert isinstance(event, RunEvent)
    assert event.jobstore == "default"


async def test_what_was_refused_was_not_submitted(scheduler: Scheduler) -> None:
    """8.7: as in APScheduler, a suppressed run is MAX_INSTANCES without SUBMITTED: exporters' gauges stay right."""
    heard = Heard(scheduler)
    job = scheduler.run_every(never, hours=1, name="x", mode="single", timeout=0.1)
    for _ in range(3):
        job.submit()
    await until(lambda: EVENT_JOB_ERROR in heard.codes("x"))
    codes = heard.codes("x")
    assert codes.count(EVENT_JOB_SUBMITTED) == 1
    assert codes.count(EVENT_JOB_MAX_INSTANCES) == 2


async def test_the_event_of_a_cancelled_run() -> None:
    """11.15: our own event says which run a restart or a shutdown has cancelled, for those who ask for it."""
    scheduler = Scheduler(timezone="UTC")
    heard = Heard(scheduler, EVENT_RUN_CANCELLED)
    stock = Heard(scheduler)
    await scheduler.start()
    job = scheduler.run_every(never, hours=1, name="x", mode="restart")
    first = job.submit()
    await in_progress(scheduler)
    second = job.submit()
    await until(lambda: len(heard.events) == 1)
    await in_progress(scheduler)
    await scheduler.shutdown(grace=0)
    assert [event.execution_id for event in heard.events] == [first, second]
    assert all(event.started_at.tzinfo and event.duration >= 0 for event in heard.events)
    assert not {EVENT_JOB_ERROR, EVENT_JOB_EXECUTED, EVENT_RUN_CANCELLED} & set(stock.codes("x"))


async def test_outcomes_on_our_executor_have_the_fire_time(scheduler: Scheduler, frozen_clock: FrozenClock) -> None:
    """11.15, 7: ``scheduled_run_time`` is when the run was to fire, jitter included, as APScheduler means it."""
    heard = Heard(scheduler)
    job = scheduler.run_every(idle, minutes=1, jitter=30, name="x")
    expected = job.fire_at
    assert expected is not None
    await frozen_clock.advance(minutes=1, seconds=30)
    first = next(event for event in heard.events if event.code == EVENT_JOB_EXECUTED)
    assert first.scheduled_run_time == expected.to_stdlib()
