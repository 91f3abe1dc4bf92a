"""P1, P2, P9 with real processes: killed with SIGKILL in the middle of their runs. See ``tests/killing.py``."""

from pathlib import Path

import pytest

from tests.killing import kill_many

pytest_plugins = ["tests.telemetry_fixtures"]


@pytest.mark.parametrize("kills", [pytest.param(40, id="40 kills")])
def test_killed_processes_double_nothing_and_leave_no_run_without_a_verdict(
    url: str, tmp_path: Path, kills: int
) -> None:
    """P9: after SIGKILL and a new start every run that had started has a verdict, and no target has two."""
    toll = kill_many(url, tmp_path, kills)
    assert toll.kills >= kills
    assert toll.started > kills
    assert not toll.doubled, toll.doubled[:5]
    assert not toll.uncovered, toll.uncovered[:5]
