"""Records as rows and back: instants as integers, text as every database can hold it."""

import hashlib
from datetime import datetime
from types import MappingProxyType
from typing import Any, TypeAlias, cast

from sqlalchemy import Row as SqlRow

from hassette_aps.instants import from_datetime, to_datetime
from hassette_aps.jsonable import encodable, to_json
from hassette_aps.records import ExecutionRecord, JobRecord, Status, TriggerMode, Verdict

Row: TypeAlias = dict[str, Any]
JobKey: TypeAlias = tuple[str, str]
"""Owner and name, as stored."""

MAX_TEXT = 65_536
"""Characters of a text column; from longer ones (a traceback, arguments) the middle is left out."""

MAX_KEY = 300
"""Characters of an owner, a name or an execution id; longer ones end in a digest of the whole."""


def clean(value: object, limit: int = MAX_TEXT) -> str:
    """``value`` as text that can be stored: no NUL, no lone surrogates, at most some ``limit`` characters."""
    if type(value) is str and len(value) <= limit and value.isascii() and "\0" not in value:
        return value  # nearly all
    stored = value if isinstance(value, str) else str(value)
    if len(stored) > limit:
        left_out = len(stored) - limit
        stored = f"{stored[: limit // 2]}\n... {left_out} characters left out ...\n{stored[-(limit // 2) :]}"
    if "\0" in stored:
        stored = stored.replace("\0", "\\x00")
    return encodable(stored)


def clean_key(value: object) -> str:
    """``value`` as text that can be stored and indexed, still distinct if it had to be shortened."""
    if type(value) is str and len(value) <= MAX_KEY and value.isascii() and "\0" not in value:
        return value
    stored = clean(value, 1 << 30)
    if len(stored) > MAX_KEY:
        digest = hashlib.sha256(stored.encode()).hexdigest()[:32]
        stored = f"{stored[: MAX_KEY - 33]}~{digest}"
    return stored


def job_key(owner: str, name: str) -> JobKey:
    """The key of a job, as stored."""
    return clean_key(owner), clean_key(name)


def job_row(job: JobRecord) -> Row:
    """The row of a registration, without its id."""
    owner, name = job_key(job.owner, job.name)
    return {
        "owner": owner,
        "name": name,
        "auto_named": bool(job.auto_named),
        "job_group": _optional(job.group),
        "func": clean(job.func),
        "trigger_type": clean(job.trigger_type),
        "trigger_label": clean(job.trigger_label),
        "trigger_detail": _optional(job.trigger_detail),
        "args": _json(job.args),
        "kwargs": _json(job.kwargs),
        "jitter": _real(job.jitter),
        "mode": clean(job.mode),
        "source": _optional(job.source),
        "registered_at": from_datetime(job.registered_at),
        "cancelled_at": None,
    }


def stub_row(key: JobKey, registered_at: int) -> Row:
    """The row of a job whose registration never arrived, so that its runs have something to refer to."""
    text = dict.fromkeys(("func", "trigger_type", "trigger_label", "mode"), "unknown")
    nothing = dict.fromkeys(("job_group", "trigger_detail", "jitter", "source", "cancelled_at"))
    return {
        "owner": key[0],
        "name": key[1],
        "auto_named": False,
        "args": "[]",
        "kwargs": "{}",
        "registered_at": registered_at,
        **text,
        **nothing,
    }


def execution_row(verdict: Verdict, job_id: int, instance_id: int, status: str | None = None) -> tuple[Any, ...]:
    """The row of a verdict, in the order of the table's columns; ``status`` instead of its own, if given."""
    execution_id = clean_key(verdict.execution_id)
    shares_no_target = verdict.triggered_by != "schedule" or verdict.status == "coalesced"
    return (
        execution_id,
        job_id,
        verdict.scheduled_for,
        int(verdict.attempt),
        instance_id,
        execution_id if shares_no_target else "",
        clean(status or verdict.status),
        clean(verdict.triggered_by),
        verdict.started_at,
        _real(verdict.duration_ms),
        _real(verdict.lateness_ms),
        _optional(verdict.error_type),
        _optional(verdict.error_message),
        _optional(verdict.error_traceback),
        verdict.coalesced_from,
        verdict.coalesced_to,
        verdict.next_target,
    )


def execution_record(row: SqlRow[*tuple[Any, ...]]) -> ExecutionRecord:
    """The record in a row of ``executions``, joined with its job and its instance."""
    return ExecutionRecord(
        execution_id=row.execution_id,
        owner=row.owner,
        job_name=row.name,
        job_group=row.job_group,
        db_id=row.job_id,
        status=cast("Status", row.status),
        scheduled_for=to_datetime(row.scheduled_for),
        started_at=moment(row.started_at),
        duration_ms=row.duration_ms,
        lateness_ms=row.lateness_ms,
        attempt=row.attempt,
        triggered_by=cast("TriggerMode", row.triggered_by),
        error_type=row.error_type,
        error_message=row.error_message,
        error_traceback=row.error_traceback,
        coalesced_from=moment(row.coalesced_from),
        coalesced_to=moment(row.coalesced_to),
        instance=row.instance,
        next_target=moment(row.next_target),
    )


def moment(value: int | None) -> datetime | None:
    """An optional moment out of a database."""
    return None if value is None else to_datetime(value)


_EMPTY: dict[type, str] = {tuple: "[]", dict: "{}", MappingProxyType: "{}"}
"""Most jobs have no arguments."""


def _optional(value: object) -> str | None:
    return None if value is None else clean(value)


def _real(value: float | None) -> float | None:
    return None if value is None else float(value)


def _json(value: object) -> str:
    if not value and type(value) in _EMPTY:
        return _EMPTY[type(value)]
    text = to_json(value)
    return text if len(text) <= MAX_TEXT else to_json(f"<{len(text)} characters of JSON, too large to keep>")
