"""Eager tasks (Python 3.12): a coroutine that does not block is over without a task switch."""

import asyncio
from contextvars import Context
from typing import Any

from hassette_aps.run import Run


class EagerTasks:
    """Starts the runs admitted in one loop turn in the next one, with one callback for all of them."""

    __slots__ = ("_admitted",)

    def __init__(self) -> None:
        self._admitted: list[tuple[Run, Any, Context]] = []

    def start_soon(self, run: Run, body: Any, context: Context, loop: asyncio.AbstractEventLoop) -> None:
        """Start the body of a run in the next loop turn. On the loop."""
        if not self._admitted:
            loop.call_soon(self._start, loop, context=Context())
        self._admitted.append((run, body, context))

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        starting, self._admitted = self._admitted, []
        make: Any = asyncio.Task  # whose ``eager_start`` the type stubs of 3.11 do not know
        for run, body, context in starting:
            if run.status is not None:  # stopped before it began
                body.close()
                continue
            task = make(body, loop=loop, name=run.job.name, context=context, eager_start=True)
            if not task.done():  # it waits for something: from now on it is a task like others
                run.task = task
