"""Names and ``if_exists`` (section 5, 11.1, 11.10)."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from hassette_aps import Every, ScheduledJob, Scheduler
from tests.kit import CALLS, Recorded, called, called_too, handler, idle, until


async def test_error_names_job_and_owner_even_for_the_same_configuration() -> None:
    """5.2: ``"error"`` refuses an identical registration and names the job, the owner and the way out."""
    async with Scheduler(timezone="UTC", owner="shop") as scheduler:
        first = scheduler.run_every(called, minutes=1, name="x")
        with pytest.raises(ValueError, match=r"job 'x' of owner 'shop' exists already.*if_exists='skip'.*'replace'"):
            scheduler.run_every(called, minutes=1, name="x")
        assert scheduler.list_jobs() == [first]


async def test_skip_returns_the_existing_handle(scheduler: Scheduler) -> None:
    """5.2, 5.3: ``"skip"`` with the same configuration gives the existing handle; arguments compare by ``==``."""
    options: dict[str, Any] = {
        "name": "x",
        "group": "g",
        "jitter": 1,
        "timeout": 5,
        "mode": "single",
        "args": [[1]],
        "kwargs": {"a": {"b": 1}},
        "on_error": handler,
    }
    first = scheduler.run_every(called, minutes=1, **options)
    again = scheduler.run_every(called, seconds=60, **{**options, "args": ([1],), "if_exists": "skip"})
    assert again is first
    assert scheduler.list_jobs() == [first]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"func": called_too}, "func"),
        ({"trigger": Every(minutes=2)}, "trigger"),
        ({"group": "h"}, "group"),
        ({"jitter": 2}, "jitter"),
        ({"timeout": 6}, "timeout"),
        ({"timeout": None, "timeout_disabled": True}, "timeout, timeout_disabled"),
        ({"mode": "queued"}, "mode"),
        ({"args": [2]}, "args"),
        ({"kwargs": {"a": 2}}, "kwargs"),
        ({"on_error": lambda ctx: None}, "on_error"),
        ({"func": called_too, "args": [2], "group": "h"}, "func, group, args"),
    ],
)
async def test_skip_lists_what_changed(scheduler: Scheduler, change: dict[str, Any], field: str) -> None:
    """5.3: a difference in any compared field is refused and listed, in the order they are compared."""
    base: dict[str, Any] = {
        "func": called,
        "trigger": Every(minutes=1),
        "name": "x",
        "group": "g",
        "jitter": 1,
        "timeout": 5,
        "mode": "single",
        "args": [1],
        "kwargs": {"a": 1},
        "on_error": handler,
    }
    first = scheduler.schedule(**base)
    with pytest.raises(ValueError, match=rf"'x'.* with another {field};"):
        scheduler.schedule(**{**base, **change, "if_exists": "skip"})
    assert scheduler.list_jobs() == [first]


async def test_bound_methods_equal_themselves(scheduler: Scheduler) -> None:
    """5.3: a bound method passed again is the same one (Hassette compares with ``is``)."""

    class App:
        async def tick(self) -> None: ...
        async def on_error(self, ctx: object) -> None: ...

    app = App()
    first = scheduler.run_every(app.tick, minutes=1, name="x", on_error=app.on_error)
    assert scheduler.run_every(app.tick, minutes=1, name="x", on_error=app.on_error, if_exists="skip") is first
    with pytest.raises(ValueError, match="func"):
        scheduler.run_every(App().tick, minutes=1, name="x", on_error=app.on_error, if_exists="skip")


async def test_partials_compare_by_their_parts(scheduler: Scheduler) -> None:
    """11.10: partials are compared by function, arguments and keywords."""
    first = scheduler.run_every(partial(called, 1, a=2), minutes=1, name="x")
    assert scheduler.run_every(partial(called, 1, a=2), minutes=1, name="x", if_exists="skip") is first
    with pytest.raises(ValueError, match="func"):
        scheduler.run_every(partial(called, 1, a=3), minutes=1, name="x", if_exists="skip")


async def test_arguments_that_cannot_be_compared_count_as_changed(scheduler: Scheduler) -> None:
    """P13: an ``__eq__`` that raises is a difference, not an accident."""

    class Odd:
        __hash__ = None  # type: ignore[assignment]

        def __eq__(self, other: object) -> bool:
            raise RuntimeError

    scheduler.run_every(called, minutes=1, name="x", args=[Odd()])
    with pytest.raises(ValueError, match="args"):
        scheduler.run_every(called, minutes=1, name="x", args=[Odd()], if_exists="skip")


async def test_replace_cancels_the_old_one(scheduler: Scheduler) -> None:
    """5.2: ``"replace"`` cancels the old job and registers the new one; what did not exist is simply added."""
    old = scheduler.run_in(called, 0.05, name="x", args=["old"], group="g")
    new = scheduler.run_in(called, 0.05, name="x", args=["new"], if_exists="replace")
    added = scheduler.run_every(idle, hours=1, name="y", if_exists="replace")
    assert scheduler.list_jobs() == [new, added]
    assert scheduler.list_jobs(group="g") == []
    assert old.next_run is None
    await until(lambda: CALLS)
    assert CALLS == [("new",)]


async def test_replacing_a_running_one_shot(scheduler: Scheduler) -> None:
    """5.4: the new job stays listed and its name taken once when the old run ends."""
    started, go = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        started.set()
        await go.wait()

    recorded = Recorded(scheduler)
    scheduler.run_in(slow, 0.01, name="x")
    await started.wait()
    new = scheduler.run_every(idle, hours=1, name="x", if_exists="replace")
    go.set()
    await until(lambda: recorded.statuses("x") == ["success"])
    assert scheduler.list_jobs() == [new]
    with pytest.raises(ValueError, match="exists already"):
        scheduler.run_every(idle, hours=1, name="x")


@pytest.mark.parametrize(
    "register",
    [
        lambda s: s.run_every(called, minutes=1, name="x", jitter=-1),
        lambda s: s.run_every(called, minutes=1, name="x", jobstore="nowhere"),
        lambda s: s.run_every(called, minutes=1, name="x", executor="nowhere"),
        lambda s: s.run_once(called, "00:00", "error", name="x"),
    ],
)
async def test_a_failed_registration_leaves_no_trace(
    scheduler: Scheduler, register: Callable[[Scheduler], ScheduledJob]
) -> None:
    """5.4: the name is free again, and with ``"replace"`` the old job goes on."""
    with pytest.raises(ValueError, match="'x'|00:00"):
        register(scheduler)
    assert scheduler.list_jobs() == []
    job = scheduler.run_every(called, minutes=1, name="x")
    with pytest.raises(ValueError, match="'x'"):
        scheduler.run_every(called, minutes=2, name="x", jobstore="nowhere", if_exists="replace")
    assert scheduler.list_jobs() == [job]
    assert job.next_run is not None


async def test_unnamed_one_shots_find_a_free_name(scheduler: Scheduler) -> None:
    """11.1: a taken auto-name of a one-shot gets ``#2``, ``#3``; repeating jobs keep the error."""
    names = [scheduler.run_in(idle, 60).name for _ in range(3)]
    assert names == ["idle:after:60", "idle:after:60#2", "idle:after:60#3"]
    scheduler.run_every(idle, minutes=1)
    with pytest.raises(ValueError, match="idle:every:60"):
        scheduler.run_every(idle, minutes=1)


async def test_a_one_shot_reschedules_itself_without_a_name(scheduler: Scheduler) -> None:
    """11.1: a run may schedule its own function again."""
    runs: list[int] = []

    async def again() -> None:
        runs.append(1)
        if len(runs) < 4:
            scheduler.run_in(again, 0.01)

    scheduler.run_in(again, 0.01)
    await until(lambda: len(runs) == 4)
    await until(lambda: not scheduler.list_jobs())


async def test_a_one_shot_frees_its_name_and_group(scheduler: Scheduler) -> None:
    """4.4: when its run is over a one-shot leaves ``list_jobs()``, its name and its group."""
    job = scheduler.run_in(called, 0.01, name="x", group="g")
    assert scheduler.list_jobs(group="g") == [job]
    await until(lambda: not scheduler.list_jobs())
    assert scheduler.list_jobs(group="g") == []
    assert scheduler.run_in(called, 60, name="x").name == "x"


async def test_what_was_left_out_equals_its_default(scheduler: Scheduler) -> None:
    """5.3, 11.8: the mode in force is compared; ``Once("07:00")`` again before it ran is the same schedule."""
    job = scheduler.run_every(called, minutes=1, name="x")
    assert scheduler.run_every(called, minutes=1, name="x", mode="parallel", timeout=None, if_exists="skip") is job
    once = scheduler.run_once(called, "07:00", name="once")
    assert scheduler.run_once(called, "07:00", name="once", if_exists="skip") is once


async def test_unnamed_jobs_with_skip_and_replace(scheduler: Scheduler) -> None:
    """5.1, 5.2: a generated name is a name: ``"skip"`` and ``"replace"`` find the job by it, one-shots too."""
    job = scheduler.run_in(called, 60)
    assert scheduler.run_in(called, 60, if_exists="skip") is job
    new = scheduler.run_in(called, 60, if_exists="replace")
    assert (new.name, scheduler.list_jobs()) == (job.name, [new])


async def test_replacing_keeps_the_place_in_the_list(scheduler: Scheduler) -> None:
    """5.2: the new job stands where the old one stood, in its own group."""
    scheduler.run_every(called, minutes=1, name="x", group="old")
    other = scheduler.run_every(called, minutes=1, name="y")
    new = scheduler.run_every(called, minutes=1, name="x", group="new", if_exists="replace")
    assert scheduler.list_jobs() == [new, other]
    assert scheduler.list_jobs(group="old") == []
    assert scheduler.list_jobs(group="new") == [new]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"group": None}, "group"),
        ({"jitter": None}, "jitter"),
        ({"args": [1, 3]}, "args"),
        ({"kwargs": {}}, "kwargs"),
        ({"mode": "single"}, "mode"),
        ({"on_error": None}, "on_error"),
    ],
)
async def test_skip_looks_at_what_is_given_and_at_what_is_not(
    scheduler: Scheduler, change: dict[str, Any], field: str
) -> None:
    """2: the same registration keeps the job, whatever its values are written as; one option more or less raises."""

    def handler(context: Any) -> None:
        pass

    def work(*args: Any, **kwargs: Any) -> None:
        pass

    given: dict[str, Any] = {
        "group": "g", "jitter": 2, "args": (1, 2), "kwargs": {"a": [1]}, "on_error": handler, "mode": "queued"
    }  # fmt: skip
    plain = scheduler.run_every(idle, seconds=60, name="plain")
    job = scheduler.run_every(work, seconds=60, name="n", **given)
    again = {**given, "args": [1, 2], "kwargs": {"a": [1]}, "jitter": 2.0}
    assert scheduler.run_every(work, seconds=60, name="n", if_exists="skip", **again) is job
    with pytest.raises(ValueError, match=f"another {field}"):
        left = {key: value for key, value in {**given, **change}.items() if value is not None}
        scheduler.run_every(work, seconds=60, name="n", if_exists="skip", **left)
    with pytest.raises(TypeError, match="did you mean 'group'"):
        scheduler.run_every(work, seconds=60, name="n", if_exists="skip", **given, grup="g")  # type: ignore[call-arg]
    for key, value in (("kwargs", None), ("args", None), ("mode", ""), ("timeout_disabled", None)):
        with pytest.raises((TypeError, ValueError), match=f"{key}="):
            scheduler.run_every(idle, seconds=60, name="plain", if_exists="skip", **{key: value})
    with pytest.raises(ValueError, match="jitter=True"):
        scheduler.run_every(work, seconds=60, name="n", if_exists="skip", **{**given, "jitter": True})
    assert scheduler.list_jobs() == [plain, job]


async def test_skip_in_an_arrays_way(scheduler: Scheduler) -> None:
    """Arguments that give no truth value when compared are another registration, as they are without the short cut."""

    class Array:
        def __eq__(self, other: object) -> Any:
            raise ValueError("the truth value of an array is ambiguous")

        __hash__ = None  # type: ignore[assignment]

    def work(one: Any) -> None:
        pass

    same = Array()
    job = scheduler.run_every(work, seconds=60, name="n", args=[same])
    assert scheduler.run_every(work, seconds=60, name="n", args=[same], if_exists="skip") is job
    with pytest.raises(ValueError, match="another args"):
        scheduler.run_every(work, seconds=60, name="n", args=[Array()], if_exists="skip")
