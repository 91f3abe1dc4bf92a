"""Real Hassette in the tests: skipped where it is not installed, made to import on CPython 3.11.7."""

import asyncio
import importlib.util
import sys
import threading
import typing
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.kit import until

HASSETTE = importlib.util.find_spec("hassette") is not None

collect_ignore_glob = [] if HASSETTE else ["test_*.py"]


def pytest_report_header() -> str | None:
    """Say why there are no tests here."""
    return None if HASSETTE else "tests/hassette: not collected, Hassette is not installed (pip install '.[hassette]')"


def _tolerate_orig_class() -> None:
    """CPython 3.11.7 and 3.12.1 raise TypeError for generic frozen slotted dataclasses (cpython#116669).

    Later releases ignore a failing ``__orig_class__``; so does this, in the test suite only.
    """
    alias: Any = typing._BaseGenericAlias  # type: ignore[attr-defined]
    stock = alias.__call__

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not self._inst:
            return stock(self, *args, **kwargs)
        made = self.__origin__(*args, **kwargs)
        try:
            made.__orig_class__ = self
        except Exception:
            pass
        return made

    alias.__call__ = call


if HASSETTE and sys.version_info[:3] in ((3, 11, 7), (3, 12, 1)):
    _tolerate_orig_class()


@pytest.fixture(autouse=True)
async def _nothing_is_left() -> AsyncIterator[None]:
    """P10: when all apps have stopped, the loop has no timer and no task of ours, and no thread goes on."""
    yield
    try:
        await until(lambda: not left())
    except AssertionError:
        assert left() == []


def left() -> list[str]:
    """Timers of ours and of APScheduler, tasks and threads that are still there."""
    timers = [h for h in asyncio.get_running_loop()._scheduled if not h.cancelled()]  # type: ignore[attr-defined]
    packages = {"hassette_aps", "apscheduler"}
    found = [f"timer {h}" for h in timers if _package_of(h._callback) in packages]
    found += [f"task {task}" for task in asyncio.all_tasks() if _package_of(task.get_coro()) in packages]
    return found + [f"thread {t.name}" for t in threading.enumerate() if t.name.startswith("hassette_aps")]


def _package_of(thing: Any) -> str:
    code = getattr(thing, "cr_code", None)
    if code is not None:
        return "hassette_aps" if "/hassette_aps/" in code.co_filename else ""
    return (getattr(thing, "__module__", None) or "").partition(".")[0]
