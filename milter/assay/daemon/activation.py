# SPDX-License-Identifier: GPL-3.0-or-later
"""A listening socket from the service manager, by the protocol of sd_listen_fds(3).

The service manager keeps the socket open while one daemon ends and the next one starts, so no connection is refused.
"""

from __future__ import annotations

import os
import socket

from assay.config.endpoint import Endpoint

_FIRST = 3  # SD_LISTEN_FDS_START
_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


class ActivationError(ValueError):
    """The service manager passed something that cannot be served on. The message says what, and the fix."""


def passed_socket() -> socket.socket | None:
    """The socket that the service manager passed to this process; None if it passed none.

    The variables are removed from the environment, so that they are used once.

    :raises ActivationError: more than one, or not a listening stream socket.
    """
    pid, count, _ = (os.environ.pop(name, "") for name in _VARIABLES)
    if pid != str(os.getpid()) or not count.isdigit() or count == "0":
        return None
    if count != "1":
        raise ActivationError(f"the service manager passed {count} sockets; keep one ListenStream= in assay.socket")
    try:
        listening = socket.socket(fileno=_FIRST)
    except OSError as error:
        raise ActivationError(f"the service manager passed no socket ({error.strerror}); see assay.socket") from error
    families = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6)
    if listening.type != socket.SOCK_STREAM or listening.family not in families:
        raise ActivationError(
            "the service manager passed a socket of another kind; write ListenStream= in assay.socket"
        )
    if not listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise ActivationError("the service manager passed a connection; write Accept=no in assay.socket")
    return listening


def endpoint_of(listening: socket.socket) -> Endpoint:
    """Where a listening socket listens."""
    name = listening.getsockname()
    if listening.family == socket.AF_UNIX:
        return Endpoint(listening.family, "", 0, os.fsdecode(name).replace("\0", "@"))
    return Endpoint(listening.family, name[0], name[1], "")
