"""Old rows go, a few at a time, and a SQLite file becomes smaller."""

from sqlalchemy import Connection, delete, exists, func, or_, select

from hassette_aps.execution_id import first_execution_id
from hassette_aps.instants import SECOND, now_us
from hassette_aps.telemetry.schema import RUNNING, executions, free_pages, instances, jobs, registrations

STEP = 500
"""Rows removed, or pages freed, in one transaction."""

_DAY = 86_400 * SECOND


class Retention:
    """Keeps executions of the last ``days``, at most ``rows`` of them, and what they refer to.

    Execution ids begin with their time, so that the oldest rows are the first of the primary key.
    """

    def __init__(self, days: float, rows: int) -> None:
        self._span = round(days * _DAY)
        self._rows = rows
        self._last: str | None = None

    def begin(self, conn: Connection) -> None:
        """Decide what is too old now."""
        by_age = first_execution_id(now_us() - self._span)
        first_over = select(executions.c.execution_id).order_by(executions.c.execution_id.desc())
        by_rows = conn.execute(first_over.offset(self._rows).limit(1)).scalar_one_or_none()
        self._last = max(by_age, by_rows or "")

    def step(self, conn: Connection) -> bool:
        """Remove one step's worth; True if there may be more."""
        assert self._last is not None
        return self._executions(conn) or self._jobs(conn) or self._instances(conn) or self._pages(conn)

    def _executions(self, conn: Connection) -> bool:
        old = (
            select(executions.c.execution_id)
            .where(executions.c.execution_id <= self._last, executions.c.status != RUNNING)
            .order_by(executions.c.execution_id)
            .limit(STEP)
        )
        return conn.execute(delete(executions).where(executions.c.execution_id.in_(old))).rowcount == STEP

    def _jobs(self, conn: Connection) -> bool:
        """Jobs that no process answers for and that have no runs left, beyond the age or the number kept."""
        unused = ~exists().where(executions.c.job_id == jobs.c.id) & ~exists().where(
            registrations.c.job_id == jobs.c.id
        )
        ended = func.coalesce(jobs.c.cancelled_at, jobs.c.registered_at)
        newest = select(jobs.c.id).where(unused).order_by(jobs.c.id.desc()).offset(self._rows).limit(1)
        too_many = jobs.c.id <= func.coalesce(newest.scalar_subquery(), 0)
        old = select(jobs.c.id).where(unused, or_(ended < now_us() - self._span, too_many)).limit(STEP)
        return conn.execute(delete(jobs).where(jobs.c.id.in_(old))).rowcount == STEP

    def _instances(self, conn: Connection) -> bool:
        old = (
            select(instances.c.id)
            .where(
                instances.c.stopped_at < now_us() - self._span,
                ~exists().where(executions.c.instance_id == instances.c.id),
                ~exists().where(registrations.c.instance_id == instances.c.id),
            )
            .limit(STEP)
        )
        return conn.execute(delete(instances).where(instances.c.id.in_(old))).rowcount == STEP

    def _pages(self, conn: Connection) -> bool:
        return conn.dialect.name == "sqlite" and free_pages(conn, STEP)
