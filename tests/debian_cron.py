"""One night of the real Debian cron, under a fake clock, beside the triggers: a check of the rule itself.

    apt-get install cron libfaketime faketime
    python -m tests.debian_cron                     as root; two nights, about two minutes

Not part of the test suite: it needs root, and for its time replaces root's crontab. The fake clock runs 600 times as
fast; each job notes the real time at which cron started it, which says the minute that the fake clock showed.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from hassette_aps.instants import SECOND
from hassette_aps.triggers import Cron

SPEED = 600
HOURS = 6
"""Of fake time after each start."""
NIGHTS = (("Europe/Berlin", "2026-03-28 23:59:30"), ("Europe/Berlin", "2026-10-24 23:59:30"))
EXPRESSIONS = (
    "30 2 * * *",
    "0 2 * * *",
    "0 3 * * *",
    "30 1 * * *",
    "15,45 2 * * *",
    "0-59/20 2 * * *",
    "5 1-3 * * *",
    "*/15 * * * *",
    "30 * * * *",
    "*/30 2 * * *",
    "0 */2 * * *",
)


def main() -> int:
    """Run the nights; the exit status is 0 if cron and the triggers agree."""
    if os.geteuid() != 0:
        print("needs root: cron reads root's crontab")
        return 2
    differences = 0
    for zone, start in NIGHTS:
        begin = datetime.fromisoformat(start).replace(tzinfo=ZoneInfo(zone))
        ran = run_cron(zone, start)
        for number, expression in enumerate(EXPRESSIONS):
            expected = ours(expression, begin)
            got = sorted({minute_of(begin, elapsed) for which, elapsed in ran if which == number})
            same = got == expected
            differences += not same
            verdict = "same" if same else f"cron {shown(got)}, here {shown(expected)}"
            print(f"{zone} {start[:10]}  {expression:18} {verdict}")
    print(f"{len(NIGHTS) * len(EXPRESSIONS)} cases, {differences} differ")
    return 1 if differences else 0


def ours(expression: str, begin: datetime) -> list[int]:
    """The UTC minutes of the triggers' targets in the window."""
    trigger, zone = Cron(expression), ZoneInfo(str(begin.tzinfo))
    target: int | None = int(begin.timestamp()) * SECOND
    end = target + HOURS * 3600 * SECOND
    found: list[int] = []
    while (target := trigger.after(target, zone)) is not None and target < end:
        found.append(target // SECOND // 60)
    return found


def minute_of(begin: datetime, elapsed: float) -> int:
    """The UTC minute on the fake clock, ``elapsed`` real seconds after its start."""
    return int((begin.timestamp() + elapsed * SPEED) // 60)


def shown(minutes: list[int]) -> str:
    """UTC minutes for people."""
    return ", ".join(f"{timedelta(minutes=minute % 1440)!s:.5}" for minute in minutes)


def run_cron(zone: str, start: str) -> list[tuple[int, float]]:
    """Everything cron started: number of the expression, real seconds after the start of the fake clock."""
    crontab = Path("/var/spool/cron/crontabs/root")
    kept = crontab.read_bytes() if crontab.exists() else None
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "ran"
        lines = [f"{text} echo {n} $(date +\\%s.\\%N) >> {out}" for n, text in enumerate(EXPRESSIONS)]
        crontab.write_text("SHELL=/bin/sh\n" + "\n".join(lines) + "\n")
        crontab.chmod(0o600)
        try:
            begun = time.time()
            cron = subprocess.Popen(
                ["faketime", "-f", f"@{start} x{SPEED}", "cron", "-f"],
                env={**os.environ, "TZ": zone},
                start_new_session=True,
            )
            time.sleep(HOURS * 3600 / SPEED)
            os.killpg(cron.pid, signal.SIGKILL)  # faketime and the cron it started
            cron.wait()
        finally:
            crontab.unlink()
            if kept is not None:
                crontab.write_bytes(kept)
        ran = [line.split() for line in out.read_text().splitlines()]
        return [(int(number), float(moment) - begun) for number, moment in ran]


if __name__ == "__main__":
    sys.exit(main())
