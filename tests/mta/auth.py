# SPDX-License-Identifier: GPL-3.0-or-later
"""The password servers that real MTAs ask during SMTP AUTH: one known user, on a unix socket, in a thread.

Postfix speaks the Dovecot authentication protocol (version 1.1), Sendmail through Cyrus SASL that of saslauthd. Both
MTAs are real; only the password server is ours, so no user database has to be installed or filled.
"""

from __future__ import annotations

import base64
import os
import socketserver
import struct
import threading
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Final

USER: Final = "alice"
PASSWORD: Final = "wonderland"


class Dovecot(socketserver.StreamRequestHandler):
    """One connection of Postfix's smtpd to the "Dovecot" authentication server. Supports only the mechanism PLAIN."""

    def handle(self) -> None:
        self.wfile.write(b"VERSION\t1\t1\nMECH\tPLAIN\tplaintext\nSPID\t%d\nCUID\t1\nCOOKIE\t00\nDONE\n" % os.getpid())
        for line in self.rfile:
            command, *fields = line.rstrip(b"\n").split(b"\t")
            if command == b"AUTH":
                self.wfile.write(self._judge(fields) + b"\n")

    @staticmethod
    def _judge(fields: list[bytes]) -> bytes:
        number = fields[0]
        response = next((field[5:] for field in fields if field.startswith(b"resp=")), b"")
        # RFC 4616, 2: authorization identity, authentication identity and password, divided by NUL.
        _, user, password = base64.b64decode(response).decode().split("\0")
        if (user, password) == (USER, PASSWORD):
            return b"OK\t%s\tuser=%s" % (number, user.encode())
        return b"FAIL\t%s\tuser=%s" % (number, user.encode())


class Saslauthd(socketserver.StreamRequestHandler):
    """One query of libsasl2: user, password, service and realm, each preceded by its length."""

    def handle(self) -> None:
        user, password, _service, _realm = (self._counted() for _ in range(4))
        answer = b"OK" if (user, password) == (USER.encode(), PASSWORD.encode()) else b"NO"
        self.wfile.write(struct.pack("!H", len(answer)) + answer)

    def _counted(self) -> bytes:
        (length,) = struct.unpack("!H", self.rfile.read(2))
        return self.rfile.read(length)


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


class AuthServer(AbstractContextManager["AuthServer"]):
    """Serve `protocol` (`Dovecot` or `Saslauthd`) at `path` while the context lasts."""

    def __init__(self, path: Path, protocol: type[socketserver.StreamRequestHandler]) -> None:
        self._server = _Server(str(path), protocol)
        path.chmod(0o666)  # the MTA's unprivileged processes connect here
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> AuthServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
