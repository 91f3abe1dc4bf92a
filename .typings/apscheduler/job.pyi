from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from apscheduler.triggers.base import BaseTrigger

class Job:
    id: str
    name: str
    func: Callable[..., Any]
    func_ref: str | None
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    coalesce: bool
    trigger: BaseTrigger
    executor: str
    misfire_grace_time: int | None
    max_instances: int
    next_run_time: datetime | None
    _scheduler: Any
    _jobstore_alias: str | None
