"""What every trigger is: a pure function of (previous, now), in three dialects.

The core is on integers and is what our job store asks. Both ``TriggerProtocol`` (``ZonedDateTime``, as in
Hassette) and ``get_next_fire_time`` (``datetime``, as in APScheduler) are derived from the core here, once.
"""

from abc import abstractmethod
from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from typing import Any, ClassVar, Literal, Protocol, Self, TypeAlias, cast, runtime_checkable
from zoneinfo import ZoneInfo

from apscheduler.triggers.base import BaseTrigger
from whenever import ZonedDateTime

from hassette_aps.instants import SECOND, Micros, as_zone, from_datetime, from_zoned, to_datetime, to_zoned

DbType: TypeAlias = Literal["after", "once", "interval", "cron", "custom"]

STATE_VERSION = 1
"""Version of the pickled state; a newer one is refused."""


@runtime_checkable
class TriggerProtocol(Protocol):
    """The interface of Hassette's triggers; any object that has it can be scheduled."""

    def first_run_time(self, current_time: ZonedDateTime) -> ZonedDateTime | None:
        """The first target of a schedule that starts at ``current_time``."""
        ...

    def next_run_time(self, previous_run: ZonedDateTime, current_time: ZonedDateTime) -> ZonedDateTime | None:
        """The first target strictly after both times, or None when the schedule is finished."""
        ...

    def trigger_label(self) -> str:
        """One word for people: after, once, every, daily, cron."""
        ...

    def trigger_detail(self) -> str | None:
        """The rest for people: an interval, a time, an expression."""
        ...

    def trigger_db_type(self) -> str:
        """The kind, as the database keeps it."""
        ...

    def trigger_id(self) -> str:
        """Equal for equal schedules, in every process."""
        ...


class Trigger(BaseTrigger):
    """A schedule without a clock: hashable, picklable, equal by value.

    Usable in a ``Scheduler`` of this package and in a plain APScheduler (``aps.add_job(f, Daily("07:00"))``).
    Instants are microseconds since the epoch.
    """

    __slots__ = ("_timezone",)

    one_shot: bool = False
    """True if there is only one target."""

    _state: ClassVar[tuple[str, ...]] = ()
    """The attributes that make the value: compared, hashed and pickled."""

    def __init__(self, timezone: str | tzinfo | None = None) -> None:
        self._timezone = timezone if timezone is None else _named_if_possible(timezone)

    # The core

    @abstractmethod
    def first(self, now: Micros, zone: ZoneInfo) -> Micros | None:
        """The first target of a schedule that starts at ``now``; None if there is none."""

    @abstractmethod
    def after(self, previous: Micros, zone: ZoneInfo) -> Micros | None:
        """The next target strictly after ``previous``; None when finished. Built-in triggers never raise."""

    def latest(self, previous: Micros, now: Micros, zone: ZoneInfo) -> Micros:
        """The newest target that is not after ``now``, given the target ``previous`` <= ``now``.

        A search, not a walk: the cost grows with the logarithm of the time missed.
        """
        newest = self.after(previous, zone)
        if newest is None or newest > now:
            return previous
        reach = SECOND
        while True:  # back from now in doubling strides, until a target lies between
            probe = now - reach
            if probe <= newest:
                break
            found = self.after(probe, zone)
            if found is not None and found <= now:
                newest = found
                break
            reach *= 2
        low, high = newest, now  # a target is at `low`, none is in (`high`, `now`]
        while True:
            found = self.after(low, zone)
            if found is None or found > high:
                return low
            middle = (found + high) // 2
            beyond = self.after(middle, zone)
            if beyond is None or beyond > high:
                low, high = found, middle
            else:
                low = beyond

    def following(self, previous: Micros, now: Micros, zone: ZoneInfo) -> Micros | None:
        """The first target strictly after both ``previous`` and ``now``."""
        return self.after(self.latest(previous, now, zone) if previous <= now else previous, zone)

    def catch_up(self, previous: Micros, now: Micros, zone: ZoneInfo) -> tuple[Micros, Micros | None, Micros | None]:
        """Given a target that is due: the newest due one, the one before that, and the first one after ``now``."""
        newest = self.latest(previous, now, zone)
        before = None if newest == previous else self.latest(previous, newest - 1, zone)
        return newest, before, self.after(newest, zone)

    def settle(self, now: Micros, zone: ZoneInfo) -> "Trigger":
        """The trigger to keep, asked once at registration; most are settled as they are.

        Raises:
            ValueError: ``Once`` with ``if_past="error"`` is past, or a ``timezone=`` given to the trigger is
                not ``zone``.
        """
        return self

    def _refuse_other_zone(self, zone: tzinfo) -> None:
        own = self._timezone
        if own is not None and own is not zone and str(own) != str(zone):
            raise ValueError(
                f"{self!r} has timezone {own}, this scheduler {zone}; wall-clock times are in the scheduler's"
                " zone: leave timezone= out, or give the Scheduler that timezone"
            )

    @property
    def written(self) -> str:
        """What the user wrote, for comparison with an earlier process."""
        return self.trigger_id()

    # TriggerProtocol

    def first_run_time(self, current_time: ZonedDateTime) -> ZonedDateTime | None:
        """The first target of a schedule that starts at ``current_time``, in its zone."""
        zone = zone_of(current_time)
        target = self.first(from_zoned(current_time), zone)
        return None if target is None else to_zoned(target, zone)

    def next_run_time(self, previous_run: ZonedDateTime, current_time: ZonedDateTime) -> ZonedDateTime | None:
        """The first target strictly after both times, in the zone of ``current_time``; None when finished."""
        zone = zone_of(current_time)
        target = self.following(from_zoned(previous_run), from_zoned(current_time), zone)
        return None if target is None else to_zoned(target, zone)

    @abstractmethod
    def trigger_label(self) -> str:
        """One word for people: after, once, every, daily, cron."""

    @abstractmethod
    def trigger_detail(self) -> str | None:
        """The rest for people: an interval, a time, an expression."""

    @abstractmethod
    def trigger_db_type(self) -> DbType:
        """The kind, as the database keeps it."""

    @abstractmethod
    def trigger_id(self) -> str:
        """Equal for equal schedules, in every process."""

    # APScheduler

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        """APScheduler's question. Idempotent; far behind, the answer is the newest slot that is due.

        Wall-clock times are read in the zone of ``now``, or in the trigger's own ``timezone=``.
        """
        tz = now.tzinfo or UTC
        zone: Any = self._timezone or _named_if_possible(tz)
        if previous_fire_time is None:
            target = self.first(from_datetime(now), zone)
            return None if target is None else to_datetime(target, tz)
        target = self.after(from_datetime(previous_fire_time), zone)
        if target is None:
            return None
        moment = to_datetime(target, tz)
        if moment > now and not now.fold:  # compares what the clocks show, which is cheap and lies in a fold only
            return moment
        instant = from_datetime(now)
        return moment if target > instant else to_datetime(self.latest(target, instant, zone), tz)

    # Values

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._value() == other._value()

    def __hash__(self) -> int:
        return hash((type(self), self._value()))

    def __str__(self) -> str:
        return f"{self.trigger_label()}[{self.trigger_detail()}]"

    def __getstate__(self) -> dict[str, Any]:
        state = {name: _plain(getattr(self, name)) for name in self._state}
        return {"version": STATE_VERSION, "timezone": self._timezone, **state}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        version = state.get("version")
        if version != STATE_VERSION:
            raise ValueError(
                f"this {type(self).__name__} was pickled as version {version!r}, this release of hassette_aps"
                f" reads version {STATE_VERSION}; upgrade hassette_aps or register the job again"
            )
        self._timezone = state["timezone"]
        for name in self._state:
            setattr(self, name, state[name])
        self._prepare()

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def _prepare(self) -> None:
        """Derive what is not part of the state."""

    def _value(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self._state)


def zone_of(moment: ZonedDateTime) -> ZoneInfo:
    """The named zone of a ``ZonedDateTime``; UTC for a system zone without a name."""
    return ZoneInfo(moment.tz_id or "UTC")


def _plain(value: Any) -> Any:
    """Named tuples as plain ones: a pickle refers to no class but the trigger's."""
    return tuple(cast(tuple[Any, ...], value)) if isinstance(value, tuple) else value


def _named_if_possible(tz: str | tzinfo) -> tzinfo:
    """A named zone where there is one: APScheduler also takes zones that have no name."""
    if isinstance(tz, ZoneInfo):
        return tz
    try:
        return as_zone(tz)
    except ValueError:
        if isinstance(tz, str):
            raise
        return tz
