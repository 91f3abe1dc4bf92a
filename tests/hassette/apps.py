"""What the tests of apps share: apps loaded from files by Hassette's own app handler."""

import asyncio
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

from hassette.testing import HassetteHarness, make_test_config

from tests.kit import until

_numbers = count()

HEADER = """
import asyncio
from hassette import App, AppConfig, AppSync
from hassette_aps.hassette import APSchedulerMixin
from hassette_aps import ScheduledJob, SchedulerErrorContext
"""


@asynccontextmanager
async def loaded(
    tmp_path: Path,
    *,
    unawaited: str = "",
    settings: dict[str, Any] | None = None,
    configs: dict[str, Any] | None = None,
    **sources: str,
) -> AsyncIterator[Any]:
    """A Hassette that has loaded and started one app class ``TheApp`` per source, from files, as in production."""
    folder = tmp_path / "apps"
    folder.mkdir()
    apps: dict[str, Any] = {"directory": str(folder)}
    for key, source in sources.items():
        name = f"{key}_{next(_numbers)}.py"  # Hassette remembers a class by its module's name
        (folder / name).write_text(HEADER + textwrap.dedent(source))
        apps[key] = {
            "filename": name,
            "class_name": "TheApp",
            "config": (configs or {}).get(key, {"instance_name": key}),
        }
    config = make_test_config(data_dir=tmp_path / "data", apps=apps, **settings or {})
    async with HassetteHarness(config).with_app_handler().with_scheduler().with_state_registry() as harness:
        for key in sources.keys() - {unawaited}:
            await running(harness, key)
        yield harness


def app_of(harness: Any, key: str) -> Any:
    """The running instance of an app."""
    return harness.app_handler.registry.get(key, 0)


def made(tmp_path: Path) -> list[Any]:
    """What the module of an app in ``tmp_path`` has put into its list ``MADE``."""
    modules = [m for m in list(sys.modules.values()) if str(tmp_path) in (getattr(m, "__file__", None) or "")]
    return next((m.MADE for m in modules if hasattr(m, "MADE")), [])


async def running(harness: Any, key: str) -> Any:
    """The instance of an app, once it has been initialised, children included."""
    await until(lambda: (app := app_of(harness, key)) is not None and app.status == "running")
    app = app_of(harness, key)
    await until(lambda: app.scheduler.status == "running")
    return app


def left_of(app: Any) -> list[str]:
    """P10: what is left of a stopped app: jobs, tasks, timers, registrations."""
    facade = app.scheduler.facade
    left = [f"job {job.name}" for job in facade.list_jobs()]
    left += [f"task {task.get_name()}" for task in asyncio.all_tasks() if task in set(app.task_bucket.pending_tasks())]
    if app.shared_apscheduler is None:
        if facade.aps.running:
            left.append("a running AsyncIOScheduler")
        left += [alias for alias in facade.aps._jobstores if alias == "hassette_aps"]
    if facade.health().alive:
        left.append("a live timer")
    if facade._engine.owners.get(facade.owner) is facade._owner:
        left.append("an attached owner")
    return left
