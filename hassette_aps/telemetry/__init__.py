"""Every run on record: jobs and executions in a database, written by a thread of its own.

Importing this package imports SQLAlchemy.
"""

from hassette_aps.telemetry.health import TelemetryHealth
from hassette_aps.telemetry.queries import JobSummary
from hassette_aps.telemetry.recorder import Telemetry
from hassette_aps.telemetry.schema import DatabaseRefused

__all__ = ["DatabaseRefused", "JobSummary", "Telemetry", "TelemetryHealth"]
