"""What the tests share: waiting with a deadline, recorders, functions that a job store can find again."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.asyncio import AsyncIOScheduler

CALLS: list[tuple[Any, ...]] = []
"""What the module-level functions below were called with."""


async def until(predicate: Callable[[], object], seconds: float = 10) -> None:
    """Poll until ``predicate()`` is true; fail after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not predicate():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        await asyncio.sleep(0.002)


async def in_progress(scheduler: Any, count: int = 1) -> None:
    """Wait until ``count`` runs of a scheduler have really begun."""
    running = scheduler._engine.executor.running
    await until(lambda: sum(run.started is not None and run.owner == scheduler.owner for run in running) == count)


def called(*args: Any, **kwargs: Any) -> None:
    """A plain job that a store can find again."""
    CALLS.append((*args, *sorted(kwargs.items())))


async def called_async(*args: Any) -> None:
    """A coroutine job that a store can find again."""
    CALLS.append(args)


def called_too(*args: Any, **kwargs: Any) -> None:
    """Another function with the same signature."""
    CALLS.append(("too", *args))


def fails(*args: Any) -> None:
    """A plain job that raises."""
    raise ValueError("failed on purpose", *args)


async def idle() -> None:
    """A coroutine job that does nothing."""


async def never() -> None:
    """A coroutine job that only a cancellation ends."""
    await asyncio.Event().wait()


HANDLED: list[Any] = []


def handler(ctx: Any) -> None:
    """An error handler that a store can find again."""
    HANDLED.append(ctx)


def sql_scheduler(path: Any) -> AsyncIOScheduler:
    """An AsyncIOScheduler whose store ``db`` is a SQLite file; ``default`` stays in memory."""
    return AsyncIOScheduler(timezone="UTC", jobstores={"db": SQLAlchemyJobStore(url=f"sqlite:///{path}")})


class Recorded:
    """Collects verdicts from ``Scheduler.on_run``."""

    def __init__(self, scheduler: Any) -> None:
        self.records: list[Any] = []

        async def keep(record: Any) -> None:
            self.records.append(record)

        scheduler.on_run(keep)

    def statuses(self, name: str | None = None) -> list[str]:
        """Statuses in order, of one job or of all."""
        return [record.status for record in self.records if name in (None, record.job_name)]
