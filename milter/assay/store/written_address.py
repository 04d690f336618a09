# SPDX-License-Identifier: GPL-3.0-or-later
"""Find an address in what strangers wrote: a text, JSON, or the octets of a mail or a file."""

from __future__ import annotations

import binascii
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

#: Of all compressed files in a mail that are looked at, our choice: a report names its contact near the start.
MAX_UNPACKED_OCTETS = 1024 * 1024
MAX_ENTRIES = 10  # of an archive, our choice: as many as are read of a report

_GZIP, _ZIP = b"\x1f\x8b", b"PK\x03\x04"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # those whose decompression zipfile bounds
_BASE64_LINES = re.compile(rb"^(?>(?:[A-Za-z0-9+/]++={0,2}+[ \t]*+(?:\r?\n|\Z))+)", re.MULTILINE)
_NOT_BASE64 = re.compile(rb"[^A-Za-z0-9+/]+")


def pattern(address: str) -> re.Pattern[str]:
    """Finds an address in a text, but not in a longer one: ann@x.example is not in jo-ann@x.example.

    Of the other characters that a local part may have (RFC 5322, 3.2.3), most surround addresses more often than they
    are in one: `=` in a property, `'` as a quote.
    """
    return re.compile(rf"(?<![\w.+-])(?<!\w'){re.escape(address)}(?![\w-]|\.\w)", re.IGNORECASE)


def ascii_end(address: str) -> str:
    """The end of an address in lower case that every database and JSON write alike."""
    return re.search(r"[!#-\[\]-~]*\Z", address)[0]  # type: ignore[index]  # it matches every text


def texts_of(value: object) -> Iterator[str]:
    """All texts in a value of JSON."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in [*value, *value.values()] if isinstance(value, dict) else value:
            yield from texts_of(each)


def emptied(value: Any, has_address: Callable[[str], object]) -> Any:
    """A value of JSON, with an empty text in place of each that has the address: a name often stands beside it."""
    match value:
        case str():
            return "" if has_address(value) else value
        case list():
            return [emptied(each, has_address) for each in value]
        case dict():
            return {key: emptied(each, has_address) for key, each in value.items()}
        case _:
            return value


def texts_in(octets: bytes) -> Iterator[str]:
    """What a mail or a file says: as it is, and as its parts decode and unpack.

    A mail that cannot be read may be broken, so nothing depends on its structure. The time is linear in the size.
    """
    left = MAX_UNPACKED_OCTETS
    for content in _decoded(octets):
        yield _text(content)
        for unpacked in _unpacked(content, left) if left else ():
            yield _text(unpacked)
            left -= len(unpacked)


def _decoded(octets: bytes) -> Iterator[bytes]:
    yield octets
    yield binascii.a2b_qp(octets)
    for found in _BASE64_LINES.finditer(octets):
        characters = _NOT_BASE64.sub(b"", found[0])
        if len(characters) % 4 == 1:  # cut off
            characters = characters[:-1]
        yield binascii.a2b_base64(characters + b"=" * (-len(characters) % 4))


def _text(octets: bytes) -> str:
    return octets.decode("utf-16" if octets.startswith(_UTF16) else "utf-8", "replace")


def _unpacked(octets: bytes, most: int) -> Iterator[bytes]:
    """What is in a gzip or zip file, as far as it can be read. :param most: octets, of all its files; not 0."""
    try:
        if octets.startswith(_GZIP):
            yield zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(octets, most)
        elif octets.startswith(_ZIP):
            with zipfile.ZipFile(BytesIO(octets)) as archive:
                for entry in archive.infolist()[:MAX_ENTRIES]:
                    if entry.compress_type in _METHODS:
                        with archive.open(entry) as file:
                            unpacked = file.read(most)
                        most -= len(unpacked)
                        yield unpacked
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError):
        return  # broken or encrypted
