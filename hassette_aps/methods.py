"""The scheduling methods, each a trigger and a call of ``add_job``: written once, for every face that has them."""

from abc import abstractmethod
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from typing import Any, Literal, ParamSpec, TypeVar, Unpack

from whenever import ZonedDateTime

from hassette_aps.job import ScheduledJob
from hassette_aps.options import JobOptions, naming_the_job
from hassette_aps.triggers import After, Cron, Daily, Every, Once, Trigger
from hassette_aps.types import IfExists, JobFunction, Mode

F = TypeVar("F", bound=Callable[..., Any])
P = ParamSpec("P")


class SchedulingMethods:
    """``schedule``, the ``run_*`` methods and the decorator, for whoever has an ``add_job``."""

    default_mode: Mode | None = None
    """Overlap mode of jobs that name none, where it is known; ``add_job`` fills it in otherwise."""

    @abstractmethod
    def add_job(self, job: ScheduledJob, if_exists: IfExists = "error") -> ScheduledJob:
        """Register a job built by hand."""

    def _kept(self, func: JobFunction, trigger: object, options: JobOptions) -> ScheduledJob | None:
        """The job that ``if_exists="skip"`` keeps, if that can be told without building another one."""
        return None

    def schedule(self, func: JobFunction, trigger: object, **options: Unpack[JobOptions]) -> ScheduledJob:
        """Run ``func`` on a trigger: ours, any object with ``TriggerProtocol``'s methods, or one of APScheduler.

        Options are those of ``JobOptions``. The call works from any thread, before or after start; ``await`` it (or
        the handle) to have the registration on record.

        Raises:
            TypeError: a non-callable, no trigger, an unknown option, arguments that do not fit.
            ValueError: a value that is not allowed, a name that is taken, a schedule that never fires.
        """
        if options.get("if_exists") == "skip" and (kept := self._kept(func, trigger, options)) is not None:
            return kept
        if options.get("mode") is None:
            options["mode"] = self.default_mode
        return self.add_job(ScheduledJob(func, trigger, **options), if_exists=options.get("if_exists", "error"))

    def run_in(self, func: JobFunction, delay: float, **options: Unpack[JobOptions]) -> ScheduledJob:
        """Run once, ``delay`` seconds from now, or from start for what is registered before it."""
        return self.schedule(func, _made(func, options, After, seconds=delay), **options)

    def run_once(
        self,
        func: JobFunction,
        at: str | ZonedDateTime | datetime,
        if_past: Literal["tomorrow", "error"] = "tomorrow",
        **options: Unpack[JobOptions],
    ) -> ScheduledJob:
        """Run once at ``at``: ``"07:00"`` today, or tomorrow if that is past, or an absolute time."""
        return self.schedule(func, _made(func, options, Once, at, if_past), **options)

    def run_every(
        self,
        func: JobFunction,
        hours: float = 0,
        minutes: float = 0,
        seconds: float = 0,
        **options: Unpack[JobOptions],
    ) -> ScheduledJob:
        """Run again and again, first after one interval, then on that grid without drift."""
        trigger = _made(func, options, _every, seconds, minutes, hours)
        return self.schedule(func, trigger, **options)

    def run_minutely(self, func: JobFunction, minutes: int = 1, **options: Unpack[JobOptions]) -> ScheduledJob:
        """Run every ``minutes`` minutes, a whole number."""
        return self.schedule(func, _made(func, options, _every_whole, "minutes", minutes), **options)

    def run_hourly(self, func: JobFunction, hours: int = 1, **options: Unpack[JobOptions]) -> ScheduledJob:
        """Run every ``hours`` hours, a whole number."""
        return self.schedule(func, _made(func, options, _every_whole, "hours", hours), **options)

    def run_daily(self, func: JobFunction, at: str = "00:00", **options: Unpack[JobOptions]) -> ScheduledJob:
        """Run once a day at ``at`` (``"HH:MM"``), on every daylight-saving night too."""
        return self.schedule(func, _made(func, options, Daily, at), **options)

    def run_cron(self, func: JobFunction, expression: str, **options: Unpack[JobOptions]) -> ScheduledJob:
        """Run on a cron expression: 5 fields, a 6th is seconds."""
        return self.schedule(func, _made(func, options, Cron, expression), **options)

    def scheduled(self, trigger: object, **options: Unpack[JobOptions]) -> Callable[[F], F]:
        """Decorator form of ``schedule``; the function comes back unchanged."""

        def register(func: F) -> F:
            self.schedule(func, trigger, **options)
            return func

        return register


def _made(func: object, options: JobOptions, make: Callable[P, Trigger], *args: P.args, **kwargs: P.kwargs) -> Trigger:
    """A trigger; what it refuses is told with the job's name."""
    try:
        return make(*args, **kwargs)
    except (TypeError, ValueError) as exc:
        raise naming_the_job(exc, func, options) from exc


@lru_cache(maxsize=256, typed=True)
def _every(seconds: float, minutes: float, hours: float) -> Trigger:
    """Triggers are values: jobs with one interval share one."""
    return Every(seconds, minutes, hours)


def _every_whole(unit: Literal["minutes", "hours"], amount: int) -> Trigger:
    if not isinstance(amount, int) or isinstance(amount, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"{unit}={amount!r} must be a whole number; use run_every({unit}=) for fractions")
    if amount < 1:
        raise ValueError(f"{unit}={amount!r} must be at least 1")
    return Every(minutes=amount) if unit == "minutes" else Every(hours=amount)
