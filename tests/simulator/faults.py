"""Parts of a user's application that fail: a trigger, a job store."""

import pickle
from collections.abc import Callable
from datetime import datetime
from typing import Any

from apscheduler.jobstores.base import BaseJobStore, ConflictingIdError, JobLookupError
from whenever import TimeDelta, ZonedDateTime

from hassette_aps.instants import from_datetime


class Broken(Exception):
    """What everything here raises."""


class MoodyTrigger:
    """A user's own trigger: a plain interval that raises while ``broken()``."""

    def __init__(self, micros: int, broken: Callable[[], bool], raised: Callable[[], None]) -> None:
        self._interval = TimeDelta(microseconds=micros)
        self._broken = broken
        self._raised = raised
        self._label = f"moody:{micros}"

    def first_run_time(self, current_time: ZonedDateTime) -> ZonedDateTime:
        return current_time + self._interval

    def next_run_time(self, previous_run: ZonedDateTime, current_time: ZonedDateTime) -> ZonedDateTime:
        if self._broken():
            self._raised()
            raise Broken("this trigger cannot say when")
        found = previous_run + self._interval
        while found <= current_time:
            found += self._interval
        return found

    def trigger_label(self) -> str:
        return "moody"

    def trigger_detail(self) -> str | None:
        return None

    def trigger_db_type(self) -> str:
        return "custom"

    def trigger_id(self) -> str:
        return self._label


class MoodyStore(BaseJobStore):
    """A persistent job store in a dict: rows are pickles, as in a database, and every call may raise."""

    def __init__(self, fails: Callable[[str], bool]) -> None:
        super().__init__()
        self._fails = fails
        self.rows: dict[str, tuple[int | None, bytes]] = {}
        self.failures = 0

    def _ask(self, verb: str) -> None:
        if self._fails(verb):
            self.failures += 1
            raise Broken(f"{verb} failed")

    def _read(self, state: bytes) -> Any:
        from apscheduler.job import Job

        job: Any = Job.__new__(Job)
        job.__setstate__(pickle.loads(state))
        job._scheduler = self._scheduler
        job._jobstore_alias = self._alias
        return job

    def _write(self, job: Any) -> None:
        due = None if job.next_run_time is None else from_datetime(job.next_run_time)
        self.rows[job.id] = (due, pickle.dumps(job.__getstate__()))

    def lookup_job(self, job_id: str) -> Any:
        self._ask("lookup_job")
        row = self.rows.get(job_id)
        return None if row is None else self._read(row[1])

    def get_due_jobs(self, now: datetime) -> list[Any]:
        self._ask("get_due_jobs")
        instant = from_datetime(now)
        due = sorted((due, job_id) for job_id, (due, _) in self.rows.items() if due is not None and due <= instant)
        return [self._read(self.rows[job_id][1]) for _, job_id in due]

    def get_next_run_time(self) -> datetime | None:
        self._ask("get_next_run_time")
        first = min(((due, job_id) for job_id, (due, _) in self.rows.items() if due is not None), default=None)
        return None if first is None else self._read(self.rows[first[1]][1]).next_run_time

    def get_all_jobs(self) -> list[Any]:
        self._ask("get_all_jobs")
        return [self._read(state) for _, state in self.rows.values()]

    def add_job(self, job: Any) -> None:
        if job.id in self.rows:
            raise ConflictingIdError(job.id)
        self._write(job)

    def update_job(self, job: Any) -> None:
        if job.id not in self.rows:
            raise JobLookupError(job.id)
        self._ask("update_job")
        self._write(job)

    def remove_job(self, job_id: str) -> None:
        if job_id not in self.rows:
            raise JobLookupError(job_id)
        self._ask("remove_job")
        del self.rows[job_id]

    def remove_all_jobs(self) -> None:
        self.rows.clear()
