"""Execution ids: UUIDs of version 7, strictly increasing within a process."""

import os
import time
from datetime import datetime
from random import Random
from threading import Lock

from hassette_aps.instants import Micros, from_datetime

_TICKS_PER_MS = 4096  # the 12 bits after the milliseconds hold a fraction of one: 244 ns


class _Generator:
    """A clock that never stands still or goes back, and 62 random bits."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.random = Random()  # seeded by the operating system: ids must be unique, not secret
        self.last = 0

    def next(self) -> str:
        tick = time.time_ns() * _TICKS_PER_MS // 1_000_000
        with self.lock:
            if tick <= self.last:
                tick = self.last + 1
            self.last = tick
            noise = self.random.getrandbits(62)
        return _layout(tick, noise)


def _layout(tick: int, noise: int) -> str:
    return "%08x-%04x-7%03x-%04x-%012x" % (  # noqa: UP031 (a quarter faster than an f-string)
        tick >> 28,
        tick >> 12 & 0xFFFF,
        tick & 0xFFF,
        noise >> 48 | 0x8000,
        noise & 0xFFFF_FFFF_FFFF,
    )


_generator = _Generator()


def new_execution_id() -> str:
    """A new UUIDv7 as text, greater than every earlier one of this process. Any thread, 1 to 2 us."""
    return _generator.next()


def first_execution_id(moment: datetime | Micros) -> str:
    """The smallest id that could have been made at ``moment`` (aware), to compare others with."""
    instant = from_datetime(moment) if isinstance(moment, datetime) else moment
    return _layout(max(instant, 0) * _TICKS_PER_MS // 1000, 0)


if hasattr(os, "register_at_fork"):  # a forked child must not repeat its parent's random bits
    os.register_at_fork(after_in_child=_generator.__init__)
