"""The tables, their version, and the way from an older version to this one.

Instants are integers: microseconds since the epoch, in UTC.
"""

from collections.abc import Callable

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    func,
    inspect,
    select,
    text,
    update,
)

VERSION = 1
"""Version of the tables this code reads and writes."""

MIGRATIONS: dict[int, Callable[[Connection], None]] = {}
"""Step ``n`` turns a database of version ``n`` into one of version ``n + 1``, inside one transaction."""

_LOCK = 0x686173736574  # a number for PostgreSQL's advisory lock: one process at a time creates or upgrades

metadata = MetaData()
_Id = BigInteger().with_variant(Integer, "sqlite")

version_table = Table("hassette_aps_schema", metadata, Column("version", Integer, nullable=False))

instances = Table(
    "instances",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("instance", Text, nullable=False, unique=True),
    Column("place", Text, nullable=False),
    Column("pid", BigInteger, nullable=False),
    Column("process_started", BigInteger),
    Column("started_at", BigInteger, nullable=False),
    Column("heartbeat_at", BigInteger, nullable=False),
    Column("stopped_at", BigInteger),
    sqlite_autoincrement=True,
)
"""Processes that write here. ``stopped_at`` is set by a clean stop, or by whoever finds the process dead."""

jobs = Table(
    "jobs",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("auto_named", Boolean, nullable=False),
    Column("job_group", Text),
    Column("func", Text, nullable=False),
    Column("trigger_type", Text, nullable=False),
    Column("trigger_label", Text, nullable=False),
    Column("trigger_detail", Text),
    Column("args", Text, nullable=False),
    Column("kwargs", Text, nullable=False),
    Column("jitter", Float(53)),
    Column("mode", Text, nullable=False),
    Column("source", Text),
    Column("registered_at", BigInteger, nullable=False),
    Column("cancelled_at", BigInteger),
    UniqueConstraint("owner", "name"),
    sqlite_autoincrement=True,
)
"""One row for every owner and name; its id survives re-registration."""

registrations = Table(
    "registrations",
    metadata,
    Column("job_id", _Id, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("instance_id", _Id, ForeignKey("instances.id"), primary_key=True),
    Column("since", BigInteger, nullable=False),
    Column("next_target", BigInteger),
)
"""Which process answers for which job's targets; gone when the job ends or its process stops."""

executions = Table(
    "executions",
    metadata,
    Column("execution_id", Text, primary_key=True),
    Column("job_id", _Id, ForeignKey("jobs.id"), nullable=False),
    Column("scheduled_for", BigInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("instance_id", _Id, ForeignKey("instances.id"), nullable=False),
    Column("slot", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("triggered_by", Text, nullable=False),
    Column("started_at", BigInteger),
    Column("duration_ms", Float(53)),
    Column("lateness_ms", Float(53)),
    Column("error_type", Text),
    Column("error_message", Text),
    Column("error_traceback", Text),
    Column("coalesced_from", BigInteger),
    Column("coalesced_to", BigInteger),
    Column("next_target", BigInteger),
    UniqueConstraint("job_id", "scheduled_for", "attempt", "instance_id", "slot"),
)
"""One row for every verdict, and one with the status ``running`` for every run that takes a while.

``slot`` is empty for the verdict on a target, of which there can be one; a submitted run or a range
shares no target and has its execution id there.
"""

RUNNING = "running"
executions_by_time = Index("executions_by_time", executions.c.scheduled_for)
executions_running = Index(
    "executions_running",
    executions.c.instance_id,
    sqlite_where=executions.c.status == RUNNING,
    postgresql_where=executions.c.status == RUNNING,
)


class DatabaseRefused(RuntimeError):
    """The database holds tables that this version of the package must not touch."""


def prepare(conn: Connection, label: str) -> None:
    """Create the tables, or upgrade them to :data:`VERSION`, in the caller's transaction.

    Raises:
        DatabaseRefused: a newer version wrote them, or they belong to something else.
    """
    if conn.dialect.name == "postgresql":
        conn.execute(select(func.pg_advisory_xact_lock(_LOCK)))
    found = accepted_version(conn, label)
    if found is None:
        metadata.create_all(conn)
        conn.execute(version_table.insert(), {"version": VERSION})
        return
    for step in range(found, VERSION):
        MIGRATIONS[step](conn)
        conn.execute(update(version_table).values(version=step + 1))


def accepted_version(conn: Connection, label: str) -> int | None:
    """The version of the tables in the database; None if it has none of ours.

    Raises:
        DatabaseRefused: as :func:`prepare`.
    """
    existing = set(inspect(conn).get_table_names())
    if version_table.name not in existing:
        taken = sorted(existing & metadata.tables.keys())
        if taken:
            raise DatabaseRefused(
                f"database {label!r} has tables of its own called {', '.join(taken)}; "
                "give the scheduler a database (or a PostgreSQL schema) for itself"
            )
        return None
    found = conn.execute(select(func.max(version_table.c.version))).scalar_one()
    if found is not None and found > VERSION:
        raise DatabaseRefused(
            f"database {label!r} was written by a newer version of hassette-aps (tables {found}, this "
            f"version knows {VERSION}); upgrade hassette-aps or use another database"
        )
    return found


def free_pages(conn: Connection, pages: int) -> bool:
    """Give up to ``pages`` unused pages of a SQLite file back; True if some are left."""
    driver = conn.connection.driver_connection
    assert driver is not None
    # Every step of this statement frees one page: without fetching all of them, one is all it does.
    driver.execute(f"PRAGMA incremental_vacuum({int(pages)})").fetchall()
    left = conn.execute(text("PRAGMA freelist_count")).scalar_one()
    incremental = conn.execute(text("PRAGMA auto_vacuum")).scalar_one() == 2
    return incremental and left > 0
