"""``python -m tests.simulator``: repeat one seed, or run episodes until so many targets were judged."""

import argparse
import sys
import time

from .checker import check, report
from .world import Setup, simulate


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="simulator")
    parser.add_argument("--seed", type=int, help="repeat this episode only")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--targets", type=int, default=100_000, help="stop after so many targets")
    parser.add_argument("--without", action="append", default=[], help="leave out: store, threads, blocks, clock_steps")
    parser.add_argument("--nights", action="store_true", help="the nights in which the clocks change")
    args = parser.parse_args()
    setup = Setup(**dict.fromkeys(args.without, False))
    if args.nights:
        setup = Setup(seconds=4 * 3600, jobs=20, every=(600.0,), operations=80, clock_steps=False, nights=True)
    began, targets, runs, failed = time.monotonic(), 0, 0, 0
    first = seed = args.first if args.seed is None else args.seed
    while True:
        history, world = simulate(seed, setup)
        found = check(history)
        targets += found.targets
        runs += found.runs
        if found.problems:
            failed += 1
            print(f"seed {seed}: {len(found.problems)} broken promises: {sorted(found.kinds)}\n{report(found)}")
        if args.seed is not None:
            print(dict(found.verdicts), world.operations)
        seed += 1
        if args.seed is not None or targets >= args.targets:
            break
    spent = time.monotonic() - began
    each = spent / max(targets, 1) * 1e6
    seeds = f"seeds {first} to {seed - 1}"
    print(f"{targets} targets, {runs} runs, {seeds}, {failed} bad seeds, {spent:.1f} s ({each:.0f} us a target)")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
