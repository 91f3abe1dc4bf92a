"""Hassette's own scheduler, in its own test harness."""

import logging
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from common import CANCELLED, Burst, Figures, Stopwatch, due_in, idle, main
from hassette import App, AppConfig
from hassette.testing import AppTestHarness

logging.disable(logging.WARNING)


class Peer(App[AppConfig]):
    """An app that only has a scheduler."""


@asynccontextmanager
async def scheduler() -> AsyncIterator[Any]:
    """A running one."""
    with tempfile.TemporaryDirectory() as folder:
        async with AppTestHarness(Peer, config={"instance_name": "peer"}, tmp_path=Path(folder)) as harness:
            yield harness.app.scheduler


async def register(count: int) -> Figures:
    """Named jobs."""
    async with scheduler() as s:
        watch = Stopwatch()
        for n in range(count):
            await s.run_every(idle, seconds=3600, name=f"job-{n}", group="all")
        return watch.per(count)


async def skip(count: int) -> Figures:
    """The same jobs again, unchanged."""
    async with scheduler() as s:
        for n in range(count):
            await s.run_every(idle, seconds=3600, name=f"job-{n}", group="all")
        watch = Stopwatch()
        for n in range(count):
            await s.run_every(idle, seconds=3600, name=f"job-{n}", group="all", if_exists="skip")
        return watch.per(count)


async def cancel(count: int) -> Figures:
    """One group; ``count`` is smaller than elsewhere, or it would take minutes."""
    async with scheduler() as s:
        for n in range(count):
            await s.run_every(idle, seconds=3600, name=f"job-{n}", group="some" if n < CANCELLED else "rest")
        watch = Stopwatch()
        s.cancel_group("some") if hasattr(s, "cancel_group") else s.remove_group("some")
        return watch.per(CANCELLED)


async def burst(count: int) -> Figures:
    """One-shots, due at one instant."""
    from whenever import Instant

    due = due_in(3 + count * 700e-6)
    work = Burst(count)
    at = Instant.from_timestamp(int(due.timestamp())).to_tz("UTC")
    async with scheduler() as s:
        for n in range(count):
            await s.run_once(work.body, at, name=f"job-{n}")
        return await work.measure(due)


async def cron(count: int) -> Figures:
    """Cron jobs, due at one instant."""
    due = due_in(3 + count * 1000e-6)
    work = Burst(count)
    async with scheduler() as s:
        for n in range(count):
            await s.run_cron(work.body, f"* * * * * {due.second}", name=f"job-{n}")
        return await work.measure(due)


if __name__ == "__main__":
    main({f.__name__: f for f in (register, skip, cancel, burst, cron)})
