# SPDX-License-Identifier: GPL-3.0-or-later
"""Replace the local parts of the addresses in a text that may be anything: a trace field, a Subject, a name.

The text is read as words, quoted strings, comments and specials (RFC 5322, 3.2), and the words before each "@" are its
local part. Two programs may read a stray quote, an open comment or a backslash in two ways, and in one of them another
word is the local part. So what is not clear is not guessed: then there is no result, and the caller shows nothing.

Total, and the time is linear in the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

#: What separates a local part from a domain. Some programs take two other characters for it.
AT = re.compile("[@\ufe6b\uff20]")

#: A word is a run of what is neither white space nor a special (RFC 5322, 3.2.3). Controls and spaces of Unicode are in
#: a malformed local part, and so is a backslash, if nothing special follows it.
_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n]++)
    |(?P<quoted>"(?>(?:[^"\\]++|\\.)*)")
    |(?P<at>[@\ufe6b\uff20])
    |(?P<open>\()
    |(?P<special>[)<>\[\]:;,])
    |(?P<word>(?>(?:[^ \t\r\n()<>\[\]:;@,"\\\ufe6b\uff20]++|\\(?=[^ \t\r\n()<>\[\]:;@,"\\\ufe6b\uff20]))+))""",
    re.VERBOSE | re.DOTALL,
)
_COMMENT_EDGE = re.compile(r"\\.|[()]", re.DOTALL)
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)
#: The name of a tag or property before an address. Other text before a "=" is part of the local part.
_KEY = re.compile(
    r"(?:i|s|rs|ra|(?:header|smtp|body|policy)\.[a-z-]+|envelope-from|identity|mailfrom|sender|helo)=", re.IGNORECASE
)
#: In a comment, as in ``(Client CN "mail.example", Issuer "R3")``.
_PLAIN_STRING = re.compile(r'(?<=[ \t\r\n(=,;])"[^"()\\@]*+"(?=[ \t\r\n,;)])')
#: What seems to be a quoted string is what comes after one: the first quote is the last of a local part.
_SHIFTED = re.compile("[ \t\r\n]*+[.(@\ufe6b\uff20]")
_GAP = ("space", "comment")  # what may stand between the parts of an address (RFC 5322, 4.4)
_WORDS = ("word", "quoted")


class _UnclearError(Exception):
    """What the local part is depends on who reads it."""


class _Token:
    """A piece of the text: its kind, and how it is shown."""

    __slots__ = ("kind", "text")

    def __init__(self, kind: str, text: str) -> None:
        self.kind = kind
        self.text = text

    def become(self, text: str) -> None:
        """Show something else, which is not looked at again."""
        self.kind, self.text = "done", text


def replace_local_parts(text: str, replace: Callable[[str], str]) -> str | None:
    """A text with other local parts. Comments inside an address are left out.

    :param replace: gets a local part, without its quotes.
    :returns: None if it is not clear what the local parts are.
    """
    try:
        return _replaced(text, replace)
    except _UnclearError:
        return None


def _replaced(text: str, replace: Callable[[str], str], within: str = "") -> str:
    """:param within: it is in a ``comment`` or a ``quoted`` string, where comments and quotes make it unclear."""
    if not AT.search(text):
        return text
    tokens = list(_tokens(text))
    if within and any(token.kind in ("comment", "quoted") or token.text == ")" for token in tokens):
        raise _UnclearError
    for number, token in enumerate(tokens):
        if token.kind == "at":
            _replace_before(tokens, number, replace, within)
    previous = _Token("space", "")
    for token in tokens:
        if token.kind == "comment":
            token.become(f"({_replaced(token.text[1:-1], replace, 'comment')})")
        elif previous.kind == "quoted" and token.kind in _WORDS:  # the quote before may be the first of another pair
            raise _UnclearError
        elif token.kind == "quoted" and AT.search(token.text):
            if previous.kind == "word" and not previous.text.endswith("="):
                raise _UnclearError
            token.text = f'"{_replaced(token.text[1:-1], replace, "quoted")}"'
        previous = token
    return "".join([token.text for token in tokens])


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:  # a quote without another, or a backslash before a special
            raise _UnclearError
        kind, start, at = str(match.lastgroup), at, match.end()
        if kind == "open":
            kind, at = "comment", _comment_end(text, at)
            # A quote may be the first of a pair, and what seems to end the comment between the two.
            if '"' in _PLAIN_STRING.sub("", text[start:at]):
                raise _UnclearError
        elif kind == "quoted" and _SHIFTED.match(text, start + 1) and AT.search(text, start, at):
            raise _UnclearError
        yield _Token(kind, text[start:at])


def _comment_end(text: str, at: int) -> int:
    """Where the comment ends whose "(" is just before `at` (RFC 5322, 3.2.2: comments nest)."""
    depth = 1
    for edge in _COMMENT_EDGE.finditer(text, at):
        depth += {"(": 1, ")": -1}.get(edge[0], 0)
        if not depth:
            return edge.end()
    raise _UnclearError


def _replace_before(tokens: list[_Token], at: int, replace: Callable[[str], str], within: str) -> None:
    """Replace the local part before an "@", if it has one.

    :param at: the number of its token.
    """
    last = _before_gap(tokens, at)
    if last < 0:
        return
    if tokens[last].text in (")", ">", "]"):
        raise _UnclearError
    if tokens[last].kind not in _WORDS:
        return
    first = last
    while (before := _joined(tokens, first)) >= 0:
        first = before
    if within and tokens[first].text.startswith("."):  # so there is a word before it, which some program sees
        raise _UnclearError
    words = [token.text for token in tokens[first : last + 1] if token.kind in _WORDS]
    key = _KEY.match(words[0])
    name = key[0] if key else ""
    words[0] = words[0][len(name) :]
    local_part = _unquoted(words[0]) if len(words) == 1 else "".join(words)
    for token in tokens[first : last + 1]:
        token.become("")
    for token in tokens[last + 1 : at]:
        if token.kind == "comment":
            token.become("")
    tokens[first].become(name + (replace(local_part) if local_part else ""))


def _before_gap(tokens: list[_Token], number: int) -> int:
    """The number of the last token before another that is neither white space nor a comment; -1 for none."""
    number -= 1
    while number >= 0 and tokens[number].kind in _GAP:
        number -= 1
    return number


def _joined(tokens: list[_Token], number: int) -> int:
    """The word before a word that is part of the same local part (RFC 5322, 4.4, obs-local-part); -1 for none."""
    before = _before_gap(tokens, number)
    if before < 0 or tokens[before].kind not in _WORDS:
        return -1
    if before == number - 1:  # a word and a quoted string
        return -1 if _KEY.fullmatch(tokens[before].text) else before
    return before if tokens[before].text.endswith(".") or tokens[number].text.startswith(".") else -1


def _unquoted(word: str) -> str:
    return _QUOTED_PAIR.sub(r"\1", word[1:-1]) if word.startswith('"') else word
