# SPDX-License-Identifier: GPL-3.0-or-later
"""Macro strings (RFC 7208, 7): read once into pieces, expanded as often as a check needs them.

Reading finds every syntax error; expanding cannot fail. The caller knows what the letters stand for: `expand`
takes their values. A value may contain any character that the sender chose, so check an expansion before using it as a
name or as text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote

from msgspec import Struct

#: RFC 7208, 7.1: these letters are for explanation text only.
EXPLANATION_LETTERS = frozenset("crt")
LETTERS = frozenset("slodipvh")

#: More parts than any value has; a number of a thousand digits is never computed.
MAX_PARTS = 1_000_000

#: In one string; our choice. A name has 127 labels at most, and what strangers make us build must stay small.
MAX_MACROS = 128

# RFC 7208, 7.1: macro-expand. Neighbouring repetitions share no character, so a match is linear.
_EXPAND = re.compile(r"%(?:\{([A-Za-z])([0-9]*)([rR]?)([-.+,/_=]*)\}|([%_-]))")
_LITERAL = re.compile(r"[\x21-\x24\x26-\x7e]+")
_EXPLANATION_LITERAL = re.compile(r"[\x20-\x24\x26-\x7e]+")
_CHARACTERS = {"%": "%", "_": " ", "-": "%20"}

# RFC 7208, 7.1: a toplabel is not a number and has no hyphen at an end.
_TOPLABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?")


class MacroError(ValueError):
    """A text that is not a macro string. The message says why and quotes nothing."""


class Macro(Struct, frozen=True):
    """``%{letter digits r delimiters}``. `parts` is how many to keep from the right, 0 for all of them."""

    letter: str
    parts: int = 0
    reverse: bool = False
    delimiters: str = ""
    escape: bool = False

    @property
    def transforms(self) -> bool:
        """Whether the value is transformed at all."""
        return bool(self.parts or self.reverse or self.delimiters)


class MacroString(Struct, frozen=True):
    """A macro string in pieces. `literal` is the whole text if there is nothing to expand."""

    pieces: tuple[str | Macro, ...]
    literal: str | None
    uses_local_part: bool
    uses_validated_name: bool


def parse(text: str, *, explanation: bool = False) -> MacroString:
    """Read a macro-string, or an explain-string where `explanation` allows spaces and three more letters.

    :raises MacroError: a character or a ``%`` that the grammar does not allow (RFC 7208, 7.1).
    """
    return _compose(_pieces(text, explanation=explanation))


def parse_domain_spec(text: str) -> MacroString:
    """Read a domain-spec: a macro string that ends in a macro or in a dot and a toplabel (RFC 7208, 7.1).

    :raises MacroError: as `parse`, and for an empty text or a wrong end.
    """
    if not text:
        raise MacroError("empty domain")
    pieces = _pieces(text, explanation=False)
    # The characters after the last macro ("%%", "%_" and "%-" are macros too) must include the dot and the toplabel.
    tail = _EXPAND.split(text)[-1]
    if tail:
        _, dot, toplabel = tail.removesuffix(".").rpartition(".")
        if not dot or not _TOPLABEL.fullmatch(toplabel) or toplabel.isdigit():
            raise MacroError("domain that ends neither in a macro nor in a dot and a top-level label (not a number)")
    return _compose(pieces)


def expand(string: MacroString, values: Mapping[str, str], *, tail: int | None = None) -> str:
    """Put the `values` of the letters (lower case) into the string (RFC 7208, 7.3).

    :param tail: how many characters at the end are needed, None for all; the text before them may be missing. So a
        hundred macros over a long value cost no more than what fits into a name.
    """
    if string.literal is not None:
        return string.literal
    parts: list[str] = []
    length = 0
    for piece in reversed(string.pieces):
        parts.append(piece if isinstance(piece, str) else _value(piece, values[piece.letter]))
        length += len(parts[-1])
        if tail is not None and length >= tail:
            break
    return "".join(reversed(parts))


def write(macro: Macro) -> str:
    """A macro as written in a record; one that keeps more than a million parts is written as one that keeps all."""
    letter = macro.letter.upper() if macro.escape else macro.letter
    parts = str(macro.parts) if 0 < macro.parts < MAX_PARTS else ""
    return f"%{{{letter}{parts}{'r' if macro.reverse else ''}{macro.delimiters}}}"


def _pieces(text: str, *, explanation: bool) -> list[str | Macro]:
    """Split a macro string into literals and macros (RFC 7208, 7.1), or raise."""
    literal = _EXPLANATION_LITERAL if explanation else _LITERAL
    pieces: list[str | Macro] = []
    at = 0
    while at < len(text):  # each turn takes at least one character
        match = literal.match(text, at)
        if match is not None:
            pieces.append(match[0])
        else:
            match = _EXPAND.match(text, at)
            if match is None:
                raise MacroError("bad macro" if text[at] == "%" else "character that is not printable ASCII")
            pieces.append(_CHARACTERS[match[5]] if match[5] else _macro(match, explanation=explanation))
        at = match.end()
    return pieces


def _macro(match: re.Match[str], *, explanation: bool) -> Macro:
    """Read a well-formed ``%{...}``, and check that it has a meaning (RFC 7208, 7.2 and 7.3)."""
    letter = match[1].lower()
    if letter not in LETTERS and not (explanation and letter in EXPLANATION_LETTERS):
        where = "outside an explanation" if letter in EXPLANATION_LETTERS else "anywhere"
        raise MacroError(f"macro letter '{letter}' has no meaning {where}")
    digits = match[2].lstrip("0")
    if match[2] and not digits:
        raise MacroError("macro that keeps no part")  # RFC 7208, 7.1: DIGIT must be nonzero
    parts = int(digits) if 0 < len(digits) < len(str(MAX_PARTS)) else MAX_PARTS if digits else 0
    delimiters = "".join(dict.fromkeys(match[4]))  # each counts once, and there are seven: _value walks through them
    # RFC 7208, 7.3: an upper-case letter asks for URL escaping.
    return Macro(letter, parts, bool(match[3]), delimiters, match[1].isupper())


def _compose(pieces: list[str | Macro]) -> MacroString:
    macros = [piece for piece in pieces if isinstance(piece, Macro)]
    if len(macros) > MAX_MACROS:
        raise MacroError(f"more than {MAX_MACROS} macros")
    letters = {macro.letter for macro in macros}
    return MacroString(
        pieces=tuple(pieces),
        literal=None if letters else "".join(piece for piece in pieces if isinstance(piece, str)),
        uses_local_part=not letters.isdisjoint("ls"),
        uses_validated_name="p" in letters,
    )


def _value(macro: Macro, value: str) -> str:
    """Transform what a letter stands for (RFC 7208, 7.3): split, reverse, keep the right, join, escape."""
    if macro.transforms:
        delimiter = macro.delimiters[:1] or "."
        for other in macro.delimiters[1:]:  # each of them splits: make them all the same
            value = value.replace(other, delimiter)
        parts = value.split(delimiter)
        if macro.reverse:
            parts.reverse()
        value = ".".join(parts[-macro.parts :])  # -0 keeps them all
    # RFC 7208, 7.3: all but the unreserved characters of RFC 3986, which quote() never changes.
    return quote(value, safe="", errors="surrogateescape") if macro.escape else value
