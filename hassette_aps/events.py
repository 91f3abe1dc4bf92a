"""APScheduler's events for our runs, with more in them, and one of our own."""

from datetime import datetime
from traceback import format_tb
from typing import Any, Final

from apscheduler.events import (
    EVENT_JOB_ERROR,
    EVENT_JOB_EXECUTED,
    EVENT_JOB_MAX_INSTANCES,
    EVENT_JOB_MISSED,
    JobEvent,
    JobExecutionEvent,
    JobSubmissionEvent,
)

from hassette_aps.instants import to_datetime
from hassette_aps.records import Status
from hassette_aps.run import Run

EVENT_RUN_CANCELLED: Final = 2**20
"""A run was cancelled by ``restart`` or a shutdown; outside ``EVENT_ALL``, so stock listeners never see it."""

CODES: Final[dict[Status, int]] = {
    "success": EVENT_JOB_EXECUTED,
    "error": EVENT_JOB_ERROR,
    "timed_out": EVENT_JOB_ERROR,
    "missed": EVENT_JOB_MISSED,
    "suppressed": EVENT_JOB_MAX_INSTANCES,
    "dropped": EVENT_JOB_MAX_INSTANCES,
    "cancelled": EVENT_RUN_CANCELLED,
}
"""The event of each verdict; ``skipped`` has none."""


class RunEvent(JobExecutionEvent):
    """The end of a run on our executor.

    Attributes:
        execution_id: UUIDv7 of the run.
        started_at: aware datetime at which the function was called; None if it never was.
        duration: seconds the function took; None if it never started.
    """

    def __init__(self, code: int, run: Run, alias: str, scheduled: datetime) -> None:
        exc = run.exception
        frames = "".join(format_tb(exc.__traceback__)) if exc is not None else None
        super().__init__(code, job_id_of(run), alias, scheduled, run.result, exc, frames)
        self.execution_id = run.execution_id
        self.started_at = None if run.started is None else to_datetime(run.started, scheduled.tzinfo or run.zone)
        self.duration = None if run.duration_ms is None else run.duration_ms / 1000


def job_id_of(run: Run) -> str:
    """The APScheduler id of the run's job."""
    home = run.job.home
    return run.job.name if home is None else home.id_of(run.job.name)


def outcome_event(code: int, run: Run, alias: str, timezone: Any) -> JobEvent:
    """The event of the run's verdict; ``scheduled_run_time`` is the fire time, as APScheduler means it."""
    scheduled = to_datetime(run.fires, timezone)
    if code == EVENT_JOB_MAX_INSTANCES:
        return JobSubmissionEvent(code, job_id_of(run), alias, [scheduled])
    return RunEvent(code, run, alias, scheduled)
