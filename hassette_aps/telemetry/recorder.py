"""``Telemetry``: what the rest of the package sees of the database of runs."""

import atexit
import logging
import weakref
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from threading import Event, Lock, Thread
from time import monotonic

from hassette_aps.execution_id import new_execution_id
from hassette_aps.instants import Micros
from hassette_aps.records import ExecutionRecord, Recordable, RegisteredLike, Status
from hassette_aps.telemetry import queries
from hassette_aps.telemetry.batch import Cancelled
from hassette_aps.telemetry.engine import Database
from hassette_aps.telemetry.forking import take_part
from hassette_aps.telemetry.health import TelemetryHealth
from hassette_aps.telemetry.mailbox import Mailbox
from hassette_aps.telemetry.queries import JobSummary
from hassette_aps.telemetry.retention import Retention
from hassette_aps.telemetry.schema import accepted_version
from hassette_aps.telemetry.writer import Writer

logger = logging.getLogger("hassette_aps.telemetry")

_READ_YOUR_WRITES_SECONDS = 2.0
_EXIT_SECONDS = 2.0


_inherited: list[Database] = []
"""Databases of the parent process: kept, so that their connections are never closed here."""


def _no_runs() -> Iterable[Recordable]:
    return ()


class Telemetry:
    """Records jobs and their runs in a database, without ever making a job wait for it.

    ``url``: ``sqlite:///file.db``, ``sqlite://`` (in memory, for this process), or
    ``postgresql+psycopg://...``. Executions are kept for ``retention_days``, at most ``retention_rows`` of
    them. ``in_flight`` returns a snapshot of the runs in progress; ``on_interrupted`` is told, on the writer's
    thread, of runs that a killed process left behind. At most ``queue_limit`` records of runs wait for the
    database, and ten times as many changes of jobs; beyond that the newest are dropped and counted.
    ``heartbeat_seconds`` must be the same in all processes of a database.

    Raises:
        ValueError: the URL names no usable database, or a number is out of range.
    """

    def __init__(
        self,
        url: str,
        *,
        retention_days: float = 30,
        retention_rows: int = 1_000_000,
        in_flight: Callable[[], Iterable[Recordable]] = _no_runs,
        on_interrupted: Callable[[Sequence[ExecutionRecord]], None] | None = None,
        queue_limit: int = 50_000,
        heartbeat_seconds: float = 5.0,
    ) -> None:
        if not retention_days > 0 or retention_rows < 1 or queue_limit < 1 or not heartbeat_seconds > 0:
            raise ValueError("retention_days, retention_rows, queue_limit and heartbeat_seconds must be positive")
        self._url = url
        self._limit = queue_limit
        self._retention = (retention_days, retention_rows)
        self._heartbeat_seconds = heartbeat_seconds
        self._in_flight = in_flight
        self._on_interrupted = on_interrupted
        self._build()
        take_part(self)

    def _build(self) -> None:
        self.instance = new_execution_id()
        """Id of this process among those that use the database."""
        self._database = Database(self._url)
        self._mailbox = Mailbox(self._limit)
        self.record: Callable[[Recordable], None] = self._mailbox.put_run
        """Queue the verdict of a run. Any thread, never blocks, well under a microsecond; the run's
        ``as_verdict()`` is called later, on the writer's thread."""
        self._writer = Writer(
            self._database,
            self._mailbox,
            Retention(*self._retention),
            prune_rows=max(1000, self._retention[1] // 10),
            heartbeat_seconds=self._heartbeat_seconds,
            in_flight=self._in_flight,
            on_interrupted=self._on_interrupted,
        )
        self._lifecycle = Lock()
        self._thread: Thread | None = None
        self._stop = Event()
        self._deadline = float("inf")
        self._finalizer = weakref.finalize(self, self._database.discard)

    def hold(self, seconds: float) -> bool:
        """Before a fork: keep the writer out of the database; whether it was out within ``seconds``."""
        return self._database.busy.acquire(timeout=seconds)

    def let_go(self) -> None:
        """After a fork, in the parent: the writer may go on."""
        self._database.busy.release()

    def forked(self) -> None:
        """After a fork, in the child: begin anew, stopped, as an instance of its own.

        The parent's locks may be held, and its connections must be neither used nor closed here. Changes of
        jobs that were not written yet are the child's as well; verdicts are the parent's.
        """
        self._finalizer.detach()
        _inherited.append(self._database)
        waiting = self._mailbox
        self._build()
        self._writer.forked()
        self._mailbox.adopt_jobs(waiting)

    def check(self) -> None:
        """Look at the database now; blocks while it answers.

        Raises:
            DatabaseRefused: its tables are of a newer version, or belong to something else.
            sqlalchemy.exc.SQLAlchemyError: it cannot be reached.
        """
        with self._database.reading() as conn:
            accepted_version(conn, self._database.label)

    def start(self) -> None:
        """Start the writer; it opens the database. Never blocks; does nothing if it runs already.

        A database that cannot be reached is tried until it can. One that is refused (see :meth:`check`) is an
        ERROR in the log and ``alive=False`` in :meth:`health`; jobs run on, unrecorded.
        """
        with self._lifecycle:
            before = self._thread
            if before is not None and before.is_alive() and not self._stop.is_set():
                return
            stop = self._stop = Event()
            self._deadline = float("inf")
            self._mailbox.limit = self._limit
            self._thread = Thread(
                target=self._writer.run,
                args=(self.instance, stop, lambda: self._deadline if self._stop is stop else 0.0, before),
                name="hassette_aps-telemetry",
                daemon=True,
            )
            self._thread.start()
            atexit.register(self.close, _EXIT_SECONDS)

    @property
    def started(self) -> bool:
        """Whether it was started, and not closed since."""
        return self._thread is not None and not self._stop.is_set()

    def registered(self, job: RegisteredLike) -> None:
        """Queue a registration. Any thread, never blocks.

        On the writer's thread its ``as_record()`` is called, and ``recorded_as()`` with the id of the row, which stays
        the same for an owner and a name.
        """
        self._mailbox.put_job(job)

    def cancelled(self, owner: str, name: str, at: Micros) -> None:
        """Queue a cancellation. Any thread, never blocks."""
        self._mailbox.put_job(Cancelled(owner, name, at))

    def flush(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds until everything queued so far is written; whether it was."""
        if not self._running():
            return not self._mailbox and self._writer.error is None
        return self._mailbox.put_flush().wait(timeout)

    def close(self, timeout: float) -> bool:
        """Write what is queued, mark this process as stopped, and end the thread.

        Whether that was done within ``timeout`` seconds. What could not be written stays queued for the next
        :meth:`start`; the thread ends by itself as soon as the database lets go of it.
        """
        with self._lifecycle:
            thread = self._thread
            atexit.unregister(self.close)
            if thread is None or not thread.is_alive():
                return not self._mailbox and self._writer.error is None
            self._deadline = monotonic() + timeout
            self._stop.set()
            self._mailbox.hurry()
            thread.join(timeout)
            return not thread.is_alive() and self._writer.error is None

    def health(self) -> TelemetryHealth:
        """How recording goes. Any thread, never blocks."""
        writer, error = self._writer, self._writer.error
        return TelemetryHealth(
            alive=self._running() and error is None,
            queue_length=writer.waiting,
            written=writer.written,
            dropped=self._mailbox.dropped,
            rejected=writer.losses.rejections,
            write_errors=writer.write_errors,
            last_write=writer.last_write,
            error=error,
        )

    def history(
        self,
        owner: str,
        name: str | None = None,
        *,
        limit: int = 100,
        since: datetime | None = None,
        status: Status | None = None,
    ) -> list[ExecutionRecord]:
        """The latest verdicts of a job, or of all jobs of ``owner``, newest target first.

        ``since`` (aware) is compared with the target. Blocks: waits up to 2 s for what is queued, then reads.

        Raises:
            ValueError: ``limit`` is not positive.
            DatabaseRefused: see :meth:`check`.
            sqlalchemy.exc.SQLAlchemyError: the database cannot be read.
        """
        if limit < 1:
            raise ValueError(f"limit must be at least 1, got {limit}")
        self.flush(_READ_YOUR_WRITES_SECONDS)
        with self._database.reading() as conn:
            if accepted_version(conn, self._database.label) is None:
                return []
            return queries.history(conn, owner, name, limit=limit, since=since, status=status)

    def summary(self, owner: str) -> list[JobSummary]:
        """One summary for each job of ``owner``, by name. Blocks like :meth:`history`.

        Raises:
            DatabaseRefused: see :meth:`check`.
            sqlalchemy.exc.SQLAlchemyError: the database cannot be read.
        """
        self.flush(_READ_YOUR_WRITES_SECONDS)
        with self._database.reading() as conn:
            if accepted_version(conn, self._database.label) is None:
                return []
            return queries.summary(conn, owner)

    def _running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()
