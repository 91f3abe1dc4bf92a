"""How long a next fire time takes, side by side with APScheduler and croniter in one run.

    python tests/benchmarks/bench_triggers.py

Zone America/New_York; every figure is the best of several rounds of a walk along the schedule. Our triggers are
measured twice: their integer core, as our job store asks them, and ``get_next_fire_time``, as a plain
APScheduler does. The ratios are against the latter's own triggers and against a croniter built on each call.
"""

import statistics
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from time import perf_counter
from typing import Any
from zoneinfo import ZoneInfo

from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger
from croniter import croniter

from hassette_aps.instants import from_datetime
from hassette_aps.triggers import Cron, Daily, Every, Trigger

ZONE = ZoneInfo("America/New_York")
START = datetime(2026, 1, 15, 12, 0, tzinfo=ZONE)
END = START + timedelta(days=36_500)
ROUNDS = 7

# Ours (seconds last, Sunday 0) and the same schedule as APScheduler's CronTrigger takes it.
SCHEDULES: dict[str, dict[str, str]] = {
    "* * * * *": {"minute": "*"},
    "*/5 * * * *": {"minute": "*/5"},
    "0 7 * * *": {"minute": "0", "hour": "7"},
    "0 9 * * 1-5": {"minute": "0", "hour": "9", "day_of_week": "mon-fri"},
    "30 2 1,15 * *": {"minute": "30", "hour": "2", "day": "1,15"},
    "0 0 L * *": {"minute": "0", "hour": "0", "day": "last"},
    "0 0 29 2 *": {"minute": "0", "hour": "0", "day": "29", "month": "2"},
    "* * * * * */10": {"second": "*/10"},
}


def micros_per_step(walk: Callable[[], Callable[[], object]], steps: int) -> float:
    """Microseconds per step of a walk, best of several rounds; each round starts anew."""
    best = float("inf")
    for _ in range(ROUNDS):
        step = walk()
        begin = perf_counter()
        for _ in range(steps):
            step()
        best = min(best, perf_counter() - begin)
    return best / steps * 1e6


def walk(following: Callable[[Any], Any], begin: Any, end: Any) -> Callable[[], Callable[[], object]]:
    """Walks along a schedule; a walk that leaves the century starts over."""

    def start() -> Callable[[], object]:
        now = begin

        def step() -> None:
            nonlocal now
            target = following(now)
            now = target if target < end else begin

        return step

    return start


def core(trigger: Trigger) -> Callable[[], Callable[[], object]]:
    """The integer core, as our job store asks."""
    return walk(lambda now: trigger.after(now, ZONE), from_datetime(START), from_datetime(END))


def through_apscheduler(trigger: Any) -> Callable[[], Callable[[], object]]:
    """``get_next_fire_time``, as a plain APScheduler asks."""
    return walk(lambda now: trigger.get_next_fire_time(now, now), START, END)


def through_croniter(expression: str) -> Callable[[], Callable[[], object]]:
    """A croniter built on each call, as Hassette 0.60 does."""
    return walk(lambda now: croniter(expression, now, ret_type=datetime).get_next(), START, END)


def cron_table() -> None:
    """One line per expression, and the medians."""
    print("next time in us            core    ours  CronTrigger     croniter")
    ratios: list[tuple[float, ...]] = []
    for expression, fields in SCHEDULES.items():
        inner = micros_per_step(core(Cron(expression)), 1_000)
        ours = micros_per_step(through_apscheduler(Cron(expression)), 1_000)
        stock = micros_per_step(through_apscheduler(CronTrigger(timezone=ZONE, **fields)), 200)
        each = micros_per_step(through_croniter(expression), 100)
        ratios.append((stock / inner, each / inner, stock / ours, each / ours))
        print(f"{expression:22}{inner:9.2f}{ours:8.2f}{stock:7.1f} {stock / ours:4.1f}x{each:8.1f} {each / ours:4.1f}x")
    medians = [statistics.median(column) for column in zip(*ratios, strict=True)]
    print(f"median ratios of core: {medians[0]:.1f}x CronTrigger, {medians[1]:.1f}x croniter per call")
    print(f"of get_next_fire_time: {medians[2]:.1f}x CronTrigger, {medians[3]:.1f}x croniter per call\n")


def other_table() -> None:
    """Daily, Every, and catching up."""
    print(f"Daily: core {micros_per_step(core(Daily('07:00')), 1_000):.2f} us")
    inner = micros_per_step(core(Every(seconds=60)), 5_000)
    ours = micros_per_step(through_apscheduler(Every(seconds=60)), 5_000)
    stock = micros_per_step(through_apscheduler(IntervalTrigger(seconds=60, timezone=ZONE)), 5_000)
    print(f"Every: core {inner:.2f} us, get_next_fire_time {ours:.2f} us, IntervalTrigger {stock:.2f} us", end=" ")
    print(f"({stock / inner:.1f}x and {stock / ours:.2f}x)\n")
    late = START + timedelta(days=30)
    previous, now = from_datetime(START), from_datetime(late)
    for trigger in (Every(seconds=1), Cron("* * * * * *"), Cron("* * * * *"), Cron("0 7 * * *"), Daily("07:00")):
        inner = micros_per_step(lambda t=trigger: lambda: t.latest(previous, now, ZONE), 200)
        ours = micros_per_step(lambda t=trigger: lambda: t.get_next_fire_time(START, late), 200)
        print(f"30 days behind, {trigger!s:22} latest {inner:6.2f} us, get_next_fire_time {ours:6.2f} us")


if __name__ == "__main__":
    print(f"Python {sys.version.split()[0]}, {ZONE.key}, best of {ROUNDS} rounds\n")
    cron_table()
    other_table()
