"""A single run at a given time."""

from datetime import datetime, tzinfo
from logging import getLogger
from typing import ClassVar, Literal, TypeAlias
from zoneinfo import ZoneInfo

from whenever import ZonedDateTime

from hassette_aps.instants import Micros, to_datetime, to_zoned
from hassette_aps.triggers.base import DbType, Trigger
from hassette_aps.triggers.wallclock import DAY, LAST, local_clock
from hassette_aps.triggers.written import Moment, moment, time_of_day, time_text

IfPast: TypeAlias = Literal["tomorrow", "error"]

LOGGER = getLogger(__name__)


class Once(Trigger):
    """Once, at a time of day or at a given moment.

    Args:
        at: ``"HH:MM"`` (or ``"HH:MM:SS"``): today, or tomorrow if that is not in the future.
            A ``ZonedDateTime``, a ``datetime`` or an ISO date and time: that moment, in the scheduler's zone
            if it has no offset.
        if_past: What to do about a time that is past when the job is registered. ``"tomorrow"`` warns, then
            takes tomorrow for a time of day and runs at once for a moment; ``"error"`` raises ``ValueError``.
        timezone: For a plain APScheduler only: the zone of wall-clock times, if it is not the scheduler's.

    Raises:
        TypeError: ``at`` is none of these.
        ValueError: not a time, or an unknown ``if_past``.
    """

    __slots__ = ("_if_past", "_moment", "_settled", "_time", "_written")
    one_shot = True
    _state: ClassVar[tuple[str, ...]] = ("_if_past", "_moment", "_settled", "_time", "_written")

    _if_past: IfPast
    _moment: Moment | None
    _settled: bool
    _time: Micros | None
    _written: str

    def __init__(
        self,
        at: str | ZonedDateTime | datetime,
        if_past: IfPast = "tomorrow",
        *,
        timezone: str | tzinfo | None = None,
    ) -> None:
        super().__init__(timezone)
        if if_past not in ("tomorrow", "error"):
            raise ValueError(f"Once: if_past must be 'tomorrow' or 'error', got {if_past!r}")
        self._if_past = if_past
        self._settled = False
        if isinstance(at, str) and "-" not in at:
            self._moment, self._time = None, time_of_day(at, "Once: at")
            self._written = time_text(self._time)
        else:
            self._moment, self._time = moment(at, "Once: at"), None
            self._written = self._moment.text

    def settle(self, now: Micros, zone: ZoneInfo) -> Trigger:
        if self._settled:
            return self
        if self._time is not None or (self._moment is not None and self._moment.is_wall):
            self._refuse_other_zone(zone)
        settled = object.__new__(Once)
        settled._timezone, settled._if_past, settled._written = self._timezone, self._if_past, self._written
        settled._settled, settled._time = True, None
        settled._moment = self._settled_moment(now, zone)
        return settled

    def first(self, now: Micros, zone: ZoneInfo) -> Micros | None:
        settled = self._moment if self._settled else self._settled_moment(now, zone)
        return settled and settled.micros

    def after(self, previous: Micros, zone: ZoneInfo) -> None:
        return None

    @property
    def written(self) -> str:
        return f"once:{self._written}"

    def trigger_label(self) -> str:
        return "once"

    def trigger_detail(self) -> str:
        return self._written

    def trigger_db_type(self) -> DbType:
        return "once"

    def trigger_id(self) -> str:
        return f"once:{self._moment.text if self._moment else self._written}"

    def __repr__(self) -> str:
        if_past = "" if self._if_past == "tomorrow" else f", if_past={self._if_past!r}"
        return f"Once({self._written!r}{if_past})"

    def _prepare(self) -> None:
        self._moment = self._moment and Moment(*self._moment)

    def _settled_moment(self, now: Micros, zone: ZoneInfo) -> Moment:
        """The moment meant at ``now``; what ``if_past`` says is done."""
        if self._moment is not None:
            target = self._moment.instant(zone)
            if target < now:
                self._refuse_or_warn(now, zone, "it runs at once")
            return self._moment if not self._moment.is_wall else Moment(_iso(target, zone), target, False)
        assert self._time is not None
        clock = local_clock(zone)
        today = now + clock.segment(now).offset
        if clock.resolve(today - today % DAY + self._time) <= now:
            self._refuse_or_warn(now, zone, "it runs tomorrow")
        target = min(clock.next_at(self._time, now), LAST)
        return Moment(_iso(target, zone), target, False)

    def _refuse_or_warn(self, now: Micros, zone: ZoneInfo, otherwise: str) -> None:
        if self._if_past == "error":
            raise ValueError(
                f"{self!r}: that is past, it is {_iso(now, zone)}; give a later time, or if_past='tomorrow'"
            )
        LOGGER.warning("%r: that is past, it is %s; %s", self, _iso(now, zone), otherwise)


def _iso(instant: Micros, zone: tzinfo) -> str:
    if isinstance(zone, ZoneInfo) and zone.key:
        return to_zoned(instant, zone).format_iso()
    return to_datetime(instant, zone).isoformat()
