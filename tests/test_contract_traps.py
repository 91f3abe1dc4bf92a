"""What APScheduler 3.11 trips its users up with, tried on the facade: trap by trap, in the contract's order."""

import asyncio
import concurrent.futures
import functools
import pickle
import threading
import time
import traceback
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from apscheduler.events import (
    EVENT_JOB_ADDED,
    EVENT_JOB_ERROR,
    EVENT_JOB_EXECUTED,
    EVENT_JOB_REMOVED,
    EVENT_JOB_SUBMITTED,
)
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.date import DateTrigger
from apscheduler.triggers.interval import IntervalTrigger
from whenever import ZonedDateTime

from hassette_aps import After, Cron, Daily, Every, Once, Scheduler, current_run
from hassette_aps.testing import FrozenClock
from tests.kit import CALLS, Recorded, called, fails, idle, in_progress, never, sql_scheduler, until

# Triggers


@pytest.mark.parametrize(
    "trigger", [After(seconds=5), Once("07:00"), Every(minutes=5), Daily("07:00"), Cron("*/5 * * * *")], ids=str
)
def test_a_trigger_may_be_asked_twice(trigger: BaseTrigger) -> None:
    """6.3: same question, same answer, through pickles too: no hidden state, no random draw, no clock."""
    now = datetime(2026, 5, 1, 10, 2, 3, tzinfo=UTC)
    first = trigger.get_next_fire_time(None, now)
    assert first is not None
    answers = [trigger.get_next_fire_time(first, first) for _ in range(3)]
    copy = pickle.loads(pickle.dumps(trigger))
    assert {*answers, copy.get_next_fire_time(first, first)} == {answers[0]}
    assert answers[0] is None or answers[0] > first
    assert copy == trigger
    assert hash(copy) == hash(trigger)


async def test_jitter_is_not_fed_back_in_a_users_store(frozen_clock: FrozenClock, tmp_path: Path) -> None:
    """7: what APScheduler stores has the jitter in it; the grid has not, and each draw is asked for twice alike."""
    frozen_clock.freeze("2026-05-01T10:00:00+00:00")
    async with Scheduler(sql_scheduler(tmp_path / "jobs.db")) as scheduler:
        recorded = Recorded(scheduler)
        job = scheduler.run_every(called, minutes=1, jitter=30, jobstore="db", name="x")
        await frozen_clock.advance(minutes=30)
        targets = [record.scheduled_for for record in recorded.records]
        assert 29 <= len(targets) <= 30
        assert all(target.second == 0 for target in targets)
        assert len(set(targets)) == len(targets)
        assert job.next_run is not None
        assert job.next_run.second == 0
        assert job.fire_at is not None
        assert job.fire_at >= job.next_run


class Exhausted(BaseTrigger):
    """A trigger of APScheduler's kind that never fires."""

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        return None


async def test_a_schedule_without_a_first_time_is_refused(scheduler: Scheduler) -> None:
    """11.18: APScheduler stores such a job as paused for ever, silently."""
    for trigger in (Exhausted(), CronTrigger(year=1999)):
        with pytest.raises(ValueError, match="never fire"):
            scheduler.schedule(idle, trigger)
    with pytest.raises(ValueError, match="never fire"):
        scheduler.run_cron(idle, "0 0 30 2 *")
    assert scheduler.list_jobs() == []


class Striking(BaseTrigger):
    """A trigger of APScheduler's kind that raises from its second answer on."""

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        if previous_fire_time is None:
            return now + timedelta(seconds=1)
        raise RuntimeError("on strike")


@pytest.mark.parametrize("store", [None, "default", "db"])
async def test_a_raising_trigger_stops_nobody_else(
    store: str | None, frozen_clock: FrozenClock, tmp_path: Path
) -> None:
    """11.22, P6: it would stop the whole APScheduler; here its own job only, in whatever store."""
    raw: list[int] = []
    async with Scheduler(sql_scheduler(tmp_path / "jobs.db")) as scheduler:
        contexts: list[Any] = []
        scheduler.on_error(contexts.append)
        scheduler.aps.add_job(lambda: raw.append(1), IntervalTrigger(seconds=2), misfire_grace_time=None)
        scheduler.schedule(idle, Striking(), jobstore=store, name="striking")
        scheduler.run_every(called, seconds=2, jobstore=store)
        await frozen_clock.advance(seconds=7)
        assert {str(ctx.exception) for ctx in contexts} == {"on strike"}
        assert len(CALLS) == 3
        assert len(raw) == 3


@pytest.mark.parametrize("store", [None, "db"])
@pytest.mark.parametrize(
    "trigger", [Every(seconds=1), IntervalTrigger(seconds=1), CronTrigger(second="*")], ids=["ours", "theirs", "cron"]
)
async def test_a_month_behind_is_no_walk(
    trigger: object, store: str | None, frozen_clock: FrozenClock, tmp_path: Path
) -> None:
    """6.4, 11.7: APScheduler walks 2.6 million slots with the loop frozen; here one run stands for them."""
    async with Scheduler(sql_scheduler(tmp_path / "jobs.db")) as scheduler:
        scheduler.schedule(called, trigger, jobstore=store)
        await frozen_clock.trigger_due_jobs()
        frozen_clock.freeze(frozen_clock.now + timedelta(days=30))
        before = time.perf_counter()
        await frozen_clock.trigger_due_jobs()
        assert time.perf_counter() - before < 1.5
        assert len(CALLS) == 1


async def test_equal_apscheduler_triggers_are_equal_here(scheduler: Scheduler) -> None:
    """5.3, 11.9: ``IntervalTrigger(5) != IntervalTrigger(5)``, yet ``if_exists="skip"`` knows them as the same."""
    job = scheduler.schedule(idle, IntervalTrigger(hours=5), name="x")
    assert scheduler.schedule(idle, IntervalTrigger(hours=5), name="x", if_exists="skip") is job
    with pytest.raises(ValueError, match="trigger"):
        scheduler.schedule(idle, IntervalTrigger(hours=6), name="x", if_exists="skip")


# Executors


def stack(*args: object) -> None:
    """Tells from where it is called."""
    CALLS.append(tuple(frame.name for frame in traceback.extract_stack()))


async def stack_async() -> None:
    """The same on the loop."""
    stack()


@pytest.mark.parametrize("store", [None, "default"])
async def test_no_body_starts_under_apschedulers_lock(scheduler: Scheduler, store: str | None) -> None:
    """8.2: ``submit_job`` is called inside the lock; functions start in a later turn, outside of it."""
    lock = scheduler.aps._jobstores_lock
    free: list[bool] = []

    def look() -> None:
        free.append(lock.acquire(timeout=5))
        lock.release()

    scheduler.run_in(stack, 0.01, jobstore=store, name="plain")
    scheduler.run_in(stack_async, 0.01, jobstore=store, name="coroutine")
    scheduler.run_in(look, 0.01, name="lock")
    await until(lambda: len(CALLS) == 2 and free)
    assert not any({"_process_jobs", "submit_job", "admit"} & set(frames) for frames in CALLS)
    assert free == [True]


async def test_a_pool_that_takes_no_work(scheduler: Scheduler) -> None:
    """9.4: APScheduler loses what an executor refuses by raising; here it is an error with a handler."""
    contexts: list[Any] = []
    pool = ThreadPoolExecutor(1)
    scheduler.aps.add_executor(pool, "pool")
    job = scheduler.run_every(called, hours=1, executor="pool", on_error=contexts.append)
    pool.shutdown()
    job.submit()
    await until(lambda: contexts)
    assert isinstance(contexts[0].exception, RuntimeError)
    assert [record.status for record in await scheduler.history(job)] == ["error"]


@pytest.mark.parametrize("store", [None, "default"])
async def test_the_name_of_a_running_job_can_be_used_again(scheduler: Scheduler, store: str | None) -> None:
    """5.4: APScheduler counts instances by id and loses a one-shot that takes a running job's id."""
    release = threading.Event()
    recorded = Recorded(scheduler)
    first = scheduler.run_every(release.wait, hours=1, args=[20], name="x", jobstore=store)
    first.submit()
    await in_progress(scheduler)
    first.cancel()
    second = scheduler.run_in(called, 0.01, name="x", jobstore=store)
    await until(lambda: CALLS == [()])
    await until(lambda: second not in scheduler.list_jobs())
    release.set()
    await until(lambda: recorded.statuses("x") == ["success", "success"])


async def test_a_run_cancelled_before_its_first_step_has_a_verdict() -> None:
    """P2: APScheduler sends no event for it."""
    scheduler = Scheduler(timezone="UTC")
    await scheduler.start()
    job = scheduler.run_every(called, hours=1)
    scheduler.run_every(never, hours=1, name="never").submit()
    job.submit()
    await scheduler.shutdown(grace=0)
    assert [record.status for record in await scheduler.history()] == ["cancelled", "cancelled"]
    assert CALLS == []


async def test_executed_means_that_the_awaitable_has_ended(scheduler: Scheduler) -> None:
    """8.2: decorated coroutines are reported EXECUTED by APScheduler without ever being awaited."""
    order: list[str] = []

    async def coroutine() -> str:
        await asyncio.sleep(0.02)
        order.append("ended")
        return "result"

    def traced(func: Any) -> Any:
        @functools.wraps(func)
        def wrapper() -> Any:
            return func()

        return wrapper

    events: list[Any] = []

    def heard(event: Any) -> None:
        order.append("event")
        events.append(event)

    scheduler.aps.add_listener(heard, EVENT_JOB_EXECUTED)
    for n, func in enumerate((traced(coroutine), lambda: coroutine())):
        scheduler.run_in(func, 0.01, name=str(n))
        await until(lambda n=n: len(events) == n + 1)
    assert order == ["ended", "event"] * 2
    assert [event.retval for event in events] == ["result"] * 2


async def test_the_applications_own_threads_are_not_used(scheduler: Scheduler) -> None:
    """8.2: plain jobs do not share the loop's default pool with the application's ``to_thread`` calls."""
    release = threading.Event()
    pool = concurrent.futures.ThreadPoolExecutor(1)
    asyncio.get_running_loop().set_default_executor(pool)
    busy = asyncio.create_task(asyncio.to_thread(release.wait, 20))
    try:
        scheduler.run_in(called, 0.01)
        await until(lambda: CALLS)
    finally:
        release.set()
        await busy


async def test_runs_in_flight_survive_the_last_owners_shutdown() -> None:
    """10.5, 11.20: taking our executor off a running AsyncIOScheduler does not cut off the run that asked for it."""
    aps = AsyncIOScheduler(timezone="UTC")
    aps.start()
    scheduler = Scheduler(aps)
    done: list[int] = []

    async def last() -> None:
        await scheduler.shutdown()
        await asyncio.sleep(0.02)
        done.append(1)

    scheduler.run_in(last, 0.01)
    await until(lambda: done)
    assert "hassette_aps" not in aps._executors
    aps.shutdown()
    await until(lambda: not aps.running)


async def test_rows_outlive_our_executor(frozen_clock: FrozenClock, tmp_path: Path) -> None:
    """11.2, 11.20: APScheduler deletes due rows whose executor it does not know; ours are parked before it goes."""
    aps = sql_scheduler(tmp_path / "jobs.db")
    aps.start()
    scheduler = Scheduler(aps)
    scheduler.run_every(called, minutes=1, jobstore="db", name="x")
    await scheduler.shutdown()
    frozen_clock.freeze(frozen_clock.now + timedelta(minutes=5))
    aps.wakeup()
    await asyncio.sleep(0.01)
    assert [row.id for row in aps.get_jobs("db")] == ["x"]
    assert CALLS == []
    await scheduler.start()
    await frozen_clock.trigger_due_jobs()
    assert CALLS == [()]
    await scheduler.shutdown()
    aps.shutdown()
    await until(lambda: not aps.running)


# Listeners


async def test_listeners_are_called_without_our_lock(scheduler: Scheduler) -> None:
    """1.5: a listener that waits for a thread that asks the facade does not hang."""
    seen: list[int] = []

    def ask(event: object) -> None:
        thread = threading.Thread(target=lambda: seen.append(len(scheduler.list_jobs())))
        thread.start()
        thread.join(5)

    scheduler.aps.add_listener(ask, EVENT_JOB_ADDED | EVENT_JOB_EXECUTED | EVENT_JOB_REMOVED)
    scheduler.run_in(idle, 0.01)
    await until(lambda: len(seen) == 3)


async def test_outcomes_that_overtake_their_submission() -> None:
    """P2: from thread pools an outcome can arrive before SUBMITTED; each run has exactly one verdict all the same."""
    aps = AsyncIOScheduler(timezone="UTC", executors={"pool": ThreadPoolExecutor(4)})
    async with Scheduler(aps) as scheduler:
        recorded = Recorded(scheduler)
        for n in range(50):
            scheduler.run_in(called, 0.05, args=[n], jobstore="default", executor="pool", name=str(n))
        await until(lambda: len(recorded.records) >= 50)
        await until(lambda: not scheduler.list_jobs())
        assert sorted(int(r.job_name) for r in recorded.records) == list(range(50))
        assert set(recorded.statuses()) == {"success"}
        assert scheduler.health().running == 0


@pytest.mark.parametrize("store", [None, "default"])
async def test_a_one_shot_that_fails_is_still_known(scheduler: Scheduler, store: str | None) -> None:
    """4.4, 9.2: in APScheduler a one-shot is gone when its error arrives; here handler and record know the job."""
    contexts: list[Any] = []
    listed: list[bool] = []
    order: list[int] = []

    def heard(event: Any) -> None:
        order.append(event.code)
        if event.code == EVENT_JOB_ERROR:
            listed.append(job in scheduler.list_jobs())

    scheduler.aps.add_listener(heard, EVENT_JOB_SUBMITTED | EVENT_JOB_ERROR | EVENT_JOB_REMOVED)
    job = scheduler.run_in(fails, 0.01, name="x", group="g", jobstore=store, on_error=contexts.append)
    await until(lambda: contexts)
    assert (contexts[0].job_name, contexts[0].job_group) == ("x", "g")
    if store is None:
        await until(lambda: len(order) == 3)
        assert order == [EVENT_JOB_SUBMITTED, EVENT_JOB_ERROR, EVENT_JOB_REMOVED]
        assert listed == [True]
    await until(lambda: scheduler.list_jobs() == [])
    assert [record.status for record in await scheduler.history("x")] == ["error"]


async def test_the_traceback_is_whole(scheduler: Scheduler) -> None:
    """9.2: APScheduler's ``event.traceback`` has frames only; the context has the exception line as well."""
    contexts: list[Any] = []
    events: list[Any] = []
    scheduler.aps.add_listener(events.append, EVENT_JOB_ERROR)
    scheduler.run_in(fails, 0.01, on_error=contexts.append)
    await until(lambda: contexts)
    assert not events[0].traceback.rstrip().endswith("ValueError: failed on purpose")
    assert contexts[0].traceback.splitlines()[-1] == "ValueError: failed on purpose"
    assert "in fails" in contexts[0].traceback


async def test_all_jobs_removed(scheduler: Scheduler) -> None:
    """11.21: ``remove_all_jobs`` comes without an event per job; rows of ours are cancelled all the same."""
    row = scheduler.run_every(idle, hours=1, jobstore="default", name="row")
    ours = scheduler.run_every(idle, hours=1, name="ours")
    scheduler.aps.remove_all_jobs("default")
    assert scheduler.list_jobs() == [ours]
    assert row.next_run is None
    scheduler.aps.remove_all_jobs()
    assert scheduler.list_jobs() == []


# Scheduler


@pytest.mark.parametrize("store", [None, "default", "db"])
async def test_late_is_not_dropped(store: str | None, frozen_clock: FrozenClock, tmp_path: Path) -> None:
    """8.1: APScheduler drops what is a second late."""
    async with Scheduler(sql_scheduler(tmp_path / "jobs.db")) as scheduler:
        scheduler.run_in(called, 60, jobstore=store)
        frozen_clock.freeze(frozen_clock.now + timedelta(hours=3))
        await frozen_clock.trigger_due_jobs()
        assert CALLS == [()]


class Hiccup(SQLAlchemyJobStore):
    """A store whose methods fail once when told to."""

    failing: str = ""

    def _perhaps(self, method: str) -> None:
        if self.failing == method:
            self.failing = ""
            raise ConnectionError(f"{method}: database hiccup")

    def update_job(self, job: Any) -> None:
        self._perhaps("update_job")
        super().update_job(job)

    def remove_job(self, job_id: str) -> None:
        self._perhaps("remove_job")
        super().remove_job(job_id)

    def get_next_run_time(self) -> Any:
        self._perhaps("get_next_run_time")
        return super().get_next_run_time()

    def get_due_jobs(self, now: datetime) -> Any:
        self._perhaps("get_due_jobs")
        return super().get_due_jobs(now)


@pytest.mark.parametrize("method", ["update_job", "remove_job", "get_next_run_time", "get_due_jobs"])
async def test_a_store_that_fails_once(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P1, P6: the timer that APScheduler never re-arms is revived, and no target runs twice."""
    monkeypatch.setattr("hassette_aps.timer.BEAT", 0.2)
    monkeypatch.setattr("hassette_aps.store.BEAT", 0.2)
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    store = Hiccup(url=f"sqlite:///{tmp_path}/jobs.db")
    async with Scheduler(
        AsyncIOScheduler(timezone="UTC", jobstores={"db": store}, jobstore_retry_interval=0.2)
    ) as scheduler:
        recorded = Recorded(scheduler)
        scheduler.run_every(called, seconds=0.1, jobstore="db", name="row")
        scheduler.run_every(idle, seconds=0.05, name="ours")
        await until(lambda: "success" in recorded.statuses("row"))
        store.failing = method
        if method == "remove_job":
            scheduler.run_in(called, 0.01, jobstore="db", name="once")
        await until(lambda: not store.failing)
        rows, ours = len(recorded.statuses("row")), len(recorded.statuses("ours"))
        await until(lambda: len(recorded.statuses("row")) > rows + 2 and len(recorded.statuses("ours")) > ours + 2)
        if method == "remove_job":
            await until(lambda: recorded.statuses("once"))
        for name in ("row", "once"):
            targets = [r.scheduled_for for r in recorded.records if r.job_name == name and r.status != "coalesced"]
            assert len(set(targets)) == len(targets)


async def test_threads_may_register_at_any_time() -> None:
    """1.5: ``wakeup`` fails before start and after shutdown; registering from a thread does not."""
    scheduler = Scheduler(timezone="UTC")
    await asyncio.to_thread(scheduler.run_in, called, 0.01, args=["before"])
    await scheduler.start()
    await asyncio.to_thread(scheduler.run_in, called, 0.01, args=["while"])
    await until(lambda: sorted(CALLS) == [("before",), ("while",)])
    await scheduler.shutdown()
    job = await asyncio.to_thread(scheduler.run_in, called, 0.01, args=["after"])
    await asyncio.to_thread(job.cancel)
    await scheduler.shutdown()


async def test_registering_many_jobs_wakes_apscheduler_once(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1.4: each ``add_job`` of APScheduler queues a look through all jobs; a thousand of ours none."""
    looks: list[int] = []
    look = scheduler.aps._process_jobs
    monkeypatch.setattr(scheduler.aps, "_process_jobs", lambda: looks.append(1) or look())
    for n in range(1000):
        scheduler.run_every(idle, hours=1, name=str(n))
    await asyncio.sleep(0.02)
    assert len(looks) <= 1


async def test_the_timer_is_never_set_for_days(scheduler: Scheduler) -> None:
    """P11: one ``call_later`` of days sleeps through clock jumps; ours looks at the clock every five seconds."""
    scheduler.run_every(idle, hours=72)
    loop = asyncio.get_running_loop()
    await asyncio.sleep(0)
    ours = [handle.when() - loop.time() for handle in loop._scheduled if not handle.cancelled()]  # type: ignore[attr-defined]
    assert min(ours) <= 5


async def test_relative_times_count_from_the_start(frozen_clock: FrozenClock) -> None:
    """1.2: APScheduler stamps "now" when a job is added, and drops it if the start takes longer than a second."""
    scheduler = Scheduler(timezone="UTC")
    job = scheduler.run_in(called, 60)
    frozen_clock.freeze("2026-05-01T10:00:00+00:00")
    async with scheduler:
        assert str(job.next_run) == "2026-05-01T10:01:00+00:00[UTC]"
        await frozen_clock.advance(seconds=61)
        assert CALLS == [()]


async def test_a_start_that_met_a_conflict_can_be_tried_again(tmp_path: Path) -> None:
    """11.3: APScheduler's start fails half-way and for ever; the facade's leaves things as they were."""
    async with Scheduler(sql_scheduler(tmp_path / "jobs.db")) as earlier:
        earlier.run_every(called, hours=1, jobstore="db", name="x")
    scheduler = Scheduler(sql_scheduler(tmp_path / "jobs.db"))
    scheduler.run_every(called, hours=2, jobstore="db", name="x")
    scheduler.run_in(called, 0.01, name="other")
    for _ in range(2):
        with pytest.raises(ValueError, match="if_exists"):
            await scheduler.start()
        assert not scheduler.aps.running
    waiting = scheduler.get_job("x")
    assert waiting is not None
    waiting.cancel()
    await scheduler.start()
    await until(lambda: CALLS)
    found = scheduler.get_job("x")
    assert found is not None
    assert found.trigger == Every(hours=1)
    await scheduler.shutdown()


async def test_before_start(frozen_clock: FrozenClock) -> None:
    """1.2, 11.12: jobs are listed, have a provisional next run, and a name is taken once."""
    scheduler = Scheduler(timezone="UTC")
    job = scheduler.run_every(idle, hours=1, name="x")
    assert scheduler.list_jobs() == [job]
    assert scheduler.get_job("x") is job
    assert isinstance(job.next_run, ZonedDateTime)
    with pytest.raises(ValueError, match="'x'"):
        scheduler.run_every(idle, hours=1, name="x")
    await scheduler.shutdown()


async def test_shutdown_has_happened_when_it_returns() -> None:
    """10.1: APScheduler's ``shutdown(wait=True)`` returns before it has happened and cancels coroutines at once."""
    done: list[int] = []

    async def slow() -> None:
        await asyncio.sleep(0.05)
        done.append(1)

    scheduler = Scheduler(timezone="UTC")
    await scheduler.start()
    scheduler.run_every(slow, hours=1).submit()
    await in_progress(scheduler)
    await scheduler.shutdown()
    assert done == [1]
    assert not scheduler.aps.running


@pytest.mark.parametrize(
    "option",
    ["next_run_time", "misfire_grace_time", "coalesce", "max_instances", "id", "replace_existing", "trigger_args"],
)
async def test_apschedulers_own_options_are_refused(scheduler: Scheduler, option: str) -> None:
    """3: options that would silently mean something else, or nothing, are unknown here."""
    with pytest.raises(TypeError, match=option):
        scheduler.run_every(idle, hours=1, **{option: None})  # type: ignore[call-arg]
    assert scheduler.list_jobs() == []


# Job stores


async def test_rows_that_cannot_be_read_are_not_deleted(tmp_path: Path) -> None:
    """P6: stores delete rows they cannot unpickle on any read; starting a facade does not make them."""
    aps = sql_scheduler(tmp_path / "jobs.db")
    async with Scheduler(aps) as scheduler:
        scheduler.run_every(called, hours=1, jobstore="db", name="fine")
        store: Any = dict(aps._jobstores)["db"]
        with store.engine.begin() as connection:
            connection.execute(store.jobs_t.insert().values(id="broken", next_run_time=None, job_state=b"no pickle"))
    aps = sql_scheduler(tmp_path / "jobs.db")
    async with Scheduler(aps) as scheduler:
        assert [job.name for job in scheduler.list_jobs()] == ["fine"]
        scheduler.run_every(called, hours=2, jobstore="db", name="another")
        store = dict(aps._jobstores)["db"]
        with store.engine.begin() as connection:
            ids = {row.id for row in connection.execute(store.jobs_t.select())}
    assert ids == {"fine", "broken", "another"}


class Counter:
    """An object with a bound method for a job."""

    def __init__(self) -> None:
        self.count = 0

    def up(self) -> None:
        self.count += 1


async def test_bound_methods_act_on_the_live_object(scheduler: Scheduler) -> None:
    """2: a pickled ``self`` would make the job act on a stale copy; our own store pickles nothing."""
    counter = Counter()
    scheduler.run_in(counter.up, 0.01)
    await until(lambda: counter.count == 1)


@pytest.mark.parametrize("store", [None, "default", "db"])
async def test_handles_do_not_go_stale(store: str | None, frozen_clock: FrozenClock, tmp_path: Path) -> None:
    """4.1: ``aps.get_job`` of a persistent store returns a snapshot; our handle reads through."""
    frozen_clock.freeze("2026-05-01T10:00:00+00:00")
    async with Scheduler(sql_scheduler(tmp_path / "jobs.db")) as scheduler:
        job = scheduler.run_every(called, minutes=1, jobstore=store, name="x")
        await frozen_clock.advance(minutes=3)
        assert str(job.next_run) == "2026-05-01T10:04:00+00:00[UTC]"
        scheduler.aps.pause_job("x")
        assert job.next_run is None
        scheduler.aps.resume_job("x")
        assert str(job.next_run) == "2026-05-01T10:04:00+00:00[UTC]"


async def test_jobs_are_hashable(scheduler: Scheduler) -> None:
    """4.2: APScheduler's ``Job`` is not; a handle is, by identity."""
    one, two = scheduler.run_every(idle, hours=1), scheduler.run_every(idle, hours=2)
    assert len({one, two, one}) == 2


# Cron


def after(expression: str, moment: str, zone: str = "UTC", count: int = 1) -> list[str]:
    """The next times of an expression."""
    trigger, found = Cron(expression), []
    now = ZonedDateTime.parse_iso(f"{moment}[{zone}]")
    upcoming = trigger.first_run_time(now)
    while upcoming is not None and len(found) < count:
        found.append(upcoming.format_iso())
        upcoming = trigger.next_run_time(upcoming, upcoming)
    return found


def test_weekdays_are_crontabs() -> None:
    """6.6: 0 and 7 are Sunday (APScheduler: 0 is Monday)."""
    for day in ("0", "7", "sun"):
        assert after(f"0 0 * * {day}", "2026-05-01T00:00:00Z") == ["2026-05-03T00:00:00+00:00[UTC]"]


def test_day_and_weekday_are_ored() -> None:
    """6.6: both restricted means either (APScheduler: both at once)."""
    assert after("0 0 13 * 5", "2026-05-02T00:00:00Z", count=2) == [
        "2026-05-08T00:00:00+00:00[UTC]",
        "2026-05-13T00:00:00+00:00[UTC]",
    ]


def test_seconds_names_and_nicknames() -> None:
    """6.6: a sixth field is seconds, last; ``@daily``, ``L`` and ``5#2`` are understood."""
    assert after("* * * * * 30", "2026-05-01T00:00:00Z") == ["2026-05-01T00:00:30+00:00[UTC]"]
    assert after("@daily", "2026-05-01T00:00:00Z") == ["2026-05-02T00:00:00+00:00[UTC]"]
    assert after("0 0 L * *", "2026-05-01T00:00:00Z") == ["2026-05-31T00:00:00+00:00[UTC]"]
    assert after("0 0 * * 5#2", "2026-05-01T00:00:00Z") == ["2026-05-08T00:00:00+00:00[UTC]"]


@pytest.mark.parametrize("expression", ["0 0 * jan/2 *", "0 0 * * mon/2", "0 0 * * mon#2"])
def test_tails_are_never_ignored(expression: str) -> None:
    """6.6: what APScheduler accepts and ignores is either meant as written or refused."""
    try:
        found = after(expression, "2026-01-01T00:00:00Z", count=40)
    except ValueError:
        return
    assert found != after(expression.replace("/2", "").replace("#2", ""), "2026-01-01T00:00:00Z", count=40)


def test_gap_and_fold() -> None:
    """6.8: once, right after the gap; once, at the first of the two (APScheduler: an hour late; twice)."""
    assert after("30 2 * * *", "2026-03-08T00:00:00-05:00", "America/New_York") == [
        "2026-03-08T03:00:00-04:00[America/New_York]"
    ]
    assert after("30 1 * * *", "2026-11-01T00:00:00-04:00", "America/New_York", 2) == [
        "2026-11-01T01:30:00-04:00[America/New_York]",
        "2026-11-02T01:30:00-05:00[America/New_York]",
    ]


async def test_raw_rows_on_our_executor_are_refused(scheduler: Scheduler, caplog: pytest.LogCaptureFixture) -> None:
    """11.20: our executor runs facade jobs only; a raw job that names it is an ERROR in APScheduler's log, no more."""
    scheduler.aps.add_job(called, DateTrigger(), executor="hassette_aps", misfire_grace_time=None)
    scheduler.run_in(called, 0.05, args=["ours"])
    await until(lambda: ("ours",) in CALLS)
    assert CALLS == [("ours",)]
    assert "runs facade jobs only" in caplog.text


async def test_a_memory_store_of_the_users_is_a_store_like_any_other() -> None:
    """1.1: rows in a second memory store run on our executor, with ``current_run``, and are gone after shutdown."""
    aps = AsyncIOScheduler(timezone="UTC", jobstores={"mine": MemoryJobStore()})
    names: list[str] = []

    def look() -> None:
        run = current_run()
        assert run is not None
        names.append(run.name)

    async with Scheduler(aps) as scheduler:
        scheduler.run_in(look, 0.01, jobstore="mine", name="x")
        await until(lambda: names == ["x"])
