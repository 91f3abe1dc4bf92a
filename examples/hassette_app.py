"""A Hassette app with this package's scheduler, run in Hassette's own test harness, without Home Assistant.

    pip install 'hassette-aps[hassette,testing]'
    python examples/hassette_app.py

In production, put the class into your apps folder as any other app; only the mixin is new.
"""

import asyncio
import logging
import tempfile
from pathlib import Path

from hassette import App, AppConfig
from hassette.testing import AppTestHarness

from hassette_aps import SchedulerErrorContext
from hassette_aps.hassette import APSchedulerMixin
from hassette_aps.testing import FrozenClock


class Blinds(APSchedulerMixin, App[AppConfig]):
    """Opens the blinds in the morning, and checks a sensor that is often away."""

    async def on_initialize(self) -> None:
        self.scheduler.on_error(self.on_job_error)
        await self.scheduler.run_daily(self.open_blinds, at="07:00", group="morning")
        await self.scheduler.run_daily(self.play_music, at="07:05", group="morning")
        await self.scheduler.run_every(self.check_sensor, minutes=30, name="sensor", mode="single", timeout=20)
        print(f"registered: {', '.join(job.name for job in self.scheduler.list_jobs())}")

    async def open_blinds(self) -> None:
        print(f"{self.now()}: blinds open")

    def play_music(self) -> None:
        print(f"{self.now()}: music plays, from a thread")

    async def check_sensor(self) -> None:
        raise ConnectionError("sensor unavailable")

    async def on_job_error(self, ctx: SchedulerErrorContext) -> None:
        print(f"{self.now()}: {ctx.job_name} failed: {ctx.exception}")
        if job := self.scheduler.get_job("sensor"):
            job.cancel()
            print("the sensor is given up for today")


async def main(folder: Path) -> None:
    logging.getLogger("hassette").setLevel(logging.CRITICAL)
    with FrozenClock("2026-03-28T06:00:00+00:00") as clock:
        async with AppTestHarness(Blinds, config={"instance_name": "blinds"}, tmp_path=folder) as harness:
            await clock.advance(days=1, hours=2)
            print("On record:")
            for row in await harness.app.scheduler.facade.summary():
                print(f"  {row.name}: {dict(row.by_status)}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(Path(folder)))
