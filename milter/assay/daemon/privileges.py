# SPDX-License-Identifier: GPL-3.0-or-later
"""From root to a user without privileges: after the socket is open, before a stranger is heard.

The user keeps its own primary group and no other. Whatever root could read must be given to that user or group, or a
reload cannot read it.
"""

from __future__ import annotations

import ctypes
import os
import pwd

from msgspec import Struct

_NO_NEW_PRIVILEGES = 38  # PR_SET_NO_NEW_PRIVS in prctl(2)


class PrivilegesError(Exception):
    """The process cannot become this user. The message names the key and the fix."""


class Account(Struct, frozen=True):
    """The user to become."""

    name: str
    uid: int
    gid: int


def find(name: str) -> Account:
    """A user of this host, which is not root.

    :raises PrivilegesError: there is none, or it is root.
    """
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise PrivilegesError(
            f"milter.user: {name!r} is not a user of this host; run: useradd --system --user-group {name}"
        ) from None
    if entry.pw_uid == 0 or entry.pw_gid == 0:
        raise PrivilegesError(f"milter.user: {name!r} has the rights of root; write a user of its own")
    return Account(name, entry.pw_uid, entry.pw_gid)


def become(user: Account) -> None:
    """Become the user, for good: all identities, no supplementary group, no way back.

    :raises PrivilegesError: the process may not.
    """
    if os.getresuid() == (user.uid,) * 3:
        _renounce()
        return
    if os.geteuid() != 0:
        raise PrivilegesError(
            f"milter.user: only root can become {user.name!r}; start the daemon as root or as {user.name}"
        )
    try:
        os.setgroups([])
        os.setresgid(user.gid, user.gid, user.gid)
        os.setresuid(user.uid, user.uid, user.uid)
    except OSError as error:  # a container that maps no such user, or has not CAP_SETUID and CAP_SETGID
        raise PrivilegesError(
            f"milter.user: cannot become {user.name!r}: {error.strerror}; start the daemon as {user.name}"
        ) from error
    _renounce()


def _renounce() -> None:
    """Gain no privilege by any program that is started from here on; nothing starts one."""
    ctypes.CDLL(None).prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
