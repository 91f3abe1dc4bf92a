"""Would the suite notice? ``python -m tests.mutations`` breaks a copy of the package, one known failure at a time.

Each mutation is a fault of APScheduler, of Hassette or of an early version of this package, put back by a change of
the source. The tests named beside it run against the broken copy, and must fail. ``--only WORD`` picks some.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
SIMULATOR = "tests/test_simulator.py"


@dataclass(frozen=True, slots=True)
class Mutation:
    """A known failure: what it is, and the changes (file, old, new) that bring it back."""

    name: str
    changes: tuple[tuple[str, str, str], ...]
    tests: str = SIMULATOR


def _one(name: str, file: str, old: str, new: str, tests: str = SIMULATOR) -> Mutation:
    return Mutation(name, ((file, old, new),), tests)


MUTATIONS = (
    _one(
        "coalesced targets leave no record",
        "grid.py",
        "return Step(newest, upcoming_now, (target, before))",
        "return Step(newest, upcoming_now, None)",
    ),
    _one(
        "the newest missed target is run and coalesced",
        "grid.py",
        "return Step(newest, upcoming_now, (target, before))",
        "return Step(newest, upcoming_now, (target, newest))",
    ),
    _one(
        "misfire grace of one second (APScheduler)",
        "executor.py",
        "if home.max_lateness is not None and run.lateness > home.max_lateness:",
        "if run.lateness > 1_000_000:",
        "tests/test_running.py tests/test_simulator.py",
    ),
    _one(
        "jitter fed back into the grid (APScheduler)",
        "store.py",
        "agenda.put(job, upcoming + delay(spec.jitter) if spec.jitter else upcoming)",
        "job.target = upcoming + delay(spec.jitter)\n                    agenda.put(job, job.target)",
    ),
    _one("up to half a second early (Hassette)", "store.py", "pop_due(now, SLICE)", "pop_due(now + 500_000, SLICE)"),
    _one(
        "drift: the next time counts from now",
        "grid.py",
        "    upcoming = trigger.after(target, zone)\n",
        "    upcoming = trigger.after(now, zone)\n",
    ),
    _one(
        "cancel is not checked again before the start (both)",
        "executor.py",
        "if run.job.state == CANCELLED or home.stopping or not home.live:",
        "if False:",
    ),
    _one(
        "a dead timer is not re-armed (APScheduler)",
        "waking.py",
        "if loop is None or not clockwork.running or clockwork.timer_armed:",
        "if True:",
    ),
    _one("a set clock silences intervals (both)", "store.py", "back = before - drift\n", "return\n        back = 0\n"),
    _one(
        "a step forward is not told to APScheduler",
        "store.py",
        "self._clockwork.wakeup()  # APScheduler's own timer counts elapsed time",
        "pass",
        "tests/test_promises_real_clock.py",
    ),
    _one(
        "the hour that comes twice is overslept (APScheduler)",
        "waking.py",
        "        self._watch_fold()\n",
        "",
        "tests/test_promises_regressions.py",
    ),
    _one(
        "a target whose trigger failed comes again with the clock",
        "jobs.py",
        "since = max(since, held)",
        "pass",
        "tests/test_promises_regressions.py",
    ),
    _one(
        "the error handler is called twice",
        "listeners.py",
        'self._call(handler, _context_of(run), "error handler", run)',
        '[self._call(handler, _context_of(run), "error handler", run) for _ in "ab"]',
    ),
    _one(
        "plain error handlers are dead after a second start",
        "listeners.py",
        "        self._workers.open()\n",
        "",
        "tests/test_promises_regressions.py",
    ),
    Mutation(
        "runs see the context of whoever registered the job (APScheduler)",
        (
            ("executor.py", "context = home.context.copy()", "context = copy_context()"),
            ("executor.py", "from contextvars import Context\n", "from contextvars import Context, copy_context\n"),
            (
                "timer.py",
                "self._wake, context=self._context)",
                "self._wake)",
            ),
        ),
        "tests/test_running.py",
    ),
    _one(
        "handlers are compared by identity (Hassette)",
        "options.py",
        "return old is new or bool(old == new)",
        "return old is new",
        "tests/test_names.py tests/test_registration.py",
    ),
    _one(
        "a time in the autumn fold runs twice (APScheduler)",
        "triggers/daily.py",
        "        return None if previous >= LAST else local_clock(zone).next_at(self._time, previous)\n",
        "        clock, again = local_clock(zone), previous + 3600 * SECOND\n"
        "        before, after = clock.segment(previous)[2], clock.segment(again)[2]\n"
        "        if before - after == 3600 * SECOND and (again + after) % (86400 * SECOND) == self._time:\n"
        "            return again\n"
        "        return clock.next_at(self._time, previous)\n",
    ),
    _one(
        "a start inside the fold takes the time that was there before",
        "triggers/wallclock.py",
        "return max(peak, instant + offset)",
        "return instant + offset",
    ),
    _one(
        "a time in the spring gap runs an hour late (APScheduler)",
        "triggers/wallclock.py",
        "return max(start, wall - offset)",
        "return wall - offset + 2 * max(start - (wall - offset), 0)",
    ),
    _one(
        "a suppressed run leaves no record (Hassette)",
        "listeners.py",
        "        recorder = self._recorder\n",
        '        if run.status == "suppressed":\n            return\n        recorder = self._recorder\n',
    ),
    _one(
        "a one-shot keeps its name after its run",
        "jobs.py",
        "            self._leave(job, home, FINISHED)\n",
        "            job.state = FINISHED\n",
        "tests/test_handle.py tests/test_names.py",
    ),
    _one(
        "the queue of mode 'queued' has no end",
        "overlap.py",
        "len(self.waiting) < QUEUE_DEPTH",
        "True",
        "tests/test_overlap.py",
    ),
    _one(
        "'single' lets runs overlap",
        "executor.py",
        'home.default_mode) == "parallel"',
        'home.default_mode) in ("parallel", "single")',
    ),
    _one(
        "the timeout counts from the queue for a thread",
        "executor.py",
        "            self.deadlines.add(run, run.limit, loop)\n",
        "            run.clock = run.clock or monotonic()\n            self.deadlines.add(run, run.limit, loop)\n",
        "tests/test_timeouts.py tests/test_simulator.py",
    ),
    _one(
        "the place of a thread left behind is not refilled",
        "workers.py",
        "            self._leaked.add(ident)\n            self._start_if_needed()\n",
        "            self._leaked.add(ident)\n",
        "tests/test_workers.py",
    ),
    _one(
        "shutdown stops an AsyncIOScheduler it did not start",
        "lifecycle.py",
        "                    if engine.started_here:\n                        await self._stop_aps()",
        "                    if True:\n                        await self._stop_aps()",
        "tests/test_shutdown.py tests/test_simulator.py",
    ),
    _one(
        "the end of a replaced one-shot removes its successor",
        "registry.py",
        "if self._jobs.get(job_id) is job:",
        "if job_id in self._jobs:",
        "tests/test_names.py tests/test_registration.py",
    ),
    _one(
        "SystemExit in a job ends the scheduler",
        "executor.py",
        "        except BaseException as exc:  # noqa: BLE001  SystemExit and KeyboardInterrupt end the run only",
        "        except Exception as exc:  # noqa: BLE001",
    ),
    _one(
        "a raising trigger ends the slice (APScheduler)",
        "store.py",
        "                self.trigger_failed(run, exc)\n                continue\n",
        "                raise\n",
        "tests/test_running.py tests/test_errors.py tests/test_simulator.py",
    ),
    _one(
        "a row that could not be changed runs its target again (APScheduler)",
        "rows.py",
        "        if target <= admitted:\n",
        "        if False:\n",
    ),
    _one(
        "rows that cannot be read are deleted (APScheduler)",
        "clockwork.py",
        "                return BROKEN_ROW\n",
        "                raise\n",
        "tests/test_rows.py tests/test_clockwork.py",
    ),
    _one(
        "a pause does not hold what is planned",
        "jobs.py",
        "                self.store.agenda.drop(job)\n                job.state = PAUSED\n",
        "                job.state = PAUSED\n                job.state = ACTIVE\n",
    ),
    _one(
        "runs of a killed process stay without a verdict (both)",
        "telemetry/recovery.py",
        "until = min(other.heartbeat_at + self._beat,",
        "until = min(other.heartbeat_at,",
        "tests/test_promises_kill.py",
    ),
)


def copy_of_the_repository(folder: Path) -> Path:
    """Package, tests and settings, without history and caches."""
    target = folder / "copy"
    ignored = shutil.ignore_patterns(".git", "__pycache__", ".*_cache", "*.egg-info", ".venv")
    shutil.copytree(HERE, target, ignore=ignored, symlinks=True)
    return target


def run_tests(copy: Path, tests: str, targets: int) -> str | None:
    """The first test that fails, None if all pass."""
    environment = {**os.environ, "PYTHONPATH": str(copy), "TEST_TARGETS": str(targets), "PYTHONDONTWRITEBYTECODE": "1"}
    for test in tests.split():
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", test]
        try:
            done = subprocess.run(
                command, cwd=copy, env=environment, capture_output=True, text=True, timeout=240, check=False
            )
        except subprocess.TimeoutExpired:
            return f"{test} (does not end)"
        if done.returncode:
            found = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
            kind = re.search(
                r"^(?:E +)?([a-z ]+): (?:job|\(job|Verdict|two|no verdict|called|a )", done.stdout, re.MULTILINE
            )
            what = found.group(1) if found else f"{test}: exit {done.returncode}"
            return what + (f" ({kind.group(1)})" if kind and "simulator" in what else "")
    return None


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="mutations")
    parser.add_argument("--only", default="")
    parser.add_argument("--targets", type=int, default=400_000)
    args = parser.parse_args()
    survivors: list[str] = []
    chosen = [mutation for mutation in MUTATIONS if args.only in mutation.name]
    for mutation in chosen:
        with tempfile.TemporaryDirectory() as name:
            copy = copy_of_the_repository(Path(name))
            stale = False
            for file, old, new in mutation.changes:
                path = copy / "hassette_aps" / file
                text = path.read_text()
                stale = stale or text.count(old) < 1
                path.write_text(text.replace(old, new, 1))
            began = time.monotonic()
            caught = "the source has changed: this mutation no longer applies" if stale else None
            caught = caught or run_tests(copy, mutation.tests, args.targets)
            if caught is None or stale:
                survivors.append(mutation.name)
            print(f"| {mutation.name} | {caught or 'SURVIVED'} | {time.monotonic() - began:.0f} s |", flush=True)
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} caught")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
