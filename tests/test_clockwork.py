"""APScheduler's private members: each one we use is there and behaves as we rely on, and nobody else uses one."""

import ast
import asyncio
import re
from pathlib import Path
from typing import Any

import apscheduler
import pytest
from apscheduler.events import EVENT_JOB_ERROR, SchedulerEvent
from apscheduler.executors.asyncio import AsyncIOExecutor
from apscheduler.executors.base import BaseExecutor
from apscheduler.executors.pool import ProcessPoolExecutor, ThreadPoolExecutor
from apscheduler.job import Job
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.asyncio import AsyncIOScheduler

import hassette_aps
from hassette_aps.clockwork import Clockwork
from tests.kit import idle, until

PACKAGE = Path(hassette_aps.__file__).parent
PRIVATES = {
    "_eventloop", "_timeout", "_listeners", "_dispatch_event", "_jobstores", "_jobstores_lock", "_executors",
    "_pending_jobs", "_run_job_error", "_instances", "_reconstitute_job", "_scheduler", "_jobstore_alias",
}  # fmt: skip


def test_the_version_is_the_one_we_support() -> None:
    """``apscheduler>=3.11,<4``: 4.0 is another package altogether."""
    assert apscheduler.version.startswith("3.")


async def test_scheduler_members() -> None:
    """The members of AsyncIOScheduler that ``Clockwork`` reads exist, and mean what we take them for."""
    aps = AsyncIOScheduler(timezone="UTC")
    clockwork = Clockwork(aps)
    assert (clockwork.loop, clockwork.started, clockwork.running, clockwork.timer_armed) == (None, False, False, False)
    aps.add_job(idle, "interval", hours=1, id="raw")
    assert [(job.id, alias) for job, alias, _ in clockwork.pending()] == [("raw", "default")]
    clockwork.start()
    assert clockwork.loop is asyncio.get_running_loop()
    await asyncio.sleep(0.01)
    assert (clockwork.started, clockwork.running, clockwork.timer_armed) == (True, True, True)
    assert [alias for alias, _ in clockwork.stores()] == ["default"]
    assert clockwork.executor("default") is not None
    assert clockwork.in_memory("default")
    aps.pause()
    assert (clockwork.started, clockwork.running) == (True, False)
    aps.shutdown()
    await until(lambda: not clockwork.started)
    assert clockwork.loop is None


async def test_listeners() -> None:
    """``hears`` knows what listeners want, and ``dispatch`` isolates them."""
    aps = AsyncIOScheduler(timezone="UTC")
    clockwork = Clockwork(aps)
    heard: list[Any] = []

    def broken(event: object) -> None:
        raise RuntimeError

    assert not clockwork.hears(EVENT_JOB_ERROR)
    aps.add_listener(broken, EVENT_JOB_ERROR)
    aps.add_listener(heard.append, EVENT_JOB_ERROR)
    assert clockwork.hears(EVENT_JOB_ERROR)
    assert not clockwork.hears(1)
    clockwork.dispatch(SchedulerEvent(EVENT_JOB_ERROR))
    assert len(heard) == 1


@pytest.mark.parametrize("executor", [AsyncIOExecutor, ThreadPoolExecutor, ProcessPoolExecutor])
def test_executor_members(executor: type[BaseExecutor]) -> None:
    """``_run_job_error`` and ``_instances`` are there; watching losses is undone without a trace."""
    made = executor()
    assert dict(made._instances) == {}
    clockwork = Clockwork(AsyncIOScheduler(timezone="UTC"))
    clockwork.watch_losses(made, lambda job_id, exc: None)
    assert "_run_job_error" in vars(made)
    clockwork.unwatch_losses(made)
    assert "_run_job_error" not in vars(made)
    if not isinstance(made, AsyncIOExecutor):  # it has nothing to shut down before it is started
        made.shutdown()


def test_made_jobs_are_whole() -> None:
    """A ``Job`` made without its constructor has every slot that APScheduler reads and prints."""
    clockwork = Clockwork(AsyncIOScheduler(timezone="UTC"))
    state = {
        "id": "x", "name": "x", "func": idle, "func_ref": "tests.kit:idle", "args": (), "kwargs": {},
        "trigger": hassette_aps.Daily("07:00"), "executor": "default", "coalesce": True, "misfire_grace_time": None,
        "max_instances": 1, "next_run_time": None, "_jobstore_alias": "default",
    }  # fmt: skip
    job = clockwork.make_job(**state)
    assert set(Job.__slots__) - {"__weakref__"} == {*state, "_scheduler"}
    assert str(job) == "x (trigger: daily[07:00], paused)"
    assert set(job.__getstate__()) >= {"id", "func", "trigger", "next_run_time"}


def test_reading_a_store_keeps_broken_rows(tmp_path: Path) -> None:
    """``_reconstitute_job`` is where SQLAlchemyJobStore fails on a broken row, and is given back afterwards."""
    store = SQLAlchemyJobStore(url=f"sqlite:///{tmp_path}/jobs.db")
    clockwork = Clockwork(AsyncIOScheduler(timezone="UTC"))
    store.start(clockwork.aps, "db")
    with store.engine.begin() as connection:
        connection.execute(store.jobs_t.insert().values(id="x", next_run_time=None, job_state=b"broken"))
    with clockwork.keeping_broken_rows(store):
        assert len(store.get_all_jobs()) == 1
    assert "_reconstitute_job" not in vars(store)
    with store.engine.begin() as connection:
        assert len(list(connection.execute(store.jobs_t.select()))) == 1
    store.shutdown()


def test_private_members_are_used_in_one_module_only() -> None:
    """No other module of the package reads or sets a private member of APScheduler."""
    offenders = [
        f"{path.name}:{node.lineno} {node.attr}"
        for path in PACKAGE.rglob("*.py")
        if path.name != "clockwork.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in PRIVATES and not _own(node)
    ]
    assert offenders == []


def _own(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id == "self"


def test_the_list_of_private_members_is_complete() -> None:
    """Every private member that ``clockwork.py`` touches is in the list above, with its line in the docstring there."""
    source = (PACKAGE / "clockwork.py").read_text()
    used = {
        node.attr
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute) and re.match(r"_[a-z]", node.attr) and not _own(node)
    }
    assert used <= PRIVATES
