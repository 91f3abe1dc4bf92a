"""Triggers that are not ours, made to answer our questions.

Their answers are checked, so that a faulty trigger is a clear error and never a loop.
"""

from abc import abstractmethod
from datetime import datetime
from typing import Any, ClassVar, cast
from zoneinfo import ZoneInfo

from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.date import DateTrigger
from whenever import ZonedDateTime

from hassette_aps.instants import Micros, from_datetime, from_zoned, to_datetime, to_zoned
from hassette_aps.triggers.base import DbType, Trigger, TriggerProtocol

_STEPS = 1_000


class ForeignTrigger(Trigger):
    """An adapter around the user's object, which stays reachable as ``inner``.

    The core methods raise whatever ``inner`` raises, ``TypeError`` for an answer that is no aware time and
    ``ValueError`` for one that is not after the previous time.
    """

    __slots__ = ("inner", "one_shot")
    _state: ClassVar[tuple[str, ...]] = ("inner",)

    inner: Any

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner
        self._prepare()

    def latest(self, previous: Micros, now: Micros, zone: ZoneInfo) -> Micros:
        """As for any trigger, but found step by step; after 1,000 steps ``previous`` stands for the rest."""
        target = previous
        for _ in range(_STEPS):
            following = self.after(target, zone)
            if following is None or following > now:
                return target
            target = following
        return previous

    def catch_up(self, previous: Micros, now: Micros, zone: ZoneInfo) -> tuple[Micros, Micros | None, Micros | None]:
        """One walk for all three answers; none ``before`` when it is too far behind."""
        newest, before = previous, None
        for _ in range(_STEPS):
            following = self.after(newest, zone)
            if following is None or following > now:
                return newest, before, following
            newest, before = following, newest
        return previous, None, self.afresh(previous, now, zone)

    @abstractmethod
    def afresh(self, previous: Micros, now: Micros, zone: ZoneInfo) -> Micros | None:
        """The first target after ``now``, without a walk."""

    def trigger_db_type(self) -> DbType:
        return "custom"

    def __repr__(self) -> str:
        return repr(self.inner)

    def __str__(self) -> str:
        return str(self.inner)

    def _value(self) -> tuple[Any, ...]:
        return (self.trigger_id(),)

    def _later(self, target: Micros | None, previous: Micros) -> Micros | None:
        if target is not None and target <= previous:
            raise ValueError(
                f"trigger {self.inner!r} returned {to_datetime(target)}, which is not after the previous time"
                f" {to_datetime(previous)}; a next time must be later"
            )
        return target


class ProtocolTrigger(ForeignTrigger):
    """Any object that has the methods of ``TriggerProtocol``."""

    __slots__ = ()

    inner: TriggerProtocol

    def first(self, now: Micros, zone: ZoneInfo) -> Micros | None:
        return self._instant(self.inner.first_run_time(to_zoned(now, zone)))

    def after(self, previous: Micros, zone: ZoneInfo) -> Micros | None:
        moment = to_zoned(previous, zone)
        return self._later(self._instant(self.inner.next_run_time(moment, moment)), previous)

    def following(self, previous: Micros, now: Micros, zone: ZoneInfo) -> Micros | None:
        answer = self.inner.next_run_time(to_zoned(previous, zone), to_zoned(now, zone))
        return self._later(self._instant(answer), max(previous, now))

    def afresh(self, previous: Micros, now: Micros, zone: ZoneInfo) -> Micros | None:
        target = self._instant(self.inner.next_run_time(to_zoned(previous, zone), to_zoned(now, zone)))
        if target is not None and target <= now:  # it does not look at the current time
            target = self.first(now, zone)
        return self._later(target, now)

    def trigger_label(self) -> str:
        return self.inner.trigger_label()

    def trigger_detail(self) -> str | None:
        return self.inner.trigger_detail()

    def trigger_id(self) -> str:
        return self.inner.trigger_id()

    def _prepare(self) -> None:
        self.one_shot = self.inner.trigger_db_type() in ("after", "once")

    def _instant(self, answer: object) -> Micros | None:
        if answer is None:
            return None
        if not isinstance(answer, ZonedDateTime):
            raise TypeError(f"trigger {self.inner!r} returned {answer!r}; it must be a ZonedDateTime or None")
        return from_zoned(answer)


class APSchedulerTrigger(ForeignTrigger):
    """A trigger of APScheduler, or one written for it."""

    __slots__ = ()

    inner: BaseTrigger

    def first(self, now: Micros, zone: ZoneInfo) -> Micros | None:
        return self._ask(None, to_datetime(now, zone))

    def after(self, previous: Micros, zone: ZoneInfo) -> Micros | None:
        moment = to_datetime(previous, zone)
        return self._later(self._ask(moment, moment), previous)

    def following(self, previous: Micros, now: Micros, zone: ZoneInfo) -> Micros | None:
        newest = self.latest(previous, now, zone) if previous <= now else previous
        target = self.after(newest, zone)
        if target is not None and target <= now:
            return self.afresh(previous, now, zone)
        return self._later(target, max(previous, now))

    def afresh(self, previous: Micros, now: Micros, zone: ZoneInfo) -> Micros | None:
        return self._later(self._ask(None, to_datetime(now + 1, zone)), now)

    def trigger_label(self) -> str:
        return type(self.inner).__name__

    def trigger_detail(self) -> str:
        return str(self.inner)

    def trigger_id(self) -> str:
        return f"{type(self.inner).__name__}:{self.inner}"

    def _prepare(self) -> None:
        self.one_shot = isinstance(self.inner, DateTrigger)

    def _ask(self, previous: datetime | None, now: datetime) -> Micros | None:
        answer: Any = cast(Any, self.inner).get_next_fire_time(previous, now)
        if answer is None:
            return None
        if not isinstance(answer, datetime) or answer.utcoffset() is None:
            raise TypeError(f"trigger {self.inner!r} returned {answer!r}; it must be an aware datetime or None")
        return from_datetime(answer)


def as_trigger(candidate: object) -> Trigger:
    """``candidate`` as a trigger of ours: itself, or an adapter around it.

    Raises:
        TypeError: neither a trigger of this package, nor one of APScheduler, nor an object that has the
            methods of ``TriggerProtocol``.
    """
    if Trigger in type(candidate).__mro__:  # isinstance() of an abstract class takes five times as long
        return cast(Trigger, candidate)
    if not isinstance(candidate, type):
        if isinstance(candidate, TriggerProtocol):
            return ProtocolTrigger(candidate)
        if isinstance(candidate, BaseTrigger):
            return APSchedulerTrigger(candidate)
    raise TypeError(
        f"not a trigger: {candidate!r}; give After, Once, Every, Daily or Cron, an APScheduler trigger, or an"
        " object with the methods of TriggerProtocol"
    )
