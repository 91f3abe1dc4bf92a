"""Facade jobs in a user's own job store: the trigger that carries what APScheduler's row has no place for."""

import logging
import pickle
import random
from collections.abc import Callable, Mapping
from datetime import datetime
from types import FunctionType, MethodType
from typing import Any
from zoneinfo import ZoneInfo

from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.interval import IntervalTrigger
from apscheduler.util import ref_to_obj

from hassette_aps.callables import reference_of, runs_on_loop
from hassette_aps.clockwork import ALIAS
from hassette_aps.grid import Step, resumed, step
from hassette_aps.instants import SECOND, Micros, from_datetime, to_datetime
from hassette_aps.job import ScheduledJob
from hassette_aps.options import JobSpec, changed_fields, equal
from hassette_aps.triggers import Every, Trigger
from hassette_aps.types import Mode

VERSION = 1
RETRY: Micros = 60 * SECOND
"""When a trigger that raised is asked again."""

MAX_ID = 191
"""Length of an id in ``SQLAlchemyJobStore`` (``jobstores/sqlalchemy.py`` 85)."""

_log = logging.getLogger("hassette_aps.rows")


class RowTrigger(BaseTrigger):
    """The trigger of one row: the user's trigger, the job's spec and where its grid stands.

    Pickled with the row after every firing, so its module path stays. APScheduler asks twice per firing and
    must get the same answer: jitter is derived from the target, and ``times`` says which target a fire time is of.
    """

    _kept = (
        "auto_named",
        "func_ref",
        "group",
        "jitter",
        "marks",
        "mode",
        "name",
        "on_error_ref",
        "owner",
        "parked",
        "retrying",
        "salt",
        "timeout",
        "timeout_disabled",
        "times",
        "trigger",
        "where_ref",
        "zone",
    )
    __slots__ = (*_kept, "fault")

    def __init__(self, job: ScheduledJob, target: Micros) -> None:
        spec = job.spec
        self.owner = job.owner
        self.name = job.name
        self.auto_named = spec.auto_named
        self.group = spec.group
        self.jitter = spec.jitter
        self.timeout = spec.timeout
        self.timeout_disabled = spec.timeout_disabled
        self.mode: Mode | None = spec.mode
        self.trigger: Trigger = spec.trigger
        self.func_ref = reference_of(spec.func)
        self.where_ref = _kept_reference(spec.where)
        self.on_error_ref = _kept_reference(spec.on_error)
        self.zone = job.zone.key
        self.salt = random.getrandbits(64)
        self.parked: Micros | None = None
        """Fire time of a row whose owner is not running."""
        self.retrying: Micros | None = None
        """Fire time at which a trigger that raised is asked again, without a run."""
        self.times: dict[Micros, Micros] = {}
        """Fire time -> target, for the last few; the newest target is where the grid stands."""
        self.marks: list[Micros] = []
        """The pending target at each step back of the wall clock: earlier ones come again, as another attempt."""
        self.fault: Exception | None = None
        self.fire_time(target)

    @property
    def job_id(self) -> str:
        """The row's APScheduler id."""
        return f"{self.owner}/{self.name}" if self.owner else self.name

    @property
    def target(self) -> Micros:
        """The newest target known: the one the stored fire time is of."""
        return max(self.times.values())

    def fire_time(self, target: Micros) -> Micros:
        """``target`` with its jitter: the same answer for the same target of the same registration."""
        fires = target
        if self.jitter:
            draw = random.Random(self.salt ^ target).random()
            fires += int(draw * self.jitter * SECOND)
        self.times[fires] = target
        return fires

    def due(self, fires: Micros, now: Micros, admitted: Micros = -1) -> Step | None:
        """What a due row's run stands for and when the row fires next; raises what a foreign trigger raises.

        Targets up to ``admitted`` have had their run: the row comes again when it could not be changed then.
        """
        zone = ZoneInfo(self.zone)
        target = self.times.get(fires)
        if target is None:  # an extra run that modify_job(next_run_time=) put off the grid
            upcoming = None if self.trigger.one_shot else resumed(self.trigger, self.target, now, zone)
            return Step(fires, upcoming, None) if fires > admitted else None
        if target <= admitted:
            following = self.trigger.after(admitted, zone)
            if following is None or following > now:
                return None
            target = following
        return step(self.trigger, target, now, zone)

    def set_back(self, back: Micros) -> None:
        """The wall clock went back: the grid goes on by elapsed time."""
        self.marks.append(self.target)
        self.times = {fires - back: target - back for fires, target in self.times.items()}

    def attempt(self, target: Micros) -> int:
        """1, or more for an instant that the wall clock showed before it was set back."""
        return 1 + sum(mark > target for mark in self.marks)

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        """Never raises, and None only when the schedule is finished."""
        instant = from_datetime(now)
        try:
            if previous_fire_time is None:
                upcoming = resumed(self.trigger, self.target, instant, ZoneInfo(self.zone))
            else:
                ahead = self.due(from_datetime(previous_fire_time), instant)
                upcoming = ahead and ahead.upcoming
            self.retrying = None
            return (
                None if upcoming is None else to_datetime(self.fire_time(upcoming), now.tzinfo or ZoneInfo(self.zone))
            )
        except Exception as exc:  # noqa: BLE001  a raising trigger would stop APScheduler for ever
            if self.fault is None:
                _log.error("job %r: its trigger %s failed (%r); asked again in 60 s", self.name, self.trigger, exc)
            self.fault = exc
            self.retrying = instant + RETRY
            return to_datetime(self.retrying, now.tzinfo or ZoneInfo(self.zone))

    def __getstate__(self) -> dict[str, Any]:
        newest = sorted(self.times.items(), key=lambda pair: pair[1])[-2:]
        return {"version": VERSION, **{key: getattr(self, key) for key in self._kept}, "times": dict(newest)}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        version = state["version"]
        if version > VERSION:
            raise ValueError(
                f"this row was written by a newer hassette_aps (version {version}, this one reads {VERSION})"
            )
        for key in self._kept:
            setattr(self, key, state[key])
        self.fault = None

    def __str__(self) -> str:
        return str(self.trigger)


def job_of(row: Any) -> ScheduledJob:
    """The job of an APScheduler ``Job`` whose trigger is a ``RowTrigger``."""
    kept: RowTrigger = row.trigger
    spec = JobSpec(
        func=row.func,
        trigger=kept.trigger,
        auto_named=kept.auto_named,
        on_loop=runs_on_loop(row.func),
        group=kept.group,
        jitter=kept.jitter,
        timeout=kept.timeout,
        timeout_disabled=kept.timeout_disabled,
        mode=kept.mode,
        where=_resolve(kept.where_ref, kept),
        on_error=_resolve(kept.on_error_ref, kept),
        executor=None if row.executor == ALIAS else row.executor,
    )
    return ScheduledJob.of((spec, kept.name, tuple(row.args), dict(row.kwargs)))


def row_changes(row: Any, new: ScheduledJob) -> list[str]:
    """The fields in which a registration differs from a row of an earlier process.

    Functions and handlers are compared by reference, arguments by ``==`` or else by their pickles, a trigger by
    what was written.
    """
    old, kept, spec = job_of(row), row.trigger, new.spec
    changed = set(changed_fields(old, new))
    if row.func_ref is not None and row.func_ref == reference_of(spec.func):
        changed.discard("func")
    if kept.trigger.written == spec.trigger.written:
        changed.discard("trigger")
    if kept.on_error_ref == _kept_reference(spec.on_error):
        changed.discard("on_error")
    args = (*_bound_self(spec.func), *new.args)
    if _same_pickle(old.args, args):
        changed.discard("args")
    if _same_pickle(old.kwargs, new.kwargs):
        changed.discard("kwargs")
    return [name for name in changed_fields(old, new) if name in changed]


def phase_of(row: Any, trigger: Trigger) -> Micros | None:
    """The target to go on from when a row's schedule is the one that is registered again; None if it changed."""
    old = row.trigger
    if isinstance(old, RowTrigger):
        return old.target if old.trigger.written == trigger.written else None
    same = isinstance(old, IntervalTrigger) and trigger == Every(seconds=old.interval.total_seconds())
    return from_datetime(row.next_run_time) if same and row.next_run_time is not None else None


def refuse_unstorable(job: ScheduledJob, alias: str) -> None:
    """Refuse what could not be read back in another process.

    Raises:
        ValueError: naming the job, the value and what to pass instead.
    """
    spec = job.spec
    where = f"job {job.name!r} in job store {alias!r}"
    if not _can_be_found(spec.func):
        raise ValueError(
            f"{where}: {spec.func!r} cannot be found again by name after a restart; pass a function defined at module"
            " level (arguments go into args= and kwargs=), not a lambda, closure, partial or callable instance"
        )
    for key in ("where", "on_error"):
        value = getattr(spec, key)
        if value is not None and _kept_reference(value) is None:
            raise ValueError(
                f"{where}: {key}={value!r} cannot be found again after a restart; pass a function defined at module"
                " level" + ("" if key == "where" else ", or use Scheduler.on_error for all jobs")
            )
    parts: dict[str, Any] = {
        "func": spec.func if _is_bound(spec.func) else None,
        "args": job.args,
        "kwargs": job.kwargs,
    }
    parts["trigger"] = spec.trigger
    for key, value in parts.items():
        try:
            pickle.dumps(value)
        except Exception as exc:
            raise ValueError(
                f"{where}: {key}={value!r} cannot be stored ({exc}); pass values that pickle, such as ids instead of"
                " live objects, and a module-level function instead of a method of such an object"
            ) from exc


def _bound_self(func: Callable[..., Any]) -> tuple[Any, ...]:
    """What APScheduler puts before the arguments of a bound method (``job.py`` 250)."""
    return (func.__self__,) if isinstance(func, MethodType) and _is_bound(func) else ()


def _is_bound(func: Callable[..., Any]) -> bool:
    return isinstance(func, MethodType) and not isinstance(func.__self__, type)


def _can_be_found(func: Callable[..., Any]) -> bool:
    """Whether the reference of a callable will mean it again; the name may still be about to be bound (a decorator)."""
    reference = reference_of(func)
    if reference is None:
        return False
    found = _resolve_quietly(reference)
    return isinstance(func, FunctionType) if found is None else found is not type(func)


def _kept_reference(func: Callable[..., Any] | None) -> str | None:
    """The reference of a callable that means the same in another process: not a bound method's."""
    if func is None or _is_bound(func):
        return None
    return reference_of(func) if _can_be_found(func) else None


def _resolve_quietly(reference: str) -> Any:
    try:
        return ref_to_obj(reference)
    except (LookupError, ValueError):
        return None


def _resolve(reference: str | None, kept: RowTrigger) -> Any:
    if reference is None:
        return None
    found = _resolve_quietly(reference)
    if found is None:
        _log.error("job %r: %s is gone; the job runs without it until it is registered again", kept.name, reference)
    return found


def _same_pickle(old: Any, new: Any) -> bool:
    if equal(old, new):
        return True
    try:
        return pickle.dumps(old) == pickle.dumps(new)
    except Exception:  # noqa: BLE001  what cannot be pickled cannot be compared that way
        return False
