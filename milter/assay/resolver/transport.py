# SPDX-License-Identifier: GPL-3.0-or-later
"""One query to one nameserver: what all transports share.

Everything runs in the loop's thread. Another transport is another class with the same `Exchange` interface, and a case
in `transports`.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from assay.resolver.nameservers import Nameserver

#: The errors that ICMP causes for a query that nobody will answer.
_UNREACHABLE = {errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH}
_NO_DESCRIPTOR = {errno.EMFILE, errno.ENFILE}


class Cause(Enum):
    """Why there is no answer, as far as it affects the next step."""

    TIMEOUT = "timeout"
    #: Nothing can be asked: the network or the host reports that nothing listens there, or it does not prove who it is.
    UNREACHABLE = "unreachable"
    #: Nothing about its health: no descriptors are left, it sends noise, or its TCP does not work. The last must not
    #: count against UDP: else the publisher of a long record could silence a server behind a poor firewall.
    OTHER = "other"
    FAILURE = "failure"  #: it answered that it cannot, or will not, look the name up now
    TOO_LONG = "too long"  #: there is an answer, which is longer than any that is read; other servers have the same


@dataclass(frozen=True, slots=True)
class ExchangeFault:
    """No answer, and why; `reason` completes the sentence "the server ..."."""

    cause: Cause
    reason: str


#: Called with the message that answers, or why there is none.
Done = Callable[[bytes | ExchangeFault], None]


#: Called when no descriptor is left; returns whether there is one now.
MakeRoom = Callable[[], bool]


def no_room() -> bool:
    """Nobody keeps descriptors for the DNS."""
    return False


def open_socket(server: Nameserver, kind: socket.SocketKind, make_room: MakeRoom) -> socket.socket:
    """A socket for a nameserver that never blocks.

    :raises OSError: no descriptor is left, or the system does not know the family.
    """
    family = socket.AF_INET6 if server.is_ipv6 else socket.AF_INET
    flags = kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    try:
        return socket.socket(family, flags)
    except OSError as error:
        if error.errno not in _NO_DESCRIPTOR or not make_room():
            raise
    return socket.socket(family, flags)


class Exchange(Protocol):
    """A query in flight."""

    def cancel(self) -> None:
        """Stop; `done` will not be called."""


def fault(error: OSError) -> ExchangeFault:
    """The outcome of a query that the system did not send, or reports that nobody will answer."""
    cause = Cause.UNREACHABLE if error.errno in _UNREACHABLE else Cause.OTHER
    return ExchangeFault(cause, f"could not be asked ({words(error)})")


def words(error: OSError) -> str:
    """The system's words for an error; asyncio's own messages name our sockets."""
    return os.strerror(error.errno) if error.errno else str(error)
