# SPDX-License-Identifier: GPL-3.0-or-later
"""Read a named file, up to a bound: a wrong path such as /dev/zero must not exhaust the machine's memory. Replace one
whole, so that a reader or a crash never finds half of it.

Pipes are read like files, so that a shell's ``<(command)`` can be used for a file. But a named pipe without a
writer must not stop a reload for ever.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

MAX_TEXT_OCTETS = 64 * 1024 * 1024  # configuration, zone, list; our choice: a million domains take a third of it
PIPE_SECONDS = 10  # for the first octet of a pipe; our choice: a command in <(command) has started by then
_CHUNK_OCTETS = 1024 * 1024
#: How the name of a file begins that `replace` has not finished; a crash may leave one.
UNFINISHED = ".unfinished-"


def read_text(path: Path) -> str:
    """A text of at most `MAX_TEXT_OCTETS`, without the byte order mark that some editors write.

    :raises OSError: it cannot be read or is larger, or nothing comes from a pipe; ``strerror`` says so.
    :raises UnicodeDecodeError: it is not UTF-8.
    """
    with open_to_read(path) as file:
        return read(file, MAX_TEXT_OCTETS).decode("utf-8-sig").replace("\r\n", "\n")


def not_text(error: UnicodeDecodeError) -> str:
    """Why `read_text` raised this, and what an operator does about it."""
    line = error.object.count(b"\n", 0, error.start) + 1
    return f"line {line} is not UTF-8 text; save the file as UTF-8"


def fault(error: Exception) -> str:
    """What an error says, for a message. Of the system's, the name of the file and its words, without the number."""
    if not isinstance(error, OSError):
        return str(error)
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)


@contextlib.contextmanager
def open_to_read(path: Path) -> Iterator[BinaryIO]:
    """Open a file, or a pipe from which something comes within `PIPE_SECONDS`.

    :raises OSError: it cannot be opened, or nothing comes; ``strerror`` says so.
    """
    with open(path, "rb", opener=_without_waiting) as file:
        if stat.S_ISFIFO(os.fstat(file.fileno()).st_mode):
            wait = select.poll()
            wait.register(file, select.POLLIN)
            if not wait.poll(PIPE_SECONDS * 1000):
                raise OSError(
                    errno.ETIMEDOUT, f"it is a pipe, and nothing was written into it for {PIPE_SECONDS} seconds"
                )
        os.set_blocking(file.fileno(), True)
        yield file


def _without_waiting(path: str, flags: int) -> int:
    """Open a file. Without O_NONBLOCK, opening a named pipe waits for a writer, see fifo(7)."""
    return os.open(path, flags | os.O_NONBLOCK)


def read(file: BinaryIO, most: int) -> bytes:
    """The whole content of a file.

    :param most: its bound in octets.
    :raises OSError: it cannot be read or is larger; ``strerror`` says so.
    """
    chunks = []
    size = 0
    while chunk := file.read(_CHUNK_OCTETS):  # in pieces: read(most) would reserve all of it at once
        size += len(chunk)
        if size > most:
            limit = f"{most // 1024} KiB" if most < 1024 * 1024 else f"{most // (1024 * 1024)} MiB"
            raise OSError(errno.EFBIG, f"larger than {limit}")
        chunks.append(chunk)
    return b"".join(chunks)


def replace(path: Path, content: bytes, *, mode: int, like: os.stat_result | None = None) -> None:
    """Write a file, at once or not at all: a new file takes the name of the old one when it is on the disk.

    :param mode: its permissions.
    :param like: owner and group that it gets as far as the system allows; None for our own.
    :raises OSError: it cannot be written; the old file, if any, is unchanged.
    """
    unfinished = path.parent / f"{UNFINISHED}{os.getpid()}-{path.name}"
    unfinished.unlink(missing_ok=True)  # that of a dead process which had our number
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with contextlib.ExitStack() as stack:
        stack.callback(os.unlink, unfinished)
        with open(descriptor, "wb") as file:
            if like is not None:
                try:
                    os.fchown(descriptor, like.st_uid if os.geteuid() == 0 else -1, like.st_gid)
                except PermissionError:  # then the group that it has is not the one that may read it
                    mode &= ~0o070
            os.fchmod(descriptor, mode)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        os.rename(unfinished, path)
        stack.pop_all()
    sync(path.parent)


def remove(path: Path) -> None:
    """Remove a file that may be gone already, also from the disk.

    :raises OSError: it cannot be removed.
    """
    path.unlink(missing_ok=True)
    sync(path.parent)


def sync(folder: Path) -> None:
    """Write the names in a directory to the disk, so that a rename in it outlives a power failure."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a directory. Another process or thread that wants it waits.

    :raises OSError: it cannot be opened or locked.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
