"""The pool of threads for plain functions: bounded, and no work waits while there is room."""

import sys
import threading
from collections.abc import Iterator

import pytest

from hassette_aps.workers import Workers
from tests.telemetry_kit import wait_until


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads that take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hasty")
def test_work_never_waits_for_other_work_while_there_is_room() -> None:
    """8.2: two functions and two places: the second starts although the first one hangs."""
    for _ in range(300):
        pool, release = Workers(2, "test"), threading.Event()
        first, warm = threading.Event(), threading.Event()
        pool.submit(warm.set)
        assert warm.wait(5)
        pool.submit(release.wait)  # type: ignore[arg-type]
        pool.submit(first.set)
        started = first.wait(2)
        release.set()
        pool.close()
        assert started


def test_the_place_of_a_thread_left_behind_is_refilled() -> None:
    """8.5: a function that hangs gives its place up when it is left behind, at most ``max_workers`` times."""
    pool, release, done = Workers(1, "test"), threading.Event(), threading.Event()
    idents: list[int] = []

    def hang() -> None:
        idents.append(threading.get_ident())
        release.wait()

    pool.submit(hang)
    pool.submit(hang)
    pool.submit(done.set)
    wait_until(lambda: idents)
    assert pool.leak(idents[0])
    wait_until(lambda: len(idents) == 2)
    assert not pool.leak(idents[1])
    assert pool.leaked == 1
    assert not done.is_set()
    release.set()
    assert done.wait(5)
    pool.close()


def test_a_pool_that_was_closed_while_a_thread_hung_works_again() -> None:
    """10.4: what was meant to end a thread that has been left behind does not end its successor."""
    pool, release = Workers(1, "test"), threading.Event()
    idents: list[int] = []

    def hang() -> None:
        idents.append(threading.get_ident())
        release.wait()

    pool.submit(hang)
    wait_until(lambda: idents)
    pool.close()
    assert pool.leak(idents[0])
    pool.open()
    done = threading.Event()
    pool.submit(done.set)
    assert done.wait(2)
    release.set()
    pool.close()


@pytest.mark.usefixtures("hasty")
def test_closing_while_a_thread_starts() -> None:
    """P10: a thread that has not begun yet when its pool closes does its work and ends as well."""
    done: list[int] = []
    for n in range(200):
        pool = Workers(2, "starting")
        pool.submit(lambda n=n: done.append(n))
        pool.close()
    wait_until(lambda: not any(thread.name.startswith("starting") for thread in threading.enumerate()))
    assert sorted(done) == list(range(200))
