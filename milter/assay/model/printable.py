# SPDX-License-Identifier: GPL-3.0-or-later
"""A stranger's text where people and programs read it: in a header field, an SMTP reply, the log or a terminal.

Two things must not happen. The text must not control its reader: no control character (C0, DEL, C1), no format
character such as a bidirectional override, no lone surrogate (an octet that was not UTF-8) and no line end gets out.
And it must not be read as a result of ours by a program that knows less of the grammar than we do: one that splits at
semicolons, does not know quotes or comments, or searches for ``dmarc=pass``. Where the grammar leaves a choice of how
to write a text, it is written so that such a program is right too.
"""

from __future__ import annotations

import re

#: What a naive reader takes for the start of a result, a property, a key of Received-SPF or a word of our log line.
#: The methods (RFC 8601, 2.7) match inside any word; those that honest words contain match as whole words only.
_CLAIM = re.compile(
    r"(?:dmarc|dkim(?:-adsp|-atps)?|spf|iprev|sender-?id|domainkeys|dnswl|smime"
    r"|(?<![a-z0-9])(?:arc|auth|rrvs|vbr"
    r"|action|by|client|client-ip|dry_run|envelope-from|exempt|from|helo|identity|mechanism|problem|queue|reason|receiver"
    r"|reply|result|stage"
    r"|(?:body|dns|header|policy|smtp)\.[a-z0-9-]+))"
    r"[\s0-9/]*=",
    re.IGNORECASE,
)
#: Text that cannot be misread anywhere: printable ASCII that neither structures a field nor makes a claim. Most text.
_HARMLESS = re.compile(r"[ !#-'*-:<>-\[\]-~]*")
_SURROGATE = re.compile("[\ud800-\udfff]")
#: Before what a spreadsheet would take for a formula, where a cell begins: in many countries also after a semicolon.
#: Some spreadsheets take the wide forms of these characters, too.
_FORMULA = re.compile(
    '(?:^|(?<=;))[ "]*(?=[=+@\N{FULLWIDTH EQUALS SIGN}\N{FULLWIDTH PLUS SIGN}\N{FULLWIDTH COMMERCIAL AT}'
    "\N{FULLWIDTH HYPHEN-MINUS}-])"
)
_AS_VALUE = str.maketrans(dict.fromkeys('"\\;()', "?"))
_AS_PROSE = str.maketrans('"\\;()', "'/,[]")


def escape(character: str) -> str:
    """A character as its number: an octet as ``\\xNN``, any other as ``\\uNNNN``."""
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:  # surrogateescape: an octet that was not UTF-8
        number -= 0xDC00
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def escaped(text: str, keep: str = "") -> str:
    """The text with `escape` for what does not print, except the characters to keep. Nothing is lost."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in keep else escape(char) for char in text)


def for_spreadsheet(text: str) -> str:
    """The text with `escape` for what does not print, and an apostrophe before what would be a formula."""
    return _FORMULA.sub(r"'\g<0>", escaped(text))


def without_surrogates(text: str) -> str:
    """The text with `escape` for lone surrogates, which no encoder takes, and nothing else."""
    return _SURROGATE.sub(lambda match: escape(match[0]), text)


def marked(text: str) -> str:
    """The text with ``?`` for what does not print."""
    return text if text.isprintable() else "".join(char if char.isprintable() else "?" for char in text)


def marked_ascii(text: str) -> str:
    """The text with ``?`` for what is not printable ASCII."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if " " <= char <= "~" else "?" for char in text)


def without_claims(text: str, equals: str = "?") -> str:
    """The text with another character for the ``=`` of anything that reads as a result of ours."""
    return _CLAIM.sub(lambda claim: claim[0][:-1] + equals, text) if "=" in text else text


def as_value(text: str) -> str:
    """The text as a value of the stranger's: each character that would structure a field becomes ``?``."""
    return text if _HARMLESS.fullmatch(text) else without_claims(marked(text).translate(_AS_VALUE))


def as_prose(text: str) -> str:
    """The text as part of our own words: characters that would structure a field become other punctuation."""
    return text if _HARMLESS.fullmatch(text) else without_claims(marked(text).translate(_AS_PROSE))
