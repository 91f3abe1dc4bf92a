"""The example app, run in Hassette's harness as a user runs it."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

SHIM = "import tests.hassette.conftest, runpy; runpy.run_path('examples/hassette_app.py', run_name='__main__')"
"""Through the conftest, whose shim lets Hassette import on CPython 3.11.7."""


def test_hassette_app() -> None:
    """A day and two hours of the app in a moment: the morning jobs on both days, the sensor given up once."""
    done = subprocess.run([sys.executable, "-c", SHIM], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert re.findall(r"(\d\d)T07:00:00.*blinds open", done.stdout) == ["28", "29"]
    assert done.stdout.count("sensor failed: sensor unavailable") == 1
    assert "sensor: {'error': 1}" in done.stdout
