"""Overlap modes: what becomes of a due run while another one of its job has no verdict yet."""

from collections import deque
from collections.abc import Callable
from typing import Final, TypeAlias

from hassette_aps.instants import Micros
from hassette_aps.job import ScheduledJob
from hassette_aps.owner import Owner
from hassette_aps.records import Status
from hassette_aps.run import Run

QUEUE_DEPTH: Final = 10
"""Runs of a ``queued`` job that may wait; the newest beyond that is dropped."""

HELD_FOR_LONG: Final[Micros] = 60_000_000
"""A run that keeps others of its job from starting for longer than this is named in one WARNING."""

Refuse: TypeAlias = Callable[[Run, Status], None]


class Guard:
    """The run in progress of one job whose mode is not ``parallel``, and those that wait for its verdict."""

    __slots__ = ("current", "waiting")

    def __init__(self) -> None:
        self.current: Run | None = None
        self.waiting: deque[Run] = deque()

    def admit(self, run: Run, refuse: Refuse, stop: Callable[[Run], None]) -> bool:
        """Whether ``run`` may start now; otherwise it waits or is refused."""
        current = self.current
        if current is None:
            self.current = run
            return True
        mode = run.job.mode
        if mode == "single":
            refuse(run, "suppressed")
        elif mode == "queued":
            if len(self.waiting) < QUEUE_DEPTH:
                self.waiting.append(run)
            else:
                refuse(run, "dropped")
        else:
            superseded = list(self.waiting)
            self.waiting.clear()
            self.waiting.append(run)
            for older in superseded:
                refuse(older, "cancelled")
            stop(current)
        return False

    def release(self, run: Run) -> Run | None:
        """``run`` has its verdict: the run to start next, if one waits."""
        if self.current is not run:
            return None
        self.current = self.waiting.popleft() if self.waiting else None
        return self.current


class Guards:
    """The guards of all jobs that have a run in progress. Used on the loop only."""

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held: dict[ScheduledJob, Guard] = {}
        """Only jobs with a run in progress: empty for as long as all are ``parallel``."""

    def admit(self, run: Run, refuse: Refuse, stop: Callable[[Run], None], now: Micros) -> bool:
        """Whether ``run`` may start now; otherwise it waits or is refused."""
        guard = self.held.get(run.job)
        if guard is None:
            guard = self.held[run.job] = Guard()
        admitted = guard.admit(run, refuse, stop)
        if not admitted and guard.current is not None:
            _warn_if_held(guard.current, now)
        return admitted

    def release(self, run: Run) -> Run | None:
        """``run`` has its verdict: the run to start next, if one waits."""
        guard = self.held.get(run.job)
        if guard is None:
            return None
        following = guard.release(run)
        if guard.current is None:
            del self.held[run.job]
        return following

    def waiting(self, home: Owner | None = None) -> list[Run]:
        """Take out the runs that wait: an owner's, or all."""
        taken: list[Run] = []
        for job, guard in self.held.items():
            if home in (None, job.home):
                taken.extend(guard.waiting)
                guard.waiting.clear()
        return taken

    def look(self, now: Micros) -> None:
        """Name the runs that hold others back for too long, each once."""
        for guard in self.held.values():
            if guard.current is not None:
                _warn_if_held(guard.current, now)


def _warn_if_held(run: Run, now: Micros) -> None:
    if run.warned or run.started is None or now - run.started <= HELD_FOR_LONG or run.job.home is None:
        return
    run.warned = True
    run.job.home.logger.warning(
        "job %r: its run of %s (exec=%s) has been in progress for %.0f s and holds back the next ones (mode=%r)",
        run.job.name,
        run.scheduled_for,
        run.execution_id,
        (now - run.started) / 1e6,
        run.job.mode,
    )
