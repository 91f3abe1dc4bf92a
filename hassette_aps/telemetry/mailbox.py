"""The bounded queue between every thread and the writer; putting something in never blocks."""

from collections import deque
from collections.abc import Callable
from threading import Event, Lock
from time import sleep
from typing import TypeAlias

from hassette_aps.records import JobRecord, Recordable, RegisteredLike, Verdict
from hassette_aps.telemetry.batch import Batch, JobChange

BATCH_ROWS = 200
"""Records in a batch: no more, because drivers let no other thread run while they convert one."""

BATCH_SECONDS = 0.25
"""Longest wait for a batch to fill."""

CHANGES_PER_RUN = 10
"""Changes of jobs that may wait for each run that may: a program registers all it has at once."""

PAUSE = 0.005
"""Seconds between two looks at a burst that is still growing."""

Entry: TypeAlias = Recordable | Event


class Mailbox:
    """Changes of jobs, taken out first, and verdicts, in order. When it is full the newest is dropped."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.dropped = 0
        self._jobs: deque[JobChange] = deque()
        self._runs: deque[Entry] = deque()
        self._something = Event()
        self._enough = Event()
        self._counting = Lock()

    def __len__(self) -> int:
        return len(self._jobs) + len(self._runs)

    def put_run(self, run: Recordable) -> None:
        """Add a verdict. Any thread; well under a microsecond."""
        runs = self._runs
        waiting = len(runs)
        if waiting >= self.limit:
            self._drop()
            return
        runs.append(run)
        if not self._something.is_set():
            self._something.set()
        if waiting >= BATCH_ROWS and not self._enough.is_set():
            self._enough.set()

    def put_job(self, change: JobChange) -> None:
        """Add a change of a job. Any thread; somebody may be waiting for its id, so it is written at once."""
        if len(self._jobs) >= self.limit * CHANGES_PER_RUN:
            self._drop()
            return
        self._jobs.append(change)
        self.hurry()

    def put_flush(self) -> Event:
        """Add a marker; it is set when everything put in before it has been written."""
        flushed = Event()
        self._runs.append(flushed)
        self.hurry()
        return flushed

    def hurry(self) -> None:
        """End the writer's wait."""
        if not self._enough.is_set():  # setting takes a microsecond, asking does not
            self._enough.set()
        if not self._something.is_set():
            self._something.set()

    def wait(self, idle_seconds: float) -> None:
        """Wait until a batch is full, a quarter of a second after its first record, or idle for that long."""
        anything = len(self) > 0 or self._something.wait(idle_seconds)
        if anything and not self._jobs and len(self._runs) < BATCH_ROWS:
            self._enough.wait(BATCH_SECONDS)
        self._let_pass()
        self._something.clear()  # before anything is taken out: what is added from now on sets it again
        self._enough.clear()

    def _let_pass(self) -> None:
        """Keep out of the way while entries come in by the hundred: both threads would only take turns."""
        waiting = 0
        while waiting + BATCH_ROWS < len(self) and len(self._runs) < self.limit // 2:
            waiting = len(self)
            sleep(PAUSE)

    def take_jobs(self, batch: Batch, convert: Callable[[RegisteredLike], JobRecord | None]) -> None:
        """Move waiting changes of jobs to ``batch``."""
        jobs = self._jobs
        batch.add_jobs((jobs.popleft() for _ in range(min(len(jobs), BATCH_ROWS))), convert)

    def take_runs(self, batch: Batch, convert: Callable[[Recordable], Verdict | None]) -> None:
        """Move waiting verdicts to ``batch``, once no change of a job waits before them."""
        runs = self._runs
        if self._jobs:
            return
        for _ in range(min(len(runs), BATCH_ROWS)):
            entry = runs.popleft()
            if isinstance(entry, Event):
                batch.flushed.append(entry)
            elif verdict := convert(entry):
                batch.verdicts.append(verdict)

    def adopt_jobs(self, other: "Mailbox") -> None:
        """Take over the changes of jobs that wait in ``other``, of which no other thread knows."""
        self._jobs.extend(other._jobs)

    def refuse(self) -> None:
        """Take nothing any more: what waits and what comes is dropped, and counted."""
        self.limit = 0
        with self._counting:
            self.dropped += sum(not isinstance(entry, Event) for entry in self._runs) + len(self._jobs)
        self._jobs.clear()
        self._runs.clear()

    def _drop(self) -> None:
        with self._counting:
            self.dropped += 1
