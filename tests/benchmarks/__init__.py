"""Side by side with what it replaces: ``python -m tests.benchmarks`` prints the table of the README.

Makes a virtual environment per peer in ``~/.cache/hassette_aps-bench`` (``--venvs``), runs every workload in a process
of its own, contenders in turn (A B A B ...), and prints medians with their spread, ratios round by round, and a JSON
(``--json``). ``--quick`` takes smaller sizes and one round; ``--only ROW`` takes some rows; ``--rounds N``.
``bench_triggers.py`` and ``bench_telemetry.py`` beside it are tables of their own: ``--parts`` runs them as well.
"""
