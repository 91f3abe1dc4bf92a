"""Processes killed in the middle of their runs, and the judge of what their database says afterwards.

``python -m tests.killing --kills 1000 [--database URL]`` kills as many as asked for.
"""

import argparse
import asyncio
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from hassette_aps import Scheduler, current_run
from hassette_aps.instants import from_datetime
from hassette_aps.telemetry import Telemetry

RECORDED = "recorded"


def _say(log: int, *words: object) -> None:
    os.write(log, (" ".join(map(str, words)) + "\n").encode())  # one write at the end of the file: whole or not at all


async def _live(url: str, owner: str, path: str) -> None:
    """What a victim does until it is killed."""
    log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def began() -> None:
        run = current_run()
        assert run is not None
        _say(log, run.name, run.target, run.attempt, run.execution_id, os.getpid())

    async def quick() -> None:
        began()

    def plain() -> None:
        began()
        time.sleep(0.01)

    async def slow() -> None:
        began()
        await asyncio.sleep(0.7)

    scheduler = Scheduler(owner=owner, database=url, timezone="UTC")
    await scheduler.start()
    jobs = [
        scheduler.run_every(quick, seconds=0.02, name="quick"),
        scheduler.run_every(plain, seconds=0.05, name="plain"),
        scheduler.run_every(slow, seconds=0.2, name="slow"),
        scheduler.run_every(slow, seconds=0.1, name="queued", mode="queued"),
        *(scheduler.run_in(slow, 0.1 * (n + 1), name=f"once-{n}") for n in range(5)),
    ]
    for job in jobs:
        await job
    _say(log, RECORDED, 0, 0, 0, os.getpid())  # from here on the database knows of every job
    await asyncio.sleep(3600)


def nursery() -> None:
    """Forks a victim for each line of its input: importing everything again takes a second each time."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        url, owner, path = line.split()
        pid = os.fork()
        if pid == 0:
            asyncio.run(_live(url, owner, path))
            os._exit(0)
        print(pid, flush=True)


@dataclass(slots=True)
class Toll:
    """What the judge found.

    ``uncovered`` are runs known to have started of which the database knows nothing; ``too_early`` those of a
    process that was killed before ``await job`` had returned.
    """

    kills: int = 0
    started: int = 0
    interrupted: int = 0
    doubled: list[str] = field(default_factory=list)
    uncovered: list[str] = field(default_factory=list)
    too_early: int = 0


class Lane:
    """One owner whose process is killed again and again, and started again each time."""

    def __init__(self, url: str, owner: str, folder: Path) -> None:
        self.url, self.owner = url, owner
        self.log = folder / f"{owner}.log"
        self.log.touch()
        here = Path(__file__).resolve().parent.parent
        self._nursery = subprocess.Popen(
            [sys.executable, "-c", "from tests.killing import nursery; nursery()"],
            cwd=here,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._pid = 0
        self._until = float("inf")
        self._size = 0
        self.kills = 0

    def start(self) -> None:
        """The next victim."""
        assert self._nursery.stdin is not None
        assert self._nursery.stdout is not None
        self._size = self.log.stat().st_size
        self._nursery.stdin.write(f"{self.url} {self.owner} {self.log}\n")
        self._nursery.stdin.flush()
        self._pid = int(self._nursery.stdout.readline())
        self._until = float("inf")

    def turn(self, rng: random.Random) -> None:
        """Kill it if its time has come, which is counted from its first run; then the next one starts."""
        if self._until == float("inf") and self.log.stat().st_size > self._size:
            self._until = time.monotonic() + rng.random() * 0.8
        if time.monotonic() >= self._until:
            os.kill(self._pid, signal.SIGKILL)
            self.kills += 1
            self.start()

    def close(self) -> None:
        """Kill the last one too, and end the nursery."""
        os.kill(self._pid, signal.SIGKILL)
        self.kills += 1
        input_: IO[str] | None = self._nursery.stdin
        assert input_ is not None
        input_.close()
        self._nursery.wait(10)
        assert self._nursery.stdout is not None
        self._nursery.stdout.close()

    def judge(self, toll: Toll) -> None:
        """Start once more, and compare the victims' own log with the database."""
        telemetry = Telemetry(self.url, heartbeat_seconds=5.0)
        telemetry.start()
        try:
            deadline = time.monotonic() + 30
            while self._unsettled(telemetry) and time.monotonic() < deadline:
                time.sleep(0.05)
            records = telemetry.history(self.owner, limit=10_000_000)
        finally:
            telemetry.close(10)
        toll.kills += self.kills
        singles = {record.execution_id: record for record in records if record.coalesced_from is None}
        ranges: dict[str, list[tuple[int, int, str]]] = defaultdict(list)
        for record in records:
            if record.coalesced_from is not None and record.coalesced_to is not None:
                ends = from_datetime(record.coalesced_from), from_datetime(record.coalesced_to)
                ranges[record.job_name].append((*ends, record.instance))
        toll.interrupted += sum(record.status == "interrupted" for record in records)
        lines = [line.split() for line in self.log.read_text().splitlines()]
        known = {pid for name, *_, pid in lines if name == RECORDED}
        seen: Counter[tuple[str, str, str]] = Counter()
        for name, target, attempt, execution_id, pid in lines:
            if name == RECORDED:
                continue
            seen[name, target, attempt] += 1
            if execution_id not in singles and not any(first <= int(target) <= last for first, last, _ in ranges[name]):
                if pid in known:
                    toll.uncovered.append(f"{self.owner}: {name} {target} {execution_id}")
                else:
                    toll.too_early += 1
        toll.started += sum(seen.values())
        toll.doubled += [f"{self.owner}: {one} ran {count} times" for one, count in seen.items() if count > 1]
        named = Counter((record.job_name, record.scheduled_for, record.attempt) for record in singles.values())
        toll.doubled += [f"{self.owner}: {one} has {count} verdicts" for one, count in named.items() if count > 1]
        for record in singles.values():
            target = from_datetime(record.scheduled_for)
            for first, last, instance in ranges[record.job_name]:
                if first <= target <= last and instance == record.instance:
                    toll.doubled.append(f"{self.owner}: {record} lies in a range as well")

    def _unsettled(self, telemetry: Telemetry) -> bool:
        """Whether processes are still taken for alive, apart from the one that asks."""
        with telemetry._database.reading() as conn:
            alive = conn.exec_driver_sql("SELECT instance FROM instances WHERE stopped_at IS NULL").scalars()
            return set(alive) != {telemetry.instance}


def kill_many(url: str, folder: Path, kills: int, lanes: int = 2, seed: int = 1) -> Toll:
    """``kills`` processes on one database, ``lanes`` at a time."""
    rng = random.Random(seed)
    running = [Lane(url, f"lane{number}", folder) for number in range(lanes)]
    for lane in running:
        lane.start()
    while sum(lane.kills for lane in running) < kills - lanes:
        for lane in running:
            lane.turn(rng)
        time.sleep(0.005)
    for lane in running:
        lane.close()
    toll = Toll()
    for lane in running:
        lane.judge(toll)
    return toll


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="killing")
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--database", default="")
    args = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        toll = kill_many(args.database or f"sqlite:///{name}/runs.db", Path(name), args.kills)
    for line in [*toll.doubled, *toll.uncovered][:20]:
        print(line)
    print(
        f"{toll.kills} kills, {toll.started} runs started, {toll.interrupted} reported as interrupted,"
        f" {len(toll.doubled)} doubled, {len(toll.uncovered)} without a verdict ({toll.too_early} of processes killed"
        f" before they were on record), {time.monotonic() - began:.0f} s"
    )
    return 1 if toll.doubled or toll.uncovered else 0


if __name__ == "__main__":
    sys.exit(main())
