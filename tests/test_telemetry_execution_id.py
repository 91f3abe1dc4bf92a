"""Execution ids are UUIDs of version 7, unique and in order."""

import os
import threading
import time
import uuid
from datetime import UTC, datetime, timedelta

import pytest

from hassette_aps import execution_id
from hassette_aps.execution_id import first_execution_id, new_execution_id


@pytest.fixture(autouse=True)
def _fresh_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids never go back, so a test that moved the clock ahead would be remembered."""
    monkeypatch.setattr(execution_id._generator, "last", 0)


def test_is_a_uuid_of_version_7_that_carries_the_time() -> None:
    """An id parses as an RFC 9562 UUID, version 7, and its first 48 bits are the milliseconds of now."""
    before = time.time_ns() // 1_000_000
    made = uuid.UUID(new_execution_id())
    after = time.time_ns() // 1_000_000
    assert made.version == 7
    assert made.variant == uuid.RFC_4122
    assert before <= made.int >> 80 <= after + 1


def test_increases_strictly_even_when_the_clock_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids sort in the order they were made, through a clock that stands still and one that steps back."""
    moment = time.time_ns()
    monkeypatch.setattr(execution_id.time, "time_ns", lambda: moment)
    made = [new_execution_id() for _ in range(1000)]
    monkeypatch.setattr(execution_id.time, "time_ns", lambda: moment - 3_600 * 10**9)
    made += [new_execution_id() for _ in range(1000)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)


def test_is_unique_across_threads() -> None:
    """Eight threads make 40,000 ids without a repeat, each thread's own in order."""
    made: list[list[str]] = [[] for _ in range(8)]

    def work(mine: list[str]) -> None:
        mine.extend(new_execution_id() for _ in range(5000))

    threads = [threading.Thread(target=work, args=(mine,)) for mine in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(mine == sorted(mine) for mine in made)
    assert len({one for mine in made for one in mine}) == 40_000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_makes_ids_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parent and child do not share random bits after a fork, even at the same instant."""
    read, write = os.pipe()
    moment = time.time_ns() + 10**9
    monkeypatch.setattr(execution_id.time, "time_ns", lambda: moment)
    pid = os.fork()
    if pid == 0:
        os.write(write, new_execution_id().encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        theirs = pipe.read()
    os.waitpid(pid, 0)
    assert theirs[19:] != new_execution_id()[19:]
    assert len(theirs) == 36


def test_bounds_compare_with_ids_made_before_and_after() -> None:
    """``first_execution_id(t)`` separates ids made before ``t`` from those made at or after it."""
    now = datetime.now(UTC)
    made = new_execution_id()
    assert first_execution_id(now - timedelta(seconds=1)) < made < first_execution_id(now + timedelta(seconds=1))
    assert first_execution_id(-5) == first_execution_id(0)
