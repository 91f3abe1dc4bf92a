"""A few seconds of real work: run it and watch.

python examples/quickstart.py
"""

import asyncio
import logging
import sys
import time

from hassette_aps import Scheduler, SchedulerErrorContext, current_run

START = time.monotonic()


def say(text: str) -> None:
    """Print a line with the seconds since the start."""
    sys.stdout.write(f"{time.monotonic() - START:5.1f} s  {text}\n")  # one write: threads print too
    sys.stdout.flush()


def due() -> str:
    """When the run that asks was due."""
    run = current_run()
    assert run is not None
    return f"{run.scheduled_for.to_stdlib():%H:%M:%S.%f}"[:-3]


async def heartbeat() -> None:
    """An interval job."""
    say(f"heartbeat  on its grid, due at {due()}")


def report(what: str) -> None:
    """A plain function: it runs in a thread, so that it may block."""
    say(f"report     {what}, due at {due()}")


async def sync_data() -> None:
    """A job that fails."""
    raise ConnectionError("the sensor does not answer")


def on_error(ctx: SchedulerErrorContext) -> None:
    """The handler of every job without one of its own."""
    say(f"handler    job {ctx.job_name!r} failed: {ctx.exception!r} (exec={ctx.execution_id})")


async def main() -> None:
    # the failure below is logged with its traceback as well; here the handler's line is enough
    logging.getLogger("hassette_aps").setLevel(logging.CRITICAL)

    async with Scheduler() as scheduler:
        scheduler.on_error(on_error)

        scheduler.run_every(heartbeat, seconds=1, name="heartbeat")
        scheduler.run_cron(report, "* * * * * */2", args=["by cron, on even seconds"], name="report")
        scheduler.run_in(sync_data, 1.5, name="sync")
        for room in ("kitchen", "hall", "office"):
            what = f"lights in the {room} checked"
            scheduler.run_every(report, seconds=1, args=[what], name=f"lights {room}", group="lights")
        say(f"scheduled  {', '.join(job.name for job in scheduler.list_jobs())}")

        await asyncio.sleep(2.5)
        scheduler.cancel_group("lights")
        say(f"cancelled  the group 'lights'; left: {', '.join(job.name for job in scheduler.list_jobs())}")

        scheduler.run_every(heartbeat, seconds=0.5, name="heartbeat", if_exists="replace")
        say("replaced   'heartbeat' by name: now twice a second")

        attempts = 0

        async def poll() -> None:
            nonlocal attempts
            attempts += 1
            if attempts == 3:
                device.cancel()
                say("poll       the device is online: the job cancelled itself")

        device = await scheduler.run_every(poll, seconds=0.3, name="poll")
        say(f"recorded   'poll' has the database id {device.db_id}")
        await asyncio.sleep(2)

        print("\nOn record:")
        for row in await scheduler.summary():
            failed = f", last error: {row.last_error}" if row.last_error else ""
            print(f"  {row.name:15} {row.total:3} runs {dict(row.by_status)}{failed}")


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
