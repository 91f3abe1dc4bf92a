"""How runs start: on the loop or in a thread, late, coalesced, in a clean context (section 8, 11.7, 11.22)."""

import asyncio
import contextvars
import functools
import gc
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from whenever import ZonedDateTime

from hassette_aps import Cron, Scheduler, current_run, timer
from hassette_aps.testing import FrozenClock
from tests.kit import CALLS, Recorded, called, called_async, idle, never, until


async def test_whatever_is_a_coroutine_runs_on_the_loop(scheduler: Scheduler) -> None:
    """8.2: coroutines, partials, callables, decorated and lambda-wrapped ones are awaited on the loop."""
    loop = asyncio.get_running_loop()
    seen: list[str] = []

    async def coroutine(name: str) -> None:
        await asyncio.sleep(0)
        assert asyncio.get_running_loop() is loop
        seen.append(name)

    class Callme:
        async def __call__(self) -> None:
            await coroutine("callable")

    def decorated(func: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
        @functools.wraps(func)
        def wrapper() -> Awaitable[None]:
            return func()

        return wrapper

    @decorated
    async def wrapped() -> None:
        await coroutine("wrapped")

    scheduler.run_in(coroutine, 0.01, args=["plain"])
    scheduler.run_in(functools.partial(coroutine, "partial"), 0.01)
    scheduler.run_in(Callme(), 0.01)
    scheduler.run_in(wrapped, 0.01)
    scheduler.run_in(lambda: coroutine("lambda"), 0.01)
    await until(lambda: len(seen) == 5)
    assert sorted(seen) == ["callable", "lambda", "partial", "plain", "wrapped"]


async def test_plain_functions_run_in_our_own_bounded_pool() -> None:
    """8.2: plain functions run in at most ``max_workers`` threads of our own."""
    names: set[str] = set()
    running: list[int] = []
    most: list[int] = []

    def work() -> None:
        names.add(threading.current_thread().name)
        running.append(1)
        most.append(len(running))
        time.sleep(0.01)
        running.pop()

    async with Scheduler(timezone="UTC", max_workers=3) as scheduler:
        recorded = Recorded(scheduler)
        for n in range(12):
            scheduler.run_in(work, 0.01, name=str(n))
        await until(lambda: len(recorded.records) == 12)
    assert max(most) <= 3
    assert all(name.startswith("hassette_aps") for name in names)


async def test_runs_start_in_a_clean_context() -> None:
    """8.3: a run has the context of the facade's making, not that of the request that registered it."""
    tenant = contextvars.ContextVar("tenant", default="none")
    tenant.set("facade")
    seen: list[str] = []

    async def on_loop() -> None:
        seen.append(tenant.get())
        tenant.set("leaked")

    async with Scheduler(timezone="UTC") as scheduler:
        tenant.set("request")
        job = scheduler.run_every(on_loop, hours=1)
        scheduler.run_in(lambda: seen.append(tenant.get()), 0.01)
        scheduler.run_in(on_loop, 0.02)
        await until(lambda: len(seen) == 2)
        job.submit()
        await until(lambda: len(seen) == 3)
    assert seen == ["facade"] * 3


async def test_registering_does_not_leak_context_into_raw_jobs() -> None:
    """8.3: what registers a facade job in a request does not arm APScheduler's timer with that request's context."""
    tenant = contextvars.ContextVar("tenant", default="none")
    seen: list[str] = []

    async def raw() -> None:
        seen.append(tenant.get())

    aps = AsyncIOScheduler(timezone="UTC")
    aps.start()
    scheduler = Scheduler(aps)
    aps.add_job(raw, "interval", seconds=0.03)
    await asyncio.sleep(0)
    tenant.set("request")
    scheduler.run_every(idle, seconds=0.02, jobstore="default", name="row")
    await until(lambda: len(seen) >= 3)
    assert set(seen) == {"none"}
    await scheduler.shutdown()
    aps.shutdown()
    await asyncio.sleep(0)


async def test_a_late_run_is_never_dropped(
    scheduler: Scheduler, frozen_clock: FrozenClock, caplog: pytest.LogCaptureFixture
) -> None:
    """8.1: a run that is an hour late runs, with one WARNING that says by how much it is behind."""
    job = scheduler.run_in(called, 60, name="late")
    await frozen_clock.trigger_due_jobs()
    frozen_clock.freeze(frozen_clock.now + timedelta(hours=1))
    await frozen_clock.trigger_due_jobs()
    assert CALLS == [()]
    assert [r.getMessage() for r in caplog.records if "behind" in r.message] == [
        "job 'late' behind schedule by 3540.0 s"
    ]
    assert job not in scheduler.list_jobs()


async def test_max_lateness_records_missed(frozen_clock: FrozenClock) -> None:
    """8.1: with ``max_lateness=`` a run that is later is recorded ``missed``, and the job goes on."""
    async with Scheduler(timezone="UTC", max_lateness=30) as scheduler:
        recorded = Recorded(scheduler)
        scheduler.run_in(called, 60, name="missed")
        frozen_clock.freeze(frozen_clock.now + timedelta(seconds=100))
        await frozen_clock.trigger_due_jobs()
        assert CALLS == []
        assert recorded.statuses("missed") == ["missed"]
        assert scheduler.list_jobs() == []


async def test_missed_targets_collapse_into_one_run(scheduler: Scheduler, frozen_clock: FrozenClock) -> None:
    """11.7: a late run stands for the newest target; the earlier ones are one range record; then the grid."""
    frozen_clock.freeze("2026-05-01T10:00:00+00:00")
    recorded = Recorded(scheduler)
    job = scheduler.run_every(idle, minutes=1, name="x")
    frozen_clock.freeze("2026-05-01T10:30:30+00:00")
    await frozen_clock.trigger_due_jobs()
    assert recorded.statuses("x") == ["coalesced", "success"]
    span, run = recorded.records
    assert (span.coalesced_from, span.coalesced_to) == (
        datetime(2026, 5, 1, 10, 1, tzinfo=UTC),
        datetime(2026, 5, 1, 10, 29, tzinfo=UTC),
    )
    assert run.scheduled_for == datetime(2026, 5, 1, 10, 30, tzinfo=UTC)
    assert str(job.next_run) == "2026-05-01T10:31:00+00:00[UTC]"


async def test_being_far_behind_costs_nothing(scheduler: Scheduler, frozen_clock: FrozenClock) -> None:
    """6.4, 11.7: thirty days of a one-second interval and of a cron are caught up without a walk."""
    recorded = Recorded(scheduler)
    scheduler.run_every(idle, seconds=1, name="every")
    scheduler.run_cron(idle, "* * * * * */1", name="cron")
    frozen_clock.freeze(frozen_clock.now + timedelta(days=30))
    before = time.perf_counter()
    await frozen_clock.trigger_due_jobs()
    assert time.perf_counter() - before < 1
    assert recorded.statuses("every") == recorded.statuses("cron") == ["coalesced", "success"]


async def test_jitter_delays_and_never_accumulates(scheduler: Scheduler, frozen_clock: FrozenClock) -> None:
    """7: each run is late by a fresh draw from [0, jitter), the first included; the grid does not move."""
    frozen_clock.freeze("2026-05-01T10:00:00+00:00")
    delays: list[float] = []

    async def look() -> None:
        run = current_run()
        assert run is not None
        delays.append((ZonedDateTime.now("UTC") - run.scheduled_for).total("seconds"))

    job = scheduler.run_every(look, minutes=1, jitter=30)
    await frozen_clock.advance(hours=5)
    assert 299 <= len(delays) <= 300
    assert all(0 <= delay < 30 for delay in delays)
    assert len(set(delays)) > 290
    assert 12 < sum(delays) / len(delays) < 18
    assert job.next_run is not None
    assert job.next_run.second == 0


async def test_jitter_longer_than_the_interval_collapses(scheduler: Scheduler, frozen_clock: FrozenClock) -> None:
    """7: ticks that pass before the delayed run collapse into it; every tick has one verdict."""
    recorded = Recorded(scheduler)
    scheduler.run_every(idle, seconds=10, jitter=60, name="x")
    await frozen_clock.advance(hours=1)
    targets: list[datetime] = []
    for record in recorded.records:
        if record.status == "coalesced":
            moment = record.coalesced_from
            while moment <= record.coalesced_to:
                targets.append(moment)
                moment += timedelta(seconds=10)
        else:
            targets.append(record.scheduled_for)
    targets.sort()
    assert len(set(targets)) == len(targets)
    assert all(after - before == timedelta(seconds=10) for before, after in zip(targets, targets[1:], strict=False))


class Faulty:
    """A trigger that raises when asked for its next time."""

    def first_run_time(self, current_time: ZonedDateTime) -> ZonedDateTime:
        return current_time.add(seconds=1)

    def next_run_time(self, previous_run: ZonedDateTime, current_time: ZonedDateTime) -> ZonedDateTime:
        raise RuntimeError("trigger on strike")

    def trigger_label(self) -> str:
        return "faulty"

    def trigger_detail(self) -> str | None:
        return None

    def trigger_db_type(self) -> str:
        return "custom"

    def trigger_id(self) -> str:
        return "faulty"


async def test_a_raising_trigger_pauses_its_job_only(
    scheduler: Scheduler, frozen_clock: FrozenClock, caplog: pytest.LogCaptureFixture
) -> None:
    """11.22: ERROR naming the job, its handler called, the job paused; nothing else stops."""
    contexts: list[Any] = []
    job = scheduler.schedule(idle, Faulty(), name="faulty", on_error=contexts.append)
    scheduler.run_every(called, seconds=2)
    await frozen_clock.advance(seconds=5)
    assert [str(ctx.exception) for ctx in contexts] == ["trigger on strike"]
    assert "job 'faulty': its trigger failed" in caplog.text
    assert job.next_run is None
    assert job in scheduler.list_jobs()
    assert len(CALLS) == 2


async def test_a_step_back_of_the_clock(
    scheduler: Scheduler, frozen_clock: FrozenClock, caplog: pytest.LogCaptureFixture
) -> None:
    """P11: after a step back intervals go on by elapsed time, repeated instants as attempt 2; cron repeats nothing."""
    frozen_clock.freeze("2026-05-01T10:00:00+00:00")
    seen: list[tuple[str, str, int]] = []

    async def look() -> None:
        run = current_run()
        assert run is not None
        seen.append((run.name, run.scheduled_for.time().format_iso(), run.attempt))

    scheduler.run_every(look, minutes=10, name="every")
    scheduler.schedule(look, Cron("*/10 * * * *"), name="cron")
    await frozen_clock.advance(minutes=15)
    frozen_clock.step(-600)
    await frozen_clock.advance(minutes=26)
    assert "set back by 600.0 s" in caplog.text
    assert seen == [
        ("every", "10:10:00", 1),
        ("cron", "10:10:00", 1),
        ("every", "10:10:00", 2),
        ("every", "10:20:00", 1),
        ("cron", "10:20:00", 1),
        ("every", "10:30:00", 1),
        ("cron", "10:30:00", 1),
    ]


async def test_a_step_forward_runs_what_it_passed(scheduler: Scheduler, frozen_clock: FrozenClock) -> None:
    """P11: a forward jump (or a suspend) makes what it passed late, not lost."""
    recorded = Recorded(scheduler)
    scheduler.run_every(idle, minutes=10, name="every")
    scheduler.run_in(called, 600, name="once")
    frozen_clock.step(3600)
    await frozen_clock.trigger_due_jobs()
    assert recorded.statuses("every") == ["coalesced", "success"]
    assert CALLS == [()]


async def test_a_dead_apscheduler_timer_is_revived(caplog: pytest.LogCaptureFixture) -> None:
    """P6, P11: when a store raises in APScheduler's wakeup, its timer dies for ever; we re-arm it and say so."""
    from apscheduler.jobstores.memory import MemoryJobStore

    class Hiccup(MemoryJobStore):
        failing = False

        def update_job(self, job: Any) -> None:
            if self.failing:
                self.failing = False
                raise ConnectionError("database hiccup")
            super().update_job(job)

    store = Hiccup()
    aps = AsyncIOScheduler(timezone="UTC", jobstores={"default": store})
    raw: list[int] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    async with Scheduler(aps) as scheduler:
        aps.add_job(lambda: raw.append(1), "interval", seconds=0.1)
        ours = scheduler.run_every(called, seconds=0.1)
        await until(lambda: raw)
        store.failing = True
        await until(lambda: not store.failing)
        stuck, ran = len(raw), len(CALLS)
        await until(lambda: len(raw) > stuck + 1, 8)
        assert "timer was dead" in caplog.text
        assert len(CALLS) > ran + 10
        ours.cancel()


async def test_logs_can_carry_the_run(scheduler: Scheduler) -> None:
    """8.3: a log filter puts name and ids of the run on the user's own log lines."""
    from hassette_aps import RunLogFilter

    lines: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record)

    logger, handler = logging.getLogger("tests.mine"), Keep()
    handler.addFilter(RunLogFilter())
    logger.addHandler(handler)
    try:

        async def job() -> None:
            logger.warning("hello")

        execution_id = (await scheduler.run_every(job, hours=1, name="x")).submit()
        await until(lambda: lines)
        logger.warning("outside")
    finally:
        logger.removeHandler(handler)
    assert (vars(lines[0])["job_name"], vars(lines[0])["execution_id"]) == ("x", execution_id)
    assert isinstance(vars(lines[0])["job_db_id"], int)
    assert vars(lines[1])["execution_id"] == ""


@pytest.mark.parametrize("kind", ["coroutine", "plain", "lambda"])
async def test_current_run(scheduler: Scheduler, kind: str) -> None:
    """8.3: a job knows its name, ids, scheduled time and attempt, in what it starts as well; nobody else does."""
    seen: list[Any] = []

    async def coroutine() -> None:
        seen.append(current_run())
        seen.append(await asyncio.create_task(asyncio.to_thread(current_run)))

    def plain() -> None:
        seen.extend([current_run()] * 2)

    func = {"coroutine": coroutine, "plain": plain, "lambda": lambda: coroutine()}[kind]
    job = await scheduler.run_every(func, hours=1, name="x", group="g")
    before = ZonedDateTime.now("UTC")
    execution_id = job.submit()
    await until(lambda: len(seen) == 2)
    run = seen[0]
    assert seen[1] is run
    assert (run.name, run.job_name, run.job_group, run.owner) == ("x", "x", "g", "")
    assert (run.job_id, run.db_id, run.execution_id) == (job.job_id, job.db_id, execution_id)
    assert before <= run.scheduled_for <= run.started_at
    assert run.attempt == 1
    assert current_run() is None


class EverySecond:
    """A trigger of somebody else's that can only be asked for one time after the other."""

    def __init__(self) -> None:
        self.asked = 0

    def first_run_time(self, current_time: ZonedDateTime) -> ZonedDateTime:
        return current_time.add(seconds=1)

    def next_run_time(self, previous_run: ZonedDateTime, current_time: ZonedDateTime) -> ZonedDateTime:
        self.asked += 1
        return previous_run.add(seconds=1)

    def trigger_label(self) -> str:
        return "second"

    def trigger_detail(self) -> str | None:
        return None

    def trigger_db_type(self) -> str:
        return "custom"

    def trigger_id(self) -> str:
        return "second"


async def test_a_foreign_trigger_far_behind_is_not_walked_for_ever(
    scheduler: Scheduler, frozen_clock: FrozenClock
) -> None:
    """11.7: it is stepped at most 1,000 times; the stored target stands for the rest, and the job goes on."""
    frozen_clock.freeze("2026-05-01T10:00:00+00:00")
    recorded = Recorded(scheduler)
    trigger = EverySecond()
    job = scheduler.schedule(idle, trigger, name="x")
    frozen_clock.freeze("2026-05-01T10:05:00+00:00")
    await frozen_clock.trigger_due_jobs()
    assert recorded.statuses() == ["coalesced", "success"]
    assert recorded.records[1].scheduled_for == datetime(2026, 5, 1, 10, 5, tzinfo=UTC)
    assert recorded.records[0].coalesced_to == datetime(2026, 5, 1, 10, 4, 59, tzinfo=UTC)
    trigger.asked = 0
    frozen_clock.freeze("2026-05-31T10:00:00+00:00")
    await frozen_clock.trigger_due_jobs()
    assert trigger.asked <= 1_003
    assert recorded.statuses() == ["coalesced", "success"] * 2
    assert recorded.records[3].scheduled_for == datetime(2026, 5, 1, 10, 5, 1, tzinfo=UTC)
    assert job.next_run is not None
    assert job.next_run > ZonedDateTime.now("UTC")


async def test_lateness_is_measured_from_the_fire_time(frozen_clock: FrozenClock) -> None:
    """11.7: a jittered run is not late by its own jitter, and what is late is so by the time since ``fire_at``."""
    async with Scheduler(timezone="UTC", max_lateness=1) as scheduler:
        recorded = Recorded(scheduler)
        job = scheduler.run_in(idle, 1, jitter=60, name="x")
        assert job.fire_at is not None
        frozen_clock.freeze(job.fire_at.add(milliseconds=500))
        await frozen_clock.trigger_due_jobs()
        assert recorded.statuses() == ["success"]
        assert 499 <= recorded.records[0].lateness_ms <= 501


async def test_nothing_of_a_run_is_kept(scheduler: Scheduler, caplog: pytest.LogCaptureFixture) -> None:
    """P12: runs that succeed, fail, time out, wait and are dropped leave no object behind."""
    from hassette_aps.run import Run

    caplog.set_level(logging.CRITICAL + 1)  # a log record keeps its exception, and that the frames
    caplog.clear()

    def alive() -> int:
        gc.collect()
        return sum(type(thing) in (Run, asyncio.Task) for thing in gc.get_objects())

    async def raises() -> None:
        raise ValueError

    def raises_too() -> None:
        raise ValueError

    recorded: list[str] = []

    async def keep(record: Any) -> None:
        recorded.append(record.status)

    scheduler.on_run(keep)
    scheduler.on_error(lambda ctx: None)
    jobs = [
        scheduler.run_every(idle, hours=1, name="fine"),
        scheduler.run_every(raises, hours=1, name="raises"),
        scheduler.run_every(raises_too, hours=1, name="raises too"),
        scheduler.run_every(never, hours=1, timeout=0.01, name="slow"),
        scheduler.run_every(called, hours=1, mode="queued", name="queued"),
        scheduler.run_every(never, hours=1, timeout=0.01, mode="single", name="single"),
        scheduler.run_every(idle, hours=1, mode="restart", name="restart"),
    ]
    counts: list[int] = []
    for _ in range(3):
        done = len(recorded)
        for _ in range(30):
            for job in jobs:
                job.submit()
        await until(lambda done=done: len(recorded) == done + 30 * len(jobs))
        await until(lambda: not scheduler._listeners.busy)
        await until(lambda: scheduler.health().queue_length == 0)
        await asyncio.sleep(0.3)  # the writer lets go of its last batch
        counts.append(alive())
    assert counts[2] <= counts[0]
    assert {"success", "error", "timed_out", "dropped", "suppressed", "cancelled"} <= set(recorded)


async def test_health_notices_a_blocked_loop(scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    """P6: the scheduler is alive, or says within 5 s that it is not."""
    assert 2 * timer.BEAT <= 5
    monkeypatch.setattr(timer, "BEAT", 0.1)
    scheduler.run_every(idle, seconds=0.05)
    await until(lambda: scheduler.health().last_wakeup)
    alive: list[bool] = []

    def look() -> None:
        alive.append(scheduler.health().alive)
        time.sleep(0.3)
        alive.append(scheduler.health().alive)

    thread = threading.Thread(target=look)
    thread.start()
    time.sleep(0.4)  # nothing turns meanwhile
    thread.join()
    assert alive == [True, False]
    await until(lambda: scheduler.health().alive)


async def test_health_under_a_frozen_clock(scheduler: Scheduler, frozen_clock: FrozenClock) -> None:
    """P6: time that a test lets pass is no blocked loop."""
    scheduler.run_every(idle, minutes=1)
    await frozen_clock.advance(hours=1)
    assert scheduler.health().alive


async def test_predicates_hold_on_other_executors_too(scheduler: Scheduler) -> None:
    """3: ``where`` is asked before a run on an executor of the user's; in a user's store it is refused."""
    recorded = Recorded(scheduler)
    answers = iter([False, True])

    async def where() -> bool:
        return next(answers)

    job = scheduler.run_every(called_async, hours=1, executor="default", where=where)
    for n in range(2):
        job.submit()
        await until(lambda n=n: len(recorded.records) == n + 1)
    assert recorded.statuses() == ["skipped", "success"]
    assert CALLS == [()]
    with pytest.raises(ValueError, match="where= cannot be asked"):
        scheduler.run_every(called, hours=1, executor="default", jobstore="default", where=where)
