"""The benchmarks' own workloads run; what they measure is judged by nobody here."""

import json
import subprocess
import sys
from pathlib import Path

WORKLOADS = Path(__file__).parent / "benchmarks" / "workloads"


def test_our_workloads_run():
    """Registering, due runs with a record each, and what is dropped: figures come out, nothing is lost."""
    for row in ("register", "burst"):
        done = subprocess.run(
            [sys.executable, str(WORKLOADS / "ours.py"), row, "50"],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        figures = json.loads(done.stdout.splitlines()[-1])
        assert figures["cpu_us"] > 0
        assert (figures.get("lost", 0), figures.get("dropped", 0)) == (0, 0)
