"""One way to schedule on three systems. Bodies are coroutine functions without arguments."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

Body = Callable[[], Awaitable[None]]


class Ours:
    """This package."""

    def __init__(self, aps: Any, scheduler: Any) -> None:
        self.aps, self.scheduler = aps, scheduler

    @classmethod
    @asynccontextmanager
    async def open(cls, prepare: Callable[[Any], None]) -> AsyncIterator["Ours"]:
        from apscheduler.schedulers.asyncio import AsyncIOScheduler

        from hassette_aps import Scheduler

        aps = AsyncIOScheduler(timezone="UTC")
        prepare(aps)
        async with Scheduler(aps, database=None) as scheduler:
            yield cls(aps, scheduler)

    async def every(self, name: str, seconds: float, body: Body, **options: Any) -> Any:
        return self.scheduler.run_every(body, seconds=seconds, name=name, **options)

    async def once(self, name: str, at: datetime, body: Body) -> Any:
        return self.scheduler.run_once(body, at, name=name)

    async def custom(self, name: str, trigger: Any, body: Body) -> Any:
        return self.scheduler.schedule(body, trigger, name=name)

    def cancel(self, job: Any) -> None:
        job.cancel()


class Raw:
    """APScheduler as it is, with its defaults."""

    def __init__(self, aps: Any) -> None:
        self.aps = aps

    @classmethod
    @asynccontextmanager
    async def open(cls, prepare: Callable[[Any], None]) -> AsyncIterator["Raw"]:
        from apscheduler.schedulers.asyncio import AsyncIOScheduler

        aps = AsyncIOScheduler(timezone="UTC")
        prepare(aps)
        aps.start()
        yield cls(aps)
        aps.shutdown(wait=False)
        await asyncio.sleep(0.01)

    async def every(self, name: str, seconds: float, body: Body, **options: Any) -> Any:
        if "jobstore" in options:
            return self.aps.add_job(body, "interval", seconds=seconds, id=name, jobstore=options["jobstore"])
        return self.aps.add_job(body, "interval", seconds=seconds, id=name, jitter=options.get("jitter"))

    async def once(self, name: str, at: datetime, body: Body) -> Any:
        return self.aps.add_job(body, "date", run_date=at, id=name)

    async def custom(self, name: str, trigger: Any, body: Body) -> Any:
        return self.aps.add_job(body, trigger, id=name)

    def cancel(self, job: Any) -> None:
        from apscheduler.jobstores.base import JobLookupError

        try:
            job.remove()
        except JobLookupError:  # due, and taken off already: it runs all the same
            return


class Hassette:
    """Hassette's own scheduler, in its own test harness."""

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler

    @classmethod
    @asynccontextmanager
    async def open(cls, prepare: Callable[[Any], None]) -> AsyncIterator["Hassette"]:
        from hassette import App, AppConfig
        from hassette.testing import AppTestHarness

        class Peer(App[AppConfig]):
            pass

        with tempfile.TemporaryDirectory() as folder:
            async with AppTestHarness(Peer, config={"instance_name": "peer"}, tmp_path=Path(folder)) as harness:
                yield cls(harness.app.scheduler)

    async def every(self, name: str, seconds: float, body: Body, **options: Any) -> Any:
        return await self.scheduler.run_every(body, seconds=seconds, name=name, jitter=options.get("jitter"))

    async def once(self, name: str, at: datetime, body: Body) -> Any:
        from whenever import Instant

        moment = Instant.from_timestamp(int(at.timestamp() * 1000), unit="millisecond").to_tz("UTC")
        return await self.scheduler.run_once(body, moment, name=name)

    async def custom(self, name: str, trigger: Any, body: Body) -> Any:
        return await self.scheduler.schedule(body, trigger, name=name)

    def cancel(self, job: Any) -> None:
        job.remove()


SYSTEMS: dict[str, Any] = {"hassette_aps": Ours, "APScheduler": Raw, "Hassette": Hassette}


def soon(seconds: float) -> datetime:
    """A moment from now."""
    return datetime.fromtimestamp(datetime.now(UTC).timestamp() + seconds, UTC)
