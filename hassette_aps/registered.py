"""A registration on its way to the record: what must be noted at once; the rest is put into words by the writer."""

import sys
from datetime import UTC
from types import CodeType

from hassette_aps.callables import name_of, reference_of
from hassette_aps.instants import now_us, to_datetime
from hassette_aps.job import ScheduledJob
from hassette_aps.records import JobRecord

_PACKAGE = __name__.partition(".")[0]


class RegisteredJob:
    """A job as it was registered, where, and when; ``as_record`` is called later, on the writer's thread."""

    __slots__ = ("_at", "_mode", "_source", "_spec", "_target", "name", "owner")

    def __init__(self, job: ScheduledJob) -> None:
        self.owner = job.owner
        self.name = job.spec.name
        self._spec = job.spec
        self._mode = job.mode
        self._target = job.target
        self._at = now_us()
        self._source = _caller()

    def as_record(self) -> JobRecord:
        """The frozen record of this registration."""
        spec, trigger, source = self._spec, self._spec.trigger, self._source
        return JobRecord(
            owner=self.owner,
            name=self.name,
            auto_named=spec.auto_named,
            group=spec.group,
            func=reference_of(spec.func) or name_of(spec.func),
            trigger_type=trigger.trigger_db_type(),
            trigger_label=trigger.trigger_label(),
            trigger_detail=trigger.trigger_detail(),
            args=spec.args,
            kwargs=spec.kwargs,
            jitter=spec.jitter,
            mode=self._mode,
            source=None if source is None else f"{source[0].co_filename}:{source[1]}",
            registered_at=to_datetime(self._at, UTC),
            next_target=None if self._target is None else to_datetime(self._target),
        )


def _caller() -> tuple[CodeType, int] | None:
    """Code and line of the nearest caller outside this package."""
    frame = sys._getframe(2)  # pyright: ignore[reportPrivateUsage]  the documented way that is fast enough
    while frame is not None:
        name: str = frame.f_globals.get("__name__", "")
        if not name.startswith(_PACKAGE) or name.partition(".")[0] != _PACKAGE:
            return frame.f_code, frame.f_lineno
        frame = frame.f_back
    return None
