"""How runs start: on the loop or in a thread, late, coalesced, in a clean context (section 8, 11.7, 11.22)."""

import asyncio
import contextvars
import functools
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from whenever import ZonedDateTime

from hassette_aps import Cron, Scheduler, current_run
from hassette_aps.testing import FrozenClock
from tests.kit import CALLS, Recorded, called, idle, until


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
