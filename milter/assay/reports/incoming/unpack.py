# SPDX-License-Identifier: GPL-3.0-or-later
"""Compressed reports: gzip (RFC 9990, 3.5.1; RFC 8460, 5.2) and zip, which most reporters of RFC 7489 use."""

from __future__ import annotations

import zipfile
import zlib
from io import BytesIO

from assay.reports.incoming.texts import UnreadableError

MAX_REPORT_OCTETS = 32 * 1024 * 1024  # of an unpacked report, our choice: `scan.MAX_RECORDS` take 25 MB
MAX_ENTRIES = 10  # of an archive, our choice: a report is alone in it, but some programs add files of their own

MAX_MEMBERS = 100  # of a gzip file, our choice: a report is one, and some programs write one for each block
_GZIP = b"\x1f\x8b"
_ZIP = b"PK\x03\x04"
_EMPTY_ZIP = b"PK\x05\x06"
_ENCRYPTED = 0x1  # APPNOTE.TXT, 4.4.4: bit 0 of the flags
#: Those whose decompression zipfile bounds; the others unpack as much as they like.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def is_packed(octets: bytes) -> bool:
    """Whether it begins as gzip or zip does."""
    return octets.startswith((_GZIP, _ZIP, _EMPTY_ZIP))


def looks_like_report(octets: bytes) -> bool:
    """Whether it begins as XML, JSON or something compressed does."""
    return is_packed(octets) or octets.startswith((b"\xff\xfe", b"\xfe\xff")) or _start(octets) in (b"<", b"{")


def unpack(octets: bytes) -> bytes:
    """The report itself, which may be packed once.

    :raises UnreadableError: it is too large, broken, or packed in another way.
    """
    if octets.startswith(_GZIP):
        unpacked = _gunzip(octets)
    elif is_packed(octets):
        unpacked = _unzip(octets)
    else:
        unpacked = octets
    if len(unpacked) > MAX_REPORT_OCTETS:
        raise UnreadableError(f"it is larger than {MAX_REPORT_OCTETS // 1048576} MiB when unpacked")
    if unpacked is not octets and is_packed(unpacked):
        raise UnreadableError("it is packed twice")
    return unpacked


def _start(octets: bytes) -> bytes:
    return octets[:100].removeprefix(b"\xef\xbb\xbf").lstrip()[:1]


def _gunzip(octets: bytes) -> bytes:
    """A file has one or several members, which follow each other. Other octets behind them are left out, as gzip(1)
    does."""
    unpacked = bytearray()
    for _ in range(MAX_MEMBERS):
        stream = zlib.decompressobj(zlib.MAX_WBITS | 16)
        try:
            unpacked += stream.decompress(octets, MAX_REPORT_OCTETS + 1 - len(unpacked))
        except zlib.error:
            raise UnreadableError("the gzip file is broken") from None
        if len(unpacked) > MAX_REPORT_OCTETS:
            break
        if not stream.eof:
            raise UnreadableError("the gzip file is cut off")
        octets = stream.unused_data
        if not octets.startswith(_GZIP):
            break
    else:
        raise UnreadableError(f"the gzip file has more than {MAX_MEMBERS} members")
    return bytes(unpacked)


def _unzip(octets: bytes) -> bytes:
    try:
        with zipfile.ZipFile(BytesIO(octets)) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            if len(entries) > MAX_ENTRIES:
                raise UnreadableError(f"the zip file has more than {MAX_ENTRIES} entries")
            for entry in entries:
                if entry.flag_bits & _ENCRYPTED:
                    raise UnreadableError("the zip file is encrypted")
                if entry.compress_type not in _METHODS:
                    raise UnreadableError("the zip file is compressed in an unusual way")
                with archive.open(entry) as file:
                    # The sizes in the file are what its sender wrote, so they are not asked.
                    unpacked = file.read(MAX_REPORT_OCTETS + 1)
                if looks_like_report(unpacked):
                    return unpacked
    # zipfile raises these and more for files that are not what they say
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError, ValueError) as error:
        if isinstance(error, UnreadableError):
            raise
        raise UnreadableError("the zip file is broken") from None
    raise UnreadableError("the zip file has no report")
