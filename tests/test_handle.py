"""``ScheduledJob``: attributes, cancelling, pausing, submitting, listing (section 4)."""

import asyncio
import io
from datetime import UTC, datetime

import pytest
from apscheduler.jobstores.base import JobLookupError
from apscheduler.triggers.interval import IntervalTrigger
from whenever import ZonedDateTime

from hassette_aps import Every, Scheduler, current_run
from hassette_aps.testing import FrozenClock
from tests.kit import CALLS, HANDLED, Recorded, called, called_too, handler, idle, until


async def test_attributes(scheduler: Scheduler) -> None:
    """4.1: the handle tells what was asked and when it runs next."""
    job = scheduler.run_every(
        called, minutes=5, name="n", group="g", jitter=3, timeout=7, mode="queued", args=[1], kwargs={"k": 2},
        on_error=handler,
    )  # fmt: skip
    assert (job.name, job.group, job.jitter, job.timeout, job.timeout_disabled) == ("n", "g", 3, 7, False)
    assert (job.mode, job.owner, job.func, job.args, job.kwargs) == ("queued", "", called, (1,), {"k": 2})
    assert job.trigger == Every(minutes=5)
    assert isinstance(job.next_run, ZonedDateTime)
    assert isinstance(job.fire_at, ZonedDateTime)
    assert 0 <= (job.fire_at - job.next_run).total("seconds") < 3
    assert isinstance(job.job_id, int)
    assert not hasattr(job, "cancelled")


async def test_job_ids_are_unique_and_stable(scheduler: Scheduler) -> None:
    """4.1: ``job_id`` is set at creation and unique in the process."""
    jobs = [scheduler.run_every(idle, minutes=n + 1) for n in range(20)]
    assert len({job.job_id for job in jobs}) == 20


async def test_identity(scheduler: Scheduler) -> None:
    """4.2: equality and hash are by identity; the list says whether a job is active."""
    job = scheduler.run_every(idle, minutes=1)
    other = scheduler.run_every(idle, minutes=2)
    assert job != other
    assert len({job, other}) == 2
    assert job in scheduler.list_jobs()
    job.cancel()
    assert job not in scheduler.list_jobs()


async def test_next_run_reads_through(scheduler: Scheduler, frozen_clock: FrozenClock) -> None:
    """4.1: ``next_run`` is always current, and moves on the grid."""
    frozen_clock.freeze("2026-05-01T10:00:00+00:00")
    job = scheduler.run_every(idle, minutes=10)
    assert str(job.next_run) == "2026-05-01T10:10:00+00:00[UTC]"
    await frozen_clock.advance(minutes=25)
    assert str(job.next_run) == "2026-05-01T10:30:00+00:00[UTC]"


async def test_cancel_is_immediate_and_idempotent(scheduler: Scheduler) -> None:
    """4.3: no run starts after ``cancel()``; a second call is silent."""
    job = scheduler.run_in(called, 0.03)
    job.cancel()
    job.cancel()
    scheduler.cancel_job(job)
    await asyncio.sleep(0.08)
    assert CALLS == []
    assert job.next_run is None


async def test_cancel_reaches_runs_that_are_due_at_the_same_instant(
    scheduler: Scheduler, frozen_clock: FrozenClock
) -> None:
    """4.3, P5: a job cancelled by another one of the same instant does not start (APScheduler starts it)."""
    recorded = Recorded(scheduler)
    victims = []

    async def first() -> None:
        for victim in victims:
            victim.cancel()

    scheduler.run_in(first, 10)
    victims = [scheduler.run_in(idle, 10, name=f"coroutine {n}") for n in range(50)]
    victims += [scheduler.run_in(called, 10, name=f"plain {n}") for n in range(50)]
    await frozen_clock.advance(seconds=11)
    assert CALLS == []
    assert recorded.statuses("first:after:10") == ["success"]
    assert all(record.started_at is None for record in recorded.records if record.status == "cancelled")
    assert scheduler.list_jobs() == []


async def test_a_job_cancels_itself_and_its_run_finishes(scheduler: Scheduler) -> None:
    """4.3: a run in progress finishes, also when the job cancels itself."""
    done: list[str] = []

    async def poll() -> None:
        job.cancel()
        await asyncio.sleep(0.01)
        done.append("finished")

    job = scheduler.run_every(poll, seconds=0.01)
    await until(lambda: done)
    await asyncio.sleep(0.05)
    assert done == ["finished"]


async def test_cancel_after_shutdown_is_a_no_op() -> None:
    """4.3: cancelling after the shutdown does nothing."""
    scheduler = Scheduler(timezone="UTC")
    async with scheduler:
        job = scheduler.run_every(idle, minutes=1)
    job.cancel()
    scheduler.cancel_job(job)


async def test_pause_and_resume_keep_the_grid(scheduler: Scheduler, frozen_clock: FrozenClock) -> None:
    """4.5, 11.21: a paused job owes no targets and goes on, on its grid."""
    frozen_clock.freeze("2026-05-01T10:00:00+00:00")
    recorded = Recorded(scheduler)
    job = scheduler.run_every(idle, minutes=10, name="x")
    await frozen_clock.advance(minutes=5)
    job.pause()
    job.pause()
    assert job.next_run is None
    assert job in scheduler.list_jobs()
    await frozen_clock.advance(minutes=40)
    job.resume()
    job.resume()
    assert str(job.next_run) == "2026-05-01T10:50:00+00:00[UTC]"
    await frozen_clock.advance(minutes=10)
    assert recorded.statuses("x") == ["success"]


async def test_a_one_shot_whose_time_passed_runs_at_resume(scheduler: Scheduler, frozen_clock: FrozenClock) -> None:
    """11.21: a paused one-shot is not lost."""
    job = scheduler.run_in(called, 60)
    job.pause()
    await frozen_clock.advance(minutes=5)
    assert CALLS == []
    job.resume()
    await frozen_clock.trigger_due_jobs()
    assert CALLS == [()]


async def test_paused_before_start() -> None:
    """4.5: pausing works before the start as well."""
    scheduler = Scheduler(timezone="UTC")
    job = scheduler.run_in(called, 0.01)
    job.pause()
    async with scheduler:
        await asyncio.sleep(0.05)
        assert CALLS == []
        job.resume()
        await until(lambda: CALLS)


async def test_submit_runs_now_through_the_same_duties(scheduler: Scheduler) -> None:
    """4.5: ``submit()`` runs with the registered arguments, is recorded, and leaves the schedule alone."""
    recorded = Recorded(scheduler)
    job = scheduler.run_every(called, hours=1, args=["now"], name="x")
    before = job.next_run
    execution_id = job.submit()
    await until(lambda: recorded.records)
    assert CALLS == [("now",)]
    assert recorded.records[0].execution_id == execution_id
    assert recorded.records[0].triggered_by == "submit"
    assert job.next_run == before


async def test_submit_is_refused_where_nothing_can_run(scheduler: Scheduler) -> None:
    """11.12: ``submit()`` on a cancelled job, and before start, is a RuntimeError."""
    job = scheduler.run_every(called, hours=1)
    job.cancel()
    with pytest.raises(RuntimeError, match="cancelled"):
        job.submit()
    unstarted = Scheduler(timezone="UTC")
    with pytest.raises(RuntimeError, match="start it first"):
        unstarted.run_every(called, hours=1).submit()
    await unstarted.shutdown()


async def test_groups(scheduler: Scheduler) -> None:
    """2: a group is listed and cancelled at once; an unknown one is a no-op."""
    morning = [scheduler.run_every(idle, hours=n, group="morning") for n in (1, 2)]
    other = scheduler.run_every(idle, hours=3, group="other")
    assert scheduler.list_jobs(group="morning") == morning
    scheduler.cancel_group("morning")
    scheduler.cancel_group("nobody")
    assert scheduler.list_jobs(group="morning") == []
    assert scheduler.list_jobs() == [other]


async def test_get_job(scheduler: Scheduler) -> None:
    """2: ``get_job`` finds by name, or gives None."""
    job = scheduler.run_every(idle, hours=1, name="x")
    assert scheduler.get_job("x") is job
    assert scheduler.get_job("y") is None


async def test_losing_the_handle_changes_nothing(scheduler: Scheduler) -> None:
    """4.4: the scheduler keeps the job."""
    scheduler.run_in(called, 0.02)
    await until(lambda: CALLS)


async def test_preview(scheduler: Scheduler, frozen_clock: FrozenClock) -> None:
    """``job.preview(count)`` gives the next targets, without jitter, and none for a paused job."""
    frozen_clock.freeze("2026-05-01T10:00:00+00:00")
    job = scheduler.run_daily(idle, "07:00", jitter=60)
    assert [str(moment) for moment in job.preview(2)] == [
        "2026-05-02T07:00:00+00:00[UTC]",
        "2026-05-03T07:00:00+00:00[UTC]",
    ]
    assert len(scheduler.run_in(idle, 5).preview(3)) == 1
    job.pause()
    assert job.preview(2) == []


async def test_current_run_knows_the_job(scheduler: Scheduler) -> None:
    """8.3: ``current_run()`` gives name, ids, scheduled time and attempt, on the loop and in a thread."""
    runs = []

    async def on_loop() -> None:
        runs.append(current_run())

    def in_thread() -> None:
        runs.append(current_run())

    first = await scheduler.run_in(on_loop, 0.02, name="a", group="g")
    second = await scheduler.run_in(in_thread, 0.02, name="b")
    await until(lambda: len(runs) == 2)
    for run, job in zip(sorted(runs, key=lambda run: run.name), (first, second), strict=True):
        assert (run.name, run.job_id, run.db_id, run.attempt) == (job.name, job.job_id, job.db_id, 1)
        assert isinstance(run.scheduled_for, ZonedDateTime)
        assert len(run.execution_id) == 36
    assert current_run() is None


async def test_apschedulers_pause_and_resume(scheduler: Scheduler, frozen_clock: FrozenClock) -> None:
    """11.21: ``aps.pause_job`` and ``aps.resume_job`` hold and go on, on the grid, for every kind of trigger."""
    frozen_clock.freeze("2026-05-01T10:00:00+00:00")
    aps = scheduler.aps
    every = scheduler.run_every(idle, minutes=10, name="every")
    daily = scheduler.run_daily(idle, "07:00", name="daily")
    theirs = scheduler.schedule(idle, IntervalTrigger(minutes=10, timezone="UTC"), name="theirs")
    once = scheduler.run_in(called, 60, name="once")
    before = theirs.next_run
    for job in (every, daily, once):
        aps.pause_job(job.name)
        assert job.next_run is None
    aps.pause_job("theirs")
    aps.resume_job("theirs")
    assert theirs.next_run == before
    await frozen_clock.advance(minutes=35)
    for job in (every, daily, once):
        aps.resume_job(job.name)
    assert str(every.next_run) == "2026-05-01T10:40:00+00:00[UTC]"
    assert str(daily.next_run) == "2026-05-02T07:00:00+00:00[UTC]"
    await frozen_clock.trigger_due_jobs()
    assert CALLS == [()]
    assert once not in scheduler.list_jobs()


async def test_modify_job(scheduler: Scheduler) -> None:
    """11.21: ``aps.modify_job`` changes what a run needs; what has an option of ours is refused and names it."""
    aps = scheduler.aps
    job = scheduler.run_every(called, minutes=5, name="x", args=[1])
    before = job.next_run
    aps.modify_job("x", func=called_too, args=[2])
    aps.modify_job("x", next_run_time=datetime.now(UTC))
    await until(lambda: CALLS == [("too", 2)])
    assert (job.func, job.args, job.next_run) == (called_too, (2,), before)
    aps.reschedule_job("x", trigger="interval", hours=3)
    assert str(job.trigger) == "interval[3:00:00]"
    refused = {
        "coalesce": (False, "coalesce"),
        "misfire_grace_time": (3, "max_lateness="),
        "max_instances": (2, "mode="),
        "name": ("y", "register the job again"),
        "executor": ("nowhere", "add_executor"),
    }
    for key, (value, remedy) in refused.items():
        with pytest.raises(ValueError, match="'x'.*" + remedy):
            aps.modify_job("x", **{key: value})
    assert scheduler.list_jobs() == [job]


async def test_apschedulers_view(scheduler: Scheduler) -> None:
    """11.21: APScheduler shows and removes our jobs as its own; before start only ``list_jobs()`` shows them."""
    aps = scheduler.aps
    job = scheduler.run_every(idle, minutes=5, name="x")
    view = aps.get_job("x")
    view.pause()
    assert job.next_run is None
    view.resume()
    assert view.next_run_time is not None
    out = io.StringIO()
    aps.print_jobs(out=out)
    assert "x (trigger: " in out.getvalue()
    view.remove()
    with pytest.raises(JobLookupError):
        aps.remove_job("x")
    scheduler.run_every(idle, minutes=5, name="x")
    aps.remove_all_jobs()
    assert scheduler.list_jobs() == []
    unstarted = Scheduler(timezone="UTC")
    unstarted.run_every(idle, minutes=5)
    assert unstarted.aps.get_jobs() == []
    assert len(unstarted.list_jobs()) == 1
    await unstarted.shutdown()


class Moody:
    """A trigger that raises while ``broken``, and has no end but ``over``."""

    broken = over = False

    def first_run_time(self, current_time: ZonedDateTime) -> ZonedDateTime:
        return current_time.add(seconds=0.02)

    def next_run_time(self, previous_run: ZonedDateTime, current_time: ZonedDateTime) -> ZonedDateTime | None:
        if self.broken:
            raise RuntimeError("moody")
        return None if self.over else previous_run.add(seconds=0.02)

    def trigger_label(self) -> str:
        return "moody"

    def trigger_detail(self) -> str | None:
        return None

    def trigger_db_type(self) -> str:
        return "custom"

    def trigger_id(self) -> str:
        return "moody"


async def test_a_custom_trigger_that_raises(scheduler: Scheduler, caplog: pytest.LogCaptureFixture) -> None:
    """11.22: ERROR naming the job, its handler called, the job paused, at ``resume()`` as well; nothing else stops."""
    trigger = Moody()
    trigger.broken = True
    job = scheduler.schedule(called, trigger, name="x", on_error=handler)
    scheduler.run_every(called, seconds=0.02, name="other", args=["other"])
    for times in (1, 2):
        await until(lambda times=times: len(HANDLED) == times)
        assert job in scheduler.list_jobs()
        assert job.next_run is None
        assert [record.levelname for record in caplog.records if "'x'" in record.message] == ["ERROR"] * times
        await asyncio.sleep(0.03)
        job.resume()
    await until(lambda: len(HANDLED) == 3)
    assert () not in CALLS
    assert ("other",) in CALLS
    trigger.broken = False
    job.resume()
    await until(lambda: () in CALLS)


async def test_resuming_a_schedule_that_is_over(scheduler: Scheduler) -> None:
    """4.4, 11.12: a job whose schedule ended while it was paused leaves the list at ``resume()``."""
    trigger = Moody()
    job = scheduler.schedule(called, trigger, name="x")
    job.pause()
    trigger.over = True
    await asyncio.sleep(0.03)
    job.resume()
    assert scheduler.list_jobs() == []
    assert job.next_run is None
    scheduler.schedule(called, Moody(), name="x")


async def test_submit_leaves_a_paused_job_paused(scheduler: Scheduler) -> None:
    """4.5: ``submit()`` runs a paused job and a waiting one-shot, and both stay as they are."""
    paused, waiting = scheduler.run_every(called, hours=1), scheduler.run_in(called, 60)
    paused.pause()
    paused.submit()
    waiting.submit()
    await until(lambda: len(CALLS) == 2)
    assert scheduler.list_jobs() == [paused, waiting]
    assert paused.next_run is None
    assert waiting.next_run is not None
