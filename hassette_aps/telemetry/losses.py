"""Records that were lost: counted at once, logged once per interval."""

from logging import Logger
from time import monotonic

from hassette_aps.telemetry.mailbox import Mailbox


class Losses:
    """Counts records that cannot be stored, and reports them and those the mailbox dropped."""

    INTERVAL_SECONDS = 60.0

    def __init__(self, logger: Logger, mailbox: Mailbox) -> None:
        self.rejections = 0
        self._logger = logger
        self._mailbox = mailbox
        self._reported = (0, 0)
        self._at = float("-inf")
        self._reason = ""

    def rejected(self, entry: object, error: BaseException) -> None:
        """Count one record that cannot be stored, whatever is tried."""
        self.rejections += 1
        self._reason = f"{entry}: {type(error).__name__}"

    def report(self, *, now: bool = False) -> None:
        """Log what was lost since the last report, unless that was less than a minute ago."""
        current = (self._mailbox.dropped, self.rejections)
        if current == self._reported or (not now and monotonic() - self._at < self.INTERVAL_SECONDS):
            return
        dropped, rejected = (new - old for new, old in zip(current, self._reported, strict=True))
        self._reported, self._at = current, monotonic()
        if dropped:
            self._logger.warning("%d records dropped: the queue of %d was full", dropped, self._mailbox.limit)
        if rejected:
            self._logger.warning("%d records cannot be stored, the last one: %s", rejected, self._reason)
