"""``FrozenClock``: the wall clock stands still until a test moves it, and due jobs run at their very instants."""

import asyncio
from collections.abc import Iterable
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self

import time_machine
from whenever import Instant, ZonedDateTime

from hassette_aps.engine import Engine, engines_on
from hassette_aps.instants import SECOND, Micros, from_datetime, from_zoned, now_us, to_datetime, use_monotonic
from hassette_aps.run import Run

_TURNS = 50
"""Loop turns that runs get before real time is spent on them."""


class FrozenClock:
    """Time in the hands of a test; a context manager that gives it back at the end.

    Moves the wall clock of the whole process (by ``time_machine``) and the clock of timeouts with it. Everything on
    the running loop follows: facade jobs, jobs in persistent stores and raw APScheduler jobs. Real timers do not:
    ``asyncio.sleep(60)`` inside a job takes a minute.

    Args:
        at: The instant to freeze at: a ``ZonedDateTime``, an ``Instant``, an aware ``datetime``, or an ISO string
            with an offset or zone. None = now.
        patience: Real seconds to wait, at each instant, for runs in progress that need them (threads, I/O). A run
            that takes longer goes on beside the test.
    """

    def __init__(self, at: ZonedDateTime | Instant | datetime | str | None = None, *, patience: float = 1.0) -> None:
        self._at = at
        self._patience = patience
        self._travel: Any = None
        self._traveller: Any = None
        self._now: Micros = 0
        self._elapsed: Micros = SECOND
        self._slow: set[Run] = set()

    @property
    def now(self) -> datetime:
        """The frozen instant, in UTC."""
        return to_datetime(self._now)

    def freeze(self, at: ZonedDateTime | Instant | datetime | str | None = None) -> None:
        """Stop the clock at ``at`` (None: where it is); again: it is another day, and nobody notices a step.

        Jobs that fall due by that run at the next ``trigger_due_jobs`` or ``advance``.

        Raises:
            TypeError: no instant; ValueError: a string that says none.
        """
        instant = now_us() if at is None else _instant(at)
        if self._travel is None:
            self._travel = time_machine.travel(to_datetime(instant), tick=False)
            self._traveller = self._travel.start()
            use_monotonic(lambda: self._elapsed / SECOND)
            self._now = instant
        self._move(instant)
        for engine in self._engines():
            engine.jobs.store.clock_changed()

    def step(self, seconds: float) -> None:
        """Set the wall clock forwards or back, as an administrator or NTP would: no time passes.

        Raises:
            RuntimeError: the clock is not frozen.
        """
        self._frozen()
        self._now += int(seconds * SECOND)
        self._traveller.move_to(to_datetime(self._now))

    def unfreeze(self) -> None:
        """Give time back."""
        if self._travel is not None:
            self._travel.stop()
            self._travel = self._traveller = None
            use_monotonic(None)
            for engine in self._engines():
                engine.jobs.store.clock_changed()

    async def advance(
        self, *, seconds: float = 0, minutes: float = 0, hours: float = 0, days: float = 0, weeks: float = 0
    ) -> int:
        """Let time pass, stopping at every instant at which something is due. How many runs ended.

        Raises:
            RuntimeError: the clock is not frozen.
            ValueError: a negative span; time runs forwards (``step`` can set the clock back).
        """
        span = timedelta(seconds=seconds, minutes=minutes, hours=hours, days=days, weeks=weeks)
        if span < timedelta(0):
            raise ValueError(f"advance() takes a span >= 0, got {span}; step() can set the clock back")
        end = self._now + span // timedelta(microseconds=1)
        ended = await self.trigger_due_jobs()
        while (stop := self._next_stop()) is not None and stop <= end:
            self._move(max(stop, self._now))
            ended += await self.trigger_due_jobs()
        self._move(end)
        return ended + await self.trigger_due_jobs()

    async def trigger_due_jobs(self) -> int:
        """Run what is due at the frozen instant and wait for it, handlers and hooks included. How many runs ended.

        Raises:
            RuntimeError: the clock is not frozen.
        """
        self._frozen()
        loop = asyncio.get_running_loop()
        engines = self._engines()
        before = sum(engine.executor.verdicts for engine in engines)
        for engine in engines:
            await self._start_due(engine, loop)
        await self._settle(engines, loop)
        return sum(engine.executor.verdicts for engine in engines) - before

    async def _start_due(self, engine: Engine, loop: asyncio.AbstractEventLoop) -> None:
        store = engine.jobs.store
        engine.executor.deadlines.look(loop)
        for _ in range(10_000):  # a job that reschedules itself for now must not hang the test
            store.process()
            if (earliest := store.agenda.earliest) is None or earliest > self._now:
                break
            await asyncio.sleep(0)
        if any(due <= self._now for due in _rows_due(engine)):
            engine.clockwork.wakeup()
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    async def _settle(self, engines: list[Engine], loop: asyncio.AbstractEventLoop) -> None:
        """Loop turns until nothing is in progress but what has proved to be slow."""
        turns, deadline = 0, loop.time() + self._patience
        while True:
            runs = [run for engine in engines for run in engine.executor.running]
            waiting = [run for run in runs if run not in self._slow or run.cancelling]
            busy = any(engine.busy or engine.clockwork.raw_running for engine in engines)
            if not waiting and not busy:
                self._slow = {run for run in self._slow if run.status is None}
                return
            if loop.time() > deadline:
                self._slow.update(waiting)
                return
            turns += 1
            await asyncio.sleep(0 if turns < _TURNS else 0.001)

    def _next_stop(self) -> Micros | None:
        stops: list[Micros] = []
        for engine in self._engines():
            if (earliest := engine.jobs.store.agenda.earliest) is not None:
                stops.append(earliest)
            stops.extend(_rows_due(engine))
            if (left := engine.executor.deadlines.left()) is not None:
                stops.append(self._now + max(int(left * SECOND) + 1, 1))
        return min((stop for stop in stops if stop > self._now), default=None)

    def _frozen(self) -> None:
        if self._travel is None:
            raise RuntimeError("the clock is not frozen; call freeze() first, or use it as a context manager")

    def _move(self, instant: Micros) -> None:
        self._elapsed += max(instant - self._now, 0)
        self._now = instant
        self._traveller.move_to(to_datetime(instant))

    def _engines(self) -> list[Engine]:
        try:
            return engines_on(asyncio.get_running_loop())
        except RuntimeError:
            return []

    def __enter__(self) -> Self:
        self.freeze(self._at)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.unfreeze()


def _rows_due(engine: Engine) -> Iterable[Micros]:
    """When APScheduler itself has something to do: rows and raw jobs."""
    if not engine.clockwork.running:
        return
    for _, store in engine.clockwork.stores():
        due = store.get_next_run_time()
        if due is not None:
            yield from_datetime(due)


def _instant(at: object) -> Micros:
    if isinstance(at, str):
        try:
            return from_zoned(ZonedDateTime.parse_iso(at))
        except ValueError:
            at = datetime.fromisoformat(at)
    if isinstance(at, ZonedDateTime):
        return from_zoned(at)
    if isinstance(at, Instant):
        return -(-at.timestamp(unit="nanosecond") // 1000)
    if isinstance(at, datetime):
        if at.tzinfo is None:
            raise ValueError(f"{at!r} has no zone; give an aware datetime or a ZonedDateTime")
        return from_datetime(at)
    raise TypeError(f"not an instant: {at!r}; give a ZonedDateTime, an Instant, an aware datetime or an ISO string")
