# SPDX-License-Identifier: GPL-3.0-or-later
"""The listening socket: opened once by the supervisor, shared by all workers, open as long as the daemon runs.

Or the service manager has opened it and passed it on (`assay.daemon.activation`). Then it outlives the daemon.

libmilter opens the socket itself and does not return the descriptor, so we search for it. Facts about libmilter 8.17
that shape this file:

- Workers that share a blocking socket hang in ``accept()`` when they lose a race. We make it non-blocking before the
  first fork.
- On inet, Nagle's algorithm and delayed acknowledgements together cost a session 40 ms. Accepted sockets inherit
  TCP_NODELAY from the listening one.
- The first worker that ends unlinks the path of a unix socket. We bind to a temporary path and rename it, so that
  libmilter unlinks a name that does not exist.
- Stopping libmilter resets its open sessions. To drain, we replace a worker's descriptor by a socket that is not
  reachable (`deaf_socket`), and libmilter goes on serving its sessions.
- Its ``poll()`` is woken by the replaced socket for up to 5 s more and then looks at the new one, so connections that
  arrive at the old one are not served. If no other worker serves on, we shut the socket down as well (`refuse`), unless
  it outlives us. A signal makes it begin again (`wake`).
"""

from __future__ import annotations

import contextlib
import grp
import os
import signal
import socket
import stat
import tempfile
import threading

import Milter
from msgspec import Struct

from assay.config.endpoint import Endpoint
from assay.daemon.activation import ActivationError, endpoint_of, passed_socket
from assay.daemon.privileges import Account

BACKLOG = 1024  # connections that may wait; the kernel's somaxconn bounds it too
_WAKE = signal.SIGURG  # ignored by default, and by libmilter
_MAX_DESCRIPTORS = 256  # range of the search for the one libmilter opened; the supervisor has a dozen


class ListenerError(Exception):
    """The socket cannot be opened. The message names the key, the socket, the cause and the fix."""


class Listener(Struct, frozen=True):
    """The open socket."""

    endpoint: Endpoint
    descriptor: int
    inode: int = 0  # of a unix socket's path, so that we remove only our own
    lent: bool = False  #: the service manager's: the next daemon serves on it

    def remove(self) -> None:
        """Remove the path of a unix socket, unless it is lent, or another process has replaced it."""
        if self.lent or self.endpoint.family != socket.AF_UNIX:
            return
        with contextlib.suppress(FileNotFoundError, PermissionError):  # root made it in a directory of its own
            if os.stat(self.endpoint.path).st_ino == self.inode:
                os.unlink(self.endpoint.path)


def open_listener(endpoint: Endpoint, *, mode: int, group: str, user: Account | None = None) -> Listener:
    """Open the socket, or take the one that the service manager passed. Call it once, before the first fork.

    :param endpoint: where to listen. A socket that was passed is used instead, wherever it listens.
    :param mode: permissions of a unix socket.
    :param group: its group; empty for the primary one of its owner.
    :param user: its owner, if the process will become another user.
    :raises ListenerError: in use, no permission, no such group or directory; not a socket to serve on.
    """
    try:
        passed = passed_socket()
    except ActivationError as error:
        raise ListenerError(str(error)) from error
    if passed is not None:
        with passed:
            return _adopt(passed)
    bound = endpoint
    if endpoint.family == socket.AF_UNIX:
        _refuse_used(endpoint)
        bound = Endpoint(endpoint.family, "", 0, f"{endpoint.path}.{os.getpid()}")
    try:
        descriptor = _open(bound)
    except Milter.error as error:
        raise ListenerError(f"milter.socket: {endpoint}: {_why(endpoint)}") from error
    _prepare(descriptor, endpoint.family)
    if endpoint.family == socket.AF_UNIX:
        return Listener(endpoint, descriptor, _publish(bound.path, endpoint.path, mode, group, user))
    return Listener(endpoint, descriptor)


def _open(bound: Endpoint) -> int:
    """Have libmilter open its socket, and find the descriptor.

    :raises Milter.error: it cannot.
    """
    before = _listening()
    Milter.register("assay")
    Milter.setbacklog(BACKLOG)
    Milter.setconn(str(bound))
    Milter.opensocket(True)
    (descriptor,) = _listening() - before
    return descriptor


def _prepare(descriptor: int, family: socket.AddressFamily) -> None:
    os.set_blocking(descriptor, False)
    if family != socket.AF_UNIX:
        with socket.socket(fileno=os.dup(descriptor)) as duplicate:
            duplicate.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _adopt(passed: socket.socket) -> Listener:
    """Have libmilter serve on this socket: it opens one of the same family, which is replaced.

    libmilter compares the family of each client's address with that of the socket it opened.

    :raises ListenerError: libmilter cannot open a socket of its own.
    """
    endpoint = endpoint_of(passed)
    loopback = "::1" if passed.family == socket.AF_INET6 else "127.0.0.1"
    with tempfile.TemporaryDirectory(prefix="assay-") as folder:
        own = Endpoint(endpoint.family, loopback, 0, f"{folder}/unused" if passed.family == socket.AF_UNIX else "")
        try:
            descriptor = _open(own)
        except Milter.error as error:
            raise ListenerError(f"milter.socket: {endpoint}, from the service manager: {_why(own)}") from error
    os.dup2(passed.fileno(), descriptor)
    _prepare(descriptor, passed.family)
    return Listener(endpoint, descriptor, lent=True)


def deaf_socket() -> int:
    """The descriptor of a socket that listens and is not reachable: in place of the listening socket of this process,
    it makes libmilter accept nothing more. Other processes keep theirs."""
    deaf = socket.socket(socket.AF_UNIX)
    deaf.bind("")  # an abstract name that the kernel picks
    deaf.listen()
    deaf.setblocking(False)
    return deaf.detach()


def prepare_to_wake() -> None:
    """Make `wake` possible. Call it in the main thread, before libmilter runs there."""
    signal.signal(_WAKE, lambda *_: None)  # never called: only the system call is interrupted


def wake() -> None:
    """Have libmilter wait for the present listening socket and not for one that was replaced."""
    if ident := threading.main_thread().ident:
        signal.pthread_kill(ident, _WAKE)


def refuse(descriptor: int) -> None:
    """Make the shared listening socket refuse connections, in all processes that still hold it."""
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
    """Refuse a path on which another daemon still answers. The rename replaces a stale socket."""
    try:
        mode = os.lstat(endpoint.path).st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(mode):
        raise ListenerError(f"milter.socket: {endpoint}: not a socket; remove the file, or write another path")
    with contextlib.suppress(OSError):
        endpoint.connect(timeout=1).close()
        raise ListenerError(f"milter.socket: {endpoint}: another daemon serves on it; stop it, or write another path")


def _publish(temporary: str, path: str, mode: int, group: str, user: Account | None) -> int:
    try:
        if user is not None:
            os.chown(temporary, user.uid, user.gid)
        os.chmod(temporary, mode)
        if group:
            _set_group(temporary, group)
        os.rename(temporary, path)
    except OSError as error:
        os.unlink(temporary)
        raise ListenerError(f"milter.socket: unix:{path}: {error.strerror}") from error
    except ListenerError:
        os.unlink(temporary)
        raise
    return os.stat(path).st_ino


def check_group(group: str) -> None:
    """Check the group of the socket; an empty one is that of the daemon.

    :raises ListenerError: this host does not have it.
    """
    if group:
        _group_number(group)


def _group_number(group: str) -> int:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise ListenerError(f"milter.socket_group: {group!r} is not a group of this host; create it") from None


def _set_group(path: str, group: str) -> None:
    number = _group_number(group)
    try:
        os.chown(path, -1, number)
    except OSError as error:
        raise ListenerError(
            f"milter.socket_group: {group!r}: {error.strerror}; add the daemon's user to this group"
        ) from error


def _why(endpoint: Endpoint) -> str:
    """The cause, and the fix. libmilter logs the cause to syslog only, so repeat what it tried."""
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
        return endpoint.explain(error)
    return "cannot be opened; see the system log for libmilter's reason"
