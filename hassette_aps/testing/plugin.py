"""The pytest fixture; load it with ``pytest_plugins = ["hassette_aps.testing.plugin"]``."""

from collections.abc import Iterator

import pytest

from hassette_aps.testing.clock import FrozenClock


@pytest.fixture
def frozen_clock() -> Iterator[FrozenClock]:
    """The clock frozen at the current instant; ``frozen_clock.freeze(at)`` sets it to another one."""
    with FrozenClock() as clock:
        yield clock
