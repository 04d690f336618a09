# SPDX-License-Identifier: GPL-3.0-or-later
"""A real PostgreSQL on loopback and a Unix socket.

The program is the copy unpacked by ``contrib/fetch.sh`` below ``.cache/postgresql`` (or `ASSAY_POSTGRESQL`), never the
machine's own. It refuses to run as root, so root starts it as nobody. The user ``assay`` logs in with a password over
TCP; over the socket, everyone may be anybody.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

PROGRAMS = Path(os.environ.get("ASSAY_POSTGRESQL") or Path(__file__).parents[1] / ".cache" / "postgresql")
BINARIES = max(PROGRAMS.glob("usr/lib/postgresql/*/bin"), default=PROGRAMS)
MISSING = f"no PostgreSQL in {PROGRAMS}: run sh contrib/fetch.sh postgresql"
PASSWORD = "the secret of the tests"
_NOBODY = 65534
_START = 60.0  # seconds
_CONFIGURATION = """
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = '{folder}'
fsync = off
shared_buffers = 32MB
max_connections = 40
log_line_prefix = '%m %u '
"""
_ACCESS = """
local all all trust
host all assay 127.0.0.1/32 scram-sha-256
"""


def is_there() -> bool:
    """Whether the program has been fetched."""
    return (BINARIES / "postgres").exists()


class Postgresql:
    """The program, running while the context lasts. `kill` and `start` restart it with what it had on its disk."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="assay-postgresql-"))  # pytest's are closed to nobody
        self.folder.chmod(0o755)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._numbers = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None
        self._programs = PROGRAMS

    def __enter__(self) -> Postgresql:
        try:
            if os.geteuid() == 0:
                os.chown(self.folder, _NOBODY, _NOBODY)
                if not all(folder.stat().st_mode & stat.S_IXOTH for folder in PROGRAMS.resolve().parents):
                    # Below a directory of root's alone, such as /root.
                    self._programs = self.folder / "programs"
                    shutil.copytree(PROGRAMS, self._programs, symlinks=True)
            cluster = self.folder / "cluster"
            self._run(
                [self._program("initdb"), "-D", cluster, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"]
            )
            with (cluster / "postgresql.conf").open("a") as file:
                file.write(_CONFIGURATION.format(port=self.port, folder=self.folder))
            (cluster / "pg_hba.conf").write_text(_ACCESS)
            self.start()
            self.execute(f"CREATE ROLE assay LOGIN PASSWORD '{PASSWORD}'")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        shutil.rmtree(self.folder)

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command([self._program("postgres"), "-D", self.folder / "cluster"]),
                env=self._environment,
                cwd=self.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + _START
        while True:
            try:
                self.execute("SELECT 1")
                return
            except AssertionError as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError(f"no PostgreSQL: {error}\n{(self.folder / 'log').read_text()}") from error
                time.sleep(0.05)

    def kill(self) -> None:
        """End it and all its processes at once, as a crash of the machine does."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def create(self) -> str:
        """Make an empty database. Returns its URL for ``store.database``, without the password."""
        name = f"test{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} OWNER assay")
        return f"postgresql://assay@127.0.0.1:{self.port}/{name}"

    def execute(self, statement: str, database: str = "postgres") -> str:
        """Run a statement as the administrator. Returns the values, a row a line."""
        command = [self._program("psql"), "-h", self.folder, "-p", str(self.port), "-U", "postgres", "-d", database]
        return self._run([*command, "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", statement]).strip()

    def _run(self, command: Sequence[str | Path]) -> str:
        done = subprocess.run(
            self._command(command), env=self._environment, cwd="/", capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def _program(self, name: str) -> Path:
        return self._programs / BINARIES.relative_to(PROGRAMS) / name

    def _command(self, command: Sequence[str | Path]) -> list[str | Path]:
        if os.geteuid() != 0:
            return list(command)
        return ["setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups", *command]

    @property
    def _environment(self) -> dict[str, str]:
        libraries = {str(path.parent) for path in (self._programs / "usr/lib").rglob("*.so.*")}
        return {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "LD_LIBRARY_PATH": ":".join(sorted(libraries))}
