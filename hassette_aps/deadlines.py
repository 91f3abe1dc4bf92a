"""Which run has used up its time. One timer for all runs, none per run."""

import asyncio
from collections.abc import Callable
from contextvars import Context

from hassette_aps.instants import monotonic
from hassette_aps.run import Run


class Deadlines:
    """Runs by limit, in order of start, which within one limit is the order of deadlines.

    A limit counts from the function's start (``run.clock``); for a run that still waits for a thread the
    earliest possible deadline is taken and looked at again then. Used on the loop only.
    """

    def __init__(self, expire: Callable[[Run], None]) -> None:
        self._expire = expire
        self._classes: dict[tuple[float, bool], dict[Run, None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._context = Context()

    def add(self, run: Run, limit: float, loop: asyncio.AbstractEventLoop) -> None:
        """Watch a run that may take ``limit`` seconds."""
        key = (limit, run.on_loop)
        runs = self._classes.get(key)
        if runs is None:
            runs = self._classes[key] = {}
            self._arm(loop, limit)
        runs[run] = None
        run.watched = runs

    def discard(self, run: Run) -> None:
        """The run has its verdict."""
        if run.watched is not None:
            run.watched.pop(run, None)
            run.watched = None

    def left(self) -> float | None:
        """Seconds until the earliest deadline that is known; None if nothing is watched."""
        now = monotonic()
        heads = [(limit, next(iter(runs))) for (limit, _), runs in self._classes.items() if runs]
        return min((run.clock + limit - now for limit, run in heads if run.clock), default=None)

    def look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Expire what has expired by now."""
        if self._timer is not None:
            self._timer.cancel()
        self._sweep(loop)

    def close(self) -> None:
        """Watch nothing any more."""
        self._classes.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, loop: asyncio.AbstractEventLoop, delay: float) -> None:
        when = loop.time() + delay
        if self._timer is not None:
            if self._timer.when() <= when:
                return
            self._timer.cancel()
        self._timer = loop.call_at(when, self._sweep, loop, context=self._context)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = monotonic()
        soonest: float | None = None
        for key, runs in list(self._classes.items()):
            limit = key[0]
            for run in list(runs):
                left = limit if run.clock == 0.0 else run.clock + limit - now
                if left <= 0:
                    runs.pop(run, None)
                    self._expire(run)
                    continue
                soonest = left if soonest is None else min(soonest, left)
                break
            if not runs:
                self._classes.pop(key, None)
        if soonest is not None:
            self._arm(loop, soonest)
