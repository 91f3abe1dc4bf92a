"""Which process this is, and whether another one still exists."""

import os
import socket
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process, such that a later one with the same number is not taken for it.

    ``place`` names what process numbers are counted in: host, boot and (in containers) process namespace.
    ``started`` is in the kernel's clock ticks since boot; None where the system does not say.
    """

    place: str
    pid: int
    started: int | None


def this_process() -> ProcessIdentity:
    """The identity of the calling process."""
    pid = os.getpid()
    return ProcessIdentity(_place(), pid, _started(pid))


def is_alive(process: ProcessIdentity) -> bool | None:
    """Whether ``process`` still runs; None if that cannot be known from here."""
    here = this_process()
    if process.place != here.place or process.started is None or here.started is None:
        return None
    return _started(process.pid) == process.started


def _place() -> str:
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        namespace = os.stat(_PROC / "self/ns/pid").st_ino
    except OSError:
        return socket.gethostname()
    return f"{socket.gethostname()}/{boot}/{namespace}"


def _started(pid: int) -> int | None:
    try:
        fields = (_PROC / str(pid) / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])  # a zombie runs no jobs
