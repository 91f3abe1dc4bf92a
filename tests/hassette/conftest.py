"""Real Hassette in the tests: skipped where it is not installed, made to import on CPython 3.11.7."""

import importlib.util
import sys
import typing
from typing import Any

HASSETTE = importlib.util.find_spec("hassette") is not None

collect_ignore_glob = [] if HASSETTE else ["test_*.py"]


def pytest_report_header() -> str | None:
    """Say why there are no tests here."""
    return None if HASSETTE else "tests/hassette: not collected, Hassette is not installed (pip install '.[hassette]')"


def _tolerate_orig_class() -> None:
    """CPython 3.11.7 and 3.12.1 raise TypeError for generic frozen slotted dataclasses (cpython#116669).

    Later releases ignore a failing ``__orig_class__``; so does this, in the test suite only.
    """
    alias: Any = typing._BaseGenericAlias  # type: ignore[attr-defined]
    stock = alias.__call__

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not self._inst:
            return stock(self, *args, **kwargs)
        made = self.__origin__(*args, **kwargs)
        try:
            made.__orig_class__ = self
        except Exception:
            pass
        return made

    alias.__call__ = call


if HASSETTE and sys.version_info[:3] in ((3, 11, 7), (3, 12, 1)):
    _tolerate_orig_class()
