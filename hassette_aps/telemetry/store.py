"""Writes a batch: jobs first, then verdicts, then markers of runs still in progress."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from sqlalchemy import Connection, bindparam, delete, exc, or_, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite

from hassette_aps.instants import from_datetime, now_us
from hassette_aps.records import ExecutionRecord
from hassette_aps.telemetry.batch import Batch, JobState
from hassette_aps.telemetry.rows import JobKey, Row, execution_row, job_key, job_row, stub_row
from hassette_aps.telemetry.schema import RUNNING, executions, jobs, registrations

ONE_SHOT = frozenset({"after", "once"})
"""Trigger types whose job is over with its first verdict."""

_CACHED_JOBS = 250_000

Rejected: TypeAlias = list[tuple[object, Exception]]


@dataclass(slots=True)
class Written:
    """What one transaction did; valid once it is committed."""

    verdicts: int = 0
    rejected: Rejected = field(default_factory=Rejected)
    ids: list[tuple[Callable[[int], None], int]] = field(default_factory=list["tuple[Callable[[int], None], int]"])


@dataclass(frozen=True, slots=True)
class _Job:
    id: int
    one_shot: bool


def row_at_fault(error: BaseException) -> bool:
    """Whether trying again cannot help, because it is a row that cannot be stored and not the database."""
    if isinstance(error, exc.DBAPIError):
        return isinstance(error, exc.DataError | exc.IntegrityError)
    if isinstance(error, exc.SQLAlchemyError):
        return isinstance(error, exc.StatementError)
    return isinstance(error, UnicodeError | ArithmeticError | TypeError | ValueError | AttributeError | LookupError)


class Store:
    """The statements of the writer, and the ids of the jobs it has met."""

    def __init__(self, sqlite_dialect: bool) -> None:
        insert: Callable[..., Any] = sqlite.insert if sqlite_dialect else postgresql.insert
        self._jobs: dict[JobKey, _Job] = {}

        upsert = insert(jobs)
        kept = {"id", "owner", "name"}
        self._upsert_job = upsert.on_conflict_do_update(
            index_elements=[jobs.c.owner, jobs.c.name],
            set_={column.name: upsert.excluded[column.name] for column in jobs.c if column.name not in kept},
        ).returning(jobs.c.id, jobs.c.owner, jobs.c.name)
        self._add_stub = insert(jobs).on_conflict_do_nothing()

        register = insert(registrations)
        self._register = register.on_conflict_do_update(
            index_elements=[registrations.c.job_id, registrations.c.instance_id],
            set_={"since": register.excluded.since, "next_target": register.excluded.next_target},
        )
        self._unregister = delete(registrations).where(
            registrations.c.job_id == bindparam("job"), registrations.c.instance_id == bindparam("instance")
        )
        self._cancel = update(jobs).where(jobs.c.id == bindparam("job")).values(cancelled_at=bindparam("at"))

        verdict = insert(executions)
        self._verdict = verdict.on_conflict_do_update(
            index_elements=[executions.c.execution_id],
            set_={c.name: verdict.excluded[c.name] for c in executions.c if c.name != "execution_id"},
            where=or_(executions.c.status == RUNNING, executions.c.status == "interrupted"),
        )
        self._marker = insert(executions).on_conflict_do_nothing()

    def forget(self) -> None:
        """Forget the ids of jobs: their transaction was rolled back, or the database is another one."""
        self._jobs.clear()

    def write(self, conn: Connection, batch: Batch, instance_id: int) -> Written:
        """Write all of ``batch`` at once; raises whatever the database raises."""
        written = Written()
        self._write_jobs(conn, batch.jobs, instance_id, written)
        self._write_verdicts(conn, batch.verdicts, instance_id)
        self._write_markers(conn, batch.markers, instance_id)
        written.verdicts = len(batch.verdicts)
        return written

    def write_one_by_one(self, conn: Connection, batch: Batch, instance_id: int) -> Written:
        """Write what can be written of ``batch``; entries that cannot be stored are returned as rejected."""
        written = Written()

        def attempt(entry: object, write: Callable[[], None]) -> bool:
            try:
                with conn.begin_nested():
                    write()
            except Exception as error:
                self.forget()
                if not row_at_fault(error):
                    raise
                written.rejected.append((entry, error))
                return False
            return True

        for key, state in batch.jobs.items():
            attempt(key, lambda key=key, state=state: self._write_jobs(conn, {key: state}, instance_id, written))
        for record in batch.verdicts:
            written.verdicts += attempt(
                record.execution_id,
                lambda record=record: self._write_verdict_anyhow(conn, record, instance_id),
            )
        for record in batch.markers:
            attempt(record.execution_id, lambda record=record: self._write_markers(conn, [record], instance_id))
        return written

    def _write_jobs(
        self, conn: Connection, states: Mapping[JobKey, JobState], instance_id: int, written: Written
    ) -> None:
        if not states:
            return
        rows = [job_row(state.job) for state in states.values() if state.job]
        ids: list[tuple[Callable[[int], None], int]] = []
        if rows:
            for row in conn.execute(self._upsert_job, rows):
                state = states[row.owner, row.name]
                assert state.job is not None
                self._jobs[row.owner, row.name] = _Job(row.id, state.job.trigger_type in ONE_SHOT)
                ids += [(on_id, row.id) for on_id in state.on_ids]
        known = self._find(conn, states)
        live: list[Row] = []
        cancelled: list[Row] = []
        for key, state in states.items():
            if key not in known:
                continue  # cancelled, but its registration never arrived
            job = known[key].id
            if state.cancelled_at is not None:
                at = from_datetime(state.cancelled_at)
                cancelled.append({"job": job, "instance": instance_id, "at": at})
            elif state.job is not None:
                since = from_datetime(state.job.registered_at)
                target = None if state.job.next_target is None else from_datetime(state.job.next_target)
                live.append({"job_id": job, "instance_id": instance_id, "since": since, "next_target": target})
        if live:
            conn.execute(self._register, live)
        if cancelled:
            conn.execute(self._cancel, cancelled)
            conn.execute(self._unregister, cancelled)
        written.ids += ids

    def _write_verdicts(self, conn: Connection, records: Sequence[ExecutionRecord], instance_id: int) -> None:
        if not records:
            return
        found = self._resolve(conn, records)
        rows = [execution_row(r, job.id, instance_id) for r, job in zip(records, found, strict=True)]
        conn.execute(self._verdict, rows)
        self._end_one_shots(conn, records, found, instance_id)

    def _write_verdict_anyhow(self, conn: Connection, record: ExecutionRecord, instance_id: int) -> None:
        (job,) = self._resolve(conn, [record])
        row = execution_row(record, job.id, instance_id)
        try:
            with conn.begin_nested():
                conn.execute(self._verdict, row)
        except exc.IntegrityError:  # a second verdict on one target: it should not exist, and is not lost
            conn.execute(self._verdict, {**row, "slot": row["execution_id"]})
        self._end_one_shots(conn, [record], [job], instance_id)

    def _write_markers(self, conn: Connection, records: Sequence[ExecutionRecord], instance_id: int) -> None:
        if not records:
            return
        found = self._resolve(conn, records)
        rows = [
            {**execution_row(record, job.id, instance_id), "status": RUNNING}
            for record, job in zip(records, found, strict=True)
        ]
        conn.execute(self._marker, rows)

    def _end_one_shots(
        self, conn: Connection, records: Sequence[ExecutionRecord], found: Sequence[_Job], instance_id: int
    ) -> None:
        ended = [
            {"job": job.id, "instance": instance_id}
            for record, job in zip(records, found, strict=True)
            if job.one_shot and record.triggered_by == "schedule"
        ]
        if ended:
            conn.execute(self._unregister, ended)

    def _resolve(self, conn: Connection, records: Sequence[ExecutionRecord]) -> list[_Job]:
        keys = [job_key(record.owner, record.job_name) for record in records]
        known = self._find(conn, keys)
        missing = dict.fromkeys(key for key in keys if key not in known)
        if missing:
            conn.execute(self._add_stub, [stub_row(key, now_us()) for key in missing])
            known = self._find(conn, keys)
        return [known[key] for key in keys]

    def _find(self, conn: Connection, keys: Iterable[JobKey]) -> Mapping[JobKey, _Job]:
        wanted = dict.fromkeys(keys)
        if len(self._jobs) + len(wanted) > _CACHED_JOBS:
            self._jobs.clear()
        unknown = [key for key in wanted if key not in self._jobs]
        for start in range(0, len(unknown), 200):
            some = unknown[start : start + 200]
            query = select(jobs.c.owner, jobs.c.name, jobs.c.id, jobs.c.trigger_type).where(
                tuple_(jobs.c.owner, jobs.c.name).in_(some)
            )
            for owner, name, job_id, trigger_type in conn.execute(query):
                self._jobs[owner, name] = _Job(job_id, trigger_type in ONE_SHOT)
        return self._jobs
