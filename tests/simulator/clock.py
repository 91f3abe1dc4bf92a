"""Virtual time: a loop that jumps to its next timer, a wall clock that can be set, threads that take turns."""

import asyncio
import selectors
import threading
from bisect import bisect_right
from collections.abc import Callable
from datetime import UTC, datetime
from math import ceil
from random import Random
from typing import Any

import time_machine

from hassette_aps import instants, workers

SECOND = 1_000_000
PATIENCE = 20.0
"""Real seconds after which a simulation that does not move is given up."""


class Stuck(BaseException):
    """Nothing can happen any more: no timer, no thread, no callback."""


class Clock:
    """Elapsed and wall time in microseconds, and a trace of how they went together.

    ``trace`` has one ``(elapsed, offset)`` per clock step: wall = elapsed + offset from then on. ``blocks`` has one
    ``(from, to)`` in elapsed time per span in which the loop was held.
    """

    def __init__(self, start: datetime, rng: Random) -> None:
        self.elapsed = 1000 * SECOND
        self.offset = int(start.timestamp()) * SECOND - self.elapsed
        self.trace: list[tuple[int, int]] = [(self.elapsed, self.offset)]
        self.blocks: list[tuple[int, int]] = []
        self.threads = Threads(self, rng)
        self._traveller: Any = None

    @property
    def wall(self) -> int:
        """The wall clock."""
        return self.elapsed + self.offset

    def advance_to(self, elapsed: int) -> None:
        """Let time pass."""
        if elapsed > self.elapsed:
            self.elapsed = elapsed
            self._tell()

    def hold(self, seconds: float) -> None:
        """Hold the loop: time passes and nothing else happens."""
        before = self.elapsed
        self.advance_to(before + int(seconds * SECOND))
        if self.blocks and self.blocks[-1][1] == before:
            before = self.blocks.pop()[0]
        self.blocks.append((before, self.elapsed))

    def step(self, seconds: float) -> None:
        """Set the wall clock forwards or back."""
        self.offset += int(seconds * SECOND)
        self.trace.append((self.elapsed, self.offset))
        self._tell()

    def _tell(self) -> None:
        if self._traveller is not None:
            self._traveller.move_to(datetime.fromtimestamp(0, UTC) + _micros(self.wall))

    def __enter__(self) -> "Clock":
        self._travel = time_machine.travel(datetime.fromtimestamp(0, UTC) + _micros(self.wall), tick=False)
        self._traveller = self._travel.start()
        instants.use_monotonic(lambda: self.elapsed / SECOND)
        self.threads.install()
        return self

    def __exit__(self, *exc: object) -> None:
        self.threads.remove()
        instants.use_monotonic(None)
        self._travel.stop()
        self._traveller = None


def _micros(value: int) -> Any:
    from datetime import timedelta

    return timedelta(microseconds=value)


class Trace:
    """What the wall clock showed at each elapsed moment, for the checker."""

    def __init__(self, steps: list[tuple[int, int]]) -> None:
        self.steps = steps
        self._starts = [elapsed for elapsed, _ in steps]

    def wall(self, elapsed: int) -> int:
        """The wall clock at ``elapsed``."""
        return elapsed + self.steps[max(bisect_right(self._starts, elapsed) - 1, 0)][1]

    def reaches(self, wall: int, since: int) -> int | None:
        """The first elapsed moment, not before ``since``, at which the wall clock shows ``wall`` or more."""
        index = max(bisect_right(self._starts, since) - 1, 0)
        for at in range(index, len(self.steps)):
            start, offset = self.steps[at]
            end = self.steps[at + 1][0] if at + 1 < len(self.steps) else None
            moment = max(wall - offset, start, since)
            if end is None or moment < end:
                return moment
        return None


class Threads:
    """Worker threads in virtual time: each piece of work waits at a gate, and the loop lets one through at a time."""

    def __init__(self, clock: Clock, rng: Random) -> None:
        self._clock = clock
        self._rng = rng
        self._condition = threading.Condition()
        self._pools: dict[workers.Workers, int] = {}  # pool -> its threads that are somewhere in a piece of work
        self._coming: dict[workers.Workers, int] = {}  # pool -> work that has not come to its gate
        self._tickets = 0
        self._at_gate: dict[int, threading.Event] = {}
        self._open = 0  # works that were let through and neither ended nor sleep
        self._asleep: list[tuple[int, int, threading.Event]] = []  # until, ticket, alarm
        self._local = threading.local()

    def install(self) -> None:
        """Take over every ``Workers``."""
        real = self._real = workers.Workers.submit

        def submit(pool: workers.Workers, work: Callable[[], None]) -> None:
            with self._condition:
                self._pools.setdefault(pool, 0)
                self._coming[pool] = self._coming.get(pool, 0) + 1
                self._tickets += 1
                ticket = self._tickets
            real(pool, lambda: self._pass(pool, ticket, work))

        workers.Workers.submit = submit  # type: ignore[method-assign]

    def remove(self) -> None:
        """Give ``Workers`` back, and let every thread run to its end."""
        workers.Workers.submit = self._real  # type: ignore[method-assign]
        with self._condition:
            for event in self._at_gate.values():
                event.set()
            for _, _, alarm in self._asleep:
                alarm.set()

    def _pass(self, pool: workers.Workers, ticket: int, work: Callable[[], None]) -> None:
        event = threading.Event()
        with self._condition:
            self._pools[pool] += 1
            self._coming[pool] -= 1
            self._at_gate[ticket] = event
            self._condition.notify_all()
        event.wait()
        self._local.ticket = ticket
        try:
            work()
        finally:
            with self._condition:
                self._open -= 1
                self._pools[pool] -= 1
                self._condition.notify_all()

    def sleep(self, seconds: float) -> None:
        """What ``time.sleep`` is in virtual time, for the body of a plain function."""
        alarm = threading.Event()
        with self._condition:
            self._asleep.append((self._clock.elapsed + int(seconds * SECOND), self._local.ticket, alarm))
            self._asleep.sort(key=lambda one: one[:2])
            self._open -= 1
            self._condition.notify_all()
        alarm.wait()

    def _steady(self) -> bool:
        """Whether every piece of work that has a thread has come to its gate."""
        if self._open:
            return False
        for pool, in_work in self._pools.items():
            if self._coming[pool] and (pool._starting or len(pool._threads) + len(pool._leaked) > in_work):
                return False
        return True

    def next_alarm(self) -> int | None:
        """When the first sleeping thread wakes."""
        return self._asleep[0][0] if self._asleep else None

    def run_one(self) -> bool:
        """Let one thread work until it ends or sleeps; False if none has anything to do. On the loop's thread."""
        if not self._pools:
            return False
        with self._condition:
            self._wait_until_steady()
            if self._asleep and self._asleep[0][0] <= self._clock.elapsed:
                _, _, event = self._asleep.pop(0)
            elif self._at_gate:
                event = self._at_gate.pop(min(self._at_gate))
            else:
                return False
            self._open += 1
            event.set()
            self._wait_until_steady()
        return True

    def _wait_until_steady(self) -> None:
        spent = 0.0
        while not self._steady():
            self._condition.wait(0.0002)  # a pool does not say when its thread has taken something
            spent += 0.0002
            if spent > PATIENCE:
                raise Stuck("a thread does not come to its gate")


class VirtualLoop(asyncio.SelectorEventLoop):
    """The real loop, in virtual time."""

    def __init__(self, clock: Clock, rng: Random) -> None:
        self.clock = clock
        self._rng = rng
        self._real_work = 0
        super().__init__(_Selector(self))
        self._clock_resolution = 1e-7
        self.problems: list[str] = []
        self.set_exception_handler(lambda loop, context: self.problems.append(str(context)))

    def time(self) -> float:
        return self.clock.elapsed / SECOND

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        """Work outside of virtual time: it stands still meanwhile."""
        future = super().run_in_executor(executor, func, *args)
        self._real_work += 1
        future.add_done_callback(self._worked)
        return future

    def _worked(self, _: Any) -> None:
        self._real_work -= 1

    async def shutdown_default_executor(self, *args: Any, **kwargs: Any) -> None:
        """As the runner asks at the end: it waits for real threads."""
        self._real_work += 1
        try:
            await super().shutdown_default_executor(*args, **kwargs)
        finally:
            self._real_work -= 1

    def idle(self, poll: Callable[[float | None], list[Any]], timeout: float | None) -> list[Any]:
        """Nothing is ready: let real work or a thread finish, else jump to the next timer."""
        clock = self.clock
        waited = 0.0
        while self._real_work:
            events = poll(0.05)
            if events:
                return events
            waited += 0.05
            if waited > PATIENCE:
                raise Stuck("work outside of virtual time does not end")
        if clock.threads.run_one():
            return poll(0)
        times = [] if timeout is None else [max(ceil(self._scheduled[0].when() * SECOND), clock.elapsed)]
        alarm = clock.threads.next_alarm()
        if alarm is not None:
            times.append(alarm)
        if not times:
            raise Stuck("no timer, no thread and no callback is left")
        clock.advance_to(min(times))
        return poll(0)


class _Selector(selectors.DefaultSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        loop = self._loop
        events = super().select(0)
        if events:
            return events
        if timeout is not None and timeout <= 0:
            if loop.clock.threads._pools and loop._rng.random() < 0.2:
                loop.clock.threads.run_one()
            return events
        return loop.idle(super().select, timeout)
