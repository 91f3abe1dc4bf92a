"""Hassette's scheduling semantics on APScheduler 3.11+."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hassette_aps.error_context import SchedulerErrorContext
from hassette_aps.events import EVENT_RUN_CANCELLED, RunEvent
from hassette_aps.health import SchedulerHealth
from hassette_aps.job import ScheduledJob
from hassette_aps.logfilter import RunLogFilter
from hassette_aps.options import JobOptions
from hassette_aps.records import ExecutionRecord
from hassette_aps.run import Run, current_run
from hassette_aps.scheduler import Scheduler
from hassette_aps.triggers import After, Cron, Daily, Every, Once, TriggerProtocol, preview

if TYPE_CHECKING:
    from hassette_aps.settings import Settings

__all__ = [
    "EVENT_RUN_CANCELLED",
    "After",
    "Cron",
    "Daily",
    "Every",
    "ExecutionRecord",
    "JobOptions",
    "Once",
    "Run",
    "RunEvent",
    "RunLogFilter",
    "ScheduledJob",
    "Scheduler",
    "SchedulerErrorContext",
    "SchedulerHealth",
    "Settings",
    "TriggerProtocol",
    "current_run",
    "preview",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "Settings":  # a pydantic model: it takes as long to import as everything else together
        return import_module("hassette_aps.settings").Settings
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
