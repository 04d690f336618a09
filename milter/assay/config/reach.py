# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a connection to a milter socket fails: permissions, directories that are unsafe, and the system's errors."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from assay.config.endpoint import Endpoint

_FULL = "it accepts no connection: look for 'new sessions wait' in the log of the daemon"
_WRITE, _ENTER = 2, 1  # as in the permissions of others


def obstacle(path: str, user: str) -> str:
    """What keeps a user from connecting to a unix socket, and the fix, as a sentence without a full stop.

    Empty if nothing does, or if that cannot be known: there is no such user or no socket, or we may not look.

    :param path: of the socket, absolute.
    """
    try:
        account = pwd.getpwnam(user)
        group = grp.getgrgid(account.pw_gid).gr_name
        groups = os.getgrouplist(user, account.pw_gid)
        for folder in reversed(Path(path).parents):
            if not _allows(found := os.stat(folder), _ENTER, account.pw_uid, groups):
                return (
                    f"{user} may not enter {folder} ({_owners(found)}); run: chgrp {group} {folder}; chmod g+x {folder}"
                )
        if not _allows(found := os.stat(path), _WRITE, account.pw_uid, groups):
            return (
                f'{user} may not write to it ({_owners(found)}); set milter.socket_group = "{group}", or '
                f"SocketGroup={group} if assay.socket opens it"
            )
    except (KeyError, OSError):
        pass
    return ""


def refusal(endpoint: Endpoint, error: OSError) -> str:
    """Why we cannot connect to a milter socket, and what to do, as a sentence without a full stop.

    :param error: of `Endpoint.connect`.
    """
    reason = error.strerror or str(error) or type(error).__name__
    return f"{reason}; {_fix_of_path(endpoint.path, error) if endpoint.path else _fix_of_port(endpoint, error)}"


def _fix_of_path(path: str, error: OSError) -> str:
    match error.errno:
        case errno.ENOENT if not Path(path).parent.is_dir():
            return f"there is no directory {Path(path).parent}: write the path that milter.socket has"
        case errno.ENOENT:
            return "there is no such socket: start the daemon, or write the path that milter.socket has"
        case errno.ECONNREFUSED if not Path(path).is_socket():
            return "it is a file, not a socket: write the path that milter.socket has"
        case errno.ECONNREFUSED:
            return "the socket is there, but no daemon: start it"
        case errno.EACCES:
            why = obstacle(path, _owner(os.geteuid()))
            return f"{why}; or run this as root" if why else "run this as root"
        case errno.ENOTDIR:
            return "what should be a directory is a file: write the path that milter.socket has"
        case errno.EPROTOTYPE:
            return "it is a socket for datagrams, such as /dev/log: write the path that milter.socket has"
        case errno.EAGAIN:
            return _FULL
    return _FULL if isinstance(error, TimeoutError) else "write the path that milter.socket has"


def _fix_of_port(endpoint: Endpoint, error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return "the host has no address: write the one that milter.socket has"
    if isinstance(error, TimeoutError):
        return f"{_FULL}; if it is on another host, a firewall may drop the packets"
    match error.errno:
        case errno.ECONNREFUSED:
            return (
                f"nothing listens there: start the daemon, or write the port that milter.socket has (ss -ltnp 'sport = "
                f":{endpoint.port}')"
            )
        case errno.EADDRNOTAVAIL | errno.ENETUNREACH | errno.EHOSTUNREACH:
            return "this host does not reach that address: write the one that milter.socket has"
        case errno.EACCES | errno.EPERM:
            return "a firewall of this host forbids it"
    return "write the address that milter.socket has"


def unsafe_directories(path: str, *, sticky_is_safe: bool) -> Iterator[tuple[str, str, str]]:
    """The directories above a unix socket to which more than their owner may write, so that Sendmail does not use it.

    :param path: of the socket, absolute.
    :param sticky_is_safe: whether to trust the sticky bit, which /tmp has.
    :returns: of each directory its path, ``group`` or ``others``, and its owners and permissions.
    """
    for folder in reversed(Path(path).parents):
        try:
            found = os.stat(folder)
        except OSError:
            return
        if found.st_mode & stat.S_ISVTX and sticky_is_safe:
            continue
        for bit, who in ((stat.S_IWGRP, "group"), (stat.S_IWOTH, "others")):
            if found.st_mode & bit:
                yield str(folder), who, _owners(found)


def _allows(found: os.stat_result, bit: int, uid: int, groups: list[int]) -> bool:
    if uid == 0:
        return True
    shift = 6 if found.st_uid == uid else 3 if found.st_gid in groups else 0
    return bool(found.st_mode >> shift & bit)


def _owners(found: os.stat_result) -> str:
    """Owner, group and permissions, as an administrator writes them."""
    try:
        group = grp.getgrgid(found.st_gid).gr_name
    except KeyError:
        group = str(found.st_gid)
    return f"{_owner(found.st_uid)}:{group} {stat.S_IMODE(found.st_mode):04o}"


def _owner(uid: int) -> str:
    """The name of a user; the number if it has none, as in a container."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
