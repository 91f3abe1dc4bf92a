"""APScheduler's own timer, which raw jobs and rows in the users' stores wait for: kept alive, and woken in a fold."""

from contextvars import Context
from logging import getLogger

from hassette_aps.clockwork import Clockwork
from hassette_aps.instants import now_us
from hassette_aps.timer import BEAT

_log = getLogger("hassette_aps")


class Waking:
    """Looked after with every beat of our own timer. On the loop."""

    def __init__(self, clockwork: Clockwork) -> None:
        self._clockwork = clockwork
        self._in_fold = False

    def beat(self) -> None:
        """Revive a dead timer; wake APScheduler if this hour comes twice."""
        self._revive(2)
        self._watch_fold()

    def _watch_fold(self) -> None:
        """APScheduler compares the next times of stores by the clock on the wall, and so may oversleep in a fold."""
        before, self._in_fold = self._in_fold, self._clockwork.in_fold(now_us())
        if self._in_fold:
            if not before:
                _log.info("an hour that comes twice: APScheduler is woken every %g s until it is over", BEAT)
            self._clockwork.wakeup()

    def _revive(self, turns: int) -> None:
        """APScheduler never re-arms its timer when a store or a trigger raised during its wakeup."""
        clockwork, loop = self._clockwork, self._clockwork.loop
        if loop is None or not clockwork.running or clockwork.timer_armed:
            return
        if turns:  # a wakeup may be on its way: look again after it
            loop.call_soon(self._revive, turns - 1, context=Context())
            return
        for alias, store in clockwork.stores():
            try:
                if store.get_next_run_time() is None:
                    continue
            except Exception as exc:  # noqa: BLE001  whatever a broken store raises
                _log.warning("job store %r cannot be read: %r", alias, exc)
            _log.warning("APScheduler's timer was dead (its last wakeup failed); waking it up again")
            clockwork.wakeup()
            return
