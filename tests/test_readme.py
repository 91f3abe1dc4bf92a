"""The README's code runs as it stands there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^(?:<!-- (needs \w+) -->\n)?```python\n(.*?)^```", README, flags=re.M | re.S)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_code_blocks_run(number: int, tmp_path: Path) -> None:
    """Each python block is a program that ends without an error; marked ones need what the marker says."""
    needs, code = BLOCKS[number]
    if needs:
        imported = a_program(f"import {needs.removeprefix('needs ')}", tmp_path)
        if imported.returncode:
            pytest.skip(imported.stderr.strip().splitlines()[-1])
    done = a_program(code, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def a_program(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter that takes every warning for an error."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_the_two_commands_are_those_that_ci_runs() -> None:
    """The main command and the test command of the README are the ones that ``.ci/run`` runs."""
    ci = (ROOT / ".ci" / "run").read_text()
    assert "pip install . && python examples/quickstart.py" in README
    assert "pip install -q . && python examples/quickstart.py" in ci
    assert "pip install -e '.[test]' && pytest" in README
    assert "pip install -q -e '.[test]'" in ci


def test_every_option_and_setting_is_in_the_readme() -> None:
    """The option and settings tables are complete."""
    from hassette_aps import JobOptions, Settings

    for name in (*JobOptions.__annotations__, *Settings.model_fields):
        assert f"`{name}`" in README, name
