"""Registering: methods, triggers, before and after start, from threads and from inside runs (sections 1 to 3)."""

import asyncio
import gc
import threading
import weakref
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger
from whenever import ZonedDateTime

from hassette_aps import Cron, Daily, Every, ScheduledJob, Scheduler, current_run
from tests.kit import CALLS, Recorded, called, idle, until


async def test_every_method_builds_its_trigger(scheduler: Scheduler) -> None:
    """2: each registration method gives the trigger of its table row."""
    soon = datetime.now(UTC) + timedelta(hours=1)
    jobs = {
        "after:30": scheduler.run_in(idle, 30),
        f"once:{soon.isoformat()}": scheduler.run_once(idle, soon),
        "every:3723": scheduler.run_every(idle, 1, 2, 3),
        "every:120": scheduler.run_minutely(idle, 2),
        "every:10800": scheduler.run_hourly(idle, 3),
        "cron:15 7 * * *": scheduler.run_daily(idle, "07:15"),
        "cron:*/5 * * * *": scheduler.run_cron(idle, "*/5 * * * *"),
    }
    for trigger_id, job in jobs.items():
        assert job.trigger.trigger_id() == trigger_id
        assert job.name == f"idle:{trigger_id}"
    assert scheduler.list_jobs() == list(jobs.values())


async def test_defaults_of_the_methods(scheduler: Scheduler) -> None:
    """2: run_daily is at midnight, run_minutely and run_hourly at one."""
    assert scheduler.run_daily(idle).trigger.trigger_id() == "cron:0 0 * * *"
    assert scheduler.run_minutely(idle).trigger.trigger_id() == "every:60"
    assert scheduler.run_hourly(idle).trigger.trigger_id() == "every:3600"


class Hourly:
    """A foreign trigger with the methods of TriggerProtocol."""

    def first_run_time(self, current_time: ZonedDateTime) -> ZonedDateTime:
        return current_time.add(seconds=0.05)

    def next_run_time(self, previous_run: ZonedDateTime, current_time: ZonedDateTime) -> ZonedDateTime:
        return previous_run.add(hours=1)

    def trigger_label(self) -> str:
        return "hourly"

    def trigger_detail(self) -> str | None:
        return None

    def trigger_db_type(self) -> str:
        return "custom"

    def trigger_id(self) -> str:
        return "hourly"


async def test_schedule_takes_three_kinds_of_triggers(scheduler: Scheduler) -> None:
    """2: ours, any TriggerProtocol object, any APScheduler trigger; ``job.trigger`` is what was given."""
    theirs = IntervalTrigger(hours=1)
    custom = Hourly()
    assert scheduler.schedule(idle, Cron("0 7 * * *")).trigger == Cron("0 7 * * *")
    assert scheduler.schedule(called, custom).trigger is custom
    job = scheduler.schedule(idle, theirs)
    assert job.trigger is theirs
    assert job.name == "idle:IntervalTrigger:interval[1:00:00]"
    await until(lambda: CALLS)


async def test_decorator_returns_the_function_unchanged(scheduler: Scheduler) -> None:
    """2: ``@s.scheduled(trigger, **options)`` registers and returns the very function."""

    async def report() -> None: ...

    assert scheduler.scheduled(Daily("07:00"), name="report", group="g")(report) is report
    assert scheduler.get_job("report").func is report  # type: ignore[union-attr]


def test_module_level_registration_needs_no_loop() -> None:
    """1.2: constructing and registering work before any event loop exists, and the jobs run once there is one."""
    scheduler = Scheduler(timezone="UTC")
    job = scheduler.run_in(called, 0.05, args=["early"])
    assert scheduler.list_jobs() == [job]

    async def main() -> None:
        async with scheduler:
            await until(lambda: CALLS)

    asyncio.run(main())
    assert CALLS == [("early",)]


def test_relative_times_count_from_start() -> None:
    """1.2: "in 30 seconds" counts from the moment the schedule starts running, not from import."""
    scheduler = Scheduler(timezone="UTC")
    job = scheduler.run_every(idle, seconds=30)
    provisional = job.next_run

    async def main() -> None:
        await asyncio.sleep(0.1)
        async with scheduler:
            assert job.next_run is not None
            assert provisional is not None
            assert (job.next_run - provisional).total("seconds") >= 0.1

    asyncio.run(main())


async def test_awaiting_is_optional_and_gives_the_same_handle(scheduler: Scheduler) -> None:
    """1.4: both ``s.run_every(...)`` and ``await s.run_every(...)`` give the handle; awaited, ``db_id`` is an int."""
    job = scheduler.run_every(idle, minutes=5)
    assert isinstance(job, ScheduledJob)
    assert await job is job
    assert isinstance(job.db_id, int)
    again = await scheduler.run_every(idle, minutes=6)
    assert isinstance(again.db_id, int)


async def test_awaiting_before_start_never_hangs() -> None:
    """1.4: awaiting before the scheduler has started returns within its second."""
    scheduler = Scheduler(timezone="UTC")
    async with asyncio.timeout(3):
        job = await scheduler.run_every(idle, minutes=5)
    assert scheduler.get_job(job.name) is job
    await scheduler.shutdown()


async def test_without_a_database_db_id_stays_none() -> None:
    """1.4: with ``database=None`` awaiting returns at once and ``db_id`` is None."""
    async with Scheduler(timezone="UTC", database=None) as scheduler:
        job = await scheduler.run_in(called, 0.01)
        assert job.db_id is None
        await until(lambda: CALLS)
        with pytest.raises(RuntimeError, match="database"):
            await scheduler.history()


async def test_calls_from_any_thread(scheduler: Scheduler) -> None:
    """1.5: registering, listing and cancelling work from other threads, and wake the scheduler."""
    made: list[ScheduledJob] = []

    def work() -> None:
        made.append(scheduler.run_in(called, 0.05, args=["thread"]))
        scheduler.run_every(called, hours=1, name="gone").cancel()

    thread = threading.Thread(target=work)
    thread.start()
    await until(lambda: CALLS)
    thread.join()
    assert CALLS == [("thread",)]
    assert scheduler.get_job("gone") is None


async def test_the_same_name_from_many_threads_is_taken_once(scheduler: Scheduler) -> None:
    """5.2: of many simultaneous registrations of one name exactly one wins."""
    barrier = threading.Barrier(8)
    won: list[ScheduledJob] = []
    lost: list[Exception] = []

    def work() -> None:
        barrier.wait()
        try:
            won.append(scheduler.run_every(idle, hours=1, name="one"))
        except ValueError as exc:
            lost.append(exc)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    await asyncio.to_thread(lambda: [thread.join() for thread in threads])
    assert len(won) == 1
    assert len(lost) == 7
    assert scheduler.list_jobs() == won


async def test_jobs_register_cancel_and_list_from_inside_a_run(scheduler: Scheduler) -> None:
    """1.5: a run may register, replace, list and cancel."""
    other = scheduler.run_every(idle, hours=1, name="other")
    seen: list[int] = []

    async def busy() -> None:
        other.cancel()
        scheduler.run_in(called, 0.01, args=["next"], name="next")
        scheduler.run_in(called, 0.01, args=["replaced"], name="next", if_exists="replace")
        seen.append(len(scheduler.list_jobs()))

    scheduler.run_in(busy, 0.01)
    await until(lambda: CALLS)
    assert CALLS == [("replaced",)]
    assert seen == [2]


async def test_positional_arguments_and_copies(scheduler: Scheduler) -> None:
    """3: args and kwargs are copied at registration; later changes by the caller have no effect."""
    args, kwargs = [1], {"b": 2}
    job = scheduler.run_in(called, 0.02, args=args, kwargs=kwargs)
    args.append(9)
    kwargs["c"] = 9
    job.kwargs["d"] = 9
    await until(lambda: CALLS)
    assert CALLS == [(1, ("b", 2))]
    assert job.args == (1,)
    assert job.kwargs == {"b": 2}


async def test_two_owners_share_one_scheduler_unseen() -> None:
    """1.3: owners have the same names without seeing each other; ids are ``owner/name`` or the name itself."""
    aps = AsyncIOScheduler(timezone="UTC")
    one, two, default = Scheduler(aps, owner="one"), Scheduler(aps, owner="two"), Scheduler(aps)
    async with one, two, default:
        jobs = [s.run_every(idle, hours=1, name="x", group="g") for s in (one, two, default)]
        assert [s.list_jobs() for s in (one, two, default)] == [[job] for job in jobs]
        assert {job.id for job in aps.get_jobs()} == {"one/x", "two/x", "x"}
        one.cancel_group("g")
        assert two.list_jobs(group="g") == [jobs[1]]
        assert two.get_job("x") is jobs[1]
        with pytest.raises(ValueError, match="owner 'two'"):
            one.cancel_job(jobs[1])


async def test_times_are_in_the_schedulers_zone() -> None:
    """6.7: the facade's timezone wins over the AsyncIOScheduler's."""
    aps = AsyncIOScheduler(timezone="America/New_York")
    async with Scheduler(aps) as plain, Scheduler(aps, owner="b", timezone="Asia/Tokyo") as own:
        assert plain.timezone.key == "America/New_York"
        new_york = plain.run_daily(idle, "07:00").next_run
        tokyo = own.run_daily(idle, "07:00").next_run
        assert new_york is not None
        assert tokyo is not None
        assert (new_york.tz_id, new_york.hour) == ("America/New_York", 7)
        assert (tokyo.tz_id, tokyo.hour) == ("Asia/Tokyo", 7)


async def test_sub_second_precision(scheduler: Scheduler) -> None:
    """4.1, P3: times keep their fraction, and no run is early."""
    early: list[float] = []

    async def look() -> None:
        run = current_run()
        assert run is not None
        early.append((ZonedDateTime.now("UTC") - run.scheduled_for).total("seconds"))

    scheduler.run_every(look, seconds=0.02)
    await until(lambda: len(early) >= 10)
    assert min(early) >= 0


async def test_settings_come_from_keywords_and_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """11.19: settings are read from ``HASSETTE_APS_*``; the keyword wins; None is written ``none``."""
    monkeypatch.setenv("HASSETTE_APS_DEFAULT_MODE", "single")
    monkeypatch.setenv("HASSETTE_APS_DEFAULT_TIMEOUT", "none")
    monkeypatch.setenv("HASSETTE_APS_TIMEZONE", "Asia/Tokyo")
    scheduler = Scheduler(timezone="UTC")
    job = scheduler.run_every(idle, hours=1)
    assert (job.mode, scheduler.settings.default_timeout, scheduler.timezone.key) == ("single", None, "UTC")
    monkeypatch.setenv("HASSETTE_APS_MAX_WORKERS", "many")
    with pytest.raises(ValueError, match="HASSETTE_APS_MAX_WORKERS='many'"):
        Scheduler()
    await scheduler.shutdown()


async def test_a_job_built_by_hand(scheduler: Scheduler) -> None:
    """11.11: ``ScheduledJob(func, trigger, **options)`` goes to ``add_job``; unregistered it cannot be cancelled."""
    job = ScheduledJob(called, Every(hours=1), name="hand", args=[1])
    with pytest.raises(RuntimeError, match="never registered"):
        scheduler.cancel_job(job)
    with pytest.raises(RuntimeError, match="never registered"):
        job.cancel()
    assert scheduler.add_job(job) is job
    assert scheduler.list_jobs() == [job]
    with pytest.raises(ValueError, match="exists already"):
        scheduler.add_job(job)
    assert scheduler.add_job(job, if_exists="skip") is job
    job.cancel()
    with pytest.raises(ValueError, match="build a new"):
        scheduler.add_job(job)


async def test_predicates_sync_and_async(scheduler: Scheduler) -> None:
    """3: ``where`` false means skipped, true runs, raising means error; sync or async, for plain functions too."""
    recorded = Recorded(scheduler)

    async def no() -> bool:
        return False

    def broken() -> bool:
        raise RuntimeError("predicate")

    scheduler.run_in(called, 0.01, name="no", where=no)
    scheduler.run_in(idle, 0.01, name="no2", where=lambda: False)
    scheduler.run_in(called, 0.01, name="yes", where=lambda: True, args=["yes"])
    scheduler.run_in(idle, 0.01, name="broken", where=broken)
    await until(lambda: len(recorded.records) == 4)
    assert {record.job_name: record.status for record in recorded.records} == {
        "no": "skipped",
        "no2": "skipped",
        "yes": "success",
        "broken": "error",
    }
    assert CALLS == [("yes",)]


async def test_names_of_partials_and_callables(scheduler: Scheduler) -> None:
    """5.1: auto-names use the wrapped function's or the class's name, never an address."""

    class Report:
        async def __call__(self) -> None: ...

    assert scheduler.run_every(partial(called, 1), minutes=1).name == "called:every:60"
    assert scheduler.run_every(Report(), minutes=1).name == "Report:every:60"
    assert scheduler.run_cron(idle, "0 7 * * *").name == "idle:cron:0 7 * * *"


async def test_a_handle_is_awaited_in_any_way(scheduler: Scheduler) -> None:
    """1.4: with ``gather`` and ``wait_for``, twice, after its cancellation, and in another thread's loop."""
    job, other = await asyncio.gather(scheduler.run_every(idle, minutes=1), scheduler.run_every(idle, minutes=2))
    assert await asyncio.wait_for(job, 3) is await job
    other.cancel()
    assert await other is other
    third = scheduler.run_every(idle, minutes=3)
    third.cancel()
    assert isinstance((await third).db_id, int)

    async def elsewhere() -> ScheduledJob:
        return await scheduler.run_every(idle, minutes=4)

    assert isinstance((await asyncio.to_thread(lambda: asyncio.run(elsewhere()))).db_id, int)


async def test_a_cancelled_job_keeps_its_function_no_longer(scheduler: Scheduler) -> None:
    """P10: functions and their arguments are free once their jobs are gone, those of the last registration too."""

    class Held:
        async def work(self, other: object) -> None:
            pass

    def register() -> "weakref.ref[Held]":
        held = Held()
        scheduler.run_every(held.work, seconds=60, name=f"job-{id(held)}", args=[held])
        return weakref.ref(held)

    held = [register(), register()]
    for job in scheduler.list_jobs():
        job.cancel()
    del job
    assert await scheduler.history() == []  # reading waits until the registrations are on record

    def freed() -> bool:
        gc.collect()
        return [one() for one in held] == [None, None]

    await until(freed)  # the agenda forgets them with its next look
