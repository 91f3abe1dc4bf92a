"""Live jobs by APScheduler id and by group: the one truth for ``if_exists``, ``list_jobs`` and ``cancel_group``."""

from collections.abc import Iterator

from hassette_aps.job import ScheduledJob
from hassette_aps.owner import Owner


class Registry:
    """Jobs of every owner on one AsyncIOScheduler, in order of registration. The engine's lock guards it."""

    __slots__ = ("_groups", "_jobs")

    def __init__(self) -> None:
        self._jobs: dict[str, ScheduledJob] = {}
        self._groups: dict[tuple[str, str], dict[ScheduledJob, None]] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[ScheduledJob]:
        return iter(list(self._jobs.values()))

    def get(self, job_id: str) -> ScheduledJob | None:
        """The job with that APScheduler id."""
        return self._jobs.get(job_id)

    def add(self, owner: Owner, job: ScheduledJob) -> None:
        """Enter a job under its id."""
        self._jobs[owner.prefix + job.name] = job
        if job.spec.group is not None:
            self._groups.setdefault((owner.name, job.spec.group), {})[job] = None

    def swap(self, owner: Owner, old: ScheduledJob, new: ScheduledJob) -> None:
        """Give the name of ``old`` to ``new``, in its place."""
        self._leave_group(owner, old)
        self.add(owner, new)

    def discard(self, owner: Owner, job: ScheduledJob) -> None:
        """Take a job out; nothing happens if its id belongs to another one by now."""
        job_id = owner.prefix + job.name
        if self._jobs.get(job_id) is job:
            del self._jobs[job_id]
        self._leave_group(owner, job)

    def _leave_group(self, owner: Owner, job: ScheduledJob) -> None:
        group = job.spec.group
        if group is not None and (members := self._groups.get((owner.name, group))):
            members.pop(job, None)
            if not members:
                del self._groups[owner.name, group]

    def of(self, owner: Owner, group: str | None = None) -> list[ScheduledJob]:
        """An owner's jobs, or those of one of its groups."""
        if group is not None:
            return list(self._groups.get((owner.name, group), ()))
        return [job for job in self._jobs.values() if job.home is owner]
