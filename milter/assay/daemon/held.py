# SPDX-License-Identifier: GPL-3.0-or-later
"""The listening sockets of helpers. The supervisor holds them, so that clients wait while a helper is replaced.

It opens them as the user that it is when mail is served, so a reload can do what the start could. A socket stays as
long as the configuration has it with the same key, address and permissions, whatever happens to the child.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterable

from msgspec import Struct

from assay.config.endpoint import Endpoint
from assay.daemon.child import Kind, SocketSetting
from assay.daemon.listener import BACKLOG


class _Held(Struct, frozen=True):
    listening: socket.socket
    inode: int  # of a unix socket's path, so that we remove only our own


class HeldSockets:
    """The sockets, by the settings that ask for them."""

    def __init__(self) -> None:
        self._held: dict[SocketSetting, _Held] = {}

    def opened(self, kind: Kind) -> dict[str, socket.socket]:
        """The sockets of a kind by their keys. Those that are not open yet are opened.

        :raises OSError: one cannot be opened; the message names the key, the socket, the cause and the fix. Then none
            of the kind stays open, since nobody would answer there.
        """
        for setting in kind.sockets:
            if setting in self._held and not self._has_path(setting):
                self._close(setting)
            if setting not in self._held:
                try:
                    self._held[setting] = _open(setting)
                except (OSError, ValueError, TypeError) as error:  # the last two: a host or path that cannot be encoded
                    self._close_all(kind.sockets)
                    why = setting.endpoint.explain(error) if isinstance(error, OSError) else str(error)
                    raise OSError(errno.EADDRNOTAVAIL, f"{setting.key}: {setting.endpoint}: {why}") from error
        return {setting.key: self._held[setting].listening for setting in kind.sockets}

    def keep(self, kinds: Iterable[Kind]) -> None:
        """Close the sockets that none of these kinds has, and remove their paths."""
        self._close_all(self._held.keys() - {setting for kind in kinds for setting in kind.sockets})

    def leave(self, kind: Kind) -> None:
        """In a child: close those of other kinds, which would stay open with it."""
        for setting in self._held.keys() - set(kind.sockets):
            self._held.pop(setting).listening.close()

    def _close_all(self, settings: Iterable[SocketSetting]) -> None:
        for setting in settings:
            if setting in self._held:
                self._close(setting)

    def _close(self, setting: SocketSetting) -> None:
        if setting.endpoint.path and self._has_path(setting):
            with contextlib.suppress(OSError):
                os.unlink(setting.endpoint.path)
        self._held.pop(setting).listening.close()

    def _has_path(self, setting: SocketSetting) -> bool:
        """Whether clients that open the path still reach this socket: nobody has removed or replaced it."""
        if not setting.endpoint.path:
            return True
        try:
            return os.lstat(setting.endpoint.path).st_ino == self._held[setting].inode
        except OSError:
            return False


def _open(setting: SocketSetting) -> _Held:
    listening = listen(setting.endpoint, setting.mode, BACKLOG)
    return _Held(listening, os.lstat(setting.endpoint.path).st_ino if setting.endpoint.path else 0)


def listen(endpoint: Endpoint, mode: int, backlog: int) -> socket.socket:
    """Open a socket.

    :param mode: permissions of a unix socket.
    :raises OSError: it cannot be opened.
    """
    listening = socket.socket(endpoint.family)
    try:
        if endpoint.family == socket.AF_UNIX:
            remove_stale(endpoint)
            before = os.umask(0o777 & ~mode)
            try:
                listening.bind(endpoint.path)
            finally:
                os.umask(before)
        else:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((endpoint.host or "localhost", endpoint.port))
        listening.listen(backlog)
    except Exception:
        listening.close()
        raise
    return listening


def remove_stale(endpoint: Endpoint) -> None:
    """Remove the unix socket of a daemon that was killed, and nothing else.

    :raises OSError: another daemon answers on it.
    """
    try:
        if not stat.S_ISSOCK(os.lstat(endpoint.path).st_mode):
            return
        endpoint.connect(1.0).close()
    except ConnectionRefusedError:
        os.unlink(endpoint.path)
    except FileNotFoundError:
        return
    else:
        raise OSError(errno.EADDRINUSE, "another daemon serves on it")
