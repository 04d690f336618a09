# SPDX-License-Identifier: GPL-3.0-or-later
"""Encoded-words (RFC 2047) that hide an address, in plain text, so that it can be redacted."""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import a2b_qp

HIDDEN = "(redacted)"  # in place of what cannot be read

#: Encoded-words with nothing but white space between them, which is not part of the text (RFC 2047, 6.2).
_RUN = re.compile(
    r"=\?[^?\s]*+\?[bq]\?[^?]*+\?=(?>(?:\s*+=\?[^?\s]*+\?[bq]\?[^?]*+\?=)*)",
    re.IGNORECASE,
)
_WORD = re.compile(r"=\?([^?*]*+)[^?]*+\?([bq])\?([^?]*+)\?=", re.IGNORECASE)
#: Those of nearly all mail. Others, such as UTF-7, write an "@" in ways of their own.
_CHARSETS = re.compile(
    r"utf-?8|(?:us-)?ascii|iso-8859-\d\d?|windows-125\d|koi8-[ru]|gb2312|gbk|gb18030|big5|euc-(?:jp|kr)|iso-2022-jp"
    r"|shift_jis",
    re.IGNORECASE | re.ASCII,
)
_AT = re.compile("[@\ufe6b\uff20]|%40")


def uncovered(text: str) -> str:
    """A text in which encoded-words with an address, or that cannot be read, are plain. All others stay."""
    return _RUN.sub(_uncovered, text) if "=?" in text else text


def _uncovered(run: re.Match[str]) -> str:
    try:
        text = "".join([_decoded(*word) for word in _WORD.findall(run[0])])
    except (ValueError, LookupError):  # no base64, or a charset that nobody knows
        return HIDDEN
    return text.replace("=?", "= ?") if _AT.search(text) else run[0]  # nothing in it is decoded again


def _decoded(charset: str, encoding: str, content: str) -> str:
    """The text of an encoded-word (RFC 2047, 4).

    :raises ValueError: it is not base64.
    :raises LookupError: the charset is not one of those above.
    """
    octets = content.encode("utf-8", "surrogateescape")
    octets = a2b_qp(octets, header=True) if encoding in "Qq" else b64decode(octets + b"==")
    if not _CHARSETS.fullmatch(charset):
        raise LookupError
    return octets.decode(charset, "replace")
