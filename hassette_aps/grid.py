"""From one target to the next: which target a due run stands for, what it coalesces, and when the job fires next."""

import random
from typing import NamedTuple
from zoneinfo import ZoneInfo

from hassette_aps.instants import SECOND, Micros
from hassette_aps.triggers import Trigger


class Step(NamedTuple):
    """A due job's step on its grid. ``missed`` is the first and the last target coalesced into ``target``."""

    target: Micros
    upcoming: Micros | None
    missed: tuple[Micros, Micros] | None


def step(trigger: Trigger, target: Micros, now: Micros, zone: ZoneInfo) -> Step:
    """The run stands for the newest target that is due; the next one is strictly after ``now``.

    Raises whatever a foreign trigger raises.
    """
    upcoming = trigger.after(target, zone)
    if upcoming is None or upcoming > now:
        return Step(target, upcoming, None)
    newest, before, upcoming_now = trigger.catch_up(target, now, zone)
    if before is None:  # a foreign trigger too far behind to walk: the stored target stands for the rest
        return Step(target, upcoming_now, (upcoming, now))
    return Step(newest, upcoming_now, (target, before))


def resumed(trigger: Trigger, target: Micros, now: Micros, zone: ZoneInfo) -> Micros | None:
    """The target after a pause: on the same grid, none owed; a one-shot keeps its own."""
    if target > now or trigger.one_shot:
        return target
    return step(trigger, target, now, zone).upcoming


def delay(jitter: float | None) -> Micros:
    """A fresh draw from ``[0, jitter)`` seconds."""
    return int(random.random() * jitter * SECOND) if jitter else 0
