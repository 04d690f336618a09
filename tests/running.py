# SPDX-License-Identifier: GPL-3.0-or-later
"""A real daemon for a test: supervisor, workers, libmilter and socket, over a DNS that the test wrote.

::

    with Daemon(tmp_path, rows=ROWS, milter={"on_error": "tempfail"}, dmarc={"reject": "reject"}) as daemon:
        with daemon.mta() as mta:
            ...
        assert "dmarc=pass" in daemon.log()
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from assay.cli.mta import Mta
from assay.config.endpoint import Endpoint
from assay.config.sample import toml
from nameserver import NameServer
from zone import Rows

PATIENCE = 20.0  # seconds for the daemon to come up, go away or log something


class Daemon:
    """``assay serve`` in a child process. Configuration sections are keyword arguments; `rule` is a list of rules.

    `program` is what Python runs with the command line of ``assay``.
    """

    def __init__(
        self,
        folder: Path,
        rows: Rows | None = None,
        *,
        socket: str = "",
        program: Sequence[str] = ("-m", "assay"),
        **sections: Any,
    ) -> None:
        self.folder = folder
        self.socket = socket or f"unix:{folder}/assay.sock"
        self.sections = sections
        self.configuration = folder / "assay.toml"
        self._rows = rows
        self._program = program
        self._log = folder / "assay.log"
        self._nameserver: NameServer | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def configure(self, **sections: Any) -> None:
        """Write the configuration file; sections given here replace those of the constructor."""
        milter = {"socket": self.socket, "workers": 2, "drain_seconds": 15.0}
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

    def __enter__(self) -> Daemon:
        if self._rows is not None:
            self._nameserver = NameServer(self._rows).__enter__()
        self.configure()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, *self._program, "serve", "-c", str(self.configuration)], stderr=log, stdout=log
            )
        self.wait_for_log("serving on")
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            if self._process.poll() is None:
                self._process.terminate()
            try:
                self._process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._nameserver is not None:
            self._nameserver.__exit__(None, None, None)

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

    def signal(self, number: signal.Signals) -> None:
        """Send the supervisor a signal."""
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Wait until it has ended; its exit code."""
        assert self._process is not None
        return self._process.wait(PATIENCE)


def _table(head: str, values: dict[str, Any]) -> str:
    return f"{head}\n" + "".join(f"{key} = {toml(value)}\n" for key, value in values.items())
