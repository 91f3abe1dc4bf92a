"""When a job runs: After, Once, Every, Daily and Cron, and what it takes to be a trigger."""

from hassette_aps.triggers.base import Trigger, TriggerProtocol
from hassette_aps.triggers.cron import Cron
from hassette_aps.triggers.daily import Daily
from hassette_aps.triggers.foreign import APSchedulerTrigger, ForeignTrigger, ProtocolTrigger, as_trigger
from hassette_aps.triggers.intervals import After, Every
from hassette_aps.triggers.once import Once
from hassette_aps.triggers.previews import preview

__all__ = ["After", "Cron", "Daily", "Every", "Once", "Trigger", "TriggerProtocol", "as_trigger", "preview"]

for _kept in (After, Once, Every, Daily, Cron, ProtocolTrigger, APSchedulerTrigger, ForeignTrigger, Trigger):
    _kept.__module__ = __name__  # the path that pickles name, whatever module a class is defined in
