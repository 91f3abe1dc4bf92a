"""A registration on its way to the record: what must be noted at once; the rest is put into words by the writer."""

import sys
from datetime import UTC
from types import CodeType

from hassette_aps.callables import name_of, reference_of
from hassette_aps.instants import now_us, to_datetime
from hassette_aps.job import ScheduledJob
from hassette_aps.owner import Owner
from hassette_aps.records import JobRecord

_PACKAGE = __name__.partition(".")[0]
_INSIDE = f"{_PACKAGE}."


class RegisteredJob:
    """A job as it was registered, where, and when; ``as_record`` is called later, on the writer's thread."""

    __slots__ = ("_args", "_at", "_job", "_keywords", "_name", "_owner", "_source", "_spec", "_target")

    def __init__(self, job: ScheduledJob, owner: Owner) -> None:
        self._job = job
        self._owner = owner
        self._spec = job.spec
        self._name = job.name
        self._args = job.args
        self._keywords = job.keywords
        self._target = job.target
        self._at = now_us()
        self._source = _caller()

    def as_record(self) -> JobRecord:
        """The frozen record of this registration."""
        spec, trigger, source = self._spec, self._spec.trigger, self._source
        return JobRecord(
            owner=self._owner.name,
            name=self._name,
            auto_named=spec.auto_named,
            group=spec.group,
            func=reference_of(spec.func) or name_of(spec.func),
            trigger_type=trigger.trigger_db_type(),
            trigger_label=trigger.trigger_label(),
            trigger_detail=trigger.trigger_detail(),
            args=self._args,
            kwargs=self._keywords,
            jitter=spec.jitter,
            mode=spec.mode or self._owner.default_mode,
            source=None if source is None else f"{source[0].co_filename}:{source[1]}",
            registered_at=to_datetime(self._at, UTC),
            next_target=None if self._target is None else to_datetime(self._target),
        )

    def recorded_as(self, db_id: int) -> None:
        """Tell the job the id of its record."""
        self._job.recorded_as(db_id)


def _caller() -> tuple[CodeType, int] | None:
    """Code and line of the nearest caller outside this package."""
    frame = sys._getframe(3)  # pyright: ignore[reportPrivateUsage]  the documented way that is fast enough
    while frame is not None:
        name: str = frame.f_globals.get("__name__", "")
        if name != _PACKAGE and not name.startswith(_INSIDE):
            return frame.f_code, frame.f_lineno
        frame = frame.f_back
    return None
