"""A FastAPI service that had raw APScheduler jobs, and now uses the facade beside them.

    pip install fastapi uvicorn
    python examples/fastapi_service.py --port 8000
    curl localhost:8000/jobs
    curl -X POST localhost:8000/jobs/refresh%20cache/submit
    curl localhost:8000/history

The AsyncIOScheduler and its raw job are as they were. New: the facade around it, jobs registered at module level,
an error handler, and endpoints that list jobs, run one now and show what ran.
"""

import argparse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Annotated, Any

import uvicorn
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from fastapi import FastAPI, HTTPException, Query

from hassette_aps import Every, Scheduler, SchedulerErrorContext

aps = AsyncIOScheduler()
scheduler = Scheduler(aps)
cache: dict[str, Any] = {"refreshed": 0, "raw ticks": 0, "alerts": []}
imports = count(1)


@aps.scheduled_job("interval", seconds=1, id="raw tick")
def raw_tick() -> None:
    """The raw job that was there before: untouched."""
    cache["raw ticks"] += 1


@scheduler.scheduled(Every(seconds=1), name="refresh cache", mode="single", timeout=5)
async def refresh_cache() -> None:
    """Registered at module level, long before there is an event loop."""
    cache["refreshed"] += 1


@scheduler.scheduled(Every(seconds=2), name="flaky import", group="imports", jitter=0.5)
def flaky_import() -> None:
    """Fails every other time."""
    if next(imports) % 2:
        raise ConnectionError("the upstream is away")


@scheduler.on_error
async def alert(ctx: SchedulerErrorContext) -> None:
    """Every failure of every job ends here."""
    cache["alerts"] = [*cache["alerts"][-9:], f"{ctx.job_name}: {ctx.exception}"]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Start with the service; at its end let runs in progress finish."""
    async with scheduler:
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/")
async def state() -> dict[str, Any]:
    """What the jobs have done."""
    return cache


@app.get("/jobs")
async def jobs() -> dict[str, Any]:
    """Our jobs, and the raw ones beside them."""
    ours = [{"name": job.name, "group": job.group, "next_run": str(job.next_run)} for job in scheduler.list_jobs()]
    return {"jobs": ours, "apscheduler": [job.id for job in aps.get_jobs()]}


@app.post("/jobs/{name}/submit")
async def submit(name: str) -> dict[str, str]:
    """Run a job now, through its overlap mode, timeout, record and handlers."""
    job = scheduler.get_job(name)
    if job is None:
        raise HTTPException(404, f"no job {name!r}")
    return {"execution_id": job.submit()}


@app.get("/history")
async def history(name: str | None = None, limit: Annotated[int, Query(ge=1, le=1000)] = 20) -> list[Any]:
    """The latest verdicts."""
    return [
        {"job": r.job_name, "status": r.status, "scheduled_for": r.scheduled_for, "error": r.error_message}
        for r in await scheduler.history(name, limit=limit)
    ]


@app.get("/health")
async def health() -> Any:
    """Whether jobs are being started and recorded."""
    return scheduler.health()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=8000)
    uvicorn.run(app, host="127.0.0.1", port=parser.parse_args().port)
