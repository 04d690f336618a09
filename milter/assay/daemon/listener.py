# SPDX-License-Identifier: GPL-3.0-or-later
"""The listening socket: opened once by the supervisor, shared by all workers, never gone while the daemon lives.

libmilter opens the socket itself and keeps the descriptor secret, so it is found again among our descriptors. Four
facts about libmilter 8.17 shape this file:

- workers that share a blocking socket fall asleep in ``accept()`` when they lose a race: it is made non-blocking
  before the first fork;
- on inet, Nagle's algorithm against delayed acknowledgements costs a session 40 ms: TCP_NODELAY on the listening
  descriptor is inherited by the accepted ones;
- the first worker that ends unlinks the path of a unix socket: it is bound to a temporary path and then renamed, so
  that libmilter unlinks a name that is not there;
- stopping libmilter resets the sessions it still has: to drain, a worker's descriptor is replaced by a socket that
  nobody can reach (`deafen`), and libmilter goes on serving what it has;
- its ``poll()`` holds the replaced socket for up to 5 s more, in which connections would be taken and never served:
  where no other worker stays to take them, it is shut down as well (`refuse`).
"""

from __future__ import annotations

import contextlib
import grp
import os
import socket
import stat

import Milter
from msgspec import Struct

from assay.config.endpoint import Endpoint

BACKLOG = 1024  # connections that may wait; the kernel's somaxconn bounds it again
_MAX_DESCRIPTORS = 256  # where to look for the one libmilter opened; the supervisor has a dozen


class ListenerError(Exception):
    """The socket cannot be opened. The message names it and says why."""


class Listener(Struct, frozen=True):
    """The open socket."""

    endpoint: Endpoint
    descriptor: int
    inode: int = 0  # of a unix socket's path, to remove no other's

    def remove(self) -> None:
        """Remove the path of a unix socket, unless somebody else has put theirs there."""
        if self.endpoint.family != socket.AF_UNIX:
            return
        with contextlib.suppress(FileNotFoundError):
            if os.stat(self.endpoint.path).st_ino == self.inode:
                os.unlink(self.endpoint.path)


def open_listener(endpoint: Endpoint, *, mode: int, group: str) -> Listener:
    """Open the socket. Call it once, before the first fork.

    :param mode: permissions of a unix socket.
    :param group: its group; empty for the process's own.
    :raises ListenerError: in use, no permission, no such group or directory.
    """
    bound = endpoint
    if endpoint.family == socket.AF_UNIX:
        _refuse_used(endpoint)
        bound = Endpoint(endpoint.family, "", 0, f"{endpoint.path}.{os.getpid()}")
    before = _listening()
    Milter.register("assay")
    Milter.setbacklog(BACKLOG)
    Milter.setconn(str(bound))
    try:
        Milter.opensocket(True)
    except Milter.error as error:
        raise ListenerError(f"{endpoint}: {_why(endpoint)}") from error
    (descriptor,) = _listening() - before
    os.set_blocking(descriptor, False)
    if endpoint.family == socket.AF_UNIX:
        return Listener(endpoint, descriptor, _publish(bound.path, endpoint.path, mode, group))
    with socket.socket(fileno=os.dup(descriptor)) as duplicate:
        duplicate.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Listener(endpoint, descriptor)


def deafen(descriptor: int) -> None:
    """Replace the listening socket of this process by one that nobody can reach; the others keep theirs."""
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind("")  # an abstract name the kernel picks, which nobody is told
        deaf.listen()
        deaf.setblocking(False)
        os.dup2(deaf.fileno(), descriptor)


def refuse(descriptor: int) -> None:
    """Have the shared listening socket refuse connections, in all processes that still hold it."""
    with socket.socket(fileno=os.dup(descriptor)) as duplicate, contextlib.suppress(OSError):  # another worker did it
        duplicate.shutdown(socket.SHUT_RDWR)


def _listening() -> set[int]:
    """The descriptors of this process that are listening sockets."""
    found = set()
    for descriptor in range(_MAX_DESCRIPTORS):
        try:
            if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                continue
            with socket.socket(fileno=os.dup(descriptor)) as duplicate:
                if duplicate.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    found.add(descriptor)
        except OSError:
            continue
    return found


def _refuse_used(endpoint: Endpoint) -> None:
    """Do not take a path away from a daemon that still answers there; a stale one is replaced by the rename."""
    try:
        mode = os.lstat(endpoint.path).st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(mode):
        raise ListenerError(f"{endpoint}: the path exists and is no socket")
    with contextlib.suppress(OSError):
        endpoint.connect(timeout=1).close()
        raise ListenerError(f"{endpoint}: another daemon listens there")


def _publish(temporary: str, path: str, mode: int, group: str) -> int:
    try:
        os.chmod(temporary, mode)
        if group:
            os.chown(temporary, -1, grp.getgrnam(group).gr_gid)
        os.rename(temporary, path)
    except KeyError:
        os.unlink(temporary)
        raise ListenerError(f"milter.socket_group = {group!r}: no such group") from None
    except OSError as error:
        os.unlink(temporary)
        raise ListenerError(f"unix:{path}: {error.strerror}") from error
    return os.stat(path).st_ino


def _why(endpoint: Endpoint) -> str:
    """libmilter logs the cause to syslog only: find it again by trying what it tried."""
    try:
        with socket.socket(endpoint.family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if endpoint.family == socket.AF_UNIX:
                path = f"{endpoint.path}.{os.getpid()}"
                probe.bind(path)
                os.unlink(path)
            else:
                probe.bind((endpoint.host, endpoint.port))
                probe.listen()
    except OSError as error:
        return error.strerror or str(error)
    return "cannot be opened; the system log has libmilter's reason"
