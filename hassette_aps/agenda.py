"""Which job fires when: a bucket per instant, a heap of instants. The data structure behind the job store."""

from heapq import heapify, heappop, heappush

from hassette_aps.instants import Micros
from hassette_aps.job import ScheduledJob

_MIN_STALE = 256


class Agenda:
    """Jobs by fire time. A job is where its ``fires`` says; what it left behind elsewhere is stale and skipped.

    Jobs that share an instant cost one heap entry; one that shares it with nobody costs no list either.
    Not thread-safe: the store's lock guards it.
    """

    __slots__ = ("_buckets", "_heap", "_live", "_stale")

    def __init__(self) -> None:
        self._buckets: dict[Micros, ScheduledJob | list[ScheduledJob]] = {}
        self._heap: list[Micros] = []
        self._live = 0
        self._stale = 0

    def __len__(self) -> int:
        return self._live

    @property
    def earliest(self) -> Micros | None:
        """The earliest fire time that still has a job."""
        heap, buckets = self._heap, self._buckets
        while heap:
            when = heap[0]
            bucket = buckets[when]
            if isinstance(bucket, list):
                while bucket and bucket[-1].fires != when:
                    bucket.pop()
                    self._stale -= 1
                if bucket:
                    return when
            elif bucket.fires == when:
                return when
            else:
                self._stale -= 1
            del buckets[when]
            heappop(heap)
        return None

    def put(self, job: ScheduledJob, when: Micros) -> None:
        """Set the job's fire time; it must not be on the agenda."""
        job.fires = when
        self._live += 1
        bucket = self._buckets.get(when)
        if bucket is None:
            self._buckets[when] = job
            heappush(self._heap, when)
        elif isinstance(bucket, list):
            bucket.append(job)
        else:
            self._buckets[when] = [bucket, job]

    def drop(self, job: ScheduledJob) -> None:
        """Take the job off; nothing happens if it is not on."""
        if job.fires is None:
            return
        job.fires = None
        self._live -= 1
        self._stale += 1
        if self._stale > _MIN_STALE and self._stale > self._live:
            self._rebuild()

    def pop_due(self, now: Micros, limit: int) -> list[tuple[Micros, list[ScheduledJob]]]:
        """Up to ``limit`` jobs whose time has come, bucket by bucket in order of time; their ``fires`` is None then."""
        due: list[tuple[Micros, list[ScheduledJob]]] = []
        heap, buckets = self._heap, self._buckets
        while limit > 0 and heap and (when := heap[0]) <= now:
            bucket = buckets[when]
            if not isinstance(bucket, list):
                bucket = [bucket]
            if len(bucket) > limit:
                taken = bucket[:limit]
                del bucket[:limit]
            else:
                taken = bucket
                del buckets[when]
                heappop(heap)
            fresh: list[ScheduledJob] = []
            for job in taken:
                if job.fires == when:
                    job.fires = None
                    fresh.append(job)
            self._stale -= len(taken) - len(fresh)
            self._live -= len(fresh)
            limit -= len(taken)
            if fresh:
                due.append((when, fresh))
        return due

    def _rebuild(self) -> None:
        kept: dict[Micros, ScheduledJob | list[ScheduledJob]] = {}
        for when, bucket in self._buckets.items():
            fresh = _fresh(bucket if isinstance(bucket, list) else [bucket], when)
            if fresh:
                kept[when] = fresh if len(fresh) > 1 else fresh[0]
        self._buckets = kept
        self._heap = list(kept)
        heapify(self._heap)
        self._stale = 0


def _fresh(bucket: list[ScheduledJob], when: Micros) -> list[ScheduledJob]:
    """Who still fires then, each once."""
    return list(dict.fromkeys(job for job in bucket if job.fires == when))
