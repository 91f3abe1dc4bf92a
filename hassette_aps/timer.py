"""One timer on the AsyncIOScheduler's loop, armed for the earliest fire time and touched only when that changes."""

import asyncio
from collections.abc import Callable
from contextvars import Context

from hassette_aps.clockwork import Clockwork
from hassette_aps.instants import SECOND, Micros, monotonic, now_us

BEAT = 2.0
"""Seconds after which the timer fires at the latest: clock jumps and dead timers are noticed by then, and two of them
missed mean a loop that does not turn."""
_BEAT = int(BEAT * SECOND)


class Timer:
    """Calls ``fire`` on the loop, in an empty context: a timer keeps the context of whoever arms it."""

    def __init__(self, clockwork: Clockwork, fire: Callable[[], None], earliest: Callable[[], Micros | None]) -> None:
        self._clockwork = clockwork
        self._fire = fire
        self._earliest = earliest
        self._context = Context()
        self._handle: asyncio.TimerHandle | None = None
        self._armed: Micros | None = None
        self._soon = False
        self._touched = monotonic()

    @property
    def alive(self) -> bool:
        """Whether it fired within the last two beats, or was armed no longer ago."""
        return self._handle is not None and monotonic() - self._touched < 2 * BEAT

    def fired(self) -> None:
        """Due jobs are being started."""
        self._touched = monotonic()

    def late_for(self, when: Micros) -> bool:
        """Whether the timer, as armed, would fire after ``when``."""
        return self._armed is None or when < self._armed

    def arm(self) -> None:
        """Make sure that it fires by the earliest fire time. Any thread."""
        loop = self._clockwork.loop
        if loop is None or not self._clockwork.running:
            return
        try:
            here = asyncio.get_running_loop() is loop
        except RuntimeError:
            here = False
        if here:
            self.arm_for(self._earliest())
            return
        try:
            loop.call_soon_threadsafe(self._arm, loop, context=Context())
        except RuntimeError:  # the loop was closed meanwhile
            return

    def arm_for(self, earliest: Micros | None) -> None:
        """Make sure that it fires by ``earliest``, or after a beat. On the loop."""
        loop = self._clockwork.loop
        if loop is None:
            return
        now = now_us()
        wakeup = now + _BEAT
        if earliest is not None and earliest < wakeup:
            wakeup = earliest if earliest > now else now
        if self._handle is not None:
            if self._armed is not None and self._armed <= wakeup:
                return
            self._handle.cancel()
        else:
            self._touched = monotonic()
        self._armed = wakeup
        self._handle = loop.call_later((wakeup - now) / SECOND, self._wake, context=self._context)

    def fire_soon(self) -> None:
        """Fire in the next loop turn. On the loop."""
        loop = self._clockwork.loop
        if loop is not None and not self._soon:
            self._soon = True
            loop.call_soon(self._turn, context=self._context)

    def disarm(self) -> None:
        """Fire no more until armed again."""
        if self._handle is not None:
            self._handle.cancel()
        self._handle = self._armed = None

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        if loop is self._clockwork.loop:
            self.arm_for(self._earliest())

    def _wake(self) -> None:
        self._handle = self._armed = None
        self._fire()

    def _turn(self) -> None:
        self._soon = False
        self._fire()
