"""Runs that take a while get a row before they end, so that a killed process leaves a trace of them."""

from collections.abc import Callable, Iterable
from time import monotonic

from hassette_aps.records import Recordable

_SAMPLE_SECONDS = 0.5


class InFlight:
    """Samples the runs in progress; one seen twice is worth a row. Short ones never cost a second write."""

    def __init__(self, source: Callable[[], Iterable[Recordable]]) -> None:
        self._source = source
        self._sampled = float("-inf")
        self._seen: dict[int, Recordable] = {}
        self._marked: set[int] = set()

    def due(self) -> list[Recordable]:
        """Runs that need a marker now."""
        if monotonic() - self._sampled < _SAMPLE_SECONDS:
            return []
        self._sampled = monotonic()
        try:
            current = {id(run): run for run in self._source()}  # holding them keeps their ids from being reused
        except Exception:  # noqa: BLE001 (a collection that changes meanwhile: the next sample may succeed)
            return []
        again = current.keys() & self._seen.keys()
        fresh = again - self._marked
        self._marked = again
        self._seen = current
        return [current[key] for key in fresh]

    def forget(self) -> None:
        """Mark everything again: it is not known what the database has kept."""
        self._marked.clear()
