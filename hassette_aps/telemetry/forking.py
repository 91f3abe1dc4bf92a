"""Forks: none happens in the middle of a write, and in the child everything begins anew."""

import os
import weakref
from typing import Protocol

_HOLD_SECONDS = 1.0


class Forkable(Protocol):
    """What takes part in a fork."""

    def hold(self, seconds: float) -> bool:
        """Keep the writer out of the database for now; whether it could be done in time."""
        ...

    def let_go(self) -> None:
        """The fork is over."""
        ...

    def forked(self) -> None:
        """Begin anew: this is the child."""
        ...


_all: "weakref.WeakSet[Forkable]" = weakref.WeakSet()
_held: list[Forkable] = []


def take_part(one: Forkable) -> None:
    """Let ``one`` take part in forks for as long as it exists."""
    _all.add(one)


def _before() -> None:
    # A library that another thread is inside of at this moment stays locked for ever in the child.
    _held.extend(one for one in list(_all) if one.hold(_HOLD_SECONDS))


def _after_in_parent() -> None:
    while _held:
        _held.pop().let_go()


def _after_in_child() -> None:
    _held.clear()
    for one in list(_all):
        one.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
