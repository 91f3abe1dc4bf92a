"""The command: see the package."""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

Samples = list[dict[str, float] | None]


@dataclass(frozen=True)
class Peer:
    """A contender: its script, the Python it needs, what is installed for it."""

    script: str
    python: str
    needs: tuple[str, ...]
    venv: str
    environment: tuple[tuple[str, str], ...] = ()


STACK = (
    "apscheduler==3.11.3",
    "croniter>=6.2",
    "pydantic>=2.7",
    "sqlalchemy>=2.0",
    "tzlocal>=5.2",
    "whenever>=0.11,<1",
)
PEERS = {
    "ours": Peer("ours.py", "3.11", STACK, "stack"),
    "APScheduler 3.11.3": Peer("apscheduler3.py", "3.11", STACK, "stack"),
    "raw asyncio": Peer("raw.py", "3.11", STACK, "stack"),
    "Hassette 0.60": Peer("hassette_peer.py", "3.13", ("hassette==0.60.0",), "hassette"),
    "APScheduler 4.0.0a6": Peer("apscheduler4.py", "3.11", ("apscheduler==4.0.0a6",), "apscheduler4"),
    "asyncz": Peer("asyncz_peer.py", "3.11", ("asyncz",), "asyncz"),
    "aiocron": Peer("aiocron_peer.py", "3.11", ("aiocron",), "aiocron"),
    "ours, eager 3.12": Peer("ours.py", "3.12", STACK, "stack312", (("EAGER", "1"),)),
    "ours, 3.12": Peer("ours.py", "3.12", STACK, "stack312"),
    "raw asyncio, 3.12": Peer("raw.py", "3.12", STACK, "stack312"),
}
STOCK, RAW, HASSETTE, APS4 = "APScheduler 3.11.3", "raw asyncio", "Hassette 0.60", "APScheduler 4.0.0a6"


@dataclass(frozen=True)
class Row:
    """One line of the table: a workload, the figure that counts, and who takes part."""

    title: str
    workload: str
    count: int
    figure: str
    unit: str
    peers: tuple[str, ...]
    target: str = ""
    quick: int = 0
    smaller: tuple[tuple[str, int], ...] = ()
    """Sizes for peers that would take minutes."""

    def size(self, peer: str, quick: bool) -> int:
        """How much work."""
        count = dict(self.smaller).get(peer, self.count)
        return min(count, self.quick or max(count // 10, 1_000)) if quick else count


ROWS = (
    Row("register one named job, at 10,000", "register", 10_000, "us", "us",
        (STOCK, HASSETTE, APS4, "asyncz"), "<= 0.20", smaller=((HASSETTE, 2_000), (APS4, 2_000))),
    Row("  the same at 100,000 (growth)", "register", 100_000, "us", "us", (STOCK,), "<= 1.5 x the line above"),
    Row("  processor time of it until all is on record", "register", 10_000, "cpu_us_written", "us", (STOCK,)),
    Row("register again, if_exists='skip'", "skip", 10_000, "us", "us", (STOCK, HASSETTE), "<= 0.10",
        smaller=((HASSETTE, 2_000),)),
    Row("cancel 1,000 of 100,000, each", "cancel", 100_000, "us", "us", (STOCK, HASSETTE), "<= 0.25",
        smaller=((HASSETTE, 3_000),)),
    Row("10,000 due at one instant, each", "burst", 10_000, "us", "us", (STOCK, RAW, HASSETTE, APS4, "asyncz"),
        "<= 0.20, raw <= 1", smaller=((APS4, 1_000),)),
    Row("  processor time of it, records written", "burst", 10_000, "cpu_us_written", "us", (STOCK, RAW)),
    Row("  first body starts after", "burst", 10_000, "first_ms", "ms", (STOCK, RAW), "<= 10 ms"),
    Row("  loop held at most", "burst", 10_000, "held_ms", "ms", (STOCK, RAW), "<= 10 ms"),
    Row("50,000 due at one instant, each", "burst", 50_000, "us", "us", (STOCK, RAW), "<= 0.20, raw <= 1"),
    Row("  first body starts after", "burst", 50_000, "first_ms", "ms", (STOCK, RAW), "<= 10 ms"),
    Row("  loop held at most", "burst", 50_000, "held_ms", "ms", (STOCK, RAW), "<= 10 ms"),
    Row("10,000 without a record of runs, each", "unrecorded", 10_000, "us", "us", ()),
    Row("5,000 cron jobs due at one instant, processor time each", "cron", 5_000, "cpu_us", "us",
        (STOCK, HASSETTE, APS4, "asyncz", "aiocron"), "<= 0.083, Hassette 0.05", smaller=((APS4, 1_000),)),
    Row("  the same, records written", "cron", 5_000, "cpu_us_written", "us", ()),
    Row("10,000 with every run in a SQLite file, each", "stored", 10_000, "us", "us", (STOCK,), "<= 0.25"),
    Row("  loop held at most", "stored", 10_000, "held_ms", "ms", (STOCK,), "<= 10 ms"),
    Row("  processor time, records written", "stored", 10_000, "cpu_us_written", "us", (STOCK,)),
    Row("  records dropped", "stored", 10_000, "dropped", "", (), "0"),
    Row("1,000 one-second jobs over the second, p50 late", "spread", 1_000, "p50_ms", "ms", (STOCK, RAW),
        "raw + 0.3 ms"),
    Row("  processor time of a run, record included", "spread", 1_000, "cpu_us", "us", (STOCK, RAW), "<= 0.80"),
    Row("100,000 far ahead and one active, processor time of a wakeup", "far", 100_000, "cpu_us", "us",
        (STOCK, RAW), "<= 0.70"),
    Row("memory per job at 100,000, records in memory included", "memory", 100_000, "bytes", "B", (STOCK,), "<= 0.85"),
    Row("  without records", "memory_unrecorded", 100_000, "bytes", "B", ()),
    Row("import", "imported", 1, "ms", "ms", (STOCK,), "<= 1.1", quick=1),
    Row("  SQLAlchemy imported", "imported", 1, "sqlalchemy", "", (), "0", quick=1),
    Row("Python 3.12: 10,000 due at one instant, eager tasks", "burst", 10_000, "us", "us",
        ("ours, eager 3.12", "ours, 3.12", "raw asyncio, 3.12"), "raw <= 0.70"),
)  # fmt: skip


def interpreter(version: str) -> str:
    """A Python of that version, from the path or from pyenv."""
    found = [path for path in (shutil.which(f"python{version}"),) if path and "shims" not in path]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found += [str(path / "bin" / "python") for path in sorted(pyenv.glob(f"{version}.*"), reverse=True)]
    if sys.version.startswith(version):
        found.insert(0, sys.executable)
    if not found:
        raise LookupError(f"no Python {version}")
    return found[0]


class Bench:
    """Makes environments, runs workloads, keeps the samples."""

    def __init__(self, venvs: Path, quick: bool) -> None:
        self.venvs = venvs
        self.quick = quick
        self.samples: dict[tuple[str, str, int], Samples] = {}
        self.broken: dict[str, str] = {}

    def python(self, peer: Peer) -> Path:
        """The interpreter of a peer's environment; made when it is missing."""
        folder = self.venvs / peer.venv
        ready = folder / "ready"
        if not ready.exists():
            print(f"making {folder}", file=sys.stderr)
            subprocess.run([interpreter(peer.python), "-m", "venv", "--clear", folder], check=True)
            install = [folder / "bin" / "python", "-m", "pip", "install", "-q", *peer.needs]
            subprocess.run(install, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            ready.touch()
        return folder / "bin" / "python"

    def once(self, name: str, workload: str, count: int) -> dict[str, float] | None:
        """One sample; None if the peer failed, which is said once."""
        peer = PEERS[name]
        environment = {**os.environ, **dict(peer.environment), "PYTHONPYCACHEPREFIX": str(self.venvs / "pyc")}
        environment["PYTHONPATH"] = str(ROOT)
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        try:
            command = [self.python(peer), HERE / "workloads" / peer.script, workload, str(count)]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
            return json.loads(done.stdout.splitlines()[-1])
        except (subprocess.SubprocessError, LookupError, ValueError) as exc:
            stderr = done.stderr.splitlines()[-1:] if "done" in locals() else []
            if name + workload not in self.broken:
                print(f"{name}, {workload}: {stderr or exc!r}", file=sys.stderr)
            self.broken[name + workload] = str(stderr or exc)
            return None

    def round(self, rows: list[Row]) -> None:
        """Every workload once: ours, then each peer of it, so that neighbours see the same machine."""
        wanted: dict[tuple[str, int], dict[str, int]] = {}
        for row in rows:
            peers = wanted.setdefault((row.workload, row.count), {})
            for name in ("ours", *row.peers):
                if name != "ours" or not row.title.startswith("Python 3.12"):
                    peers[name] = row.size(name, self.quick)
        for (workload, count), peers in wanted.items():
            for name, size in peers.items():
                if name + workload not in self.broken:
                    self.samples.setdefault((workload, name, count), []).append(self.once(name, workload, size))

    def figures(self, row: Row, peer: str) -> list[float]:
        """A row's figure of a peer, round by round."""
        samples = self.samples.get((row.workload, peer, row.count), [])
        return [sample[row.figure] if row.figure in sample else sample["cpu_us"] for sample in samples if sample]

    def line(self, row: Row) -> tuple[str, dict[str, object]]:
        """A line of the table, and the same for the JSON."""
        first = row.peers[0] if row.title.startswith("Python 3.12") else "ours"
        own = self.figures(row, first)
        cells, told = [], {"target": row.target, "ours": own, "unit": row.unit, "peers": {}}
        for peer in row.peers:
            theirs = self.figures(row, peer)
            if peer == first or not theirs or not own:
                continue
            ratio = median(a / b for a, b in zip(own, theirs, strict=False) if b)
            cells.append(f"{ratio:.3g} of {peer} ({median(theirs):.3g})")
            told["peers"][peer] = {"figures": theirs, "ratio": ratio}
        spread = f"{median(own):.3g} {row.unit} ({min(own):.3g} to {max(own):.3g})" if own else "failed"
        return f"| {row.title} | {row.target} | {spread} | {'; '.join(cells)} |", told


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("--venvs", type=Path, default=Path.home() / ".cache" / "hassette_aps-bench")
    parser.add_argument("--quick", action="store_true", help="smaller sizes, one round")
    parser.add_argument("--rounds", type=int, help="5 by default, 1 with --quick")
    parser.add_argument("--only", action="append", help="rows whose workload has this name")
    parser.add_argument("--peers", action="append", help="peers to measure against; all by default")
    parser.add_argument("--json", type=Path, help="where to write every figure")
    parser.add_argument("--parts", action="store_true", help="also triggers and telemetry on their own")
    args = parser.parse_args()
    rows = [row for row in ROWS if not args.only or row.workload in args.only]
    if args.peers:
        keep = {name for name in PEERS if any(word.lower() in name.lower() for word in args.peers)}
        rows = [Row(**{**vars(row), "peers": tuple(p for p in row.peers if p in keep)}) for row in rows]
        rows = [row for row in rows if not row.title.startswith("Python 3.12") or row.peers]
    bench = Bench(args.venvs, args.quick)
    for number in range(args.rounds or (1 if args.quick else 5)):
        print(f"round {number + 1}", file=sys.stderr)
        bench.round(rows)
    report = {}
    print("| work | target | ours: median (spread) | ratio, round by round, median (its figure) |\n|---|---|---|---|")
    for row in rows:
        line, report[f"{row.workload} {row.count} {row.figure} {row.title.strip()}"] = bench.line(row)
        print(line, flush=True)
    if args.json:
        told = {"machine": platform.platform(), "processors": os.cpu_count(), "quick": args.quick, "rows": report}
        args.json.write_text(json.dumps(told, indent=1))
    if args.parts:
        for part in ("bench_triggers.py", "bench_telemetry.py"):
            subprocess.run([sys.executable, HERE / part], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})


if __name__ == "__main__":
    main()
