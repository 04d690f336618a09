# SPDX-License-Identifier: GPL-3.0-or-later
"""Spot the trace fields that arrived with a message and claim to be our own (RFC 8601, 5; RFC 7208, 9.1).

Programs after us believe such a field by the name in it, so each one must be removed before we add ours. The reader
that must not be fooled is not ours: it may not know nested comments, may end at a NUL, or may remove quotes late. So we
read the field as any of them might, and remove it if our name comes first in one of these readings. Readers that decode
encoded-words (Python's email package) disagree about what one is and know more charsets than could be tried.
Encoded-words are not allowed in these fields (RFC 2047, 5), so one that could bring a name to the front counts as ours,
undecoded.

The opposite error, removing a stranger's field, costs little and needs a field made for it; a name that merely contains
ours (``example.com.evil.test``), or ours later in the field, does not match.

Only the head of a field is read, so a field costs a bounded time, however long it is.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice

from assay.caches import remember
from assay.model.name import MAX_DOMAIN_LENGTH, Domain, InvalidNameError

# Octets. Our choice: no honest writer puts a kilobyte before its own name. A longer head is a claim.
MAX_HEAD_LENGTH = 1024
MAX_COMMENT_MARKS = 60  # parentheses and backslashes in it. Our choice: bounds the work; a head with more is cut there
# Octets. Our choice: an honest Received-SPF has a few hundred (RFC 7208, 9.1). A longer one is a claim.
MAX_RECEIVED_SPF_LENGTH = 4096
MAX_RECEIVERS = 20  # different names in it. Our choice: bounds the work; RFC 7208, 9.1 has two, other forms a few more

#: A field in its usual form: one plain word, which has only one reading.
#: Possessive, or a run of digits would be split between id and version in every possible way.
_PLAIN = re.compile(rb"(?:\r?\n)?[ \t]*+([A-Za-z0-9._-]++)[ \t]*+(?:[0-9]++[ \t]*+)?;")

#: Where a decoder starts to read something other than the text: an encoded-word (RFC 2047, 2), or what a lenient reader
#: takes for one, or an escape sequence of ISO 2022.
_DECODED = re.compile(r"=\?|\x1b")
_ENCODED_WORD = re.compile(r"=\?[^?]*\?\s*[bBqQ]\s*\?|\x1b")
_FOLD = re.compile(r"\r?\n[ \t]+")
_COMMENT_MARK = re.compile(r"[()\\]")
_QUOTED = re.compile(r'\s*"((?:[^"\\]|\\.)*)"', re.DOTALL)
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)
_STRUCTURE = re.compile(r'[()"\\]')  # may change the meaning of a semicolon for some readers
_SPECIALS = r"\s()<>@,;:\\\"/\[\]?="  # RFC 2045, 5.1: tspecials end a token
_FIRST_WORD = re.compile(rf"[{_SPECIALS}]*([^{_SPECIALS}]+)")
_RECEIVER = re.compile(rf'(?<![^{_SPECIALS}])receiver\s*=[\s"<]*([^{_SPECIALS}]+)', re.IGNORECASE)
_COMMENT_HEAD = re.compile(rf'\([\s"<]*([^{_SPECIALS}]+)')


def claims(value: bytes, authserv_ids: Collection[str], subdomains_of: Collection[str] = ()) -> bool:
    """Whether an Authentication-Results field claims to be from one of our services (RFC 8601, 5).

    :param value: the text after the colon, as received.
    :param authserv_ids: our ids, in any case, as U-labels or A-labels.
    :param subdomains_of: domains; every name at or below one of them counts as ours.
    """
    ours = _Names(authserv_ids, subdomains_of)
    plain = _PLAIN.match(value)
    if plain is not None:
        return ours.hold_plain(plain[1].decode("ascii"))
    head = value[:MAX_HEAD_LENGTH].decode("utf-8", "surrogateescape")
    plain_heads = _without_controls(head)
    if any(map(_may_decode_to_a_name, (head, *plain_heads))):
        return True
    is_cut = len(value) > MAX_HEAD_LENGTH
    surplus = _surplus_mark(head)
    if surplus is not None:
        plain_heads, is_cut = _without_controls(head[: surplus.start()]), True
    for text in _readings(plain_heads):
        word = _FIRST_WORD.match(text)
        if is_cut and (word is None or _may_go_on(text, word)):
            return True  # our name may be after the cut
        if word is None:
            continue
        if ours.hold(word[1]):
            return True
        quoted = _QUOTED.match(text)  # an id that is not a token, such as one with a space
        if quoted is not None and ours.hold(_QUOTED_PAIR.sub(r"\1", quoted[1])):
            return True
    return False


def _may_decode_to_a_name(text: str) -> bool:
    """Whether a decoder may read another first word than the text has: always, but after a word and its semicolon."""
    mark = _DECODED.search(text)
    if mark is None:
        return False
    front, semicolon, _ = text[: mark.start()].partition(";")
    return not semicolon or _FIRST_WORD.match(front) is None or _STRUCTURE.search(front) is not None


def _may_go_on(text: str, word: re.Match[str]) -> bool:
    """Whether the first word of a cut text may be longer than its visible part."""
    if word.end() == len(text):
        return True
    return '"' in text[: word.start(1)] and _QUOTED.match(text) is None


def forged_received_spf(value: bytes, receivers: Collection[str]) -> bool:
    """Whether a Received-SPF field claims to be written by us (RFC 7208, 9.1).

    It does if its ``receiver`` key or the first word of a comment, ``(name: explanation)``, is one of our names.

    :param value: the text after the colon, as received.
    :param receivers: our names, in any case, as U-labels or A-labels.
    """
    if len(value) > MAX_RECEIVED_SPF_LENGTH:
        return True
    text = value.decode("utf-8", "surrogateescape")
    plain_texts = _without_controls(text)
    if _surplus_mark(text) is not None or any(map(_ENCODED_WORD.search, (text, *plain_texts))):
        return True
    ours = _Names(receivers, ())
    seen: set[str] = set()
    for word in _receivers(plain_texts):
        if word not in seen:
            seen.add(word)
            if len(seen) > MAX_RECEIVERS or ours.hold(word):
                return True
    return False


def _receivers(plain_texts: Sequence[str]) -> Iterator[str]:
    """What could be the name of a receiver, in any reading."""
    for text in plain_texts:
        for match in _COMMENT_HEAD.finditer(text):
            yield match[1]
    for reading in _readings(plain_texts):
        for match in _RECEIVER.finditer(reading):
            yield match[1]


def _surplus_mark(text: str) -> re.Match[str] | None:
    """The first comment mark beyond `MAX_COMMENT_MARKS`."""
    return next(islice(_COMMENT_MARK.finditer(text), MAX_COMMENT_MARKS, None), None)


class _Names:
    """Our names in the one form that names are compared in."""

    __slots__ = ("_exact", "_parents")

    def __init__(self, exact: Collection[str], parents: Collection[str]) -> None:
        self._exact = {_configured(name) for name in exact}
        self._parents = [_configured(name) for name in parents]

    def hold(self, word: str) -> bool:
        """Whether a stranger's word is one of our names. A non-ASCII word too long for an honest name counts as one.

        The reason is that normalising a sequence of combining characters is quadratic in its length.
        """
        if len(word) > MAX_DOMAIN_LENGTH and not word.isascii():
            return True
        return self._hold(_comparable(word))

    def hold_plain(self, word: str) -> bool:
        """The same for a word of letters, digits, dots and hyphens, without using `Domain`."""
        return self._hold(word.strip(".").lower())

    def _hold(self, name: str) -> bool:
        return name in self._exact or any(name == parent or name.endswith("." + parent) for parent in self._parents)


def _comparable(text: str) -> str:
    """A-labels without final dot (RFC 8601, 5 asks for one form); an id that is not a domain is case folded.

    Without apostrophes around it: some readers take them for quotes.
    """
    text = unicodedata.normalize("NFKC", text).strip(". \t\r\n'")
    try:
        return Domain.parse(text).name
    except InvalidNameError:
        return text.casefold()


#: The names in the configuration never change within a worker; strangers' words are not cached.
_configured = remember("own names")(_comparable)


def _readings(plain_texts: Iterable[str]) -> Iterator[str]:
    """A text as different programs read it: with controls, comments and quoted-pairs removed in different ways.

    :param plain_texts: the text as `_without_controls` returns it.
    """
    for text in plain_texts:
        for reading in dict.fromkeys(_without_comments(text)):
            yield reading
            if "\\" in reading:
                yield _QUOTED_PAIR.sub(r"\1", reading)


def _without_controls(text: str) -> list[str]:
    """The text with controls, formats and bytes that are not UTF-8 removed, or replaced by white space; and with all
    that is not ASCII removed, as in Python's ``decode("ascii", "ignore")``."""
    readings = _without_formats(text)
    if not text.isascii():
        readings += [reading.encode("ascii", "ignore").decode() for reading in readings]
    return list(dict.fromkeys(readings))


def _without_formats(text: str) -> list[str]:
    if text.replace("\t", " ").isprintable():
        return [text]
    # One table for all: a test of every character would cost more than the rest of the reading.
    controls = {ord(character): None for character in set(text) if character != "\t" and not character.isprintable()}
    unfolded = _FOLD.sub(" ", text).replace("\t", " ")
    spaced = unfolded.translate(dict.fromkeys(controls, " "))
    closed = unfolded.translate(controls)
    joined = _FOLD.sub("", text).translate(controls | {ord("\t"): None})
    return [spaced, closed, joined]


def _without_comments(text: str) -> Iterator[str]:
    """The text without its comments, for readers with and without support for nesting and quoted-pairs."""
    if not text.lstrip().startswith("("):
        yield text
    if "(" not in text:
        return
    marks = [(mark.start(), mark[0]) for mark in _COMMENT_MARK.finditer(text)]
    for nesting in (True, False):
        for pairs in (True, False) if "\\" in text else (False,):
            kept, is_terminated = _outside_comments(text, marks, nesting=nesting, pairs=pairs)
            if not is_terminated:
                yield text  # an unterminated comment may not be one
            yield "".join(kept)
            yield " ".join(kept)


def _outside_comments(
    text: str, marks: Iterable[tuple[int, str]], *, nesting: bool, pairs: bool
) -> tuple[list[str], bool]:
    """The parts outside comments, and whether the last comment ends."""
    kept: list[str] = []
    end, depth, quoted_at = 0, 0, -1
    for at, mark in marks:
        if not depth:
            if mark == "(":
                kept.append(text[end:at])
                depth, quoted_at = 1, -1
        elif at == quoted_at:
            pass
        elif mark == "\\":
            quoted_at = at + 1 if pairs else -1
        elif mark == "(":
            depth += 1
        else:
            depth = depth - 1 if nesting else 0
            end = at + 1
    if not depth:
        kept.append(text[end:])
    return kept, not depth
