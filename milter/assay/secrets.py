# SPDX-License-Identifier: GPL-3.0-or-later
"""Files with secrets: private keys, SRS secrets, TSIG keys. They are read only if others cannot read or change them.

A secret that any local user can read lets that user sign in our name, so such a file is an error and not a warning. The
message says which command fixes it. The content never appears in a message.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from assay import files

MAX_OCTETS = 64 * 1024  # our choice: the PEM of an RSA key of 4096 bits takes 3,300
#: What others than owner and group may never have; and the group may read, but not write.
_FORBIDDEN = stat.S_IRWXO | stat.S_IWGRP


class SecretError(ValueError):
    """A file of secrets that cannot be used. The message names the file and the fix, and never the content."""


def read(path: Path) -> bytes:
    """The content of a file that only its owner can change, and only its owner and group can read.

    :raises SecretError: it cannot be read, is empty, too large, or its permissions are too wide; or anyone can
        replace it, because its directory is writable by all.
    """
    try:
        with files.open_to_read(path) as file:
            _check(path, os.fstat(file.fileno()))
            content = files.read(file, MAX_OCTETS)
    except PermissionError as error:  # it may be a directory above that is closed, so there is no one command
        raise SecretError(
            f"{path}: cannot be read: {error.strerror}; give it, and the directories above it, to a group of the user "
            "that runs this (chgrp, chmod g+rX)"
        ) from error
    except OSError as error:
        raise SecretError(f"{path}: cannot be read: {error.strerror}") from error
    if not content.strip():
        raise SecretError(f"{path}: the file is empty")
    return content


def write(path: Path, content: bytes) -> None:
    """Write a file of secrets, at once or not at all.

    Its mode is 0600. If the group of its directory may read the directory, it gets that group and mode 0640: so the
    daemon's group reads what root writes. If root writes it, it gets the owner of the directory.

    :raises OSError: it cannot be written; the old file, if any, is unchanged.
    """
    folder = path.parent.stat()
    shared = bool(folder.st_mode & stat.S_IRGRP)
    files.replace(path, content, mode=0o640 if shared else 0o600, like=folder)


def _check(path: Path, status: os.stat_result) -> None:
    mode = stat.S_IMODE(status.st_mode)
    if mode & _FORBIDDEN:
        who = "anyone" if mode & stat.S_IRWXO else "its group"
        what = "read" if mode & (stat.S_IROTH if mode & stat.S_IRWXO else 0) else "change"
        fixed = mode & ~_FORBIDDEN & 0o777
        raise SecretError(f"{path}: {who} can {what} it (mode {mode:04o}); run: chmod {fixed:04o} {path}")
    folder = stat.S_IMODE(path.resolve().parent.stat().st_mode)
    if folder & stat.S_IWOTH and not folder & stat.S_ISVTX and stat.S_ISREG(status.st_mode):
        raise SecretError(
            f"{path}: anyone can replace it, because its directory is writable by all (mode {folder:04o}); "
            f"run: chmod o-w {path.parent}"
        )
