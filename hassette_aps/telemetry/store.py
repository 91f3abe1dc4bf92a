"""Writes a batch: jobs first, then verdicts, then markers of runs still in progress."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

from sqlalchemy import Connection, bindparam, delete, exc, literal_column, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite

from hassette_aps.instants import from_datetime, now_us
from hassette_aps.records import JobRecord, Verdict
from hassette_aps.telemetry.batch import Batch, JobState
from hassette_aps.telemetry.engine import Database
from hassette_aps.telemetry.rows import JobKey, Row, execution_row, job_key, job_row, stub_row
from hassette_aps.telemetry.schema import RUNNING, executions, jobs, registrations

ONE_SHOT = frozenset({"after", "once"})
"""Trigger types whose job is over with its first verdict."""

_CACHED_IDS = 250_000
_SLOT = executions.c.keys().index("slot")

Rejected: TypeAlias = list[tuple[object, Exception]]


@dataclass(slots=True)
class Written:
    """What one transaction did; valid once it is committed."""

    verdicts: int = 0
    rejected: Rejected = field(default_factory=Rejected)
    ids: list[tuple[Callable[[int], None], int]] = field(default_factory=list["tuple[Callable[[int], None], int]"])


def row_at_fault(error: BaseException) -> bool:
    """Whether trying again cannot help, because it is a row that cannot be stored and not the database."""
    if isinstance(error, exc.DBAPIError):
        return isinstance(error, exc.DataError | exc.IntegrityError)
    if isinstance(error, exc.SQLAlchemyError):
        return isinstance(error, exc.StatementError)
    return isinstance(error, UnicodeError | ArithmeticError | TypeError | ValueError | AttributeError | LookupError)


class Store:
    """The statements of the writer, and the ids of the jobs it has met."""

    def __init__(self, database: Database) -> None:
        insert: Callable[..., Any] = sqlite.insert if database.sqlite else postgresql.insert
        self._ids: dict[JobKey, int] = {}
        self._one_shots: set[int] = set()
        """Whose only verdict is still to come."""
        self._trusted = True
        """Whether the ids that jobs were told are still theirs: until the first failure they are."""

        upsert = insert(jobs)
        kept = {"id", "owner", "name"}
        upsert = upsert.on_conflict_do_update(
            index_elements=[jobs.c.owner, jobs.c.name],
            set_={column.name: upsert.excluded[column.name] for column in jobs.c if column.name not in kept},
        ).returning(jobs.c.id, jobs.c.owner, jobs.c.name)
        self._job_columns = [column.name for column in jobs.c if column.name != "id"]
        self._upsert_job = database.text_of(upsert, self._job_columns)
        self._add_stub = insert(jobs).on_conflict_do_nothing()

        register = insert(registrations)
        register = register.on_conflict_do_update(
            index_elements=[registrations.c.job_id, registrations.c.instance_id],
            set_={"since": register.excluded.since, "next_target": register.excluded.next_target},
        )
        self._register = database.text_of(register, registrations.c.keys())
        self._unregister = delete(registrations).where(
            registrations.c.job_id == bindparam("job"), registrations.c.instance_id == bindparam("instance")
        )
        self._cancel = update(jobs).where(jobs.c.id == bindparam("job")).values(cancelled_at=bindparam("at"))

        verdict = insert(executions)
        upsert = verdict.on_conflict_do_update(
            index_elements=[executions.c.execution_id],
            set_={c.name: verdict.excluded[c.name] for c in executions.c if c.name != "execution_id"},
            where=executions.c.status.in_([literal_column(f"'{RUNNING}'"), literal_column("'interrupted'")]),
        )
        self._verdict = database.text_of(upsert, executions.c.keys())
        self._marker = database.text_of(verdict.on_conflict_do_nothing(), executions.c.keys())

    def forget(self) -> None:
        """Forget the ids of jobs: their transaction was rolled back, or the database is another one."""
        self._ids.clear()
        self._one_shots.clear()
        self._trusted = False

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
        for verdict in batch.verdicts:
            written.verdicts += attempt(
                verdict.execution_id,
                lambda verdict=verdict: self._write_verdict_anyhow(conn, verdict, instance_id),
            )
        for marker in batch.markers:
            attempt(marker.execution_id, lambda marker=marker: self._write_markers(conn, [marker], instance_id))
        return written

    def _write_jobs(
        self, conn: Connection, states: Mapping[JobKey, JobState], instance_id: int, written: Written
    ) -> None:
        if not states:
            return
        ids = self._add_jobs(conn, {key: state.job for key, state in states.items() if state.job is not None})
        told = [(on_id, ids[key]) for key in ids for on_id in states[key].on_ids]
        unknown = [key for key in states if key not in ids]
        known = self._find(conn, unknown)
        ids |= {key: known[key] for key in unknown if key in known}
        live: list[tuple[Any, ...]] = []
        cancelled: list[Row] = []
        for key, state in states.items():
            job_id = ids.get(key)
            if job_id is None:
                continue  # cancelled, but its registration never arrived
            if state.cancelled_at is not None:
                cancelled.append({"job": job_id, "instance": instance_id, "at": state.cancelled_at})
            elif state.job is not None:
                target = None if state.job.next_target is None else from_datetime(state.job.next_target)
                live.append((job_id, instance_id, from_datetime(state.job.registered_at), target))
        if live:
            conn.exec_driver_sql(self._register, live)
        if cancelled:
            conn.execute(self._cancel, cancelled)
            conn.execute(self._unregister, cancelled)
            self._one_shots.difference_update(row["job"] for row in cancelled)
        written.ids += told

    def _add_jobs(self, conn: Connection, records: Mapping[JobKey, JobRecord]) -> dict[JobKey, int]:
        """Write registrations, all with one statement; the ids of their rows."""
        if not records:
            return {}
        rows = [job_row(record) for record in records.values()]
        values = tuple(row[column] for row in rows for column in self._job_columns)
        found = conn.exec_driver_sql(self._upsert_jobs(len(rows)), values)
        ids = {(owner, name): job_id for job_id, owner, name in found}
        for key in ids:
            self._ids.pop(key, None)  # it may be a new row: the old one may have been too old to keep
        self._one_shots.update(ids[key] for key, record in records.items() if record.trigger_type in ONE_SHOT)
        return ids

    def _upsert_jobs(self, count: int) -> str:
        """The upsert of one job, with the values of ``count``."""
        before, _, rest = self._upsert_job.partition("VALUES ")
        values, conflict, after = rest.partition(" ON CONFLICT")
        return f"{before}VALUES {', '.join([values] * count)}{conflict}{after}"

    def _write_verdicts(self, conn: Connection, verdicts: Sequence[Verdict], instance_id: int) -> None:
        if not verdicts:
            return
        ids = self._resolve(conn, verdicts)
        rows = [execution_row(verdict, job, instance_id) for verdict, job in zip(verdicts, ids, strict=True)]
        conn.exec_driver_sql(self._verdict, rows)
        self._end_one_shots(conn, verdicts, ids, instance_id)

    def _write_verdict_anyhow(self, conn: Connection, verdict: Verdict, instance_id: int) -> None:
        ids = self._resolve(conn, [verdict])
        row = execution_row(verdict, ids[0], instance_id)
        try:
            with conn.begin_nested():
                conn.exec_driver_sql(self._verdict, row)
        except exc.IntegrityError:  # a second verdict on one target: it should not exist, and is not lost
            conn.exec_driver_sql(self._verdict, (*row[:_SLOT], row[0], *row[_SLOT + 1 :]))
        self._end_one_shots(conn, [verdict], ids, instance_id)

    def _write_markers(self, conn: Connection, verdicts: Sequence[Verdict], instance_id: int) -> None:
        if not verdicts:
            return
        ids = self._resolve(conn, verdicts)
        rows = [execution_row(verdict, job, instance_id, RUNNING) for verdict, job in zip(verdicts, ids, strict=True)]
        conn.exec_driver_sql(self._marker, rows)

    def _end_one_shots(
        self, conn: Connection, verdicts: Sequence[Verdict], ids: Sequence[int], instance_id: int
    ) -> None:
        if not self._one_shots:
            return
        ended = [
            {"job": job, "instance": instance_id}
            for verdict, job in zip(verdicts, ids, strict=True)
            if job in self._one_shots and verdict.triggered_by == "schedule"
        ]
        if ended:
            conn.execute(self._unregister, ended)
            self._one_shots.difference_update(row["job"] for row in ended)

    def _resolve(self, conn: Connection, verdicts: Sequence[Verdict]) -> list[int]:
        """The id of the job of each verdict: the one it was told, or the one with its name."""
        if self._trusted and all(verdict.db_id is not None for verdict in verdicts):
            return [cast("int", verdict.db_id) for verdict in verdicts]
        keys = [job_key(verdict.owner, verdict.job_name) for verdict in verdicts]
        known = self._find(conn, keys)
        missing = dict.fromkeys(key for key in keys if key not in known)
        if missing:
            conn.execute(self._add_stub, [stub_row(key, now_us()) for key in missing])
            known = self._find(conn, keys)
        return [known[key] for key in keys]

    def _find(self, conn: Connection, keys: Iterable[JobKey]) -> Mapping[JobKey, int]:
        wanted = dict.fromkeys(keys)
        if len(self._ids) + len(wanted) > _CACHED_IDS:
            self._ids.clear()
        unknown = [key for key in wanted if key not in self._ids]
        for start in range(0, len(unknown), 200):
            some = unknown[start : start + 200]
            query = select(jobs.c.owner, jobs.c.name, jobs.c.id, jobs.c.trigger_type).where(
                tuple_(jobs.c.owner, jobs.c.name).in_(some)
            )
            for owner, name, job_id, trigger_type in conn.execute(query):
                self._ids[owner, name] = job_id
                if trigger_type in ONE_SHOT:
                    self._one_shots.add(job_id)
        return self._ids
