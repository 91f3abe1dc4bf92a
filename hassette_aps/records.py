"""What happened, as frozen values: one record per registration and one per verdict."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Literal, NamedTuple, Protocol, TypeAlias

from hassette_aps.instants import Micros, to_datetime
from hassette_aps.jsonable import JsonSafe

Status: TypeAlias = Literal[
    "success",
    "error",
    "timed_out",
    "cancelled",
    "missed",
    "skipped",
    "suppressed",
    "dropped",
    "coalesced",
    "interrupted",
]
"""How a target ended. ``coalesced`` and ``interrupted`` may stand for a range of targets."""

TriggerMode: TypeAlias = Literal["schedule", "submit"]
"""Why a run happened: its schedule, or ``job.submit()``."""


Text: TypeAlias = Annotated[str, JsonSafe]
"""Text that may hold anything a user's code produced; pydantic writes it as JSON without raising."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """One registration of a job, as the ``jobs`` table keeps it.

    ``func`` is a reference (``module:qualname``) where there is one, else a name; ``source`` is
    ``file:line`` of the registering call in the user's code; ``registered_at`` is aware, in UTC.
    ``next_target`` is the first target it owes, if that is known.
    """

    owner: Text
    name: Text
    auto_named: bool
    group: Text | None
    func: Text
    trigger_type: Text
    trigger_label: Text
    trigger_detail: Text | None
    args: Annotated[tuple[Any, ...], JsonSafe]
    kwargs: Annotated[Mapping[str, Any], JsonSafe]
    jitter: float | None
    mode: Text
    source: Text | None
    registered_at: datetime
    next_target: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionRecord:
    """The verdict on one target of a job.

    ``scheduled_for`` is the unjittered target, ``started_at`` when the function was called (None if it
    never was), both aware and in UTC. ``duration_ms`` and ``lateness_ms`` (from the jittered fire time)
    are milliseconds. ``attempt`` is 1 except after a clock step. A range record (``coalesced``, or
    ``interrupted`` targets of a dead process) covers every target from ``coalesced_from`` to
    ``coalesced_to``, both included. ``next_target`` is the target after this one, as known when the run was
    admitted; it lets the next process tell which targets a killed one still owed.
    """

    execution_id: Text
    owner: Text
    job_name: Text
    job_group: Text | None
    db_id: int | None
    status: Status
    scheduled_for: datetime
    started_at: datetime | None = None
    duration_ms: float | None = None
    lateness_ms: float | None = None
    attempt: int = 1
    triggered_by: TriggerMode = "schedule"
    error_type: Text | None = None
    error_message: Text | None = None
    error_traceback: Text | None = None
    coalesced_from: datetime | None = None
    coalesced_to: datetime | None = None
    instance: Text = field(default="")
    next_target: datetime | None = None


class Verdict(NamedTuple):
    """An :class:`ExecutionRecord` in plain numbers, which is what a run hands to the writer.

    Instants are microseconds since the epoch: a database wants no ``datetime``, and making two of them takes as long
    as writing the row.
    """

    execution_id: str
    owner: str
    job_name: str
    job_group: str | None
    db_id: int | None
    status: Status
    scheduled_for: Micros
    started_at: Micros | None = None
    duration_ms: float | None = None
    lateness_ms: float | None = None
    attempt: int = 1
    triggered_by: TriggerMode = "schedule"
    error_type: str | None = None
    error_message: str | None = None
    error_traceback: str | None = None
    coalesced_from: Micros | None = None
    coalesced_to: Micros | None = None
    next_target: Micros | None = None

    def as_record(self) -> ExecutionRecord:
        """The record, for people."""
        fields: dict[str, Any] = self._asdict()
        fields |= {name: None if fields[name] is None else to_datetime(fields[name]) for name in _MOMENTS}
        return ExecutionRecord(**fields)


_MOMENTS = ("scheduled_for", "started_at", "coalesced_from", "coalesced_to", "next_target")


class Recordable(Protocol):
    """Anything the writer can turn into a verdict later, off the hot path."""

    def as_verdict(self) -> Verdict: ...


class RegisteredLike(Protocol):
    """A registration that the writer can turn into a record later, and tell the id of its row."""

    def as_record(self) -> JobRecord: ...
    def recorded_as(self, db_id: int) -> None: ...
