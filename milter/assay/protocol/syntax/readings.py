# SPDX-License-Identifier: GPL-3.0-or-later
"""The addresses that programs could find in a field that they read differently.

For the value of a From field that `parse_addresses` refuses. No program is imitated: everything that could be the
domain after an ``@`` is collected, in quotes and comments too, with and without what some programs drop or decode. So
the result has what any of them shows, and often more, which is the safe side: an author that cannot be determined for
certain must not be vouched for (RFC 9989, 4.4).

Invariants: never raises; time linear in the length of the value; at most `MAX_READINGS` results.
"""

from __future__ import annotations

import base64
import binascii
import quopri
import re
from collections.abc import Iterator
from itertools import chain

from assay.protocol.syntax.address import LOOKALIKE, HeaderMailbox

MAX_READINGS = 20  # our choice: bounds the conversions of names; honest fields have one or two
MAX_SCANNED = 200  # our choice, equal ones included: 100 KB of them take a fifth of a second to scan
MAX_BACKWARDS = 256  # our choice, in characters: a local part has 64 octets (RFC 5321, 4.5.3.1), a domain 253

_AT = re.compile(f"@|{LOOKALIKE.pattern}")
#: What a domain may consist of (RFC 5322, 3.2.3 and RFC 6532, 3.2), octets that are not UTF-8 included.
_TEXT = r"(?>(?:[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]|[^\x00-\x7f\ufe64\ufe65\ufe6b\uff1c\uff1e\uff20])+)"
_GAP = r"(?:[ \t]++|\([^()]*+\))"
#: A domain after the "@", with white space and comments around its dots. Some programs skip quotes and the like in
#: front of it. Possessive quantifiers: hostile input cannot backtrack.
_DOMAIN = re.compile(
    rf"""(?>(?:{_GAP}|["\\<\[\]])*)(?P<first>{_TEXT})"""
    rf"""(?P<rest>(?>(?:(?:(?<=\.)(?>{_GAP}+)|(?>{_GAP}+)(?=\.)){_TEXT})*))"""
)
_WORDS_AFTER = re.compile(rf"(?>(?:(?>{_GAP}+){_TEXT})*)")
_NEXT = re.compile(rf"(?>{_GAP}*)(.?)", re.DOTALL)
_GAPS = re.compile(_GAP)
#: A local part, backwards from the "@".
_LOCAL_BACKWARDS = re.compile(r"[ \t]*+([A-Za-z0-9!#$%&'*+/=?^_`{|}~.\x80-\U0010ffff-]*+)")
#: Some programs drop these from what they read: controls, quoting characters, unmatched closing brackets.
_DROPPED = re.compile(r'[\x00-\x08\x0a-\x1f\x7f-\x9f"\\)>\u2028\u2029]+')
_PARENTHESIS = re.compile("[()]")
#: Sendmail rewrites ``host!user`` and ``user%host`` to ``user@host`` where no "@" follows. The first host, backwards.
_BANG = re.compile("!")  # the user may be missing, as Sendmail puts quotes around what follows a ":" or ";"
_AROUND_DOTS = re.compile(r"(?<![ \t])[ \t]++(?=\.)|(?<=\.)[ \t]++")
#: Quotes, colons and the like may stand between the two, so these are all words in front of a bang, and all behind a
#: percent sign, that are not local parts.
_HOST = re.compile(r"[A-Za-z0-9#$&'*+/=?^_`{|}~.\x80-\U0010ffff-]++(?!@)")
_HOST_BACKWARDS = re.compile(r"[ \t]*+([A-Za-z0-9#$&'*+/=?^_`{|}~. \t\x80-\U0010ffff-]*+)")
_PERCENT = re.compile(r"%([A-Za-z0-9!#$&'*+/=?^_`{|}~. \t\x80-\U0010ffff-]++)")

_ENCODED_WORD = re.compile(r"=\?([^?]*+)\?([QqBb])\?([^?]*+)\?=")
_BETWEEN_ENCODED_WORDS = re.compile(r"(?<=\?=)[ \t]++(?==\?)")  # not part of the text
#: Charsets in which "@" and dots may have other octets than in ASCII.
_WIDE_CHARSETS = frozenset(("utf-7", "utf-16", "utf-16be", "utf-16le", "utf-32", "utf-32be", "utf-32le"))


def possible_addresses(value: bytes) -> tuple[HeaderMailbox, ...] | None:
    """Collect everything that could be an address, each once.

    :param value: the field's value as it was in the message, folded with CRLF.
    :returns: mailboxes without a display name. `domain` is what follows the ``@`` and need not be a name;
        `local_part` is empty where there is no clear one. None if there are more than MAX_READINGS, or if more than
        MAX_SCANNED would have to be looked at.
    """
    found: dict[HeaderMailbox, None] = {}
    scanned = 0
    for text in _texts(value):
        for mailbox in chain(_scan(text), _scan_old(text)):
            found[mailbox] = None
            scanned += 1
            if len(found) > MAX_READINGS or scanned > MAX_SCANNED:
                return None
    return tuple(found)


def _texts(value: bytes) -> Iterator[str]:
    """The value unchanged, and after each change that some programs make to it first."""
    text = value.replace(b"\r\n", b"").decode("utf-8", "surrogateescape")
    yield text
    decoded = _ENCODED_WORD.sub(_decode, _BETWEEN_ENCODED_WORDS.sub("", text)) if "=?" in text else text
    if decoded != text:
        yield decoded
    for reading in {text, decoded}:
        plain = _DROPPED.sub("", reading)
        if plain != reading:
            yield plain
            if "=?" in plain and (found := _ENCODED_WORD.sub(_decode, plain)) != plain:
                yield found  # an encoded-word that was broken
        if "(" in reading:
            yield _DROPPED.sub("", _without_comments(reading))


def _without_comments(text: str) -> str:
    """The text outside parentheses, which nest."""
    pieces: list[str] = []
    depth = at = 0
    for parenthesis in _PARENTHESIS.finditer(text):
        if not depth:
            pieces.append(text[at : parenthesis.start()])
        depth = depth + 1 if parenthesis[0] == "(" else max(0, depth - 1)
        at = parenthesis.end()
    if not depth:
        pieces.append(text[at:])
    return " ".join(pieces)


def _scan(text: str) -> Iterator[HeaderMailbox]:
    """The addresses around each "@"."""
    for at in _AT.finditer(text):
        domain = _DOMAIN.match(text, at.end())
        if domain is None:
            continue
        local_part = _backwards(_LOCAL_BACKWARDS, text, at.start())
        first, whole = domain["first"], domain["first"] + _GAPS.sub("", domain["rest"])
        yield HeaderMailbox("", local_part, whole)
        if domain["rest"] and _is_whole(first):
            yield HeaderMailbox("", local_part, first)
        after = _WORDS_AFTER.match(text, domain.end())
        if after is not None and after[0]:
            words = _GAPS.sub(" ", after[0]).split()
            yield HeaderMailbox("", local_part, whole + "".join(words))  # as Python's email package reads it
            if _follows(text, after.end()) != "<":
                yield HeaderMailbox("", local_part, ".".join((whole, *words)))  # as Sendmail rewrites it (BlankSub)


def _scan_old(text: str) -> Iterator[HeaderMailbox]:
    """What addresses of other networks stand for: ``host!user`` and ``user%host``."""
    for bang in _BANG.finditer(text):
        words = _backwards(_HOST_BACKWARDS, text, bang.start()).split()
        host = ".".join(words)
        if _is_whole(host):
            yield HeaderMailbox("", "", host)
    if "!" in text or "%" in text:
        text = _AROUND_DOTS.sub("", text)
        for word in _HOST.finditer(text):
            if _is_whole(word[0]) and (
                text.find("!", word.end(), word.end() + MAX_BACKWARDS) >= 0
                or text.find("%", max(0, word.start() - MAX_BACKWARDS), word.start()) >= 0
            ):
                yield HeaderMailbox("", "", word[0])
    for percent in _PERCENT.finditer(text):
        words = percent[1].split()
        for host in (".".join(words), *words[:1]):
            if _is_whole(host):
                yield HeaderMailbox("", "", host)


def _backwards(pattern: re.Pattern[str], text: str, end: int) -> str:
    """The group of a pattern that is matched backwards from `end`, over a bounded distance."""
    found = pattern.match(text[max(0, end - MAX_BACKWARDS) : end][::-1])
    return found[1][::-1] if found is not None else ""


def _follows(text: str, at: int) -> str:
    following = _NEXT.match(text, at)
    return following[1] if following is not None else ""


def _is_whole(text: str) -> bool:
    """Whether a program that stops reading here already has a domain of several labels."""
    return "." in text.strip(".")


def _decode(word: re.Match[str]) -> str:
    """The text of an encoded-word (RFC 2047, 4), in every charset in which its "@" and its domain are ASCII."""
    octets = word[3].encode("utf-8", "surrogateescape")
    try:
        octets = quopri.decodestring(octets, header=True) if word[2] in "Qq" else base64.b64decode(octets + b"==")
    except (binascii.Error, ValueError):
        return word[0]
    charset = word[1].lower().partition("*")[0].replace("_", "-")  # a language may follow
    text = octets.decode("utf-8", "surrogateescape")
    if charset in _WIDE_CHARSETS:
        return text + octets.decode(charset, "ignore")
    return text
