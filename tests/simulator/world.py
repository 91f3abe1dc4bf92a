"""One episode: a seed makes jobs, faults and an operator; the real package runs in virtual time; all is recorded."""

import asyncio
import gc
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from random import Random
from typing import Any

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from whenever import Instant

from hassette_aps import ScheduledJob, Scheduler, current_run
from hassette_aps.instants import from_datetime
from hassette_aps.triggers import After, Cron, Daily, Every, Once

from .clock import SECOND, Clock, VirtualLoop
from .faults import Broken, MoodyStore, MoodyTrigger
from .history import History, Life, Moment, Start, Verdict

STARTS = (
    ("UTC", datetime(2027, 1, 11, 8, 0, tzinfo=UTC)),
    ("Europe/Berlin", datetime(2027, 3, 28, 0, 40, tzinfo=UTC)),  # 20 minutes before a spring gap
    ("America/New_York", datetime(2027, 11, 7, 5, 30, tzinfo=UTC)),  # half an hour before an autumn fold
)
STORE = "moody"
RAW_PERIOD = 7

WORLDS: dict[int, "World"] = {}


@dataclass(frozen=True, slots=True)
class Setup:
    """How an episode goes: how long, how many jobs, how often something is done to them."""

    seconds: float = 900.0
    jobs: int = 30
    every: tuple[float, ...] = (0.25, 0.5, 1, 2, 5, 20, 60)
    operations: int = 60
    clock_steps: bool = True
    store: bool = True
    threads: bool = True
    blocks: bool = True
    database: str | None = None
    nights: bool = False
    """Only wall-clock schedules, in a night in which the clocks change."""


@dataclass(slots=True)
class Plan:
    """One job: what its function does, and the handle."""

    number: int
    act: str
    handle: ScheduledJob | None = None
    span: float = 1.0
    deaf: bool = False


async def work(world: int, number: int) -> None:
    """The function of every job on the loop."""
    here = WORLDS[world]
    run = here.began(number)
    try:
        await here.act(here.plans[number])
    finally:
        here.left(run)


def plain_work(world: int, number: int) -> None:
    """The function of every job in a thread."""
    here = WORLDS[world]
    run = here.began(number)
    try:
        here.act_plainly(here.plans[number])
    finally:
        here.left(run)


class World:
    """The application around the scheduler, as one seed makes it."""

    def __init__(self, seed: int, setup: Setup) -> None:
        self.seed = seed
        self.setup = setup
        self.rng = Random(seed)
        zone, start = STARTS[self.rng.randrange(1, 3) if setup.nights else self.rng.randrange(3)]
        self.zone = zone
        self.clock = Clock(start, Random(seed + 1))
        self.loop = VirtualLoop(self.clock, Random(seed + 2))
        self.history = History(seed, self.clock.trace, self.clock.blocks)
        self.plans: dict[int, Plan] = {}
        self.steps_back = setup.clock_steps and self.rng.random() < 0.5
        self.trigger_broken = False
        self.failing: set[str] = set()
        self._failing_since = 0
        self.raw_runs: list[int] = []
        self.operations: dict[str, int] = {}
        self._seq = count(1)
        self._numbers = count(1)
        self._last_step = 0
        self._store = MoodyStore(self._fails)
        self._busy_reloading = False

    # The record

    def now(self) -> Moment:
        """This moment, after everything recorded so far."""
        clock = self.clock
        return Moment(next(self._seq), clock.elapsed, clock.elapsed + clock.offset)

    def began(self, number: int) -> str:
        """A job's function was called."""
        run = current_run()
        assert run is not None
        assert run.job.args[1] == number
        self.history.starts.append(Start(self.now(), number, run.execution_id, run.target, run.attempt))
        return run.execution_id

    def left(self, execution_id: str) -> None:
        """A job's function is over."""
        self.history.ends[execution_id] = self.clock.elapsed

    async def on_run(self, record: Any) -> None:
        """Every verdict."""
        number = int(record.job_name.rpartition("-")[2])
        ranged = record.coalesced_from is not None
        self.history.verdicts.append(
            Verdict(
                number,
                record.execution_id,
                record.status,
                from_datetime(record.scheduled_for),
                record.attempt,
                record.started_at is not None,
                from_datetime(record.coalesced_from) if ranged else None,
                from_datetime(record.coalesced_to) if ranged else None,
                0 if record.lateness_ms is None else int(record.lateness_ms * 1000),
                record.duration_ms,
                record.triggered_by,
                self.clock.elapsed,
            )
        )

    async def on_error(self, context: Any) -> None:
        """The scheduler's handler: the good one."""
        self._handled(context)

    def _handled(self, context: Any) -> None:
        self.history.handled.append((context.execution_id, int(context.job_name.rpartition("-")[2])))

    async def _raising_handler(self, context: Any) -> None:
        self._handled(context)
        raise SystemExit("a handler that fails")

    async def _hanging_handler(self, context: Any) -> None:
        self._handled(context)
        await asyncio.sleep(3600)

    def _plain_handler(self, context: Any) -> None:
        self._handled(context)

    # What jobs do

    async def act(self, plan: Plan) -> None:
        """The body of a job on the loop."""
        match plan.act:
            case "quick":
                return
            case "slow":
                await asyncio.sleep(self.rng.random() * plan.span)
            case "raises":
                if self.rng.random() < 0.5:
                    raise Broken("a job that fails")
            case "exits":
                raise SystemExit("a job that leaves") if self.rng.random() < 0.5 else KeyboardInterrupt
            case "cancels itself":
                raise asyncio.CancelledError
            case "hangs":
                await asyncio.sleep(self.rng.choice([0.1, 86400.0]))
            case "stubborn":
                until = self.loop.time() + self.rng.random() * 4 * plan.span
                while self.loop.time() < until:
                    try:
                        await asyncio.sleep(until - self.loop.time())
                    except asyncio.CancelledError:
                        continue
            case "holds":
                if self.setup.blocks and self.rng.random() < 0.1:
                    self.clock.hold(self.rng.random() * 3)
            case "meddles":
                for _ in range(self.rng.randrange(3)):
                    await asyncio.sleep(0)
                if self.rng.random() < 0.15:
                    self.meddle(plan)
                await asyncio.sleep(0)

    def act_plainly(self, plan: Plan) -> None:
        """The body of a job in a thread."""
        match plan.act:
            case "slow" | "stubborn":
                self.clock.threads.sleep(self.rng.random() * plan.span)
            case "hangs":
                if self.rng.random() < 0.1:
                    self.clock.threads.sleep(60 + self.rng.random() * 60)
            case "raises" | "exits":
                raise Broken("a plain job that fails") if self.rng.random() < 0.5 else SystemExit
            case "meddles":
                if self.rng.random() < 0.1:
                    self.meddle(plan)

    def meddle(self, me: Plan) -> None:
        """What a job does to itself and to others, from inside of its run."""
        other = self._some()
        choice = self.rng.randrange(6)
        if choice == 0:
            self.cancel(me)
        elif choice == 1:
            self.replace(me)
        elif choice == 2 and other is not None:
            self.cancel(other)
        elif choice == 3 and other is not None:
            self.replace(other)
        elif choice == 4:
            self.register()
        elif other is not None:
            self.submit(other)

    def _where(self, kind: str) -> Callable[[], Any] | None:
        rng = self.rng

        async def slowly() -> bool:
            await asyncio.sleep(rng.random() / 10)
            return rng.random() < 0.5

        def raising() -> bool:
            if rng.random() < 0.5:
                raise Broken("a predicate that fails")
            return True

        return {"slowly": slowly, "raising": raising, "often": lambda: rng.random() < 0.7}.get(kind)

    # What is done to jobs

    def register(self, number: int | None = None, *, row: bool = False, replacing: Plan | None = None) -> Plan | None:
        """Register a job; a row of an earlier start by its number."""
        rng, setup, scheduler = self.rng, self.setup, self.scheduler
        known = self.plans.get(number or 0)
        plan = known or Plan(next(self._numbers), self._temper())
        plain = setup.threads and rng.random() < 0.06 and not row
        interval = rng.choice(setup.every)
        kind = rng.choices(
            ["every", "after", "once", "daily", "cron", "custom"],
            [0, 0, 10, 60, 30, 0] if setup.nights else [60, 8, 6, 6, 14, 10],
        )[0]
        if row:
            kind, interval, plan.act = (
                rng.choice(["every", "cron", "daily"]),
                max(interval, 1),
                rng.choice(["quick", "slow"]),
            )
        options: dict[str, Any] = {"name": f"job-{plan.number}", "group": rng.choice([None, "a", "b", "c"])}
        options["mode"] = rng.choices(["parallel", "single", "queued", "restart"], [70, 10, 10, 10])[0]
        value, trigger = self._schedule(kind, interval, plan.number)
        jitter = 0.0
        if rng.random() < 0.2:
            jitter = rng.random() * (interval / 2 if self.steps_back else interval * 2)
        options["jitter"] = jitter or None
        if plan.act in ("hangs", "stubborn") or rng.random() < 0.05:
            options["timeout"] = 0.2 + rng.random() * 5
        if rng.random() < 0.06 and not row:
            options["where"] = self._where(rng.choice(["slowly", "raising", "often"]))
        if rng.random() < 0.1 and not row:
            handlers = [self._raising_handler, self._hanging_handler, *([self._plain_handler] if setup.threads else [])]
            options["on_error"] = rng.choice(handlers)
        if row:
            options["jobstore"] = STORE
        plan.span = min(interval * 2, 30) if isinstance(interval, float) else float(min(interval * 2, 30))
        if replacing is not None:
            options["name"], options["if_exists"] = f"job-{plan.number}", "replace"
        born = self.now()
        handle = scheduler.schedule(plain_work if plain else work, trigger, args=(self.seed, plan.number), **options)
        plan.handle = handle
        self.plans[plan.number] = plan
        self.history.lives[plan.number] = Life(
            plan.number,
            kind,
            value,
            born,
            options["mode"],
            int(jitter * SECOND) + 1 if jitter else 0,
            self.zone,
            True,
            row,
            plain or "where" in options,
        )
        return plan

    def _schedule(self, kind: str, interval: float, number: int) -> tuple[Any, Any]:
        rng, wall = self.rng, self.clock.wall
        if kind == "every":
            return int(interval * SECOND), Every(seconds=interval)
        if kind == "after":
            return int(interval * SECOND), After(seconds=interval)
        if kind == "once":
            moment = wall + int(rng.random() * self.setup.seconds * SECOND)
            return moment, Once(Instant.from_timestamp(moment, unit="microsecond").to_tz(self.zone))
        if kind == "daily":
            local = datetime.fromtimestamp(wall // SECOND, UTC).astimezone(self.scheduler.timezone)
            hour, minute = (local.hour + rng.randrange(4)) % 24, rng.randrange(60)
            fixed = Daily(f"{hour:02d}:{minute:02d}") if rng.random() < 0.5 else Cron(f"{minute} {hour} * * *")
            return hour * 3600 + minute * 60, fixed
        if kind == "cron":
            minutely = ["* * * * *", "*/2 * * * *", "*/7 * * * *", "*/5 * * * * 30"]
            text = rng.choice(minutely if self.setup.nights else [*minutely, "* * * * * */10", "* * * * * */3"])
            return text, Cron(text)
        micros = int(interval * SECOND)
        return micros, MoodyTrigger(micros, lambda: self.trigger_broken, lambda: self._trigger_raised(number))

    def _temper(self) -> str:
        return self.rng.choices(
            ["quick", "slow", "raises", "exits", "cancels itself", "hangs", "stubborn", "holds", "meddles"],
            [50, 14, 8, 2, 2, 6, 4, 3, 11],
        )[0]

    def _alive(self) -> list[Plan]:
        lives = self.history.lives
        return [plan for plan in self.plans.values() if lives[plan.number].leaving is None]

    def _some(self) -> Plan | None:
        alive = self._alive()
        return self.rng.choice(alive) if alive else None

    def _gone(self, number: int, before: Moment) -> None:
        life = self.history.lives[number]
        if life.leaving is None:
            life.leaving, life.gone = before, self.now()

    def cancel(self, plan: Plan) -> None:
        """``job.cancel()``."""
        before = self.now()
        assert plan.handle is not None
        plan.handle.cancel()
        self._gone(plan.number, before)

    def replace(self, plan: Plan) -> None:
        """A job of the same name takes its place; it has a number of its own here."""
        old = plan.handle
        life = self.history.lives[plan.number]
        if old is None or life.row or life.leaving is not None:
            return
        before = self.now()
        fresh = Plan(next(self._numbers), plan.act)
        born = self.now()
        interval = self.rng.choice(self.setup.every)
        handle = self.scheduler.run_every(
            work, seconds=interval, name=f"{old.name.rpartition('-')[0]}-{fresh.number}", args=(self.seed, fresh.number)
        )
        old.cancel()
        fresh.handle = handle
        self._gone(plan.number, before)
        self.plans[fresh.number] = fresh
        self.history.lives[fresh.number] = Life(
            fresh.number, "every", int(interval * SECOND), born, handle.mode, zone=self.zone, handler=True
        )

    def submit(self, plan: Plan) -> None:
        """``job.submit()``."""
        assert plan.handle is not None
        try:
            self.history.submitted.append((plan.handle.submit(), plan.number))
        except RuntimeError:
            return

    def pause(self, plan: Plan) -> None:
        """``job.pause()``."""
        life = self.history.lives[plan.number]
        assert plan.handle is not None
        if plan.handle.next_run is None or (life.pauses and len(life.pauses[-1]) == 1):
            return
        plan.handle.pause()
        life.pauses.append([self.now()])

    def resume(self, plan: Plan) -> None:
        """``job.resume()``."""
        life = self.history.lives[plan.number]
        assert plan.handle is not None
        if life.pauses and len(life.pauses[-1]) == 1:
            try:
                plan.handle.resume()
            except Broken:  # its trigger cannot say when it goes on: it stays paused
                return
            if self.trigger_broken and plan.handle.next_run is None:
                return
            life.pauses[-1].append(self.now())

    def _trigger_raised(self, number: int) -> None:
        """11.22: the job is paused now, unless it was already."""
        pauses = self.history.lives[number].pauses
        if not pauses or len(pauses[-1]) == 2:
            pauses.append([self.now()])

    def _fails(self, verb: str) -> bool:
        return verb in self.failing and self.rng.random() < 0.5

    def _store_is_well(self) -> None:
        """Its verbs fail no more."""
        if self.failing:
            self.history.rough.append((self._failing_since, self.clock.elapsed))
            self.failing = set()

    # The operator

    async def operate(self) -> None:
        """One thing after the other, at odd moments."""
        rng, setup = self.rng, self.setup
        for _ in range(setup.operations):
            pause = rng.random() * 2 * setup.seconds / setup.operations
            await asyncio.sleep(int(pause * 1000) / 1000 + 0.000137)
            for _ in range(rng.randrange(4)):
                await asyncio.sleep(0)
            await self._operate_once()
        self._store_is_well()
        self.trigger_broken = False

    async def _operate_once(self) -> None:
        rng, setup = self.rng, self.setup
        names = ["register", "cancel", "replace", "group", "pause", "resume", "submit", "look"]
        weights = [14, 8, 8, 2, 8, 14, 8, 4]
        for name, weight, wanted in (
            ("hold", 6, setup.blocks),
            ("step", 5, setup.clock_steps),
            ("reload", 2, True),
            ("trigger", 3, True),
            ("store", 6, setup.store),
            ("burst", 4, True),
        ):
            if wanted:
                names.append(name)
                weights.append(weight)
        name = rng.choices(names, weights)[0]
        self.operations[name] = self.operations.get(name, 0) + 1
        plan = self._some()
        match name:
            case "register":
                self.register(row=setup.store and rng.random() < 0.25 and not self.failing)
            case "burst":
                for _ in range(rng.randrange(12)):
                    self.register()
            case "cancel" if plan:
                if not self.failing or not self.history.lives[plan.number].row:
                    self.cancel(plan)
            case "replace" if plan:
                self.replace(plan)
            case "group":
                group = rng.choice(["a", "b", "c"])
                members = [int(job.name.rpartition("-")[2]) for job in self.scheduler.list_jobs(group)]
                if not self.failing:
                    before = self.now()
                    self.scheduler.cancel_group(group)
                    for number in members:
                        self._gone(number, before)
            case "pause" if plan and not self.history.lives[plan.number].row:
                self.pause(plan)
            case "resume":
                for paused in self._alive():
                    if rng.random() < 0.5:
                        self.resume(paused)
            case "submit" if plan:
                self.submit(plan)
            case "look":
                for job in self.scheduler.list_jobs():
                    repr(job)
                self.scheduler.health()
            case "hold":
                self.clock.hold(rng.choice([0.3, 2, 12]) * rng.random() + 0.000011)
            case "step":
                if self.clock.elapsed - self._last_step > 12 * SECOND:
                    self._last_step = self.clock.elapsed
                    size = rng.choice([0.4, 3, 90, 3600]) * (0.2 + rng.random())
                    back = self.steps_back and rng.random() < 0.6 and not self.failing
                    self.clock.step((-size if back else size) + 0.000003)
            case "reload":
                await self.reload()
            case "trigger":
                self.trigger_broken = not self.trigger_broken
            case "store" if self.failing:
                self._store_is_well()
            case "store":
                self.failing = {rng.choice(["update_job", "get_next_run_time", "get_due_jobs"])}
                self._failing_since = self.clock.elapsed
            case _:
                return

    async def reload(self) -> None:
        """Shutdown and start: jobs in memory go, rows stay."""
        before = self.now()
        self._store_is_well()
        leaving = [p.number for p in self._alive() if not self.history.lives[p.number].row]
        for number in leaving:
            self.history.lives[number].leaving = before
        # registered while it shuts down: refused
        await self.scheduler.shutdown(grace=self.rng.choice([0, 0.5, 30]))
        after = self.now()
        for number in leaving:
            self.history.lives[number].gone = after
        await asyncio.sleep(self.rng.random() * 3)
        await self.scheduler.start()
        self.history.rough.append((before.elapsed, self.clock.elapsed))
        for plan in self._alive():
            plan.handle = self.scheduler.get_job(f"job-{plan.number}") or plan.handle  # a row has another handle now
        for _ in range(self.setup.jobs // 2):
            self.register()

    # The whole

    async def run(self) -> None:
        """The episode."""
        setup = self.setup
        self.aps = AsyncIOScheduler(timezone=self.zone)
        if setup.store:
            self.aps.add_jobstore(self._store, STORE)
        self.aps.add_job(self._raw, "interval", seconds=RAW_PERIOD, misfire_grace_time=None, id="raw")
        self.scheduler = Scheduler(self.aps, timezone=self.zone, database=setup.database, max_workers=3)
        self.scheduler.on_run(self.on_run)
        self.scheduler.on_error(self.on_error)
        self.aps.start()
        for index in range(setup.jobs):
            self.register(row=setup.store and index % 10 == 9)
        await self.operate()
        await self._end()

    async def _raw(self) -> None:
        self.raw_runs.append(self.clock.elapsed)

    async def _end(self) -> None:
        history = self.history
        self.trigger_broken = False
        for plan in self._alive():
            self.resume(plan)
        await asyncio.sleep(20)
        history.end = self.now()
        history.store_failed = self._store.failures > 0
        if not self.steps_back and self.clock.elapsed - self.raw_runs[-1] > (RAW_PERIOD + 5.2) * SECOND:
            history.leftovers.append("the raw APScheduler job has fallen silent")
        before = self.now()
        alive = self._alive()
        for plan in alive:
            history.lives[plan.number].leaving = before
        await self.scheduler.shutdown(grace=30)
        for plan in alive:
            history.lives[plan.number].gone = self.now()
        if self.scheduler.list_jobs():
            history.leftovers.append(f"jobs are still listed: {self.scheduler.list_jobs()}")
        self.aps.shutdown()
        await asyncio.sleep(130)  # nothing starts any more; threads left behind return
        me = asyncio.current_task()
        history.leftovers += [f"a task: {task}" for task in asyncio.all_tasks() if task is not me]
        history.leftovers += [
            f"a timer: {handle}"
            for handle in self.loop._scheduled
            if not handle.cancelled()  # type: ignore[attr-defined]
        ]
        expected = "Broken("  # a store's, out of APScheduler's own wakeup
        history.leftovers += [f"a problem in the loop: {text}" for text in self.loop.problems if expected not in text]


def simulate(seed: int, setup: Setup | None = None) -> tuple[History, World]:
    """One episode, from its seed."""
    world = World(seed, setup or Setup())
    WORLDS[seed] = world
    quiet = [logging.getLogger(name) for name in ("hassette_aps", "apscheduler", "hassette_aps.rows")]
    levels = [logger.level for logger in quiet]
    for logger in quiet:
        logger.setLevel(logging.CRITICAL + 1)
    collecting, dice = gc.isenabled(), random.getstate()
    gc.disable()
    random.seed(seed)  # the package draws its jitter there
    try:
        with world.clock, asyncio.Runner(loop_factory=lambda: world.loop) as runner:
            runner.run(world.run())
    finally:
        random.setstate(dice)
        if collecting:
            gc.enable()
        for logger, level in zip(quiet, levels, strict=True):
            logger.setLevel(level)
        del WORLDS[seed]
    return world.history, world
