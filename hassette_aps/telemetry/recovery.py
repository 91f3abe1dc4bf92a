"""Processes that write to the database: their heartbeat, and what becomes of those that died."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from logging import Logger
from typing import Any

from sqlalchemy import Connection, Row, and_, case, delete, func, select, update

from hassette_aps.execution_id import new_execution_id
from hassette_aps.instants import SECOND
from hassette_aps.records import ExecutionRecord
from hassette_aps.telemetry.engine import Database
from hassette_aps.telemetry.process import ProcessIdentity, is_alive
from hassette_aps.telemetry.queries import record_columns, with_job_and_instance
from hassette_aps.telemetry.rows import execution_record
from hassette_aps.telemetry.schema import RUNNING, executions, instances, jobs, registrations
from hassette_aps.telemetry.store import ONE_SHOT

_MISSED_BEATS = 3
"""Heartbeats without which a process elsewhere counts as silent."""


@dataclass(frozen=True, slots=True)
class Death:
    """A process that ended without saying so, its runs cut off, and a range for each job that owed runs."""

    instance: str
    process: ProcessIdentity
    cut_off: list[ExecutionRecord]
    owed: list[ExecutionRecord]

    def log(self, logger: Logger) -> None:
        """One WARNING that names the runs cut off and the jobs whose targets may not have run."""
        logger.warning(
            "process %d (instance %s) ended without a clean stop: %s cut off; "
            "targets after its last record may not have run for %s",
            self.process.pid,
            self.instance,
            _some([f"{run.job_name!r} ({run.execution_id})" for run in self.cut_off], "run"),
            _some([repr(owed.job_name) for owed in self.owed], "job"),
        )


class Instances:
    """This process among those that share the database."""

    def __init__(self, database: Database, beat_seconds: float) -> None:
        self._database = database
        self._beat = round(beat_seconds * SECOND)
        self._suspects: dict[int, int] = {}

    def arrive(self, conn: Connection, instance: str, process: ProcessIdentity) -> int:
        """Enter this process, or find it again, and return the id of its row."""
        now = self._database.now()
        alive = {"heartbeat_at": now, "stopped_at": None}
        mine = instances.c.instance == instance
        found = conn.execute(update(instances).where(mine).values(alive).returning(instances.c.id)).scalar_one_or_none()
        if found is not None:
            return found
        entry = instances.insert().values(
            instance=instance,
            place=process.place,
            pid=process.pid,
            process_started=process.started,
            started_at=now,
            **alive,
        )
        return conn.execute(entry.returning(instances.c.id)).scalar_one()

    def beat(self, conn: Connection, instance_id: int) -> None:
        """Say that this process is alive."""
        mine = instances.c.id == instance_id
        conn.execute(update(instances).where(mine).values(heartbeat_at=self._database.now(), stopped_at=None))

    def leave(self, conn: Connection, instance_id: int) -> None:
        """A clean stop: no run is left to be cut off, and no target is owed."""
        now = self._database.now()
        mine = instances.c.id == instance_id
        conn.execute(update(instances).where(mine).values(heartbeat_at=now, stopped_at=now))
        conn.execute(_unfinished_of(instance_id))
        conn.execute(delete(registrations).where(registrations.c.instance_id == instance_id))

    def look_around(self, instance_id: int) -> Iterator[Death]:
        """Beat, find the processes that died and settle what they left, each in a transaction of its own.

        A process of this host is dead when it is gone. One elsewhere is dead when it has been silent for
        three heartbeats and a second look, one heartbeat later, still finds it so: after a suspend or a
        clock step everybody looks silent for a moment.
        """
        silence = (self._database.now() - instances.c.heartbeat_at).label("silence")
        with self._database.writing() as conn:
            self.beat(conn, instance_id)
            others = conn.execute(
                select(instances, silence).where(instances.c.stopped_at.is_(None), instances.c.id != instance_id)
            ).all()
        dead = [other for other in others if self._is_dead(other)]
        self._suspects = {other.id: other.heartbeat_at for other in others}
        for other in dead:
            with self._database.writing() as conn:
                death = self._settle(conn, other)
            if death:
                yield death

    def _is_dead(self, other: Row[Any]) -> bool:
        alive = is_alive(ProcessIdentity(other.place, other.pid, other.process_started))
        if alive is not None:
            return not alive
        silent = other.silence > _MISSED_BEATS * self._beat
        return silent and self._suspects.get(other.id) == other.heartbeat_at

    def _settle(self, conn: Connection, other: Row[Any]) -> Death | None:
        claimed = conn.execute(
            update(instances)
            .where(
                instances.c.id == other.id,
                instances.c.stopped_at.is_(None),
                instances.c.heartbeat_at == other.heartbeat_at,
            )
            .values(stopped_at=self._database.now())
        )
        if claimed.rowcount != 1:  # another process was faster, or it is alive after all
            return None
        running = (executions.c.instance_id == other.id) & (executions.c.status == RUNNING)
        cut_off = conn.execute(select(executions.c.execution_id).where(running)).scalars().all()
        # It may have lived on after its last heartbeat, but not for longer than to the next one.
        until = min(other.heartbeat_at + self._beat, conn.execute(select(self._database.now())).scalar_one())
        ranges = _owed_ranges(conn, other.id, until)
        conn.execute(_unfinished_of(other.id))
        if ranges:
            conn.execute(executions.insert(), ranges)
        conn.execute(delete(registrations).where(registrations.c.instance_id == other.id))
        return Death(
            other.instance,
            ProcessIdentity(other.place, other.pid, other.process_started),
            list(_read(conn, cut_off)),
            list(_read(conn, [one["execution_id"] for one in ranges])),
        )


def _unfinished_of(instance_id: int) -> Any:
    """Runs of an instance that will not get a verdict any more."""
    running = (executions.c.instance_id == instance_id) & (executions.c.status == RUNNING)
    return update(executions).where(running).values(status="interrupted")


def _owed_ranges(conn: Connection, instance_id: int, until: int) -> list[dict[str, Any]]:
    """For each job the process answered for, the targets after its last record, up to ``until``."""
    last = (
        select(
            executions.c.job_id,
            func.max(executions.c.scheduled_for).label("target"),
            func.max(executions.c.next_target).label("next_target"),
        )
        .where(executions.c.instance_id == instance_id, executions.c.triggered_by == "schedule")
        .group_by(executions.c.job_id)
        .subquery()
    )
    # What is owed first: the target after the last record; else what follows it; else the first since then.
    first = case(
        (
            and_(last.c.target >= registrations.c.since, last.c.next_target > last.c.target),
            last.c.next_target,
        ),
        (last.c.target >= registrations.c.since, last.c.target + 1),
        else_=func.coalesce(registrations.c.next_target, registrations.c.since),
    )
    over = and_(jobs.c.trigger_type.in_(ONE_SHOT), last.c.target.is_not(None))
    query = (
        select(registrations.c.job_id, first.label("first"))
        .join(jobs, jobs.c.id == registrations.c.job_id)
        .join(last, last.c.job_id == registrations.c.job_id, isouter=True)
        .where(registrations.c.instance_id == instance_id, first <= until, ~func.coalesce(over, False))
    )
    return [_range_row(job_id, instance_id, start, until) for job_id, start in conn.execute(query)]


def _range_row(job_id: int, instance_id: int, first: int, last: int) -> dict[str, Any]:
    execution_id = new_execution_id()
    return {
        "execution_id": execution_id,
        "job_id": job_id,
        "scheduled_for": first,
        "attempt": 1,
        "instance_id": instance_id,
        "slot": execution_id,
        "status": "interrupted",
        "triggered_by": "schedule",
        "coalesced_from": first,
        "coalesced_to": last,
    }


def _read(conn: Connection, ids: Sequence[str]) -> Iterable[ExecutionRecord]:
    for start in range(0, len(ids), 500):
        query = with_job_and_instance(select(*record_columns)).where(
            executions.c.execution_id.in_(ids[start : start + 500])
        )
        for row in conn.execute(query):
            yield execution_record(row)


def _some(names: list[str], noun: str) -> str:
    if not names:
        return f"no {noun}"
    shown = ", ".join(names[:10])
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return f"{len(names)} {noun}{'s' if len(names) > 1 else ''}: {shown}{more}"
