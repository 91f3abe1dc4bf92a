"""Misuse is refused at the call, with an error that names the job, the value and the fix (P13, section 3, 11.18)."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.schedulers.background import BackgroundScheduler

from hassette_aps import Cron, Daily, Every, Once, ScheduledJob, Scheduler
from tests.kit import CALLS, called, handler, idle, sql_scheduler, until


class NeverStarts:
    """A trigger without a first time."""

    def first_run_time(self, current_time: object) -> None: ...
    def next_run_time(self, previous_run: object, current_time: object) -> None: ...
    def trigger_label(self) -> str:
        return "never"

    def trigger_detail(self) -> None: ...
    def trigger_db_type(self) -> str:
        return "custom"

    def trigger_id(self) -> str:
        return "never"


def two(a: int, b: int) -> None:
    """A job that needs two arguments."""


Misuse = Callable[[Scheduler], object]

MISUSES: list[tuple[str, Misuse, type[Exception], list[str]]] = [
    ("not callable", lambda s: s.run_every("called", minutes=1, name="x"), TypeError, ["'x'", "'called'", "callable"]),
    ("called it", lambda s: s.run_every(asyncio.sleep(0).close(), minutes=1), TypeError, ["None", "not its result"]),
    ("negative jitter", lambda s: s.run_every(idle, minutes=1, name="x", jitter=-1), ValueError, ["'x'", "jitter=-1"]),
    ("bool jitter", lambda s: s.run_every(idle, minutes=1, jitter=True), ValueError, ["jitter=True", "seconds"]),
    ("nan jitter", lambda s: s.run_every(idle, minutes=1, jitter=float("nan")), ValueError, ["jitter=nan"]),
    ("infinite jitter", lambda s: s.run_every(idle, minutes=1, jitter=float("inf")), ValueError, ["jitter=inf"]),
    ("text jitter", lambda s: s.run_every(idle, minutes=1, jitter="1"), ValueError, ["jitter='1'"]),
    ("zero timeout", lambda s: s.run_in(idle, 1, timeout=0), ValueError, ["timeout=0", "timeout_disabled=True"]),
    ("negative timeout", lambda s: s.run_in(idle, 1, timeout=-5), ValueError, ["timeout=-5"]),
    ("bool timeout", lambda s: s.run_in(idle, 1, timeout=True), ValueError, ["timeout=True"]),
    ("timedelta timeout", lambda s: s.run_in(idle, 1, timeout=[1]), TypeError, ["timeout=[1]"]),
    ("both timeouts", lambda s: s.run_in(idle, 1, timeout=5, timeout_disabled=True), ValueError, ["one of the two"]),
    ("disabled=1", lambda s: s.run_in(idle, 1, timeout_disabled=1), TypeError, ["timeout_disabled=1", "True or False"]),
    ("unknown mode", lambda s: s.run_in(idle, 1, mode="serial"), ValueError, ["'serial'", "'single'", "'restart'"]),
    ("list as mode", lambda s: s.run_in(idle, 1, mode=["single"]), TypeError, ["mode="]),
    ("unknown if_exists", lambda s: s.run_in(idle, 1, if_exists="update"), ValueError, ["'update'", "'replace'"]),
    ("if_exists of add_job", lambda s: s.add_job(ScheduledJob(idle, Every(1)), "x"), ValueError, ["'x'", "'skip'"]),
    ("unknown option", lambda s: s.run_in(idle, 1, nmae="x"), TypeError, ["'nmae'", "did you mean 'name'"]),
    ("APScheduler option", lambda s: s.run_in(idle, 1, coalesce=True), TypeError, ["'coalesce'", "options are"]),
    ("number as name", lambda s: s.run_in(idle, 1, name=5), TypeError, ["name=5"]),
    ("None as name", lambda s: s.run_in(idle, 1, name=None), TypeError, ["name=None"]),
    ("newline in name", lambda s: s.run_in(idle, 1, name="a\nb"), TypeError, ["printable"]),
    ("empty group", lambda s: s.run_in(idle, 1, group=""), TypeError, ["group=''"]),
    ("number as group", lambda s: s.run_in(idle, 1, group=1), TypeError, ["group=1"]),
    ("text as args", lambda s: s.run_in(called, 1, args="abc"), TypeError, ["args='abc'", "list or tuple"]),
    ("dict as args", lambda s: s.run_in(called, 1, args={"a": 1}), TypeError, ["args="]),
    ("list as kwargs", lambda s: s.run_in(called, 1, kwargs=[1]), TypeError, ["kwargs=[1]", "dict"]),
    ("number keys", lambda s: s.run_in(called, 1, kwargs={1: 2}), TypeError, ["kwargs={1: 2}"]),
    ("missing argument", lambda s: s.run_in(two, 1, name="x", args=[1]), TypeError, ["'x'", "two()", "'b'"]),
    ("too many arguments", lambda s: s.run_in(two, 1, args=[1, 2, 3]), TypeError, ["too many"]),
    ("unexpected keyword", lambda s: s.run_in(two, 1, args=[1, 2], kwargs={"c": 3}), TypeError, ["'c'"]),
    ("bound method argument", lambda s: s.run_in(partial(two, 1), 1), TypeError, ["'b'"]),
    ("handler not callable", lambda s: s.run_in(idle, 1, on_error="log"), TypeError, ["on_error='log'"]),
    ("handler without parameter", lambda s: s.run_in(idle, 1, on_error=lambda: None), TypeError, ["on_error="]),
    ("scheduler handler", lambda s: s.on_error(lambda: None), TypeError, ["on_error()", "one parameter"]),
    ("hook", lambda s: s.on_run(5), TypeError, ["on_run()", "5"]),
    ("predicate with parameter", lambda s: s.run_in(idle, 1, where=lambda job: True), TypeError, ["where="]),
    ("no trigger", lambda s: s.schedule(idle, "0 7 * * *", name="x"), TypeError, ["'0 7 * * *'", "Cron"]),
    ("trigger class", lambda s: s.schedule(idle, Daily), TypeError, ["Daily"]),
    ("never fires", lambda s: s.schedule(idle, NeverStarts(), name="x"), ValueError, ["'x'", "never fires"]),
    ("30 February", lambda s: s.run_cron(idle, "0 0 30 2 *"), ValueError, ["0 0 30 2 *"]),
    ("minute 61", lambda s: s.run_cron(idle, "61 * * * *"), ValueError, ["61 * * * *", "minute"]),
    ("four fields", lambda s: s.run_cron(idle, "* * * *"), ValueError, ["* * * *"]),
    ("cron of None", lambda s: s.run_cron(idle, None), TypeError, ["None"]),
    ("25 o'clock", lambda s: s.run_daily(idle, "25:00"), ValueError, ["25:00"]),
    ("no minutes", lambda s: s.run_daily(idle, "7"), ValueError, ["'7'"]),
    ("no interval", lambda s: s.run_every(idle), ValueError, ["Every"]),
    ("negative interval", lambda s: s.run_every(idle, seconds=-1), ValueError, ["Every"]),
    ("endless interval", lambda s: s.run_every(idle, seconds=float("inf")), ValueError, ["inf"]),
    ("bool interval", lambda s: s.run_every(idle, seconds=True), (TypeError, ValueError), ["True"]),
    ("no delay", lambda s: s.run_in(idle, 0), ValueError, ["delay"]),
    ("text delay", lambda s: s.run_in(idle, "5"), (TypeError, ValueError), ["'5'"]),
    ("half minutes", lambda s: s.run_minutely(idle, 0.5), TypeError, ["0.5", "run_every"]),
    ("zero hours", lambda s: s.run_hourly(idle, 0), ValueError, ["hours=0"]),
    ("bool minutes", lambda s: s.run_minutely(idle, True), TypeError, ["True"]),
    ("past with error", lambda s: s.run_once(idle, datetime(2020, 1, 1, tzinfo=UTC), "error"), ValueError, ["2020"]),
    ("unknown if_past", lambda s: s.run_once(idle, "07:00", "skip"), ValueError, ["'skip'"]),
    ("number as time", lambda s: s.run_once(idle, 7), TypeError, ["7"]),
    ("unknown job store", lambda s: s.run_in(idle, 1, jobstore="sql"), ValueError, ["'sql'", "add_jobstore"]),
    ("unknown executor", lambda s: s.run_in(idle, 1, executor="pool"), ValueError, ["'pool'", "add_executor"]),
    ("nan delay", lambda s: s.run_in(idle, float("nan"), name="x"), ValueError, ["'x'", "nan"]),
    ("bool delay", lambda s: s.run_in(idle, True, name="x"), TypeError, ["'x'", "True"]),
    ("bad minute, named", lambda s: s.run_cron(idle, "61 * * * *", name="x"), ValueError, ["'x'", "minute", "61"]),
    ("never, named", lambda s: s.run_cron(idle, "0 0 30 2 *", name="x"), ValueError, ["'x'", "0 0 30 2 *"]),
    ("bad time, named", lambda s: s.run_daily(idle, 7, name="x"), TypeError, ["'x'", "7", "'07:00'"]),
    ("half hours, named", lambda s: s.run_hourly(idle, 1.5, name="x"), TypeError, ["'x'", "hours=1.5", "run_every"]),
    ("past, named", lambda s: s.run_once(idle, "2020-01-01T00:00", "error", name="x"), ValueError, ["'x'", "2020"]),
    ("no trigger at all", lambda s: s.schedule(idle, None, name="x"), TypeError, ["'x'", "None", "Every"]),
    ("endless jitter", lambda s: s.run_in(idle, 1, name="x", jitter=1e300), ValueError, ["'x'", "jitter=1e+300"]),
    ("endless timeout", lambda s: s.run_in(idle, 1, name="x", timeout=1e300), ValueError, ["'x'", "timeout=1e+300"]),
    ("number to get_job", lambda s: s.get_job(5), TypeError, ["get_job()", "5"]),
    ("number to list_jobs", lambda s: s.list_jobs(5), TypeError, ["group", "5"]),
    ("decorator", lambda s: s.scheduled(Every(1), nmae="x")(idle), TypeError, ["'nmae'", "did you mean 'name'"]),
    ("function to add_job", lambda s: s.add_job(idle), TypeError, ["add_job()", "schedule()"]),
    ("name to cancel_job", lambda s: s.cancel_job("x"), TypeError, ["'x'", "get_job"]),
    ("number as a group to cancel", lambda s: s.cancel_group(1), TypeError, ["1"]),
    ("raw job in our store", lambda s: s.aps.add_job(idle, jobstore="hassette_aps"), ValueError, ["run_every"]),
]


@pytest.mark.parametrize(("misuse", "kind", "words"), [row[1:] for row in MISUSES], ids=[row[0] for row in MISUSES])
async def test_misuse_is_refused_and_loses_nothing(
    scheduler: Scheduler, misuse: Misuse, kind: type[Exception], words: list[str]
) -> None:
    """P13: the error names what was wrong and the way out; what was scheduled before is untouched."""
    before = scheduler.run_in(called, 0.02)
    with pytest.raises(kind) as caught:
        misuse(scheduler)
    for word in words:
        assert word in str(caught.value)
    assert scheduler.list_jobs() == [before]
    await until(lambda: CALLS)


@pytest.mark.parametrize(
    ("arguments", "kind", "word"),
    [
        ({"owner": "a/b"}, ValueError, "may not contain '/'"),
        ({"owner": 5}, TypeError, "5"),
        ({"timezone": "Europe/Atlantis"}, ValueError, "Europe/Atlantis"),
        ({"timezone": 5}, (TypeError, ValueError), "5"),
        ({"default_mode": "serial"}, ValueError, "serial"),
        ({"default_timeout": 0}, ValueError, "default_timeout=0"),
        ({"default_timeout": True}, ValueError, "default_timeout=True"),
        ({"handler_timeout": None}, ValueError, "handler_timeout=None"),
        ({"max_workers": 0}, ValueError, "max_workers=0"),
        ({"max_workers": 2.5}, ValueError, "max_workers=2.5"),
        ({"max_lateness": -1}, ValueError, "max_lateness=-1"),
        ({"retention_days": float("nan")}, ValueError, "retention_days=nan"),
        ({"retention_rows": 0}, ValueError, "retention_rows=0"),
        ({"retention_rows": True}, ValueError, "retention_rows=True"),
        ({"database": "mysql+nothing://"}, ValueError, "mysql"),
        ({"databse": "x"}, TypeError, "'databse'"),
    ],
)
def test_settings_that_are_refused(arguments: dict[str, Any], kind: type[Exception], word: str) -> None:
    """11.19: settings are validated where they are given, and a refused Scheduler leaves the owner's name free."""
    aps = AsyncIOScheduler(timezone="UTC")
    with pytest.raises(kind) as caught:
        Scheduler(aps, **arguments)
    assert word in str(caught.value)
    Scheduler(aps)


def test_other_schedulers_are_refused() -> None:
    """1.1: only an AsyncIOScheduler has an event loop."""
    with pytest.raises(TypeError, match="AsyncIOScheduler"):
        Scheduler(BackgroundScheduler())  # type: ignore[arg-type]


def test_a_second_live_scheduler_of_one_owner_is_refused() -> None:
    """11.5: two live Schedulers with one owner on one AsyncIOScheduler: the second is refused."""
    aps = AsyncIOScheduler(timezone="UTC")
    first = Scheduler(aps, owner="shop")
    with pytest.raises(ValueError, match="owner='shop'.*shut it down"):
        Scheduler(aps, owner="shop")
    assert first.run_in(idle, 5) in first.list_jobs()


async def test_a_name_whose_id_another_owner_holds_is_refused() -> None:
    """11.5: the default owner's job ``a/x`` has the id of owner ``a``'s job ``x``; the error names both."""
    aps = AsyncIOScheduler(timezone="UTC")
    async with Scheduler(aps) as default, Scheduler(aps, owner="a") as other:
        default.run_every(idle, hours=1, name="a/x")
        with pytest.raises(ValueError, match=r"'x' of owner 'a'.*default owner ''"):
            other.run_every(idle, hours=1, name="x")
        assert len(default.list_jobs()) == 1


class Holder:
    """Holds what does not pickle."""

    def __init__(self) -> None:
        self.stream = open(__file__)  # noqa: SIM115

    def method(self) -> None: ...


def closure() -> Callable[[], None]:
    """A function without a name of its own."""

    def inner() -> None: ...

    return inner


async def test_what_a_persistent_store_cannot_keep(tmp_path: Any) -> None:
    """11.18: lambdas, closures and methods of unpicklable objects are refused there, with the way out."""
    holder = Holder()
    refused: list[tuple[Any, dict[str, Any], str]] = [
        (lambda: None, {}, "module level"),
        (closure(), {}, "module level"),
        (partial(called, 1), {}, "args= and kwargs="),
        (holder.method, {}, "cannot be stored"),
        (called, {"args": [lambda: None]}, "args="),
        (called, {"args": [holder.stream]}, "ids instead of"),
        (called, {"on_error": lambda ctx: None}, "Scheduler.on_error"),
        (called, {"where": lambda: True}, "module level"),
        (called, {"name": "n" * 200}, "191"),
    ]
    async with Scheduler(sql_scheduler(tmp_path / "jobs.db")) as scheduler:
        kept = scheduler.run_every(called, hours=1, name="kept", jobstore="db", on_error=handler)
        for func, options, word in refused:
            with pytest.raises(ValueError, match="x|n") as caught:
                scheduler.run_every(func, **{"hours": 1, "name": "x", "jobstore": "db", **options})
            assert word in str(caught.value)
        assert scheduler.list_jobs() == [kept]
    holder.stream.close()


async def test_shutdown_and_history_arguments(scheduler: Scheduler) -> None:
    """P13: a grace that is no number of seconds and a naive ``since`` are refused."""
    for grace in (-1, float("nan"), True, "5"):
        with pytest.raises(ValueError, match="grace="):
            await scheduler.shutdown(grace)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="aware"):
        await scheduler.history(since=datetime(2026, 1, 1))
    assert scheduler.running


def test_triggers_refuse_at_construction() -> None:
    """2: a trigger says what is wrong when it is made, before any scheduler sees it."""
    for make in (lambda: Cron("* * 30 2 *"), lambda: Daily("7am"), lambda: Once("soon"), lambda: Every(seconds=0)):
        with pytest.raises(ValueError, match="30 2|7am|soon|Every"):
            make()
