# SPDX-License-Identifier: GPL-3.0-or-later
"""The Received-SPF trace field (RFC 7208, 9.1). It is only written: a stranger's field is never believed.

All text that the client or the sender chose is made harmless first, because RFC 7208, 11.5 knows the attack: nothing
that can be misread (see `assay.model.printable`), nothing longer than a mailbox may be, and so no way out of the quotes
or the comment.
"""

from __future__ import annotations

import re

from assay.model.printable import as_prose, as_value
from assay.model.smtp import Address
from assay.protocol.spf.result import Evaluation, Result

FIELD_NAME = "Received-SPF"
MAX_LINE = 78  # octets; RFC 5322, 2.1.1, kept where no single word is longer
MAX_VALUE = 320  # octets of a value; RFC 5321, 4.5.3.1: 64 of local part, the @ and 255 of domain
MAX_COMMENT = 400  # octets; our choice: a reason is one clause
_SURELY_SHORT = MAX_VALUE // 4  # characters: one has four octets at most

_ERRORS = (Result.TEMPERROR, Result.PERMERROR)

# RFC 5322, 3.2.3 with RFC 6532, 3.2: a dot-atom needs no quotes. The dot is in no atext: linear.
_ATEXT = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\U0010ffff-]"
_DOT_ATOM = re.compile(rf"{_ATEXT}+(?:\.{_ATEXT}+)*")
_PLAIN = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")  # most values


def render(evaluation: Evaluation, *, client_address: Address, helo: str, envelope_from: str, receiver: str) -> str:
    """Write the value of a Received-SPF field, folded with CRLF and a tab, without the name and the last CRLF.

    :param helo: the HELO argument as sent.
    :param envelope_from: the reverse-path without angle brackets, empty for the null reverse-path.
    :param receiver: our own host name.
    """
    pairs = [
        ("client-ip", str(client_address)),
        ("envelope-from", envelope_from),
        ("helo", helo),
        ("receiver", receiver),
        ("identity", evaluation.identity),
    ]
    if evaluation.mechanism:
        pairs.append(("mechanism", evaluation.mechanism))
    said = evaluation.reason
    if evaluation.result in _ERRORS:
        pairs.append(("problem", said))
        said = f"the check of {evaluation.domain or 'the domain'} ended in an error"
    comment = _cut(as_prose(f"{receiver}: {said}"), MAX_COMMENT)
    words = [str(evaluation.result), *f"({comment})".split(" ")]
    words += [f"{key}={_value(text)};" for key, text in pairs]
    return _fold(words)


def _value(text: str) -> str:
    if len(text) <= _SURELY_SHORT and _PLAIN.fullmatch(text):
        return text
    text = _cut(as_value(text), MAX_VALUE)
    return text if _DOT_ATOM.fullmatch(text) else f'"{text}"'


def _cut(text: str, most: int) -> str:
    """The text, cut to `most` octets."""
    if len(text) * 4 > most:  # a character has four octets at most
        text = text.encode()[:most].decode(errors="ignore")
    return text


def _fold(words: list[str]) -> str:
    """Fold words into lines. A word is never broken: folding a quoted string would change it (RFC 5322, 3.2.4)."""
    lines: list[str] = []
    first, length = 0, len(FIELD_NAME) + 1  # the first word of the line, and the octets of those before the next
    for place, word in enumerate(words):
        octets = (len(word) if word.isascii() else len(word.encode())) + 1
        length += octets
        if length > MAX_LINE and place > first:
            lines.append(" ".join(words[first:place]))
            first, length = place, octets
    lines.append(" ".join(words[first:]))
    return "\r\n\t".join(lines)
