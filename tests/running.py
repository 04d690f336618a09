# SPDX-License-Identifier: GPL-3.0-or-later
"""A real daemon for a test: supervisor, workers, libmilter and socket, over a DNS that the test wrote.

::

    with Daemon(tmp_path, rows=ROWS, milter={"on_error": "tempfail"}, dmarc={"reject": "reject"}) as daemon:
        with daemon.mta() as mta:
            ...
        assert "dmarc=pass" in daemon.log()
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from assay.cli.mta import Mta
from assay.config.endpoint import Endpoint
from assay.config.toml import toml
from nameserver import NameServer
from zone import Rows

PATIENCE = 60.0  # seconds for the daemon to come up, go away or log something; a busy machine takes twenty


def fill(pipe: Path, *texts: str) -> threading.Thread:
    """Have a named pipe give each text to one reader: a file that differs each time it is read."""

    def work() -> None:
        for text in texts:
            with pipe.open("w") as end:
                end.write(text)
            time.sleep(0.5)  # until the reader has seen the end

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def until(happened: Callable[[], object], what: str = "it never happened", seconds: float = PATIENCE) -> None:
    """Wait until a function returns true.

    :param what: the message of the `AssertionError` if it does not.
    """
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


class Daemon:
    """``assay serve`` in a child process. Configuration sections are keyword arguments; `rule` is a list of rules.

    `program` is what Python runs with the command line of ``assay``, and `before` what precedes it at each start.
    """

    def __init__(
        self,
        folder: Path,
        rows: Rows | None = None,
        *,
        socket: str = "",
        program: Sequence[str] = ("-m", "assay"),
        before: Sequence[str] = (),
        **sections: Any,
    ) -> None:
        self.folder = folder
        self.socket = socket or f"unix:{folder}/assay.sock"
        self.sections = sections
        self.configuration = folder / "assay.toml"
        self.configuration_inside = str(self.configuration)  #: where the daemon finds it; a container has other paths
        self._rows = rows
        self._program = program
        self._before = before
        self._log = folder / "assay.log"
        self._nameserver: NameServer | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def configure(self, **sections: Any) -> None:
        """Write the configuration file; sections given here replace those of the constructor."""
        milter = {"socket": self.socket, "workers": 2, "drain_seconds": 60.0}
        dns: dict[str, Any] = {"nameservers": "none"}
        if self._nameserver is not None:
            host, port = self._nameserver.address
            dns = {"nameservers": (f"{host}:{port}",), "timeout_seconds": 1.0, "budget_seconds": 5.0}
        merged = {"milter": milter, "dns": dns, "clients": {"internal": ()}}
        rules: Sequence[dict[str, Any]] = ()
        for name, values in (self.sections | sections).items():
            if isinstance(values, dict):
                merged[name] = merged.get(name, {}) | values
            else:
                rules = values
        self.configuration.write_text(
            "".join(_table(f"[{name}]", values) for name, values in merged.items())
            + "".join(_table("[[rule]]", rule) for rule in rules)
        )

    def __enter__(self) -> Self:
        if self._rows is not None:
            self._nameserver = NameServer(self._rows).__enter__()
        self.configure()
        self._log.write_bytes(b"")
        self.start()
        return self

    def start(self, *before: str, **options: Any) -> None:
        """Start it, and wait until it serves.

        :param before: what precedes the command line.
        :param options: for `subprocess.Popen`.
        """
        times = self.log().count("serving on")
        command = [*before, *self._before, sys.executable, *self._program, "serve", "-c", self.configuration_inside]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, **({"stderr": log, "stdout": log} | options))
        self.wait_for_log("serving on", times + 1)

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            if self._process.poll() is None:
                self._process.terminate()
                if "store" not in self.sections:
                    self._end_workers()
            try:
                self._process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._nameserver is not None:
            self._nameserver.__exit__(None, None, None)

    def _end_workers(self) -> None:
        """End them at once when they have been told to. Each waits a second for sessions that it may not have counted
        yet: none come now, and all tests together would wait for minutes. Helpers end by themselves."""
        for pid in self.workers():
            with contextlib.suppress(ProcessLookupError):
                if os.sched_getscheduler(pid) == os.SCHED_BATCH:  # no helper
                    os.kill(pid, signal.SIGKILL)

    @property
    def pid(self) -> int:
        """The supervisor's process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def nameserver(self) -> NameServer:
        """The DNS it asks."""
        assert self._nameserver is not None
        return self._nameserver

    def mta(self, **options: Any) -> Mta:
        """A connection to it, as an MTA's."""
        return Mta(Endpoint.parse(self.socket).connect(timeout=PATIENCE), **options)

    def log(self) -> str:
        """All it has logged."""
        return self._log.read_text("utf-8", "replace")

    def wait_for_log(self, text: str, times: int = 1) -> str:
        """Wait until the log has `text` so many times."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            log = self.log()
            if log.count(text) >= times:
                return log
            if self._process is not None and self._process.poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError(f"{text!r} did not come {times} times into the log:\n{self.log()}")

    def workers(self) -> set[int]:
        """The process ids of its children."""
        try:
            return set(map(int, Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()))
        except OSError:
            return set()

    def signal(self, number: signal.Signals) -> None:
        """Send the supervisor a signal."""
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Wait until it has ended; its exit code."""
        assert self._process is not None
        return self._process.wait(PATIENCE)


_PASS = """\
import os, sys
held, count, pid, *command = sys.argv[1:]
for number in range(3, 3 + int(count)):
    os.dup2(int(held), number)
os.execve(command[0], command, os.environ | {"LISTEN_FDS": count, "LISTEN_PID": pid or str(os.getpid())})
"""


def passing(held: socket.socket, *, count: int = 1, pid: str = "") -> list[str]:
    """What comes before a command to pass it this socket as a service manager does; see sd_listen_fds(3).

    :param pid: the process that it is for; by default the command.
    """
    return [sys.executable, "-c", _PASS, str(held.fileno()), str(count), pid]


class Activated(Daemon):
    """The same with its socket opened by a service manager, which is the test: it keeps it from start to start."""

    def __enter__(self) -> Self:
        endpoint = Endpoint.parse(self.socket)
        self.held = socket.socket(endpoint.family)
        self.held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.held.bind(endpoint.path or (endpoint.host, endpoint.port))
        if endpoint.path:
            os.chmod(endpoint.path, 0o666)  # noqa: S103 - the processes of an MTA in a test connect to it
        self.held.listen(1024)
        self._orphans: set[int] = set()
        return super().__enter__()

    def __exit__(self, *_: object) -> None:
        self._orphans |= self.workers()
        super().__exit__(*_)
        for pid in self._orphans:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.held.close()

    def start(self, *before: str, **options: Any) -> None:
        super().start(*before, *passing(self.held), pass_fds=(self.held.fileno(),), **options)

    def orphan(self) -> None:
        """Note its children, which may outlive it, to end them with the test."""
        self._orphans |= self.workers()

    def stop(self) -> int:
        """As ``systemctl stop`` does with KillMode=process: wait for the main process alone; its exit code."""
        self.orphan()
        self.signal(signal.SIGTERM)
        return self.wait()

    def wait_for_orphans(self) -> None:
        """Wait until all its former children have ended."""
        deadline = time.monotonic() + PATIENCE
        while alive := {pid for pid in self._orphans if _runs(pid)}:
            assert time.monotonic() < deadline, f"{alive} did not end:\n{self.log()}"
            time.sleep(0.02)


def _runs(pid: int) -> bool:
    """Whether a process has not ended. One that has may wait for its parent, which is not ours."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def exhaust(pid: int) -> None:
    """Let a process have no more memory than it has."""
    (used,) = [
        int(line.split()[1]) * 1024
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith("VmData:")
    ]
    _, hard = resource.prlimit(pid, resource.RLIMIT_DATA)
    resource.prlimit(pid, resource.RLIMIT_DATA, (used, hard))


def _table(head: str, values: dict[str, Any]) -> str:
    return f"{head}\n" + "".join(f"{key} = {toml(value)}\n" for key, value in values.items())
