# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a milter listens, in the notation that libmilter, Postfix and Sendmail share."""

from __future__ import annotations

import errno
import os
import re
import socket

from msgspec import Struct

_PORT_AND_HOST = re.compile(r"([0-9]{1,5})(?:@([^\x00-\x20]+))?")
#: Postfix's main.cf uses the reverse order: inet:host:port.
_HOST_AND_PORT = re.compile(r"(inet6?):\[?([^\x00-\x20@\[\]]+)\]?:([0-9]{1,5})")
#: Right but for the port, which is 0 or too high.
_WRONG_PORT = re.compile(r"inet6?:[0-9]+(@[^\x00-\x20]+)?")

#: What Python says, without an errno, of a path beyond the 107 octets of unix(7).
_TOO_LONG = "AF_UNIX path too long"


class EndpointError(ValueError):
    """A text that is not the address of a milter socket. The message quotes it and shows the forms."""


class Endpoint(Struct, frozen=True):
    """A socket in libmilter's notation (``smfi_setconn``): family, then host and port, or a path."""

    family: socket.AddressFamily
    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """Parse ``inet:PORT@HOST``, ``inet6:PORT@HOST``, ``unix:PATH`` or ``local:PATH``. The host is optional.

        :raises EndpointError: anything else.
        """
        kind, colon, rest = text.partition(":")
        kind = kind.lower()
        if colon and kind in ("unix", "local") and rest:
            return cls(socket.AF_UNIX, "", 0, rest)
        match = _PORT_AND_HOST.fullmatch(rest)
        if kind not in ("inet", "inet6") or match is None or not 0 < int(match[1]) < 65536:
            raise EndpointError(
                f"{text!r} is not a socket address; write inet:PORT@HOST, inet6:PORT@HOST or unix:PATH{_meant(text)}"
            )
        host = (match[2] or "").strip("[]")
        if kind == "inet" and ":" in host:
            raise EndpointError(f"{text!r} has an IPv6 address; write inet6:{match[1]}@{host}")
        return cls(socket.AF_INET if kind == "inet" else socket.AF_INET6, host, int(match[1]), "")

    def __str__(self) -> str:
        if self.family == socket.AF_UNIX:
            return f"unix:{self.path}"
        kind = "inet" if self.family == socket.AF_INET else "inet6"
        return f"{kind}:{self.port}@{self.host}" if self.host else f"{kind}:{self.port}"

    def connect(self, timeout: float) -> socket.socket:
        """Connect as an MTA does.

        :param timeout: seconds, for the connection and each read and write after it.
        :raises OSError: nothing listens there.
        """
        connection = socket.socket(self.family)
        try:
            connection.settimeout(timeout)
            connection.connect(self.path if self.family == socket.AF_UNIX else (self.host or "localhost", self.port))
        except OSError:
            connection.close()
            raise
        return connection

    def explain(self, error: OSError) -> str:
        """Why nothing can listen there, and the fix, if there is a usual one."""
        return f"{error.strerror or error}{self._fix(error)}"

    def _fix(self, error: OSError) -> str:
        folder = os.path.dirname(self.path) or "."
        is_unix = self.family == socket.AF_UNIX
        match error.errno:
            case errno.ENOTDIR:
                return "; write a path below a directory"
            case errno.ENOENT:
                return f"; create the directory {folder}, writable for the daemon's user"
            case errno.EACCES | errno.EROFS if is_unix:
                return f"; make the directory {folder} writable for the daemon's user"
            case errno.EACCES:
                return "; write a port above 1023, or give the daemon CAP_NET_BIND_SERVICE"
            case errno.EADDRINUSE if is_unix:
                return "; stop it, or write another path"
            case errno.EADDRINUSE:
                return f"; find the program that has the port with: ss -ltnp 'sport = :{self.port}'"
            case errno.EADDRNOTAVAIL:
                return "; write an address of this host"
        if isinstance(error, socket.gaierror):
            return "; write an address of this host"
        return "; write a shorter path" if str(error) == _TOO_LONG else ""


def _meant(text: str) -> str:
    """The likely intent behind Postfix's notation, a bare path or an impossible port, as a hint; empty if none."""
    if text.startswith("/"):
        return f", here unix:{text}"
    if match := _HOST_AND_PORT.fullmatch(text):
        kind = "inet6" if ":" in match[2] else match[1]
        return f", here {kind}:{match[3]}@{match[2]}"
    return ", with a port from 1 to 65535" if _WRONG_PORT.fullmatch(text) else ""
