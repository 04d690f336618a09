# SPDX-License-Identifier: GPL-3.0-or-later
"""A file of whole lines to which several processes append, and which may be rotated at any time."""

from __future__ import annotations

import errno
import os
import stat
import time
from threading import Lock

_MODE = 0o640  # the facts hold addresses of users
_LOOK_SECONDS = 1.0  # between two looks whether the path is another file now


class AppendedFile:
    """The file. Any thread may append.

    If the path names another file, or none, it is opened anew within a second: rotation needs no signal.
    """

    def __init__(self, path: str) -> None:
        """:raises OSError: it cannot be opened."""
        self._path = path
        self._lock = Lock()
        self._descriptor, self._identity = _open(path)
        self._regular = stat.S_ISREG(os.fstat(self._descriptor).st_mode)
        self._cut = False  # the last line that we wrote to a pipe or device
        self._look_at = time.monotonic() + _LOOK_SECONDS

    def append(self, line: bytes) -> None:
        """Append a line, with its line feed. After one that was cut, begin a new one.

        :raises OSError: it is lost, or cut.
        """
        with self._lock:
            self._follow()
            if self._ends_open():
                line = b"\n" + line
            written = os.write(self._descriptor, line)
            self._cut = written < len(line)
        if self._cut:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        """Close it."""
        os.close(self._descriptor)

    def _ends_open(self) -> bool:
        """Whether the last line has no end. Another process may have written it, so we look at the file."""
        if not self._regular:
            return self._cut
        size = os.lseek(self._descriptor, 0, os.SEEK_END)
        return size > 0 and os.pread(self._descriptor, 1, size - 1) != b"\n"

    def _follow(self) -> None:
        """Open the path anew if it is another file. If it cannot be opened, keep what we have."""
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + _LOOK_SECONDS
        try:
            found = os.stat(self._path)
            if (found.st_dev, found.st_ino) == self._identity:
                return
        except OSError:
            pass  # removed or renamed
        try:
            descriptor, self._identity = _open(self._path)
        except OSError:
            return
        os.close(self._descriptor)
        self._descriptor = descriptor
        self._regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        self._cut = False


def check(path: str) -> None:
    """Check that a worker can open the file. Does not create it, since it would belong to another user.

    :raises OSError: it cannot be opened.
    """
    folder = os.path.dirname(path) or "."
    if os.path.lexists(path):
        wanted = os.R_OK | os.W_OK
        number = errno.EISDIR if os.path.isdir(path) else 0 if os.access(path, wanted) else errno.EACCES
    else:
        number = errno.ENOENT if not os.path.isdir(folder) else 0 if os.access(folder, os.W_OK) else errno.EACCES
    if number:
        raise OSError(number, os.strerror(number))


def _open(path: str) -> tuple[int, tuple[int, int]]:
    """A descriptor, and what identifies the file."""
    # Non-blocking, so that a pipe without a reader is an error and not an endless wait. Files are not affected.
    flags = os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        special = not stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        special = False
    descriptor = os.open(path, flags | (os.O_WRONLY if special else os.O_RDWR), _MODE)
    found = os.fstat(descriptor)
    return descriptor, (found.st_dev, found.st_ino)
