# SPDX-License-Identifier: GPL-3.0-or-later
"""A real unbound on loopback, over UDP, TCP, TLS and HTTPS, in front of a `NameServer`.

The program is the copy unpacked by ``contrib/fetch.sh`` below ``.cache/unbound`` (or `ASSAY_UNBOUND`), never
the machine's own. It asks nobody but the `NameServer`.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

from nameserver import NameServer

PROGRAMS = Path(os.environ.get("ASSAY_UNBOUND") or Path(__file__).parents[1] / ".cache" / "unbound")
PROGRAM = PROGRAMS / "usr/sbin/unbound"
MISSING = f"no unbound in {PROGRAMS}: run sh contrib/fetch.sh unbound"
START = 30.0  # seconds

CONFIGURATION = """
server:
    chroot: ""
    username: ""
    directory: "{folder}"
    pidfile: ""
    use-syslog: no
    logfile: "{folder}/log"
    verbosity: 1
    interface: 127.0.0.1@{plain}
    interface: 127.0.0.1@{tls}
    interface: 127.0.0.1@{https}
    tls-port: {tls}
    https-port: {https}
    tls-service-pem: "{certificate}"
    tls-service-key: "{key}"
    do-not-query-localhost: no
    module-config: "iterator"
    num-threads: 1
    incoming-num-tcp: 100
    so-reuseport: no
    qname-minimisation: no
    {extra}
forward-zone:
    name: "."
    forward-addr: {upstream}
remote-control:
    control-enable: no
"""


class Unbound:
    """The program, running while the context lasts. `start` and `stop` restart it on the same ports."""

    def __init__(self, folder: Path, upstream: NameServer, pair: tuple[Path, Path], extra: str = "") -> None:
        """
        :param pair: the files of its certificate and key.
        :param extra: lines of its ``server:`` clause.
        """
        self.folder = folder
        self.pair = pair
        self.extra = extra
        self._upstream = upstream
        self._process: subprocess.Popen[bytes] | None = None
        self.plain, self.tls, self.https = _free_ports(3)

    def __enter__(self) -> Unbound:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it, and wait until it serves."""
        host, port = self._upstream.address
        path = self.folder / "unbound.conf"
        path.write_text(
            CONFIGURATION.format(
                folder=self.folder,
                plain=self.plain,
                tls=self.tls,
                https=self.https,
                certificate=self.pair[0],
                key=self.pair[1],
                upstream=f"{host}@{port}",
                extra=self.extra,
            )
        )
        libraries = f"{PROGRAMS}/usr/lib/{sys.implementation._multiarch}:{PROGRAMS}/usr/lib"
        self._process = subprocess.Popen(
            [PROGRAM, "-d", "-p", "-c", path],
            env={**os.environ, "LD_LIBRARY_PATH": libraries},
            stderr=subprocess.DEVNULL,
        )
        ends = time.monotonic() + START
        for number in (self.plain, self.tls, self.https):
            while True:
                assert self._process.poll() is None, (self.folder / "log").read_text()
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", number), 1):
                    break
                assert time.monotonic() < ends, "unbound does not serve"
                time.sleep(0.02)

    def stop(self) -> None:
        """End it at once, with all connections."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [server.getsockname()[1] for server in sockets]
