"""A ``logging.Filter`` that says which run a log line belongs to."""

import logging

from hassette_aps.run import current_run


class RunLogFilter(logging.Filter):
    """Sets ``job_name``, ``job_db_id`` and ``execution_id`` on every record; empty outside of a run.

    Put it on a handler, so that the job's own log lines carry them too::

        handler.addFilter(RunLogFilter())
        handler.setFormatter(logging.Formatter("%(message)s job=%(job_name)s exec=%(execution_id)s"))
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Never drops a record; fields that are set already stay."""
        run = current_run()
        fields = {"job_name": "", "job_db_id": None, "execution_id": ""} if run is None else run.log_fields()
        for name, value in fields.items():
            if not hasattr(record, name):
                setattr(record, name, value)
        return True
