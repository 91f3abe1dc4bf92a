"""Fixtures of the whole suite."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from hassette_aps import Scheduler
from tests.kit import CALLS, HANDLED

pytest_plugins = ["hassette_aps.testing.plugin"]


@pytest.fixture(autouse=True)
def _fresh_calls() -> None:
    CALLS.clear()
    HANDLED.clear()


@pytest.fixture
async def scheduler() -> AsyncIterator[Scheduler]:
    """A started scheduler on an AsyncIOScheduler of its own; nothing of it is left at the end."""
    before = asyncio.all_tasks()
    async with Scheduler(timezone="UTC") as made:
        yield made
    left = {task.get_name() for task in asyncio.all_tasks() - before if task is not asyncio.current_task()}
    assert not left, f"tasks left behind: {left}"
