"""Hassette's scheduling semantics on APScheduler 3.11+."""

from hassette_aps.error_context import SchedulerErrorContext
from hassette_aps.events import EVENT_RUN_CANCELLED, RunEvent
from hassette_aps.health import SchedulerHealth
from hassette_aps.job import ScheduledJob
from hassette_aps.logfilter import RunLogFilter
from hassette_aps.options import JobOptions
from hassette_aps.records import ExecutionRecord
from hassette_aps.run import Run, current_run
from hassette_aps.scheduler import Scheduler
from hassette_aps.settings import Settings
from hassette_aps.triggers import After, Cron, Daily, Every, Once, TriggerProtocol, preview

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
