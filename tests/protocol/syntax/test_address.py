# SPDX-License-Identifier: GPL-3.0-or-later
"""Address lists: RFC 5322's grammar is read, and what two readers could read differently is refused."""

from __future__ import annotations

import re
import time
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.protocol.syntax import address
from assay.protocol.syntax.address import MAX_TOKENS, AddressFault, AddressList, HeaderMailbox, parse_addresses

JANE = HeaderMailbox("", "jane", "example.com")

READ = {
    "bare address": (b" jane@example.com", [JANE]),
    "angle brackets without a display name": (b"<jane@example.com>", [JANE]),
    "atoms as display name": (b" Jane Doe <jane@example.com>", [HeaderMailbox("Jane Doe", "jane", "example.com")]),
    "quoted display name": (b'"Doe, Jane" <jane@example.com>', [HeaderMailbox("Doe, Jane", "jane", "example.com")]),
    "address in a quoted display name": (
        b'"ceo@example.org" <jane@example.com>',
        [HeaderMailbox("ceo@example.org", "jane", "example.com")],
    ),
    "dots in a display name": (
        b"John Q. Public <jane@example.com>",
        [HeaderMailbox("John Q. Public", "jane", "example.com")],
    ),
    "quoted pair in a quoted string": (
        b'"a \\"b\\" c" <jane@example.com>',
        [HeaderMailbox('a "b" c', "jane", "example.com")],
    ),
    "quoted local part": (b'"jane doe"@example.com', [HeaderMailbox("", "jane doe", "example.com")]),
    "@ in a quoted local part": (
        b'"jane@example.org"@example.com',
        [HeaderMailbox("", "jane@example.org", "example.com")],
    ),
    "comment behind": (b"jane@example.com (Jane Doe)", [JANE]),
    "comment in front": (b"(Jane) jane@example.com", [JANE]),
    "comments nest": (b"jane@example.com (a (b) c)", [JANE]),
    "address in a comment": (b"(ceo@example.org) jane@example.com (<ceo@example.org>)", [JANE]),
    "quoted pair in a comment": (b"(a \\) b) jane@example.com", [JANE]),
    "comments around @": (b"jane (a) @ (b) example.com", [JANE]),
    "folded": (b" Jane\r\n Doe\r\n\t<jane@example.com>", [HeaderMailbox("Jane Doe", "jane", "example.com")]),
    "obsolete folding": (b" Jane\r\n \r\n <jane@example.com>", [HeaderMailbox("Jane", "jane", "example.com")]),
    "encoded word stays encoded": (
        b"=?utf-8?B?PGFAYi5jPg==?= <jane@example.com>",
        [HeaderMailbox("=?utf-8?B?PGFAYi5jPg==?=", "jane", "example.com")],
    ),
    "UTF-8 display name": ("Zoë <jane@example.com>".encode(), [HeaderMailbox("Zoë", "jane", "example.com")]),
    "UTF-8 address": ("<zoë@bücher.example>".encode(), [HeaderMailbox("", "zoë", "bücher.example")]),
    "address literal": (b"jane@[192.0.2.1]", [HeaderMailbox("", "jane", "[192.0.2.1]")]),
    "route": (b"<@example.org,@example.net:jane@example.com>", [JANE]),
    "route with empty elements": (b"<,@example.org, ,:jane@example.com>", [JANE]),
    "empty element": (b"jane@example.com, ,jane@example.com", [JANE, JANE]),
    "trailing comma": (b"jane@example.com,", [JANE]),
    "leading comma": (b",jane@example.com", [JANE]),
    "spaces around the dots": (b"jane@example . com", [JANE]),
    "spaces around @": (b"jane @ example.com", [JANE]),
    "space before a dot": (b"jane@example .com", [JANE]),
    "comment inside a domain": (b"jane@example.(x)com", [JANE]),
    "comment inside a local part": (b"jane(x).doe@example.com", [HeaderMailbox("", "jane.doe", "example.com")]),
    "dot behind the domain": (b"<jane@example.com.>", [JANE]),
    "dot before @": (b"jane.@example.com", [HeaderMailbox("", "jane.", "example.com")]),
    "two dots before @": (b"ja..ne@example.com", [HeaderMailbox("", "ja..ne", "example.com")]),
    "dot first": (b".jane@example.com", [HeaderMailbox("", ".jane", "example.com")]),
    "quoted string and atom as local part": (
        b'"jane".doe@example.com',
        [HeaderMailbox("", "jane.doe", "example.com")],
    ),
    "every atext character": (
        b"a!#$%&'*+-/=?^_`{|}~@example.com",
        [HeaderMailbox("", "a!#$%&'*+-/=?^_`{|}~", "example.com")],
    ),
    "two addresses": (b"jane@example.com, Bob <bob@example.com>", [JANE, HeaderMailbox("Bob", "bob", "example.com")]),
    "look-alike inside quotes": (
        '"ceo＠example.org" <jane@example.com>'.encode(),
        [HeaderMailbox("ceo＠example.org", "jane", "example.com")],
    ),
}


@pytest.mark.parametrize(("value", "mailboxes"), READ.values(), ids=READ)
def test_is_read(value: bytes, mailboxes: list[HeaderMailbox]) -> None:
    assert parse_addresses(value) == AddressList(tuple(mailboxes))


GROUPS = {
    "empty group": (b"Undisclosed recipients:;", (), ("Undisclosed recipients",)),
    "group with white space only": (b"a: ;", (), ("a",)),
    "group with a mailbox": (b"Team: jane@example.com;", (JANE,), ("Team",)),
    "group with two mailboxes": (b"Team: jane@example.com, <jane@example.com>;", (JANE, JANE), ("Team",)),
    "group with empty elements": (b"a: , ,;", (), ("a",)),
    "group with an empty element": (b"Team: jane@example.com,,;", (JANE,), ("Team",)),
    "group between mailboxes": (b"jane@example.com, a:;, <jane@example.com>", (JANE, JANE), ("a",)),
}


@pytest.mark.parametrize(("value", "mailboxes", "groups"), GROUPS.values(), ids=GROUPS)
def test_group_is_read(value: bytes, mailboxes: tuple[HeaderMailbox, ...], groups: tuple[str, ...]) -> None:
    assert parse_addresses(value) == AddressList(mailboxes, groups)


REFUSED = {
    "nothing": (b"", "no address"),
    "white space": (b" \r\n ", "no address"),
    "comment only": (b" (jane@example.com)", "no address"),
    "no @": (b"jane", "address without @"),
    "empty brackets": (b"<>", "no @ between < and >"),
    "display name only in brackets": (b"<jane>", "no @ between < and >"),
    "no local part": (b"@example.com", "address without a local part"),
    "no domain": (b"jane@", "address without a domain"),
    "no domain in brackets": (b"<jane@>", "address without a domain"),
    "two @": (b"jane@example.com@example.org", "text after an address"),
    "address as display name": (b"ceo@example.org <jane@example.com>", "text after an address"),
    "address after an address": (b"<jane@example.com>ceo@example.org", "text after an address"),
    "two brackets": (b"<ceo@example.org> <jane@example.com>", "text after an address"),
    "brackets in brackets": (b"<<jane@example.com>>", "no @ between < and >"),
    "bracket not closed": (b"<jane@example.com", "no > after an address"),
    "bracket not opened": (b"jane@example.com>", "text after an address"),
    "two domains by white space": (b"<jane@example.com example.org>", "text after an address"),
    "semicolon as separator": (b"jane@example.com;bob@example.com", "text after an address"),
    "two dots": (b"jane@example..com", "misplaced dot in a domain"),
    "two words before @": (b"jane doe@example.com", "local part of several words"),
    "quoted string and atom before @": (b'"jane"doe@example.com', "local part of several words"),
    "@ in a word of a local part": (
        b'"jane@example.org".doe@example.com',
        "local part with an @ or a quoted pair in one of its words",
    ),
    "nothing but dots before @": (b"..@example.com", "address without a local part"),
    "unterminated route": (b"<@example.org;jane@example.com>", "unterminated route"),
    "space in a domain that could end there": (
        b"jane@example.com .example.org",
        "white space or comment after a domain that could end there",
    ),
    "comment in a domain that could end there": (
        b"jane@example.com(x).example.org",
        "white space or comment after a domain that could end there",
    ),
    "quoted pair beside an atom": (
        b'"CEO\\" <ceo@example.org> "\' <jane@example.com>',
        "quoted pair in a display name of several words",
    ),
    "quoted pair beside a quoted string": (
        b'"CEO\\" <ceo@example.org> " "x" <jane@example.com>',
        "quoted pair in a display name of several words",
    ),
    "quoted domain": (b'jane@"example.com"', "quoted string in a domain"),
    "display name that starts with a dot": (b". Jane <jane@example.com>", "display name that starts with a dot"),
    "backslash outside quotes": (b"<jane@example.com>\\,<bob@example.com>", "backslash outside quotes"),
    "backslash in brackets": (b"<jane\\@example.org@example.com>", "backslash outside quotes"),
    "unclosed quote": (b'"Jane <jane@example.com>', "unterminated quoted string"),
    "escaped closing quote": (b'"Jane\\" <jane@example.com>', "unterminated quoted string"),
    "unclosed comment": (b"jane@example.com (Jane", "unterminated comment"),
    "escaped closing parenthesis": (b"jane@example.com (Jane\\)", "unterminated comment"),
    "unopened comment": (b"jane@example.com Jane)", "misplaced special character"),
    "comment that swallows the bracket": (b"<jane@example.com(>example.org", "unterminated comment"),
    "broken literal": (b"jane@[192.0.2.1", "broken address literal"),
    "literal followed by text": (b"jane@[192.0.2.1]example.com", "text after an address"),
    "group without a name": (b":jane@example.com;", "group without a name"),
    "unterminated group": (b"Team: jane@example.com", "unterminated group"),
    "group in a group": (b"a: b: jane@example.com;;", "address without @"),
    "encoded word alone": (b"=?utf-8?B?PGphbmVAZXhhbXBsZS5jb20+?=,<bob@example.com>", "address without @"),
    "encoded word as local part": (b"=?utf-8?Q?ceo=40example.org?=@example.com", "encoded word inside an address"),
    "encoded word with a dot": (b"=?utf-8?Q?ceo=40example.org?=.x@example.com", "encoded word inside an address"),
    "encoded word in quotes": (b'"=?utf-8?Q?ceo=40example.org?="@example.com', "encoded word inside an address"),
    "encoded word as domain": (b"jane@=?utf-8?Q?example?=", "encoded word inside an address"),
    "NUL": (b"jane@example.com\x00@example.org", "control character"),
    "NUL in quotes": (b'"\x00" <jane@example.com>', "control character"),
    "DEL": (b"jane\x7f@example.com", "control character"),
    "bare CR": (b"jane@example.com\r", "control character"),
    "bare LF": (b"jane@example.com\n bob", "control character"),
    "CRLF before no white space": (b"jane@example.com,\r\nbob@example.com", "control character"),
    "CR CRLF": (b"jane@example.com\r\r\n ", "control character"),
    "escaped control character": (b'"\\\x01"@example.com', "control character"),
    "C1 control": ("a\x85 <jane@example.com>".encode(), "control character"),
    "line separator": ("a\u2028 <jane@example.com>".encode(), "control character"),
    "Latin-1": (b"Zo\xeb <jane@example.com>", "8-bit bytes that are not UTF-8"),
    "overlong UTF-8": (b"jane\xc1\x80example.org <jane@example.com>", "8-bit bytes that are not UTF-8"),
    "full-width @ in a local part": ("ceo＠example.org@example.com".encode(), "character that looks like @, < or >"),
    "full-width @ in a display name": (
        "ceo＠example.org <j@example.com>".encode(),
        "character that looks like @, < or >",
    ),
    "full-width < in a display name": ("＜ceo <j@example.com>".encode(), "character that looks like @, < or >"),
    "too long": (b"a" * (address.MAX_LENGTH + 1), f"longer than {address.MAX_LENGTH} octets"),
    "too many": (b"a@b," * address.MAX_MAILBOXES + b"a@b", f"more than {address.MAX_MAILBOXES} addresses"),
    "comments too deep": (b"(" * 33 + b")" * 33 + b"a@b", "comments nested deeper than 32"),
}


@pytest.mark.parametrize(("value", "reason"), REFUSED.values(), ids=REFUSED)
def test_is_refused(value: bytes, reason: str) -> None:
    assert parse_addresses(value) == AddressFault(reason)


def test_limits_are_inclusive() -> None:
    many = parse_addresses(b",".join([b"jane@example.com"] * address.MAX_MAILBOXES))
    assert many == AddressList((JANE,) * address.MAX_MAILBOXES)
    depth = address.MAX_COMMENT_DEPTH
    assert parse_addresses(b"(" * depth + b")" * depth + b"jane@example.com") == AddressList((JANE,))
    assert isinstance(parse_addresses(b"jane@example.com".ljust(address.MAX_LENGTH)), AddressList)


def test_lookalikes_are_all_that_unicode_has() -> None:
    characters = (chr(code) for code in range(0x80, 0x110000) if not 0xD800 <= code < 0xE000)
    normalised = {one for one in characters if re.search("[@<>]", unicodedata.normalize("NFKC", one))}
    read = {one for one in normalised if isinstance(parse_addresses(f"a{one} <a@b>".encode()), AddressList)}
    assert normalised
    assert not read


#: Bytes that the grammar gives a meaning to, so that random values are more than noise.
PIECES = [b"a", b"jane", b"example.com", b"=?utf-8?Q?a?=", "ü".encode(), "＠".encode(), b"\xff", b" ", b"\r\n "]
PIECES += [bytes([one]) for one in b'@<>,;:."\\()[]\0\r\n']
SYNTAX = st.lists(st.sampled_from(PIECES), max_size=30).map(b"".join)


@settings(deadline=None)  # a shared machine may pause anywhere
@given(st.one_of(st.binary(max_size=200), SYNTAX))
def test_never_raises(value: bytes) -> None:
    parsed = parse_addresses(value)
    assert isinstance(parsed, AddressList) or parsed.reason


WORD = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=12)
ATOM = st.text("abcXYZ019!#$%&'*+-/^_`{|}~", min_size=1, max_size=8)


@settings(deadline=None)  # a shared machine may pause anywhere
@given(st.lists(st.tuples(WORD, WORD, st.lists(ATOM, min_size=1, max_size=3)), min_size=1, max_size=4))
def test_what_was_written_well_comes_back(people: list[tuple[str, str, list[str]]]) -> None:
    def quoted(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    value = ",\r\n ".join(f"{quoted(name)} <{quoted(local)}@{'.'.join(labels)}>" for name, local, labels in people)
    expected = AddressList(tuple(HeaderMailbox(name, local, ".".join(labels)) for name, local, labels in people))
    if "=?" not in value:  # an encoded word in a local part is refused
        assert parse_addresses(value.encode()) == expected


SIZE = 65_536
HOSTILE = {
    "open comments": b"(",
    "comments": b"()",
    "quotes": b'""',
    "open brackets": b"<",
    "literals": b"[",
    "dots": b"a.",
    "words": b"a ",
    "at signs": b"@",
    "addresses": b"a@b,",
    "backslashes": b"\\",
    "quoted backslashes": b'"\\',
    "encoded words": b"=?a?b?",
    "folds": b"\r\n ",
    "combining marks": "\u0315\u0300\u05ae".encode(),
    "ligatures": "ﷺ".encode(),
}


@pytest.mark.parametrize("piece", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("tail", [b"", b" <jane@example.com>", b"@example.com"], ids=["alone", "named", "local"])
def test_time_is_linear(piece: bytes, tail: bytes) -> None:
    normal = b"Jane Doe (x) <jane@example.com>, " * (SIZE // 33)

    def seconds(value: bytes) -> float:
        start = time.perf_counter()
        parse_addresses(value)
        return time.perf_counter() - start

    hostile = piece * (SIZE // len(piece)) + tail
    allowed = 50 * max(min(seconds(normal) for _ in range(3)), 0.001)
    assert min(seconds(hostile) for _ in range(3)) < allowed


@pytest.mark.parametrize("unit", [b"a ", b"(a) ", b"@ "])
def test_a_field_of_too_many_words_is_not_read(unit: bytes) -> None:
    assert parse_addresses(unit * MAX_TOKENS) == AddressFault(f"more than {MAX_TOKENS} words")
