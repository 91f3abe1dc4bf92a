"""What is done to each system, what is recorded, and what the checker makes of it."""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from itertools import count
from typing import Any

from tests.peers.systems import SYSTEMS, soon
from tests.simulator.checker import Findings, check
from tests.simulator.history import History, Life, Moment, Start, Verdict

SECOND = 1_000_000


class Recorder:
    """A history with real clocks. A start belongs to the nearest target of its job."""

    def __init__(self) -> None:
        self._seq = count(1)
        self._zero = time.monotonic()
        first = self.now()
        self.history = History(0, [(first.elapsed, first.wall - first.elapsed)], [])

    def now(self) -> Moment:
        """This moment."""
        wall = time.time()
        return Moment(next(self._seq), int(time.monotonic() * SECOND), int(wall * SECOND))

    def job(self, number: int, kind: Any, value: int) -> None:
        """A registration."""
        self.history.lives[number] = Life(number, kind, value, self.now())

    def body(self, number: int, then: Callable[[], None] | None = None) -> Callable[[], Awaitable[None]]:
        """A function that records its start, and a verdict at once: it ran."""

        async def run() -> None:
            when, life = self.now(), self.history.lives[number]
            assert isinstance(life.value, int)
            target = life.value
            if life.kind == "every":
                nth = max(round((when.wall - life.born.wall) / life.value), 1)
                target = life.born.wall + nth * life.value
            name = f"run-{when.seq}"
            self.history.starts.append(Start(when, number, name, target, 1))
            self.history.verdicts.append(
                Verdict(number, name, "success", target, 1, True, None, None, 0, 0.0, "schedule", when.elapsed)
            )
            if then is not None:
                then()

        return run

    def judged(self) -> Findings:
        """The checker's word."""
        self.history.end = self.now()
        return check(self.history)

    def count(self, kind: str) -> int:
        """How often a promise was broken."""
        return sum(found == kind for found, _ in self.judged().problems)


async def cancelled_at_once(system: Any) -> str:
    """300 jobs due at one instant; the first one cancels all others."""
    recorder = Recorder()
    jobs: dict[int, Any] = {}

    def cancel_all() -> None:
        if recorder.history.lives[299].gone is None:
            for number in list(jobs):
                if not any(start.job == number for start in recorder.history.starts):
                    before = recorder.now()
                    system.cancel(jobs[number])
                    recorder.history.lives[number].leaving, recorder.history.lives[number].gone = before, recorder.now()

    at = soon(2.0).replace(microsecond=0) + timedelta(seconds=1)
    for number in range(300):
        recorder.job(number, "once", int(at.timestamp() * SECOND))
        jobs[number] = await system.once(f"job-{number}", at, recorder.body(number, cancel_all))
    await asyncio.sleep(at.timestamp() - time.time() + 1.5)
    gone = sum(life.gone is not None for life in recorder.history.lives.values())
    return f"{recorder.count('start after cancel')} of {gone} cancelled jobs start"


async def held_loop(system: Any) -> str:
    """50 one-shots fall due while the loop is held for 2 s."""
    recorder = Recorder()
    first = soon(2.0).replace(microsecond=0) + timedelta(seconds=1)
    for number in range(50):
        at = first + timedelta(milliseconds=10 * number)
        recorder.job(number, "once", int(at.timestamp() * SECOND))
        await system.once(f"job-{number}", at, recorder.body(number))
    await asyncio.sleep(first.timestamp() - time.time() - 0.6)
    held = recorder.now().elapsed
    time.sleep(2.7)  # the hold
    recorder.history.blocks.append((held, recorder.now().elapsed))
    await asyncio.sleep(1.5)
    return f"{recorder.count('silent loss')} of 50 one-shots lost"


async def early(system: Any) -> str:
    """Ten jobs every second, registered at odd moments."""
    recorder = Recorder()
    for number in range(10):
        await asyncio.sleep(0.0937)
        recorder.job(number, "every", SECOND)
        await system.every(f"job-{number}", 1, recorder.body(number))
    await asyncio.sleep(5)
    found = recorder.judged()
    by = [
        (start.target - start.when.wall) / SECOND for start in recorder.history.starts if start.when.wall < start.target
    ]
    worst = f", up to {max(by):.2f} s" if by else ""
    return f"{len(by)} of {found.runs} runs early{worst}"


async def jittered(system: Any) -> str:
    """A job every second with a second of jitter, for 20 s."""
    runs: list[float] = []

    async def body() -> None:
        runs.append(time.monotonic())

    await system.every("job", 1, body, jitter=1)
    await asyncio.sleep(21)
    return f"{len(runs)} runs for 20 targets"


class FailingTrigger:
    """A user's trigger that raises at its second question of a kind."""

    def __init__(self) -> None:
        self.asked = 0

    def _next(self, now: Any) -> Any:
        self.asked += 1
        if self.asked > 1:
            raise ValueError("a trigger that fails")
        return now + timedelta(seconds=1)


async def failing_trigger(system: Any) -> str:
    """A trigger raises when asked for its next time; a job every second is on the same scheduler."""
    runs: list[float] = []

    async def body() -> None:
        runs.append(time.monotonic())

    async def nothing() -> None:
        pass

    from apscheduler.triggers.base import BaseTrigger
    from whenever import TimeDelta

    class ForAPScheduler(FailingTrigger, BaseTrigger):
        def get_next_fire_time(self, previous: datetime | None, now: datetime) -> Any:
            return self._next(now)

    class ForHassette(FailingTrigger):
        def first_run_time(self, now: Any) -> Any:
            self.asked += 1
            return now + TimeDelta(seconds=1)

        def next_run_time(self, previous: Any, now: Any) -> Any:
            raise ValueError("a trigger that fails")

        def trigger_label(self) -> str:
            return "failing"

        def trigger_detail(self) -> str:
            return "failing"

        def trigger_db_type(self) -> str:
            return "custom"

        def trigger_id(self) -> str:
            return "failing"

    await system.every("good", 1, body)
    await system.custom("bad", ForAPScheduler() if type(system).__name__ == "Raw" else ForHassette(), nothing)
    await asyncio.sleep(10.5)
    return f"{len(runs)} runs of the other job in 10 s"


def failing_store() -> Any:
    """A store in memory whose ``update_job`` raises once."""
    from apscheduler.jobstores.memory import MemoryJobStore

    class Store(MemoryJobStore):
        failed = False

        def update_job(self, job: Any) -> None:
            if not self.failed:
                self.failed = True
                raise OSError("the database is locked")
            super().update_job(job)

    return Store()


RUNS: list[float] = []


async def counted() -> None:
    """A job that a store can find again."""
    RUNS.append(time.monotonic())


async def store_hiccup(system: Any) -> str:
    """One update of a job store fails; a job every second is in another store."""
    if type(system).__name__ == "Hassette":
        return "has no job stores"
    await system.every("kept", 1, counted, jobstore="failing")
    runs: list[float] = []

    async def body() -> None:
        runs.append(time.monotonic())

    if type(system).__name__ == "Ours":
        system.aps.add_job(body, "interval", seconds=1, misfire_grace_time=None)
    else:
        await system.every("other", 1, body)
    await asyncio.sleep(15.5)
    late = [moment for moment in runs if moment > time.monotonic() - 8]
    return f"{len(late)} runs of a raw job in the last 8 s of 15"


async def crowd(system: Any) -> str:
    """10,000 jobs due at one instant."""
    started: list[float] = []

    async def body() -> None:
        started.append(time.time())

    at = soon(45 if type(system).__name__ == "Hassette" else 20).replace(microsecond=0)
    for number in range(10_000):
        await system.once(f"job-{number}", at, body)
    spare = at.timestamp() - time.time()
    if spare < 0:
        return "not registered in time"
    await asyncio.sleep(spare + 8)
    late = max(started, default=0) - at.timestamp()
    return f"{len(started)} run, the last {late:.2f} s late"


async def clock_back(system: Any) -> str:
    """The wall clock goes back an hour (libfaketime): runs of a job every 0.5 s in the 8 s after."""
    runs: list[float] = []

    async def body() -> None:
        runs.append(time.monotonic())

    await system.every("job", 1, body)
    await asyncio.sleep(2.2)
    with open(sys.argv[3], "w", encoding="ascii") as clock:
        clock.write("-3600")
    stepped = time.monotonic()
    await asyncio.sleep(8)
    return f"{sum(moment > stepped for moment in runs)} runs for 8 targets"


SCENARIOS: dict[str, Any] = {
    "cancelled": cancelled_at_once,
    "held": held_loop,
    "early": early,
    "jitter": jittered,
    "trigger": failing_trigger,
    "store": store_hiccup,
    "crowd": crowd,
    "clock": clock_back,
}


async def main() -> None:
    """One scenario on one system: its figure, as JSON on the last line."""
    scenario, name = sys.argv[1:3]

    def prepare(aps: Any) -> None:
        if scenario == "store":
            aps.add_jobstore(failing_store(), "failing")

    async with SYSTEMS[name].open(prepare) as system:
        figure = await SCENARIOS[scenario](system)
        print(json.dumps({"figure": figure}), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
