"""A name that is taken: what ``if_exists`` decides, in words that name the way out."""

from typing import Any, Literal, TypeAlias

from hassette_aps.clockwork import BROKEN_ROW
from hassette_aps.job import ScheduledJob
from hassette_aps.options import changed_fields
from hassette_aps.rows import RowTrigger, row_changes
from hassette_aps.types import IfExists

Decision: TypeAlias = Literal["add", "keep", "replace"]


def against_job(existing: ScheduledJob, new: ScheduledJob, owner: str, if_exists: IfExists) -> Decision:
    """Decide against a live job of this process.

    Raises:
        ValueError: the name is taken and ``if_exists`` does not resolve it.
    """
    if existing.owner != owner:
        raise _held_by_another(new.name, owner, existing.owner)
    if if_exists == "replace":
        return "replace"
    if if_exists == "error":
        raise _taken(new.name, owner)
    changed = changed_fields(existing, new)
    if changed:
        raise _changed(new.name, owner, changed)
    return "keep"


def against_row(row: Any, alias: str, new: ScheduledJob, owner: str, if_exists: IfExists) -> Decision:
    """Decide against a row of a user's store: of an earlier process, of another owner, or raw.

    Raises:
        ValueError: the name is taken and ``if_exists`` does not resolve it.
    """
    if row is BROKEN_ROW:
        if if_exists == "replace":
            return "replace"
        raise ValueError(
            f"job {new.name!r}{_of(owner)} exists already in job store {alias!r}, in a row that cannot be read; give"
            " if_exists='replace' to replace it, or another name="
        )
    kept = row.trigger
    if not isinstance(kept, RowTrigger):
        if if_exists == "replace":
            return "replace"
        raise ValueError(
            f"job {new.name!r}: a raw APScheduler job with the id {row.id!r} exists in job store {alias!r}; give"
            " if_exists='replace' to take it over, or another name"
        )
    if kept.owner != owner:
        raise _held_by_another(new.name, owner, kept.owner)
    if if_exists == "replace":
        return "replace"
    if if_exists == "error":
        raise _taken(new.name, owner, f" in job store {alias!r}, from an earlier process")
    changed = row_changes(row, new)
    if changed:
        raise _changed(new.name, owner, changed)
    return "keep"


def _of(owner: str) -> str:
    return f" of owner {owner!r}" if owner else " of the default owner ''"


def _taken(name: str, owner: str, where: str = "") -> ValueError:
    return ValueError(
        f"job {name!r}{_of(owner)} exists already{where}; give if_exists='skip' to keep it when nothing changed,"
        " if_exists='replace' to replace it, or another name="
    )


def _changed(name: str, owner: str, changed: list[str]) -> ValueError:
    return ValueError(
        f"job {name!r}{_of(owner)} exists already with another {', '.join(changed)}; give if_exists='replace' to"
        " replace it, or another name="
    )


def _held_by_another(name: str, owner: str, holder: str) -> ValueError:
    return ValueError(f"job {name!r}{_of(owner)} would have the id of a job{_of(holder)}; give another name=")
