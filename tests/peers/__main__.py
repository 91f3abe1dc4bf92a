"""The command: see the package."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SYSTEMS = ("hassette_aps", "APScheduler", "Hassette")
SCENARIOS = ("cancelled", "held", "early", "jitter", "trigger", "store", "crowd", "clock")
UNFIT = ((3, 11, 7), (3, 12, 1))
"""On these Hassette fails (cpython#116669)."""
NEEDED = ("apscheduler==3.11.3", "hassette==0.60.0", "time-machine", "sqlalchemy", "tzdata")


def make_environment(folder: Path) -> Path:
    """A virtual environment with the peers."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", *NEEDED], check=True)
    return python


def figure(python: Path, scenario: str, system: str) -> str:
    """One scenario on one system."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryDirectory() as folder:
        clock = Path(folder) / "clock"
        if scenario == "clock":
            library = next(Path("/usr/lib").glob("*/faketime/libfaketime*MT*.so.1"), None)
            if library is None:
                return "libfaketime is not installed"
            clock.write_text("+0")
            environment |= {
                "LD_PRELOAD": str(library),
                "FAKETIME_TIMESTAMP_FILE": str(clock),
                "FAKETIME_NO_CACHE": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            }
        command = [str(python), "-m", "tests.peers.scenarios", scenario, system, str(clock)]
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=150, check=False
            )
        except subprocess.TimeoutExpired:
            return "did not end"
    for line in reversed(done.stdout.splitlines()):
        if line.startswith('{"figure"'):
            return json.loads(line)["figure"]
    return f"failed: {(done.stderr.splitlines() or ['nothing said'])[-1]}"


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(prog="peers")
    parser.add_argument("--python", type=Path, help="an interpreter that has the peers installed")
    parser.add_argument("--only", choices=SCENARIOS, action="append")
    args = parser.parse_args()
    if args.python is None and sys.version_info[:3] in UNFIT:
        parser.error("Hassette does not work on CPython 3.11.7 and 3.12.1; start this with another one")
    with tempfile.TemporaryDirectory() as folder:
        python = args.python or make_environment(Path(folder))
        print(f"| scenario | {' | '.join(SYSTEMS)} |\n|---|---|---|---|", flush=True)
        for scenario in args.only or SCENARIOS:
            figures = [figure(python, scenario, system) for system in SYSTEMS]
            print(f"| {scenario} | {' | '.join(figures)} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
