"""The database: its URL, its engine, and transactions for reading and for writing."""

import re
from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from threading import RLock
from typing import Any

from sqlalchemy import BigInteger, Connection, Engine, cast, create_engine, event, exc, func, literal, pool
from sqlalchemy.engine import URL, make_url
from sqlalchemy.sql import ColumnElement

from hassette_aps.instants import now_us

BUSY_TIMEOUT = 1.0
"""Seconds one attempt waits for a lock in SQLite; the writer then tries again."""

_POSTGRES_OPTIONS = {
    "connect_timeout": "5",
    "tcp_user_timeout": "15000",
    "application_name": "hassette_aps",
}
_ADVICE = 'use "sqlite:///jobs.db", "postgresql+psycopg://user@host/name", or None for no database'


def hide_password(url: str) -> str:
    """``url`` with its password replaced, also if it cannot be parsed."""
    url = re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", url)
    return re.sub(r"(?i)(password=)[^&]*", r"\1***", url)


class Database:
    """One engine behind a URL.

    SQLite in memory is one connection that all threads take turns on; everything else is a pool.

    Raises:
        ValueError: the URL names no database that can be used: unknown, asynchronous, driver not installed.
    """

    def __init__(self, url: str) -> None:
        self.label = hide_password(url)
        parsed = self._parse(url)
        self.sqlite = parsed.get_backend_name() == "sqlite"
        self.in_memory = self.sqlite and parsed.database in (None, "", ":memory:")
        self._engine = self._create(parsed)
        self._writer = self._engine.execution_options(hassette_writes=True)
        self.busy = RLock()
        """Held during a transaction that writes; in memory, during one that reads as well."""
        if self.sqlite:
            event.listen(self._engine, "connect", _prepare_sqlite)
            event.listen(self._engine, "begin", _begin_sqlite)

    @contextmanager
    def writing(self) -> Generator[Connection]:
        """A transaction that writes; in SQLite it holds the write lock from its beginning."""
        with self.busy, self._writer.begin() as conn:
            yield conn

    @contextmanager
    def reading(self) -> Generator[Connection]:
        """A transaction that reads one consistent state."""
        with self.busy if self.in_memory else nullcontext(), self._engine.begin() as conn:
            yield conn

    def now(self) -> ColumnElement[int]:
        """The database's clock in microseconds, so that hosts need not agree on the time."""
        if self.sqlite:
            return literal(now_us())
        return cast(func.extract("epoch", func.clock_timestamp()) * 1_000_000, BigInteger)

    def text_of(self, statement: Any, columns: Sequence[str]) -> str:
        """A statement as the driver takes it, with positional parameters for ``columns``, in that order.

        For what is written for every run: going through SQLAlchemy's values costs more than the database does.
        """
        made: Any = type(self._engine.dialect)
        dialect = made() if self.sqlite else made(paramstyle="format")
        compiled = statement.compile(dialect=dialect, column_keys=columns)
        assert compiled.positiontup == list(columns), compiled.positiontup
        return str(compiled)

    def checkpoint(self) -> None:
        """Let a SQLite file have the size of its contents: move the write-ahead log into it, and cut both."""
        if self.sqlite and not self.in_memory:
            with self.busy, closing(self._engine.raw_connection()) as pooled:
                driver = pooled.driver_connection
                assert driver is not None
                driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def close(self) -> None:
        """Close idle connections. A database in memory keeps its only one, and so its rows."""
        if not self.in_memory:
            self._engine.dispose()

    def discard(self) -> None:
        """Close every connection for good."""
        self._engine.dispose()

    def _parse(self, url: str) -> URL:
        if url == ":memory:":
            return make_url("sqlite://")
        try:
            parsed = make_url(url)
        except exc.ArgumentError:
            raise ValueError(f"database={self.label!r} is not a database URL; {_ADVICE}") from None
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        if parsed.get_backend_name() not in ("sqlite", "postgresql"):
            raise ValueError(f"database={self.label!r} is neither SQLite nor PostgreSQL; {_ADVICE}")
        return parsed

    def _create(self, url: URL) -> Engine:
        try:
            if url.get_dialect().is_async:
                raise ValueError(f"database={self.label!r} names an asynchronous driver; {_ADVICE}")
            if self.sqlite:
                return self._create_sqlite(url)
            options = {key: value for key, value in _POSTGRES_OPTIONS.items() if key not in url.query}
            return create_engine(url, connect_args=options, pool_pre_ping=True, pool_size=2, hide_parameters=True)
        except exc.NoSuchModuleError:
            raise ValueError(f"database={self.label!r} names an unknown driver; {_ADVICE}") from None
        except ImportError as missing:
            raise ValueError(
                f"database={self.label!r} needs a driver that is not installed ({missing.name}); "
                f'for PostgreSQL: pip install "hassette-aps[postgresql]"'
            ) from None

    def _create_sqlite(self, url: URL) -> Engine:
        args = {"check_same_thread": False, "timeout": BUSY_TIMEOUT}
        if self.in_memory:
            return create_engine(url, poolclass=pool.StaticPool, connect_args=args, hide_parameters=True)
        folder = Path(url.database or "").parent
        if "uri" not in url.query and not folder.is_dir():
            raise ValueError(f"database={self.label!r}: the directory {str(folder)!r} does not exist; create it first")
        return create_engine(url, connect_args=args, pool_size=2, hide_parameters=True)


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver begins no transaction of its own: see _begin_sqlite
    cursor = connection.cursor()
    try:
        cursor.execute("PRAGMA auto_vacuum = INCREMENTAL")  # counts only before the first table exists
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = NORMAL")
        cursor.execute("PRAGMA foreign_keys = ON")
    finally:
        cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("hassette_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
