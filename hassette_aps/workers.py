"""A bounded pool of daemon threads whose places can be given up: plain functions cannot be stopped."""

from collections.abc import Callable
from itertools import count
from queue import SimpleQueue
from threading import Lock, Thread, get_ident
from typing import TypeAlias

Work: TypeAlias = Callable[[], None]


class Workers:
    """At most ``max_workers`` threads at work, plus at most as many left behind (``leak``) until they return.

    ``concurrent.futures`` cannot refill the place of a thread that hangs, and joins it at interpreter exit.
    Work must not raise.
    """

    def __init__(self, max_workers: int, name: str) -> None:
        self.max_workers = max_workers
        self._name = name
        self._queue: SimpleQueue[Work | None] = SimpleQueue()
        self._lock = Lock()
        self._spare = 0
        """Threads without work, minus work without a thread."""
        self._threads: set[int] = set()
        self._leaked: set[int] = set()
        self._starting = 0
        self._numbers = count(1)
        self._closed = False

    @property
    def leaked(self) -> int:
        """Threads left behind that have not returned yet."""
        return len(self._leaked)

    def submit(self, work: Work) -> None:
        """Queue work; a thread is started if none is free and there is room."""
        with self._lock:
            self._queue.put(work)
            self._spare -= 1
            self._start_if_needed()

    def leak(self, ident: int) -> bool:
        """Give up the thread ``ident``: its place is free for another one. False if no place is left to give."""
        with self._lock:
            if ident not in self._threads:
                return True  # it has returned meanwhile
            if len(self._leaked) >= self.max_workers:
                return False
            self._threads.discard(ident)
            self._leaked.add(ident)
            self._start_if_needed()
        return True

    def open(self) -> None:
        """Take work again after ``close``."""
        with self._lock:
            self._closed = False
            self._start_if_needed()

    def close(self) -> None:
        """Let the threads end once the queue is empty; does not wait."""
        with self._lock:
            self._closed = True
            for _ in range(len(self._threads) + self._starting):
                self._queue.put(None)

    def _start_if_needed(self) -> None:
        while self._spare < 0 and len(self._threads) + self._starting < self.max_workers and not self._closed:
            self._starting += 1
            self._spare += 1
            Thread(target=self._serve, name=f"{self._name}-{next(self._numbers)}", daemon=True).start()

    def _serve(self) -> None:
        ident = get_ident()
        with self._lock:
            self._starting -= 1
            self._threads.add(ident)
        while True:
            work = self._queue.get()
            if work is None:
                with self._lock:
                    if not self._closed:
                        continue  # meant for a thread that has been left behind since
                    self._spare -= 1
                    self._threads.discard(ident)
                    return
            work()
            del work  # the last run's arguments must not live on in an idle thread
            with self._lock:
                if ident in self._leaked:
                    self._leaked.discard(ident)
                    return
                self._spare += 1
