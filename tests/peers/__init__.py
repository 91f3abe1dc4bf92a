"""The same scenarios and the same checker for this package, raw APScheduler 3.11.3 and Hassette 0.60.

``python -m tests.peers`` makes a virtual environment with both peers (on any CPython from 3.11 on but 3.11.7 and
3.12.1), runs every scenario in a process of its own, and prints the table of the README. ``--python PATH`` uses an
interpreter that has them already.
"""
