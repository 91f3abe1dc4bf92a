"""The one thread that writes: takes batches out of the mailbox, and tries until the database has them."""

import logging
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from operator import methodcaller
from threading import Event, Thread
from time import monotonic, sleep
from typing import TypeVar

from sqlalchemy.exc import SQLAlchemyError

from hassette_aps.records import ExecutionRecord, JobRecord, Recordable, RegisteredLike, Verdict
from hassette_aps.telemetry.batch import Batch
from hassette_aps.telemetry.engine import Database
from hassette_aps.telemetry.inflight import InFlight
from hassette_aps.telemetry.losses import Losses
from hassette_aps.telemetry.mailbox import Mailbox
from hassette_aps.telemetry.process import this_process
from hassette_aps.telemetry.recovery import Death, Instances
from hassette_aps.telemetry.retention import Retention
from hassette_aps.telemetry.schema import DatabaseRefused, prepare
from hassette_aps.telemetry.store import Store, Written, row_at_fault

logger = logging.getLogger("hassette_aps.telemetry")

T = TypeVar("T")
R = TypeVar("R")

_as_record: Callable[[RegisteredLike], JobRecord] = methodcaller("as_record")
_as_verdict: Callable[[Recordable], Verdict] = methodcaller("as_verdict")

SILENT_SECONDS = 5.0
"""A database that has not answered for so long is reported as hanging."""

_IDLE_SECONDS = 0.5
_FIRST_PAUSE, _LONGEST_PAUSE, _CLOSING_PAUSE = 0.05, 2.0, 0.1
_PRUNE_SECONDS = 300.0


class Writer:
    """Everything the thread does and knows. One life of the thread lasts from a start to a close."""

    def __init__(
        self,
        database: Database,
        mailbox: Mailbox,
        retention: Retention,
        *,
        prune_rows: int,
        heartbeat_seconds: float,
        in_flight: Callable[[], Iterable[Recordable]],
        on_interrupted: Callable[[Sequence[ExecutionRecord]], None] | None,
    ) -> None:
        self.written = 0
        self.write_errors = 0
        self.last_write: datetime | None = None
        self.losses = Losses(logger, mailbox)
        self._database = database
        self._mailbox = mailbox
        self._retention = retention
        self._prune_rows = prune_rows
        self._heartbeat_seconds = heartbeat_seconds
        self._idle_seconds = min(_IDLE_SECONDS, heartbeat_seconds)
        self._on_interrupted = on_interrupted
        self._store = Store(database)
        self._instances = Instances(database, heartbeat_seconds)
        self._in_flight = InFlight(in_flight)
        self._batch = Batch()
        self._pause = _FIRST_PAUSE
        self._error: str | None = None
        self._failing_since: float | None = None
        self._asked_at: float | None = None
        self._complaint = float("-inf")
        self._opened = False
        self._instance_id: int | None = None
        self._beat = float("-inf")
        self._pruned = float("-inf")
        self._pruning = False
        self._written_at_prune = 0

    def forked(self) -> None:
        """The jobs were told ids by the parent's writer."""
        self._store.forget()

    @property
    def waiting(self) -> int:
        """Records and changes of jobs that are not in the database yet."""
        return len(self._mailbox) + self._batch.size

    @property
    def error(self) -> str | None:
        """What keeps it from writing now, if anything does."""
        asked_at = self._asked_at
        if asked_at is not None and monotonic() - asked_at > SILENT_SECONDS:
            return f"{self._database.label} has not answered for {monotonic() - asked_at:.0f} s"
        return self._error

    def run(self, instance: str, stop: Event, deadline: Callable[[], float], before: Thread | None) -> None:
        """Body of the thread, until ``stop`` is set and everything is written, or ``deadline`` has passed."""
        if before is not None:
            before.join()
        self._instance_id = None
        self._pruned = float("-inf")
        while True:
            try:
                self._asked_at = monotonic()
                if self._instance_id is None:
                    self._open(instance)
                self._asked_at = None
                if not self._pruning and not stop.is_set():
                    self._mailbox.wait(self._idle_seconds)
                self._asked_at = monotonic()
                stopping = stop.is_set()  # asked before the last look into the mailbox
                self._turn()
                if stopping and not self._mailbox and not self._batch:
                    self._leave()
                    break
            except DatabaseRefused as refusal:
                self._refuse(refusal)
                break
            except Exception as error:  # noqa: BLE001 (whatever a database can come up with)
                self._failed(error)
                if stop.is_set() and monotonic() >= deadline():
                    break
                if stop.wait(self._pause):
                    sleep(min(self._pause, _CLOSING_PAUSE))
            self._asked_at = None
            self.losses.report()
        self._asked_at = None
        self._database.close()

    def _open(self, instance: str) -> None:
        with self._database.writing() as conn:
            prepare(conn, self._database.label)
        with self._database.writing() as conn:
            instance_id = self._instances.arrive(conn, instance, this_process())
        if self._opened:  # again: it may be another database by now
            self._store.forget()
        self._opened = True
        self._in_flight.forget()
        self._instance_id = instance_id
        self._beat = float("-inf")

    def _turn(self) -> None:
        batch = self._batch
        if not batch:
            self._mailbox.take_jobs(batch, self._registration)
            self._mailbox.take_runs(batch, self._verdict)
        if not self._database.in_memory:
            batch.markers += filter(None, map(self._verdict, self._in_flight.due()))
        if batch:
            self._write(batch)
        if monotonic() - self._beat >= self._heartbeat_seconds and not self._database.in_memory:
            self._keep_company()
        self._prune()

    def _write(self, batch: Batch) -> None:
        assert self._instance_id is not None
        if batch.jobs or batch.verdicts or batch.markers:
            try:
                with self._database.writing() as conn:
                    written = self._store.write(conn, batch, self._instance_id)
                    if not self._database.in_memory:  # there nobody can look
                        self._instances.beat(conn, self._instance_id)
            except Exception as error:
                if not row_at_fault(error):
                    raise
                self._store.forget()
                with self._database.writing() as conn:
                    written = self._store.write_one_by_one(conn, batch, self._instance_id)
            self._succeeded(written)
        self._batch = Batch()
        for flushed in batch.flushed:
            flushed.set()

    def _succeeded(self, written: Written) -> None:
        self.written += written.verdicts
        self.last_write = datetime.now(UTC)
        self._answers()
        for entry, error in written.rejected:
            self.losses.rejected(entry, error)
        for on_id, job_id in written.ids:
            try:
                on_id(job_id)
            except Exception:
                logger.exception("a callback for the id of a job failed")

    def _keep_company(self) -> None:
        """Say that this process is alive, and look for others that are not."""
        assert self._instance_id is not None
        for death in self._instances.look_around(self._instance_id):
            self._tell(death)
        self._beat = monotonic()
        self._answers()

    def _tell(self, death: Death) -> None:
        death.log(logger)
        if self._on_interrupted is None:
            return
        try:
            self._on_interrupted([*death.cut_off, *death.owed])
        except Exception:
            logger.exception("the hook for interrupted runs failed")

    def _prune(self) -> None:
        if not self._pruning:
            grown = self.written - self._written_at_prune
            if grown < self._prune_rows and monotonic() - self._pruned < _PRUNE_SECONDS:
                return
            with self._database.writing() as conn:
                self._retention.begin(conn)
            self._pruned, self._written_at_prune = monotonic(), self.written
        with self._database.writing() as conn:
            self._pruning = self._retention.step(conn)
        if not self._pruning:
            self._database.checkpoint()

    def _registration(self, told: RegisteredLike) -> JobRecord | None:
        return self._made(told, _as_record)

    def _verdict(self, told: Recordable) -> Verdict | None:
        return self._made(told, _as_verdict)

    def _made(self, told: T, make: Callable[[T], R]) -> R | None:
        try:
            return make(told)
        except BaseException as error:  # noqa: BLE001 (it may call code of the user's exception, or trigger)
            self.losses.rejected(type(told).__name__, error)
            return None

    def _leave(self) -> None:
        assert self._instance_id is not None
        with self._database.writing() as conn:
            self._instances.leave(conn, self._instance_id)
        self.losses.report(now=True)

    def _failed(self, error: Exception) -> None:
        self.write_errors += 1
        self._error = f"{type(error).__name__}: {error}"
        self._store.forget()
        self._batch.markers.clear()  # they will be sampled again
        self._instance_id = None  # look at the tables again
        if self._failing_since is None:
            self._failing_since = monotonic()
            self._pause = _FIRST_PAUSE
        else:
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        if monotonic() - self._complaint >= Losses.INTERVAL_SECONDS:
            self._complaint = monotonic()
            logger.warning(
                "cannot write to %s, will go on trying, %d records wait: %s",
                self._database.label,
                self.waiting,
                self._error,
                exc_info=None if isinstance(error, SQLAlchemyError) else error,
            )

    def _answers(self) -> None:
        if self._failing_since is not None:
            seconds = monotonic() - self._failing_since
            logger.info("%s answers again after %.1f s", self._database.label, seconds)
        self._failing_since = self._error = None

    def _refuse(self, refusal: DatabaseRefused) -> None:
        self._error = str(refusal)
        self._mailbox.refuse()
        self._batch = Batch()
        logger.error("runs are not recorded: %s", refusal)
