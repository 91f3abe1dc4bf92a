"""One owner on one AsyncIOScheduler: its name, its settings and what its runs need to know."""

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from logging import Logger
from typing import TYPE_CHECKING, Any, TypeAlias
from zoneinfo import ZoneInfo

from hassette_aps.options import JobSpec
from hassette_aps.types import Mode

if TYPE_CHECKING:
    from hassette_aps.settings import Settings

Spawn: TypeAlias = Callable[[Coroutine[Any, Any, None], str, Context], "asyncio.Task[None] | None"]
"""Makes the task of one run: coroutine, task name, clean context. None: the owner takes no more tasks."""


class Owner:
    """State shared by an owner's jobs; mutable only where its lifecycle says so."""

    __slots__ = (
        "context",
        "default_mode",
        "default_timeout",
        "ended",
        "last_spec",
        "live",
        "logger",
        "lost",
        "max_lateness",
        "name",
        "prefix",
        "prepare",
        "settings",
        "spawn",
        "stopping",
        "threshold",
        "unwanted",
        "zone",
    )

    def __init__(
        self,
        name: str,
        settings: "Settings",
        zone: ZoneInfo,
        logger: Logger,
        context: Context,
        spawn: Spawn | None,
    ) -> None:
        self.name = name
        self.prefix = f"{name}/" if name else ""
        self.settings = settings
        self.zone = zone
        self.logger = logger
        self.context = context
        self.spawn = spawn
        self.lost: set[str] = set()
        """Names of in-memory jobs that ended with the last shutdown."""
        self.unwanted: set[str] = set()
        """Ids of jobs cancelled before start, whose rows of an earlier process go at start."""
        self.prepare: Callable[[str, Context], None] | None = None
        """Told the execution id of each run and its context, before the run starts."""
        self.last_spec: JobSpec | None = None
        """Of the job registered last: the next one often asks for the same."""
        self.live = False
        """Its jobs may run: attached, and not shut down."""
        self.ended = False
        """``aps.shutdown()`` has ended it: it may start again, unless another Scheduler takes its name first."""
        self.stopping = False
        """A shutdown is under way: nothing new is scheduled."""
        self.default_mode: Mode = settings.default_mode
        self.default_timeout = settings.default_timeout
        self.max_lateness = None if settings.max_lateness is None else int(settings.max_lateness * 1_000_000)
        self.threshold = int(settings.behind_schedule_threshold * 1_000_000)

    def id_of(self, name: str) -> str:
        """The APScheduler id of this owner's job ``name``."""
        return self.prefix + name

    def __repr__(self) -> str:
        return f"<Owner {self.name!r}>"
