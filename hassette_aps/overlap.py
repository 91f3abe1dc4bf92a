"""Overlap modes: what becomes of a due run while another one of its job has no verdict yet."""

from collections import deque
from collections.abc import Callable
from typing import Final, TypeAlias

from hassette_aps.records import Status
from hassette_aps.run import Run

QUEUE_DEPTH: Final = 10
"""Runs of a ``queued`` job that may wait; the newest beyond that is dropped."""

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
