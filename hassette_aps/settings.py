"""The settings of one ``Scheduler``: declared, documented and validated here, and read from the environment."""

import os
import sys
from collections.abc import Mapping
from math import isfinite
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from hassette_aps.instants import as_zone
from hassette_aps.types import Mode

ENV_PREFIX = "HASSETTE_APS_"
IN_MEMORY = "sqlite://"


def _number(value: Any) -> Any:
    if isinstance(value, bool) or (isinstance(value, float) and not isfinite(value)):
        raise ValueError("must be a finite number of seconds, or None")
    return value


def _none_word(value: Any) -> Any:
    return None if isinstance(value, str) and value.strip().lower() in ("", "none") else value


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be a number")
    return value


Seconds = Annotated[float, BeforeValidator(_number), Field(gt=0)]
OptionalSeconds = Annotated[Seconds | None, BeforeValidator(_none_word)]
OptionalName = Annotated[str | None, BeforeValidator(_none_word)]


class Settings(BaseModel):
    """Keyword settings of ``Scheduler(...)``; each is also read from ``HASSETTE_APS_<NAME>``.

    The keyword wins over the environment. The word ``none`` in the environment stands for None.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", arbitrary_types_allowed=True, use_attribute_docstrings=True, defer_build=True
    )

    timezone: ZoneInfo | None = None
    """Zone of wall-clock times; None = the wrapped AsyncIOScheduler's, else tzlocal's."""
    default_mode: Mode = "parallel"
    """Overlap mode of jobs that name none."""
    default_timeout: OptionalSeconds = 600.0
    """Seconds a run may take where the job says nothing; None = no limit."""
    handler_timeout: Seconds = 5.0
    """Seconds an error handler or a run hook may take."""
    max_workers: Annotated[int, Field(gt=0, le=10_000, strict=True)] = Field(
        default_factory=lambda: min(32, (os.cpu_count() or 1) + 4)
    )
    """Threads for plain functions, shared by all owners of one AsyncIOScheduler (the first owner's value)."""
    max_lateness: OptionalSeconds = None
    """Seconds after which a late run is recorded ``missed`` instead of run; None = never."""
    behind_schedule_threshold: Seconds = 5.0
    """Seconds of lateness above which a run logs ``behind schedule by ...``."""
    eager_tasks: bool = False
    """Python 3.12 and later: a coroutine that does not block is over without a task switch. It still starts in a later
    loop turn than its admission."""
    database: OptionalName = IN_MEMORY
    """SQLAlchemy URL of the record of runs; ``sqlite://`` is embedded and in memory; None = no record."""
    retention_days: Annotated[float, BeforeValidator(_number), Field(gt=0)] = 30
    """Days that executions are kept."""
    retention_rows: Annotated[int, BeforeValidator(_no_bool), Field(gt=0)] | None = None
    """Executions kept at most; None = 1,000,000, or 10,000 for the in-memory database."""
    jobstore: OptionalName = None
    """Default APScheduler job store alias; None = ours, in memory."""
    executor: OptionalName = None
    """Default APScheduler executor alias; None = ours."""

    @field_validator("timezone", mode="before")
    @classmethod
    def _zone(cls, value: Any) -> ZoneInfo | None:
        value = _none_word(value)
        return None if value is None else as_zone(value)

    @field_validator("max_workers", mode="before")
    @classmethod
    def _workers(cls, value: Any) -> Any:
        return int(value) if isinstance(value, str) and value.isdecimal() else value

    @field_validator("eager_tasks")
    @classmethod
    def _eager(cls, value: bool) -> bool:
        if value and sys.version_info < (3, 12):
            raise ValueError("needs Python 3.12 or later; leave it out on this one")
        return value

    @property
    def rows_kept(self) -> int:
        """``retention_rows`` with its default filled in."""
        return self.retention_rows or (10_000 if self.database == IN_MEMORY else 1_000_000)

    @classmethod
    def load(cls, given: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> "Settings":
        """Settings from keywords over the environment.

        Raises:
            TypeError: a keyword that is no setting.
            ValueError: a value that does not fit, naming the setting, the value and where it came from.
        """
        unknown = sorted(given.keys() - cls.model_fields.keys())
        if unknown:
            raise TypeError(
                f"Scheduler() has no setting {', '.join(map(repr, unknown))}; settings are "
                f"{', '.join(sorted(cls.model_fields))}"
            )
        environ = os.environ if environ is None else environ
        found = {
            name: environ[ENV_PREFIX + name.upper()]
            for name in cls.model_fields
            if ENV_PREFIX + name.upper() in environ
        }
        try:
            return cls.model_validate({**found, **given})
        except ValidationError as exc:
            raise ValueError(_explain(exc, given)) from None


def _explain(exc: ValidationError, given: Mapping[str, Any]) -> str:
    lines: list[str] = []
    for error in exc.errors():
        name = str(error["loc"][0])
        where = f"{name}={error['input']!r}" if name in given else f"{ENV_PREFIX}{name.upper()}={error['input']!r}"
        meaning = " ".join((Settings.model_fields[name].description or "").split())
        lines.append(f"Scheduler setting {where}: {error['msg']}" + (f" ({meaning})" if meaning else ""))
    return "; ".join(lines)
