# SPDX-License-Identifier: GPL-3.0-or-later
r"""Address lists of a header field (RFC 5322, 3.4), read byte by byte, as far as all programs read them alike.

The verifier of a message and the program that shows it must see the same author (J. Chen, V. Paxson, J. Jiang,
"Composition Kills", 2020). This parser accepts the grammar of RFC 5322, section 3, with UTF-8 (RFC 6532) and with
groups (RFC 6854); the obsolete syntax of section 4: routes, empty list elements, dots in a display name, white space
and comments around the dots of an address; and two forms that the RFC never had and every program shows: dots anywhere
in a local part, and a final dot after a domain. All else is an `AddressFault`, and `assay.protocol.syntax.readings`
finds what it could be read as:

- an ``@`` outside quotes in a display name, text after ``>``, a backslash outside quotes and comments;
- a quoted string with a quoted pair beside other words of a display name: Sendmail quotes the whole again, and turns
  ``"A\" <b@c> "' <d@e>`` into ``"\"A\\" <b@c> \"'" <d@e>``;
- white space or a comment inside a domain, after what is already a whole domain (``b.example .c.example``);
- control characters, bare CR or LF, NUL, bytes that are not UTF-8;
- encoded words (RFC 2047) inside an address. In a display name they are kept unchanged: nothing is ever decoded;
- characters that become ``@``, ``<`` or ``>`` under compatibility normalisation (U+FF20 for example) outside quotes.

Invariants: never raises; time linear in the length of the value; an `AddressFault` quotes nothing of the value. The
domain is as written, without comments, white space and final dot: whether it is a domain name is for the caller to
check.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from msgspec import Struct

MAX_LENGTH = 102_400  # octets of a field's value; Postfix's default header_size_limit
#: Words, specials, comments and the white space between them; our choice: a hundred long addresses have two thousand.
MAX_TOKENS = 5000
MAX_MAILBOXES = 100  # our choice: bounds memory; RFC 5322 sets no limit, and a From field rarely has two
MAX_COMMENT_DEPTH = 32  # our choice: real mail does not nest comments, but RFC 5322, 3.2.2 allows it


class HeaderMailbox(Struct, frozen=True):
    """One mailbox of a header field (RFC 5322, 3.4).

    `display_name` has its quotes removed and its words separated by one space; encoded words are not decoded.
    `local_part` is unquoted. `domain` is as written, without a final dot: a domain in A-labels or U-labels, or an
    address literal in its brackets.
    """

    display_name: str
    local_part: str
    domain: str


class AddressList(Struct, frozen=True):
    """An address-list: all `mailboxes` from left to right, those in groups too, and the names of the `groups`."""

    mailboxes: tuple[HeaderMailbox, ...]
    groups: tuple[str, ...] = ()


class AddressFault(Struct, frozen=True):
    """Why a value is not an address-list, in words for a postmaster."""

    reason: str


def parse_addresses(value: bytes) -> AddressList | AddressFault:
    """Read the value of a From, Sender, To or similar field.

    :param value: the field's value as it was in the message, folded with CRLF.
    :returns: the addresses, or why they cannot be determined for certain (RFC 5322, 3.4, 3.6.2 and 4.4).
    """
    simple = _SIMPLE.fullmatch(value)
    if simple is not None and len(value) <= MAX_LENGTH:
        return _simple(*simple.groups())
    if len(value) > MAX_LENGTH:
        return AddressFault(f"longer than {MAX_LENGTH} octets")
    if _CONTROL.search(value):
        return AddressFault("control character")
    if not value.isascii():
        try:
            text = value.decode("utf-8")
        except UnicodeDecodeError:
            # In GBK, Shift_JIS and others a byte of a character can be "@" or a backslash: readers that guess
            # another charset see other addresses.
            return AddressFault("8-bit bytes that are not UTF-8")
        if _WIDE_CONTROL.search(text):
            return AddressFault("control character")
    try:
        return _Parser(tuple(_tokens(value.replace(b"\r\n", b"")))).address_list()
    except _SyntaxFault as fault:
        return AddressFault(str(fault))


#: What no field may contain: control characters (obsolete syntax: RFC 5322, 4.1), and CR or LF
#: other than in CRLF before white space (RFC 5322, 2.2.3).
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n[ \t])|(?<!\r)\n")
#: C1 controls and the line separators of Unicode: some libraries break lines there.
_WIDE_CONTROL = re.compile("[\x80-\x9f\u2028\u2029]")

#: RFC 5322, 3.2.3 atext, and RFC 6532, 3.2 UTF8-non-ascii. Possessive quantifiers: hostile input cannot backtrack.
_TOKEN = re.compile(
    rb"""(?P<space>[ \t]++)
    |(?P<atom>[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\xff-]++)
    |(?P<quoted>"(?>(?:[^"\\]++|\\.)*)")
    |(?P<literal>\[[^][\\]*+\])
    |(?P<special>[<>@,;:.])
    |(?P<comment>\()""",
    re.VERBOSE | re.DOTALL,
)
_COMMENT_EDGE = re.compile(rb"\\.|[()]", re.DOTALL)
_QUOTED_PAIR = re.compile(rb"\\(.)", re.DOTALL)
_ENCODED_WORD = re.compile(rb"=\?[^?]*+\?[^?]*+\?[^?]*+\?=")

#: What nearly every From field is: one mailbox in ASCII, without folding, comments, backslashes or encoded words in
#: its address, with a display name of atoms and dots or of one quoted string. It is read in one step; `_Parser` reads
#: all the rest, and would read this with the same result.
_SIMPLE = re.compile(
    rb"""[ ]*+
    (?>(?:(?:(?P<words>[A-Za-z0-9!#$%&'*+/=?^_`{|}~-][A-Za-z0-9!#$%&'*+/=?^_`{|}~. -]*+)
    |"(?P<quoted>[ !\x23-\x5b\x5d-\x7e]*+)")
    [ ]*+(?=<))?)
    (?P<open><)?+
    (?P<local>[A-Za-z0-9!#$%&'*+/^_`{|}~-]++(?>(?:\.[A-Za-z0-9!#$%&'*+/^_`{|}~-]++)*))
    @(?P<domain>[A-Za-z0-9_-]++(?>(?:\.[A-Za-z0-9_-]++)*))
    (?(open)>)[ ]*+""",
    re.VERBOSE,
)

#: All characters that are "@", "<" or ">" under NFKC. Normalising the text itself would be quadratic in its length.
LOOKALIKE = re.compile("[\ufe64\ufe65\ufe6b\uff1c\uff1e\uff20]")

_STRAY = {b'"': "unterminated quoted string", b"[": "broken address literal", b"\\": "backslash outside quotes"}


def _simple(words: bytes | None, quoted: bytes | None, _: bytes | None, local: bytes, domain: bytes) -> AddressList:
    """The address that `_SIMPLE` matched."""
    name = quoted if words is None else b" ".join(words.split())
    mailbox = HeaderMailbox((name or b"").decode(), local.decode(), domain.decode())
    return AddressList((mailbox,))


class _SyntaxFault(Exception):  # noqa: N818 - it never leaves this module
    """Where reading ends."""


class _Token(NamedTuple):
    """A word or a special. `glued` is whether it directly follows the one before, without white space or a comment."""

    kind: str
    text: bytes
    glued: bool


_END = _Token("end", b"", False)


def _tokens(value: bytes) -> Iterator[_Token]:
    """Split an unfolded value into words and specials; white space and comments only show in `glued`."""
    at, glued, left = 0, False, MAX_TOKENS
    while at < len(value):
        left -= 1
        if left < 0:
            raise _SyntaxFault(f"more than {MAX_TOKENS} words")
        match = _TOKEN.match(value, at)
        if match is None:
            raise _SyntaxFault(_STRAY.get(value[at : at + 1], "misplaced special character"))
        kind = str(match.lastgroup)
        if kind == "comment":
            at = _comment_end(value, match.end())
            glued = False
            continue
        at = match.end()
        if kind == "space":
            glued = False
            continue
        yield _Token(kind, match[0], glued)
        glued = True


def _comment_end(value: bytes, at: int) -> int:
    """Where the comment ends whose "(" is just before `at` (RFC 5322, 3.2.2: comments nest)."""
    depth = 1
    for edge in _COMMENT_EDGE.finditer(value, at):
        if edge[0] == b"(":
            depth += 1
            if depth > MAX_COMMENT_DEPTH:
                raise _SyntaxFault(f"comments nested deeper than {MAX_COMMENT_DEPTH}")
        elif edge[0] == b")":
            depth -= 1
            if not depth:
                return edge.end()
    raise _SyntaxFault("unterminated comment")


class _Parser:
    """The grammar of RFC 5322, 3.4 over tokens; each token is read once."""

    __slots__ = ("_at", "_groups", "_mailboxes", "_tokens")

    def __init__(self, tokens: tuple[_Token, ...]) -> None:
        self._tokens = tokens
        self._at = 0
        self._mailboxes: list[HeaderMailbox] = []
        self._groups: list[str] = []

    def address_list(self) -> AddressList:
        """address-list = (address *("," address)) / obs-addr-list; address = mailbox / group."""
        while True:
            self._skip_commas()
            if self._peek() is _END:
                break
            self._address()
            if self._peek() is not _END and self._peek().text != b",":
                raise _SyntaxFault("text after an address")
        if not self._mailboxes and not self._groups:
            raise _SyntaxFault("no address")
        return AddressList(tuple(self._mailboxes), tuple(self._groups))

    def _address(self) -> None:
        words = self._words()
        if self._peek().text != b":":
            self._mailbox(words)
            return
        self._next()
        self._groups.append(_phrase(words, "group without a name"))
        while True:
            self._skip_commas()  # RFC 5322, 3.4: a group may be empty; 4.4 obs-group-list: or have only commas
            if self._peek().text == b";":
                self._next()
                return
            self._mailbox(self._words())
            token = self._peek()
            if token.text not in (b",", b";"):
                raise _SyntaxFault("unterminated group" if token is _END else "text after an address in a group")

    def _skip_commas(self) -> None:
        """RFC 5322, 4.4 obs-mbox-list and obs-addr-list: elements may be empty."""
        while self._peek().text == b",":
            self._at += 1

    def _mailbox(self, words: list[_Token]) -> None:
        """mailbox = name-addr / addr-spec, of which `words` have already been read."""
        if len(self._mailboxes) >= MAX_MAILBOXES:
            raise _SyntaxFault(f"more than {MAX_MAILBOXES} addresses")
        token = self._next()
        if token.text == b"@":
            self._mailboxes.append(HeaderMailbox("", _local_part(words), self._domain()))
        elif token.text == b"<":
            display_name = _phrase(words, "") if words else ""
            self._skip_route()
            words = self._words()
            if self._next().text != b"@":
                raise _SyntaxFault("no @ between < and >")
            self._mailboxes.append(HeaderMailbox(display_name, _local_part(words), self._domain()))
            if self._next().text != b">":
                raise _SyntaxFault("no > after an address")
        elif words:
            raise _SyntaxFault("address without @")
        else:
            raise _SyntaxFault("unterminated group" if token is _END else "empty address")

    def _skip_route(self) -> None:
        """obs-route = obs-domain-list ":" (RFC 5322, 4.4), which SHOULD be ignored."""
        if self._peek().text not in (b"@", b","):
            return
        while (token := self._next()).text != b":":
            if token.text == b"@":
                self._domain()
            elif token.text != b",":
                raise _SyntaxFault("unterminated route")

    def _domain(self) -> str:
        """domain = dot-atom / domain-literal / obs-domain (RFC 5322, 3.4.1 and 4.4)."""
        if self._peek().kind == "literal":
            return self._next().text.decode()
        words = self._words()
        if not words:
            raise _SyntaxFault("address without a domain")
        if any(word.kind == "quoted" for word in words):
            raise _SyntaxFault("quoted string in a domain")
        return _domain_of(words).decode()

    def _words(self) -> list[_Token]:
        """The run of atoms, quoted strings and dots that starts here."""
        start = self._at
        while self._peek().kind in ("atom", "quoted") or self._peek().text == b".":
            self._at += 1
        return list(self._tokens[start : self._at])

    def _peek(self) -> _Token:
        return self._tokens[self._at] if self._at < len(self._tokens) else _END

    def _next(self) -> _Token:
        token = self._peek()
        self._at += 1
        return token


def _phrase(words: list[_Token], fault: str) -> str:
    """phrase (RFC 5322, 3.2.5), with the dots of obs-phrase, which must not come first."""
    if not words or words[0].text == b".":
        raise _SyntaxFault(fault or "display name that starts with a dot")
    parts: list[bytes] = []
    for word in words:
        if word.kind == "atom":
            _refuse_lookalikes(word.text)
        elif len(words) > 1 and b"\\" in word.text:
            raise _SyntaxFault("quoted pair in a display name of several words")
        if parts and not word.glued:
            parts.append(b" ")
        parts.append(_unquote(word.text) if word.kind == "quoted" else word.text)
    return b"".join(parts).decode()


def _local_part(words: list[_Token]) -> str:
    """local-part = dot-atom / quoted-string / obs-local-part (RFC 5322, 3.4.1 and 4.4), with dots anywhere."""
    parts: list[bytes] = []
    follows_dot = True
    for word in words:
        is_dot = word.kind == "special"
        if not is_dot and not follows_dot:
            raise _SyntaxFault("local part of several words")
        follows_dot = is_dot
        if word.kind == "atom":
            _refuse_lookalikes(word.text)
        elif len(words) > 1 and (b"@" in word.text or b"\\" in word.text):
            raise _SyntaxFault("local part with an @ or a quoted pair in one of its words")
        parts.append(_unquote(word.text) if word.kind == "quoted" else word.text)
    if all(word.kind == "special" for word in words):
        raise _SyntaxFault("address without a local part")
    return _refuse_encoded_word(b"".join(parts)).decode()


def _domain_of(words: list[_Token]) -> bytes:
    """dot-atom-text (RFC 5322, 3.2.3) or obs-domain (4.4): atoms with single dots between them, maybe a final one."""
    is_whole = False
    for position, word in enumerate(words):
        if position and not word.glued:
            if word.kind == "atom" and words[position - 1].kind == "atom":
                raise _SyntaxFault("text after an address")
            if is_whole:  # for a program that stops reading there
                raise _SyntaxFault("white space or comment after a domain that could end there")
        if word.kind != ("special" if position % 2 else "atom"):
            raise _SyntaxFault("misplaced dot in a domain")
        if word.kind == "atom":
            _refuse_lookalikes(word.text)
            is_whole = position > 0
    if len(words) % 2 == 0:
        words = words[:-1]
    return _refuse_encoded_word(b"".join(word.text for word in words))


def _refuse_encoded_word(part: bytes) -> bytes:
    """The same part of an address; refuse an encoded word in it: some readers decode them even there."""
    if _ENCODED_WORD.search(part):  # RFC 2047, 5 (3): not within an addr-spec, nor within a quoted string
        raise _SyntaxFault("encoded word inside an address")
    return part


def _refuse_lookalikes(atom: bytes) -> None:
    """Refuse what a reader that normalises (NFKC) would take for the syntax of another address."""
    if not atom.isascii() and LOOKALIKE.search(atom.decode()):
        raise _SyntaxFault("character that looks like @, < or >")


def _unquote(quoted: bytes) -> bytes:
    inner = quoted[1:-1]
    return _QUOTED_PAIR.sub(rb"\1", inner) if b"\\" in inner else inner
