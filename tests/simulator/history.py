"""What an episode leaves behind: plain values, without any of the package."""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

RAN = ("success", "error", "timed_out", "cancelled")
"""Verdicts of a run whose function may have been called."""


class Moment(NamedTuple):
    """When something happened: its place in the order of all events, and both clocks in microseconds."""

    seq: int
    elapsed: int
    wall: int


class Start(NamedTuple):
    """A job's function was called, as it saw itself."""

    when: Moment
    job: int
    execution_id: str
    target: int
    attempt: int


class Verdict(NamedTuple):
    """One record. ``first`` and ``last`` are the ends of a range, or None; ``told`` is when it was heard of."""

    job: int
    execution_id: str
    status: str
    target: int
    attempt: int
    started: bool
    first: int | None
    last: int | None
    lateness: int
    duration: float | None
    triggered_by: str
    told: int


@dataclass(slots=True)
class Life:
    """One registration, from its schedule's start to its end.

    ``kind`` and ``value`` are the schedule: ``every`` (interval), ``after`` (delay), ``once`` (instant),
    ``daily`` (seconds of the day), ``cron`` (expression), ``custom`` (interval, without the rules of ``every`` about
    clock steps). ``gone`` is when cancel, replace, group cancel or shutdown had returned; ``leaving`` when it
    was called. ``pauses`` are ``[from, to]``.
    """

    job: int
    kind: Literal["every", "after", "once", "daily", "cron", "custom"]
    value: int | str
    born: Moment
    mode: str = "parallel"
    jitter: int = 0
    zone: str = "UTC"
    handler: bool = False
    row: bool = False
    waits: bool = False
    """Its start may wait for a thread or a predicate."""
    leaving: Moment | None = None
    gone: Moment | None = None
    pauses: list[list[Moment]] = field(default_factory=list)


@dataclass(slots=True)
class History:
    """Everything the checker needs to know about one episode."""

    seed: int
    trace: list[tuple[int, int]]
    blocks: list[tuple[int, int]]
    lives: dict[int, Life] = field(default_factory=dict)
    starts: list[Start] = field(default_factory=list)
    ends: dict[str, int] = field(default_factory=dict)
    """Execution id -> elapsed moment at which the function was left."""
    verdicts: list[Verdict] = field(default_factory=list)
    handled: list[tuple[str, int]] = field(default_factory=list)
    """(execution id, job) per call of an error handler."""
    submitted: list[tuple[str, int]] = field(default_factory=list)
    """(execution id, job) per ``submit()``."""
    store_failed: bool = False
    """Rows may have waited for their store."""
    rough: list[tuple[int, int]] = field(default_factory=list)
    """Spans of elapsed time in which rows waited: their store failed, or the scheduler was shut down."""
    end: Moment = field(default_factory=lambda: Moment(0, 0, 0))
    leftovers: list[str] = field(default_factory=list)
    """What was still there after the last shutdown: tasks, timers, jobs, unexpected errors."""
