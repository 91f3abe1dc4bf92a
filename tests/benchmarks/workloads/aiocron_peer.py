"""aiocron: one ``call_at`` per cron expression; no names, no catch-up."""

import asyncio

import aiocron
from common import Burst, Figures, due_in, main


async def cron(count: int) -> Figures:
    """Cron jobs, due at one instant."""
    due = due_in(1 + count * 300e-6)
    work = Burst(count)
    loop = asyncio.get_running_loop()
    jobs = [aiocron.crontab(f"{due.second} * * * * *", func=work.body, start=True, loop=loop) for _ in range(count)]
    await asyncio.sleep(0.01)
    figures = await work.measure(due)
    del jobs
    return figures


if __name__ == "__main__":
    main({"cron": cron})
