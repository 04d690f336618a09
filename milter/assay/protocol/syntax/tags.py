# SPDX-License-Identifier: GPL-3.0-or-later
"""Tag lists (RFC 6376, 3.2): the syntax of DKIM-Signature, of DKIM key records and of two of the three ARC fields.

Strict: what the grammar does not allow is an error with a reason, never a guess. It does not know any tag's meaning,
except that base64 values (RFC 6376, 3.5) are decoded here, because DKIM and ARC both need it.

Values may have non-ASCII in UTF-8, as RFC 8616, 5 requires for d=, i= and s=.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterable

#: Our choice: the registries of DKIM and ARC have 20 tags together; 100 bounds what a stranger can make us keep.
MAX_TAGS = 100

#: FWS as it reaches us. In a field, its CRLF is folding. A key record has no folding, but published records carry a
#: stray CR or LF from the file they were pasted from, and all implementations accept it.
_FWS = " \t\r\n"
_WITHOUT_FWS = str.maketrans("", "", _FWS)

_TAG_NAMES = re.compile(r"[A-Za-z][A-Za-z0-9_]*+(?:;[A-Za-z][A-Za-z0-9_]*+)*")  # one or several
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class TagListError(ValueError):
    """A text that is not a tag list, or a value that is not base64. The message tells a postmaster why."""


def parse_tags(text: bytes) -> dict[str, str]:
    """Split a tag list into its tags (RFC 6376, 3.2).

    :param text: a field's value, folded or not, or the joined strings of a TXT record.
    :returns: the values by tag name, in the order of the text. White space around a value is dropped, inside it kept.
    :raises TagListError: a control character, bytes that are not UTF-8, an empty or malformed tag, a duplicate, or
        more than `MAX_TAGS` tags.
    """
    if _CONTROL.search(text):
        raise TagListError("control character in the tag list")
    try:
        specs = text.decode("utf-8").split(";", MAX_TAGS + 1)
    except UnicodeDecodeError:
        raise TagListError("tag list is not UTF-8") from None  # RFC 6532, 3.2; RFC 8616, 5
    if not specs[-1].strip(_FWS):
        specs.pop()  # tag-list = tag-spec *( ";" tag-spec ) [ ";" ]
    if not specs:
        raise TagListError("tag list is empty")
    if len(specs) > MAX_TAGS:
        raise TagListError(f"more than {MAX_TAGS} tags")
    parts = [spec.partition("=") for spec in specs]
    tags = {name.strip(_FWS): value.strip(_FWS) for name, _, value in parts}
    if len(tags) < len(specs) or "" in [equals for _, equals, _ in parts] or not _TAG_NAMES.fullmatch(";".join(tags)):
        raise _fault(specs)
    return tags


def _fault(specs: Iterable[str]) -> TagListError:
    """What is wrong with a tag list that has a wrong tag, or two of one name."""
    seen: set[str] = set()
    double = ""
    for spec in specs:
        name, equals, _ = spec.partition("=")
        name = name.strip(_FWS)
        if not equals or not _TAG_NAMES.fullmatch(name):
            return TagListError("malformed tag" if spec.strip(_FWS) else "empty tag")
        double = double or (name if name in seen else "")
        seen.add(name)
    return TagListError(f"two {double[:20]}= tags")  # RFC 6376, 3.2: the entire tag list is then invalid


def without_fws(value: str) -> str:
    """The value without any folding white space, as base64 and colon-separated lists are read."""
    if value.isascii():
        # `parse_tags` lets no other ASCII white space through; for a long base64 value this costs a tenth.
        return "".join(value.split())
    return value.translate(_WITHOUT_FWS)


def split_list(value: str) -> list[str]:
    """The members of a colon-separated list (h= and q= of a signature; h=, s= and t= of a key record)."""
    return [member.strip(_FWS) for member in value.split(":")]


def decode_base64(value: str) -> bytes:
    """Decode a base64string (RFC 6376, 3.5), where white space may be anywhere and the padding may be missing.

    :raises TagListError: an empty value, a character that is not base64, or an impossible length.
    """
    compact = without_fws(value)
    unpadded = compact.rstrip("=")
    if not unpadded or len(compact) - len(unpadded) > 2:
        raise TagListError("not base64" if compact else "empty")
    try:
        return binascii.a2b_base64(unpadded + "=" * (-len(unpadded) % 4), strict_mode=True)
    except ValueError:  # another character, or one is left over: six bits are not an octet
        raise TagListError("not base64") from None
