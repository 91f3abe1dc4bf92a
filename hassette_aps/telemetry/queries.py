"""What a user asks the database: the history of runs, and a summary for each job."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

from sqlalchemy import Connection, Float, Select, case, func, select
from sqlalchemy import cast as sql_cast

from hassette_aps.instants import from_datetime
from hassette_aps.records import ExecutionRecord, Status, Text
from hassette_aps.telemetry.rows import clean_key, execution_record, moment
from hassette_aps.telemetry.schema import RUNNING, executions, instances, jobs

_FAILURES = ("error", "timed_out")

record_columns = (
    *executions.c,
    jobs.c.owner,
    jobs.c.name,
    jobs.c.job_group,
    instances.c.instance,
)
"""What :func:`~hassette_aps.telemetry.rows.execution_record` needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSummary:
    """What the database knows about one job.

    ``total`` counts verdicts; a range counts once. ``p50_ms`` and ``p95_ms`` are percentiles (nearest rank)
    of the duration over the runs that have one, ``mean_lateness_ms`` is measured from the jittered fire time,
    all in milliseconds. ``last_run`` is the start of the latest run, ``last_error`` the type and message of
    the latest failure, ``last_error_at`` the target it was for. What never happened is None.
    """

    name: Text
    group: Text | None
    db_id: int
    total: int
    by_status: Mapping[Status, int] = field(default_factory=dict["Status", int])
    last_run: datetime | None = None
    last_error: Text | None = None
    last_error_at: datetime | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    mean_lateness_ms: float | None = None
    cancelled_at: datetime | None = None


def with_job_and_instance(query: Select[*tuple[Any, ...]]) -> Select[*tuple[Any, ...]]:
    """``query`` over executions, joined with the job and the process of each."""
    return query.join_from(executions, jobs, jobs.c.id == executions.c.job_id).join(
        instances, instances.c.id == executions.c.instance_id
    )


def history(
    conn: Connection,
    owner: str,
    name: str | None,
    *,
    limit: int,
    since: datetime | None,
    status: Status | None,
) -> list[ExecutionRecord]:
    """The latest verdicts, newest target first."""
    query = with_job_and_instance(select(*record_columns)).where(jobs.c.owner == clean_key(owner))
    if name is not None:
        query = query.where(jobs.c.name == clean_key(name))
    if since is not None:
        query = query.where(executions.c.scheduled_for >= from_datetime(since))
    if status is not None:
        query = query.where(executions.c.status == status)
    query = query.where(executions.c.status != RUNNING)
    query = query.order_by(executions.c.scheduled_for.desc(), executions.c.execution_id.desc()).limit(limit)
    return [execution_record(row) for row in conn.execute(query)]


def summary(conn: Connection, owner: str) -> list[JobSummary]:
    """One summary for each job of ``owner``, by name."""
    mine = jobs.c.owner == clean_key(owner)
    counts: dict[int, dict[Status, int]] = {}
    for row in conn.execute(_of_owner(mine, executions.c.status, func.count().label("runs"))):
        counts.setdefault(row.job_id, {})[cast("Status", row.status)] = row.runs
    figures = {row.job_id: row for row in conn.execute(_figures(mine))}
    percentiles = {row.job_id: row for row in conn.execute(_percentiles(mine))}
    failures = {row.job_id: row for row in conn.execute(_last_failures(mine))}
    found: list[JobSummary] = []
    for job in conn.execute(select(jobs).where(mine).order_by(jobs.c.name)):
        by_status = counts.get(job.id, {})
        figure, percentile, failure = figures.get(job.id), percentiles.get(job.id), failures.get(job.id)
        found.append(
            JobSummary(
                name=job.name,
                group=job.job_group,
                db_id=job.id,
                total=sum(by_status.values()),
                by_status=by_status,
                last_run=moment(figure.last_run) if figure else None,
                last_error=f"{failure.error_type or failure.status}: {failure.error_message}" if failure else None,
                last_error_at=moment(failure.scheduled_for) if failure else None,
                p50_ms=percentile.p50 if percentile else None,
                p95_ms=percentile.p95 if percentile else None,
                mean_lateness_ms=figure.lateness if figure else None,
                cancelled_at=moment(job.cancelled_at),
            )
        )
    return found


def _of_owner(mine: Any, *columns: Any) -> Select[*tuple[Any, ...]]:
    grouped = [column for column in columns if column is executions.c.status]
    return (
        select(executions.c.job_id, *columns)
        .join(jobs, jobs.c.id == executions.c.job_id)
        .where(mine, executions.c.status != RUNNING)
        .group_by(executions.c.job_id, *grouped)
    )


def _figures(mine: Any) -> Select[*tuple[Any, ...]]:
    return _of_owner(
        mine,
        func.max(executions.c.started_at).label("last_run"),
        sql_cast(func.avg(executions.c.lateness_ms), Float).label("lateness"),
    )


def _percentiles(mine: Any) -> Select[*tuple[Any, ...]]:
    ranked = (
        select(
            executions.c.job_id,
            executions.c.duration_ms,
            func.row_number().over(partition_by=executions.c.job_id, order_by=executions.c.duration_ms).label("rank"),
            func.count().over(partition_by=executions.c.job_id).label("total"),
        )
        .join(jobs, jobs.c.id == executions.c.job_id)
        .where(mine, executions.c.duration_ms.is_not(None), executions.c.status != RUNNING)
        .subquery()
    )

    def at(percent: int) -> Any:  # nearest rank: the smallest value with enough values at or below it
        return func.min(case((ranked.c.rank * 100 >= ranked.c.total * percent, ranked.c.duration_ms)))

    return select(ranked.c.job_id, at(50).label("p50"), at(95).label("p95")).group_by(ranked.c.job_id)


def _last_failures(mine: Any) -> Select[*tuple[Any, ...]]:
    ranked = (
        select(
            executions.c.job_id,
            executions.c.status,
            executions.c.scheduled_for,
            executions.c.error_type,
            executions.c.error_message,
            func.row_number()
            .over(
                partition_by=executions.c.job_id,
                order_by=(executions.c.scheduled_for.desc(), executions.c.execution_id.desc()),
            )
            .label("rank"),
        )
        .join(jobs, jobs.c.id == executions.c.job_id)
        .where(mine, executions.c.status.in_(_FAILURES))
        .subquery()
    )
    return select(ranked).where(ranked.c.rank == 1)
