import asyncio

from apscheduler.schedulers.base import BaseScheduler

class AsyncIOScheduler(BaseScheduler):
    _eventloop: asyncio.AbstractEventLoop | None
    _timeout: asyncio.TimerHandle | None
