# SPDX-License-Identifier: GPL-3.0-or-later
"""Read a named file, up to a bound: a wrong path such as /dev/zero must not exhaust the machine's memory.

Pipes are read like files, so that a shell's ``<(command)`` can be used for a file.
"""

from __future__ import annotations

import errno
from pathlib import Path
from typing import BinaryIO

MAX_TEXT_OCTETS = 64 * 1024 * 1024  # configuration, zone, list; our choice: a million domains take a third of it
_CHUNK_OCTETS = 1024 * 1024


def read_text(path: Path) -> str:
    """A text of at most `MAX_TEXT_OCTETS`, without the byte order mark that some editors write.

    :raises OSError: it cannot be read or is larger; ``strerror`` says so.
    :raises UnicodeDecodeError: it is not UTF-8.
    """
    with path.open("rb") as file:
        return read(file, MAX_TEXT_OCTETS).decode("utf-8-sig").replace("\r\n", "\n")


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
            raise OSError(errno.EFBIG, f"larger than {most // (1024 * 1024)} MiB")
        chunks.append(chunk)
    return b"".join(chunks)
