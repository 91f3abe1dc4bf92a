"""One owner's life: attach, start, drain, stop, and start again."""

import asyncio
from collections.abc import Iterable, Sequence
from importlib import import_module
from math import isfinite
from typing import TYPE_CHECKING, Any

from hassette_aps.engine import Engine
from hassette_aps.executor import CANCEL_GRACE, own_run_in
from hassette_aps.health import SchedulerHealth
from hassette_aps.instants import to_datetime
from hassette_aps.job import ScheduledJob
from hassette_aps.listeners import Listeners
from hassette_aps.owner import Owner
from hassette_aps.records import ExecutionRecord, Recordable
from hassette_aps.run import Run
from hassette_aps.types import IfExists

if TYPE_CHECKING:
    from hassette_aps.settings import Settings
    from hassette_aps.telemetry import Telemetry

FLUSH_SECONDS = 5.0
"""Time the last records have to reach the database at shutdown."""


class Lifecycle:
    """Brings an owner up and down on its engine."""

    def __init__(self, engine: Engine, owner: Owner, settings: "Settings") -> None:
        self._engine = engine
        self._owner = owner
        self._settings = settings
        self.telemetry: Telemetry | None = self._open_database()
        self.listeners = Listeners(owner, lambda: engine.clockwork.loop, self.telemetry)
        self._warned_default = False
        self._stopped: asyncio.Event | None = None
        self._last: asyncio.Task[None] | None = None

    def _open_database(self) -> "Telemetry | None":
        settings = self._settings
        if settings.database is None:
            return None
        # SQLAlchemy is imported only when a database is used
        telemetry = import_module("hassette_aps.telemetry")
        return telemetry.Telemetry(
            settings.database,
            retention_days=settings.retention_days,
            retention_rows=settings.rows_kept,
            in_flight=self._in_flight,
            on_interrupted=self._interrupted,
        )

    def _interrupted(self, records: Sequence[ExecutionRecord]) -> None:
        self.listeners.interrupted(records)

    def _in_flight(self) -> Iterable[Recordable]:
        return [run for run in list(self._engine.executor.running) if run.job.home is self._owner]

    def attach(self) -> None:
        """Take the owner's name on the engine."""
        self._engine.attach()
        try:
            self._engine.admit_owner(self._owner, self.listeners)
        except ValueError:
            if not self._engine.owners:
                self._engine.detach()
            raise
        if self.telemetry is not None:
            self.telemetry.start()

    @property
    def _attached(self) -> bool:
        return self._engine.owners.get(self._owner.name) is self._owner

    def register(self, job: ScheduledJob, if_exists: IfExists) -> ScheduledJob:
        """Register a job; after a shutdown it waits for the next start."""
        owner, clockwork = self._owner, self._engine.clockwork
        if not self._warned_default and job.spec.jobstore is None and self._settings.jobstore is None:
            self._warned_default = True
            if not clockwork.in_memory("default"):
                owner.logger.warning(
                    "job %r is kept in memory although the AsyncIOScheduler's job store 'default' is persistent; give"
                    " jobstore='default' (per job, or to the Scheduler) if it must survive a restart",
                    job.name,
                )
        if not owner.live and not self._attached and not clockwork.started and not owner.stopping:
            self.attach()
        if self.telemetry is not None and not self.telemetry.started:
            self.telemetry.start()
        return self._engine.registration.register(owner, job, if_exists)

    def database(self) -> "Telemetry":
        """The record of runs.

        Raises:
            RuntimeError: there is none.
        """
        if self.telemetry is None:
            raise RuntimeError(
                "this Scheduler keeps no record of runs (database=None); give database='sqlite:///jobs.db', or leave it"
                " out for the one in memory"
            )
        return self.telemetry

    def health(self) -> SchedulerHealth:
        """See ``Scheduler.health``."""
        engine, owner = self._engine, self._owner
        store, recording = engine.jobs.store, None if self.telemetry is None else self.telemetry.health()
        return SchedulerHealth(
            alive=owner.live and engine.clockwork.running and store.timer.alive,
            last_wakeup=None if store.last_wakeup is None else to_datetime(store.last_wakeup),
            jobs=len(engine.registry.of(owner)),
            running=len(self._runs(None)),
            leaked_threads=engine.executor.workers.leaked,
            error_handler_failures=self.listeners.handler_failures,
            recording=recording is not None and recording.alive,
            queue_length=0 if recording is None else recording.queue_length,
            dropped_records=0 if recording is None else recording.dropped,
            recording_error=None if recording is None else recording.error,
        )

    async def start(self) -> None:
        """See ``Scheduler.start``."""
        engine, owner = self._engine, self._owner
        if not self._attached:
            self.attach()
        self._warn_of_lost()
        if engine.clockwork.started:
            if not owner.live and not owner.stopping:  # it could not be opened when somebody else started it
                engine.open(owner)
            return
        try:
            engine.start(owner)
        except Exception:
            await self._stop_aps()
            raise

    def _warn_of_lost(self) -> None:
        lost = self._owner.lost - {job.name for job in self._engine.registry.of(self._owner)}
        self._owner.lost = set()
        if lost:
            names = sorted(lost)
            self._owner.logger.warning(
                "%d in-memory jobs of the previous start were not registered again: %s%s",
                len(names),
                ", ".join(map(repr, names[:5])),
                ", ..." if len(names) > 5 else "",
            )

    async def shutdown(self, grace: float) -> None:
        """See ``Scheduler.shutdown``."""
        if isinstance(grace, bool) or not isinstance(grace, int | float) or not isfinite(grace) or grace < 0:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"shutdown(grace={grace!r}): must be a number of seconds >= 0")
        engine, owner = self._engine, self._owner
        caller = own_run_in(owner)
        if owner.stopping:
            if caller is None and self._stopped is not None:  # a run may be what the other call waits for
                await self._stopped.wait()
            return
        if not self._attached:
            await self._finish_records()
            return
        owner.stopping = True
        self._stopped = asyncio.Event()
        try:
            loop = engine.clockwork.loop
            if loop is not None and loop is not asyncio.get_running_loop():
                await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._stop(grace, caller), loop))
            else:
                await self._stop(grace, caller)
        finally:
            engine.dismiss_owner(owner)
            owner.stopping = False
            try:
                if not engine.owners:
                    engine.detach()
                    if engine.started_here:
                        await self._stop_aps()
            finally:
                self._stopped.set()

    async def _stop(self, grace: float, caller: Run | None) -> None:
        engine, owner = self._engine, self._owner
        engine.close(owner, aps_goes_on=True)
        engine.executor.drop_waiting(owner)
        impatient: asyncio.CancelledError | None = None
        try:
            await asyncio.sleep(0)  # by then what was submitted is admitted, and so gets its verdict
            await self._until_idle(grace, caller)
        except asyncio.CancelledError as exc:  # whoever waits has lost patience: the grace is over
            impatient = exc
        for run in self._runs(caller):
            engine.executor.stop(run)
        await self._until_idle(CANCEL_GRACE * 2, caller)
        await self.listeners.drain(0 if impatient else self._settings.handler_timeout + CANCEL_GRACE)
        if caller is None or caller.status is not None:
            await self._finish_records()
        else:
            body, loop = self._finish_after(caller), asyncio.get_running_loop()
            self._last = asyncio.Task(body, loop=loop, name="hassette_aps last record", context=owner.context.copy())
        if impatient is not None:
            raise impatient

    async def _finish_after(self, caller: Run) -> None:
        """The run that asked for the shutdown ends after it: put that on record too."""
        while caller.status is None:  # noqa: ASYNC110  a thread's run has no task to wait for
            await asyncio.sleep(0.01)
        self.listeners.ended(caller)
        await self.listeners.drain(self._settings.handler_timeout)
        await self._finish_records()

    def _runs(self, caller: Run | None) -> list[Run]:
        running = list(self._engine.executor.running)
        return [run for run in running if run.job.home is self._owner and run is not caller]

    async def _until_idle(self, seconds: float, caller: Run | None) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        pause = 0.0
        while self._runs(caller) and loop.time() < deadline:
            await asyncio.sleep(min(pause, max(deadline - loop.time(), 0)))
            pause = min(pause + 0.001, 0.02)

    async def _finish_records(self) -> None:
        self.listeners.close()
        if self.telemetry is not None:
            done = await asyncio.to_thread(self.telemetry.close, FLUSH_SECONDS)
            if not done:
                self._owner.logger.warning("the last records could not be written within %g s", FLUSH_SECONDS)

    async def _stop_aps(self) -> None:
        """APScheduler's own shutdown returns before it has happened: wait until it has."""
        engine = self._engine
        engine.started_here = False
        aps: Any = engine.clockwork.aps
        if engine.clockwork.started:
            aps.shutdown(wait=False)
            while engine.clockwork.started:  # noqa: ASYNC110  nothing to wait for: it is a callback of the next turns
                await asyncio.sleep(0)
