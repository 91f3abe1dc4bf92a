"""A real PostgreSQL for tests: a cluster in a directory of its own, on loopback, as an unprivileged user."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest


def find_binaries() -> Path | None:
    """The directory with ``initdb`` and ``postgres``: on the path, or the newest of Debian's."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    return next((path for path in reversed(debian) if (path / "postgres").exists()), None)


class PostgresServer:
    """One cluster that can be frozen, killed and started again."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        self._binaries = binaries
        self._data = folder / "data"
        self._log = folder / "log"
        self._user = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        self._process: subprocess.Popen[bytes] | None = None
        self.port = _free_port()
        if os.geteuid() == 0:  # it refuses to run as root
            os.chmod(folder, 0o755)
            shutil.chown(folder, self._user)
        initdb = [
            binaries / "initdb",
            "-D",
            self._data,
            "-U",
            "tests",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--no-sync",
        ]
        done = subprocess.run(initdb, user=self._unprivileged, cwd="/", capture_output=True, check=False)
        if done.returncode:
            raise RuntimeError(f"initdb failed: {done.stderr.decode(errors='replace')}")

    @property
    def _unprivileged(self) -> int | None:
        return pwd.getpwnam(self._user).pw_uid if os.geteuid() == 0 else None

    def url(self, database: str = "postgres") -> str:
        """The SQLAlchemy URL of ``database``."""
        return f"postgresql+psycopg://tests@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
            "max_connections": 40,
            "shared_buffers": "16MB",
        }
        command: list[str | Path] = [self._binaries / "postgres", "-D", self._data]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                command, user=self._unprivileged, cwd="/", stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + 20
        ready = [self._binaries / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        while subprocess.run(ready, check=False).returncode:
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError(f"PostgreSQL did not start: {self._log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)

    def kill(self) -> None:
        """The whole server is gone at once, without a word to its clients."""
        process = self._process
        if process is not None and process.poll() is None:
            children = _children(process.pid)
            for pid in (process.pid, *children):  # the parent first, so that it cannot start over
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait(10)
            while any(Path(f"/proc/{pid}").exists() for pid in children):
                time.sleep(0.01)
        self._process = None

    def freeze(self) -> None:
        """It holds its connections and answers nothing, until ``thaw``."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Go on after ``freeze``."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        process = self._process
        assert process is not None
        for pid in (process.pid, *_children(process.pid)):
            os.kill(pid, number)

    def sql(self, statement: str, database: str = "postgres") -> None:
        """Run one statement outside of a transaction."""
        import psycopg

        dsn = f"host=127.0.0.1 port={self.port} user=tests dbname={database}"
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(statement.encode())


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run_server() -> Iterator[PostgresServer]:
    """A running server, for a fixture to yield from; skips the test where there is no PostgreSQL."""
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL server binaries on this machine")
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    folder = Path(tempfile.mkdtemp(prefix="hassette-aps-postgres-"))
    server = None
    try:
        server = PostgresServer(binaries, folder)
        server.start()
        yield server
    finally:
        if server is not None:
            server.kill()
        shutil.rmtree(folder, ignore_errors=True)
