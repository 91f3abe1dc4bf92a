"""What recording costs: off, in memory, in a SQLite file, in PostgreSQL.

    python tests/benchmarks/bench_telemetry.py [rows]

Columns: ``call`` is what ``record()`` takes from the job's thread; ``cpu`` all processor time of a row, the
writer's included (a database server's not); ``stall`` the longest an asyncio loop was held while the rows
were recorded and written; ``bytes`` the size of the file for each row. The record itself is made by the
writer too. The last line is what an execution id takes.
"""

import asyncio
import contextlib
import gc
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from hassette_aps.execution_id import new_execution_id
from hassette_aps.instants import now_us
from hassette_aps.records import Verdict
from hassette_aps.telemetry import Telemetry
from tests.postgres import run_server

START = now_us()


class Run:
    """A run that ended."""

    __slots__ = ("n",)

    def __init__(self, n: int) -> None:
        self.n = n

    def as_verdict(self) -> Verdict:
        target = START + self.n * 1000
        return Verdict(
            execution_id=new_execution_id(),
            owner="bench",
            job_name=f"job-{self.n % 100}",
            job_group=None,
            db_id=None,
            status="success",
            scheduled_for=target,
            started_at=target,
            duration_ms=1.25,
            lateness_ms=0.5,
        )


async def measure(rows: int, record: Callable[[Any], None], flush: Callable[[float], bool]) -> list[float]:
    """Call in us, cpu in us per row, rows per second, and stall in ms."""
    runs = [Run(n) for n in range(rows)]
    gc.collect()
    gc.freeze()  # or the stall is that of collecting what this script has made
    stall, calls = 0.0, 0.0
    wall, cpu = time.perf_counter(), time.process_time()
    for start in range(0, rows, 100):
        before = time.perf_counter()
        for run in runs[start : start + 100]:
            record(run)
        after = time.perf_counter()
        calls += after - before
        await asyncio.sleep(0)
        stall = max(stall, time.perf_counter() - after)
    flushed = asyncio.ensure_future(asyncio.to_thread(flush, 120))
    while not flushed.done():
        before = time.perf_counter()
        await asyncio.sleep(0.001)
        stall = max(stall, time.perf_counter() - before - 0.001)
    assert await flushed
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return [calls / rows * 1e6, cpu / rows * 1e6, rows / wall, stall * 1000]


def bench(label: str, url: str | None, rows: int, size: Callable[[], float] | None = None) -> None:
    """One line of the table."""
    if url is None:
        figures = asyncio.run(measure(rows, lambda _: None, lambda _: True))
    else:
        telemetry = Telemetry(url, queue_limit=rows + 1000)
        telemetry.start()
        telemetry.record(Run(-1))
        assert telemetry.flush(20)
        figures = asyncio.run(measure(rows, telemetry.record, telemetry.flush))
        assert telemetry.health().written == rows + 1
        assert telemetry.close(20)
    call, cpu, rate, stall = figures
    per_row = f"{size() / rows:8.0f}" if size else f"{'':>8}"
    speed = f"{rate:12,.0f}" if url else f"{'':>12}"
    print(f"{label:<14}{call:10.2f}{cpu:10.1f}{speed}{stall:11.1f}{per_row}")


@contextlib.contextmanager
def postgres_url() -> Iterator[str | None]:
    """A PostgreSQL for the benchmark, if this machine has one."""
    servers = run_server()
    try:
        server = next(servers)
    except pytest.skip.Exception as skipped:
        print(f"PostgreSQL left out: {skipped}")
        yield None
        return
    try:
        yield server.url()
    finally:
        servers.close()  # type: ignore[attr-defined]


def main() -> None:
    """Print the table."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    print(f"{'':<14}{'call us':>10}{'cpu us':>10}{'rows/s':>12}{'stall ms':>11}{'bytes':>8}")
    bench("off", None, rows)
    bench("memory", "sqlite://", rows)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "runs.db"
        bench("SQLite file", f"sqlite:///{path}", rows, lambda: path.stat().st_size)
    with postgres_url() as url:
        if url:
            bench("PostgreSQL", url, rows)
    before = time.perf_counter()
    for _ in range(rows):
        new_execution_id()
    print(f"{'execution id':<14}{(time.perf_counter() - before) / rows * 1e6:10.2f}")


if __name__ == "__main__":
    main()
