"""Eager tasks: an option of Python 3.12 and later."""

import asyncio
import sys
from typing import Any

import pytest

from hassette_aps import Scheduler
from tests.kit import Recorded, idle, until

eager = pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are of Python 3.12")


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="it is allowed there")
def test_eager_tasks_are_refused_where_there_are_none():
    """11.19: the setting says which Python it needs."""
    with pytest.raises(ValueError, match=r"eager_tasks=True.*3\.12"):
        Scheduler(eager_tasks=True)


@eager
async def test_an_eager_body_starts_in_a_later_turn_than_its_admission():
    """8.2: nothing of a body runs inside the admission, eager or not."""
    inside: list[bool] = []
    admitting = False

    async def body() -> None:
        inside.append(admitting)

    async with Scheduler(eager_tasks=True, database=None) as scheduler:
        executor = scheduler._engine.executor
        admit = executor.admit

        def watched(*args: Any, **kwargs: Any) -> None:
            nonlocal admitting
            admitting = True
            admit(*args, **kwargs)
            admitting = False

        executor.admit = watched  # type: ignore[method-assign]
        scheduler.run_in(body, 0.01)
        await until(lambda: inside)
    assert inside == [False]


@eager
async def test_eager_runs_end_as_others_do():
    """8.4, 8.5, 8.6: success, error, timeout and cancellation at shutdown are recorded for bodies that block or not."""

    async def fails() -> None:
        raise ValueError("on purpose")

    async def slow() -> None:
        await asyncio.sleep(60)

    scheduler = Scheduler(eager_tasks=True, database=None)
    recorded = Recorded(scheduler)
    async with scheduler:
        scheduler.run_in(idle, 0.01, name="idle")
        scheduler.run_in(fails, 0.01, name="fails")
        scheduler.run_in(slow, 0.01, name="overdue", timeout=0.05)
        scheduler.run_in(slow, 0.01, name="cut off")
        await until(lambda: len(recorded.records) == 3)
        await scheduler.shutdown(grace=0)
    assert {record.job_name: record.status for record in recorded.records} == {
        "idle": "success",
        "fails": "error",
        "overdue": "timed_out",
        "cut off": "cancelled",
    }


@eager
async def test_a_job_cancelled_after_its_admission_never_starts():
    """4.3: also when it waits to be started eagerly."""
    started: list[int] = []

    async def body() -> None:
        started.append(1)

    async with Scheduler(eager_tasks=True, database=None) as scheduler:
        job = scheduler.run_every(body, seconds=60)
        job.submit()
        await asyncio.sleep(0)  # admitted by now
        job.cancel()
        await asyncio.sleep(0.02)
    assert started == []
