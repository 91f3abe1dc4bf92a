"""A test clock: time travel for real Schedulers on real AsyncIOSchedulers, without sleeping.

    async def test_report():
        async with Scheduler(timezone="Europe/Berlin") as scheduler:
            with FrozenClock("2026-03-28T12:00+01:00[Europe/Berlin]") as clock:
                scheduler.run_daily(report, at="02:30")
                await clock.advance(days=2)

Needs ``time-machine`` (``pip install 'hassette-aps[testing]'``). For a fixture, ``pytest_plugins =
["hassette_aps.testing.plugin"]`` in ``conftest.py`` gives ``frozen_clock``.
"""

try:
    import time_machine as _time_machine
except ImportError as exc:
    raise ImportError("hassette_aps.testing needs time-machine: pip install 'hassette-aps[testing]'") from exc

from hassette_aps.testing.clock import FrozenClock

__all__ = ["FrozenClock"]
del _time_machine
