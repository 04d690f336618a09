# SPDX-License-Identifier: GPL-3.0-or-later
"""A directory with the newest mails that could not be read as reports, kept for the operator to look at."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from assay.protocol.report.received import digest

MAX_FILES = 1000  # our choice, as many as the database lists
MAX_OCTETS = 256 * 1024 * 1024  # of all of them, our choice: eight of the largest, and thousands of most

_MODE, _DIRECTORY_MODE = 0o640, 0o750
#: Also one that was not written to its end, because its process was killed.
_NAME = re.compile(r"[0-9a-f]{32}\.eml|\.[0-9a-f]{32}\.eml\.[0-9]+")


def set_aside(directory: Path, mail: bytes) -> Path:
    """Keep a mail, the same one once. The oldest beyond the bounds go.

    :returns: the file, whose name is that of the mail in the database.
    :raises OSError: it cannot be kept.
    """
    directory.mkdir(mode=_DIRECTORY_MODE, exist_ok=True)
    path = directory / f"{digest(mail).hex()}.eml"
    partial = directory / f".{path.name}.{os.getpid()}"
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
        with open(descriptor, "wb") as file:
            file.write(mail)
        partial.rename(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    _remove_oldest(directory)
    return path


def _remove_oldest(directory: Path) -> None:
    octets = 0
    for number, (_, size, path) in enumerate(sorted(_kept(directory), reverse=True), 1):
        octets += size
        if number > MAX_FILES or octets > MAX_OCTETS:
            path.unlink(missing_ok=True)


def _kept(directory: Path) -> Iterator[tuple[int, int, Path]]:
    """When each file was written, its size and its path. Files of others are left alone."""
    for path in directory.iterdir():
        if _NAME.fullmatch(path.name):
            with contextlib.suppress(FileNotFoundError):  # another process has removed it
                found = path.lstat()
                yield found.st_mtime_ns, found.st_size, path
