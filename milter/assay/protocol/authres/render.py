# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the value of an Authentication-Results field (RFC 8601, 2.2).

The sender of the message chose the values, and programs after us trust the field. So a value, a reason or a comment
must not be able to end itself, whether the program knows the grammar or only splits at semicolons and searches for
``dmarc=pass``: `assay.model.printable` removes what could be read that way. Every value is a MIME token, an e-mail
identity or a quoted-string without quoted-pairs, and everything has a bound. A value that was cut or altered is always
a quoted-string, with a mark that an identity cannot have: what is left of ``victim.example.evil.test`` must not read as
``victim.example``.

The library authres provides the character classes of the grammar. It does not write the field, because it passes CR,
LF and ``)`` through, accepts any text with an ``@`` unquoted, and does not fold.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from authres.core import RFC2045_TOKEN_PATTERN, RFC5322_ATEXT_PATTERN

from assay.model.printable import as_prose, as_value, marked, without_claims
from assay.protocol.authres.result import MethodResult, unregistered

# Octets of UTF-8 before escaping. Our choice: an e-mail address has at most 320 (RFC 5321, 4.5.3.1), and escaping at
# most doubles it, so that a line stays below 998 octets even if nothing can be folded (RFC 5322, 2.1.1).
MAX_VALUE_LENGTH = 400
MAX_LINE_LENGTH = 78  # octets, where folding is possible; RFC 5322, 2.1.1

_SURELY_SHORT = MAX_VALUE_LENGTH // 4  # characters: one has four octets at most
_CUT = "[...]"  # brackets are tspecials: a cut value is always a quoted-string
_FOLD_RESULT = ";\r\n\t"
_FOLD_ITEM = "\r\n\t\t"
_FOLD_WORD = "\r\n "  # inside a quoted-string, unfolding must restore the one space (RFC 5322, 2.2.3)

_TOKEN = re.compile(RFC2045_TOKEN_PATTERN)
# One class each: a repeated alternative costs three times as much. RFC 6532, 3.2 adds UTF-8 to atext.
_ATOM = r"[\x80-\U0010ffff" + RFC5322_ATEXT_PATTERN.removeprefix("[") + "+"
_DOMAIN_PART = r"[A-Za-z0-9_\x80-\U0010ffff-]+"
_IDENTITY = re.compile(
    # RFC 8601, 2.2: pvalue = ... [ [ local-part ] "@" ] domain-name
    rf'(?:(?:{_ATOM}(?:\.{_ATOM})*|"[^"\\;()]*")?@)?'
    rf"{_DOMAIN_PART}(?:\.{_DOMAIN_PART})*"
)
#: Most values: domains, IPv4 addresses, names of algorithms. They are always written unchanged.
_PLAIN = re.compile(rf"[A-Za-z0-9._-]{{1,{_SURELY_SHORT}}}")
_WHITE = re.compile(r"[ \t\r\n]+")

_Piece = tuple[str, str]  # the fold in front of a text, and the text


def render(authserv_id: str, results: Sequence[MethodResult]) -> str:
    """The field's value, without its name: one result per line, folded with CRLF.

    :param authserv_id: our own, from the configuration (RFC 8601, 2.5).
    :param results: in the order to write them; if empty, the value is ``authserv-id; none``.
    :raises ValueError: a method, result word or property is not registered: an error of the caller.
    """
    service = _token_or_quoted(as_value(_bounded(authserv_id)))
    if not results:
        return f"{service}; none"
    return _FOLD_RESULT.join([service, *[_resinfo(result) for result in results]])


def _resinfo(found: MethodResult) -> str:
    fault = unregistered(found)
    if fault:
        raise ValueError(f"{found.method}={found.result}: {fault}")
    line = f"{found.method}={found.result}"
    pieces = _pieces(found)
    whole = " ".join([line, *[text for _, text in pieces]])
    if whole.isascii() and len(whole) + len("\t;") <= MAX_LINE_LENGTH:  # most results
        return whole
    length = len(line) + len("\t;")
    folded = [line]
    for fold, text in pieces:
        octets = (len(text) if text.isascii() else len(text.encode())) + 1
        if length + octets > MAX_LINE_LENGTH:
            folded += fold, text
            length = len(fold) + octets
        else:
            folded += " ", text
            length += octets
    return "".join(folded)


def _pieces(found: MethodResult) -> list[_Piece]:
    """What follows the result word, in the order of the ABNF, split where a line may be folded."""
    pieces: list[_Piece] = []
    comment = _free_text(found.comment)
    if comment:
        pieces += [(_FOLD_ITEM, word) for word in f"({comment})".split(" ")]
    reason = _free_text(found.reason)
    if reason:
        # A MIME token or a quoted-string (RFC 2045, 5.1), foldable at its spaces.
        first, *rest = _token_or_quoted(reason).split(" ")
        pieces.append((_FOLD_ITEM, f"reason={first}"))
        pieces += [(_FOLD_WORD, word) for word in rest]
    pieces += [(_FOLD_ITEM, f"{given.ptype}.{given.name}={_pvalue(given.value)}") for given in found.properties]
    return pieces


def _pvalue(value: str) -> str:
    """RFC 8601, 2.2: an e-mail identity is written as one, everything else as a value."""
    if _PLAIN.fullmatch(value):
        return value
    text = _bounded(value)
    # An altered address is not an identity. A local part may contain "?", so only the quotes distinguish the two.
    if text == value and _IDENTITY.fullmatch(text) and without_claims(marked(text)) == text:
        return text
    return _token_or_quoted(as_value(text))


def _token_or_quoted(text: str) -> str:
    return text if _TOKEN.fullmatch(text) else f'"{text}"'


def _free_text(text: str) -> str:
    if not text or _PLAIN.fullmatch(text):
        return text
    return as_prose(_bounded(_WHITE.sub(" ", text).strip(" ")))


def _bounded(text: str) -> str:
    """The text, cut and marked as cut if it is too long."""
    if len(text) <= _SURELY_SHORT:
        return text
    head = marked(text[: MAX_VALUE_LENGTH + 1])
    octets = head.encode()
    if len(octets) <= MAX_VALUE_LENGTH:
        return text
    return octets[: MAX_VALUE_LENGTH - len(_CUT)].decode(errors="ignore") + _CUT
