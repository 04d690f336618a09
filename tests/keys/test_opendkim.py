# SPDX-License-Identifier: GPL-3.0-or-later
"""OpenDKIM's tables: which row signs for which address, and what is wrong with a table."""

from __future__ import annotations

import re

import pytest

from assay.keys.opendkim import (
    DataSet,
    LoadedKey,
    SigningTable,
    TableError,
    data_set,
    entries,
    files_for,
    key_rows,
    matches,
    signing_rows,
)
from assay.model.name import parse_mailbox
from assay.protocol import dkim
from signing import ed25519_key, rsa_key

KEY_TABLE = """
# name            domain:selector:path
org               example.org:r2026:/keys/org.private
net               example.net:n2026:/keys/net.private   # a comment
any               %:all:/keys/%/all.private
bücher.example    bücher.example:u1:./u1.private
example.com       example.com:c1:../c1.private
"""


def table(kind: DataSet, rows: str, *, all_matches: bool = False) -> SigningTable:
    keys = key_rows(entries(DataSet.FILE, "KeyTable", KEY_TABLE))
    of = {"any": {"example.org": rsa_key(), "xn--bcher-kva.example": rsa_key()}}
    loaded = {name: LoadedKey(row, of.get(name, {None: rsa_key()})) for name, row in keys.items()}
    read = signing_rows(kind, list(entries(kind, "SigningTable", rows)), loaded)
    return SigningTable(kind, read, loaded, dkim.DEFAULT_SIGNING_RULES, all_matches=all_matches)


def found(one: SigningTable, address: str) -> list[str]:
    """``PLACE d=/s= i=`` of each signatory."""
    return [
        f"{each.place} {each.domain}/{each.keys[0].selector} {each.identity}".strip()
        for each in one.find(parse_mailbox(address))
    ]


PATTERNS = """\
joe@example.org       net:joe@example.org
*@example.org         org:@%
*@*.example.org       org:@%
*@EXAMPLE.com         %
*@bücher.example      any:@lists.%
info@*                org:info@other.example
*                     net
"""


@pytest.mark.parametrize(
    ("address", "signer"),
    [
        ("joe@example.org", "SigningTable:1 example.net/n2026"),  # its i= is not below d=, so there is none
        ("ann@Example.ORG", "SigningTable:2 example.org/r2026 @example.org"),
        ("ann@a.b.example.org", "SigningTable:3 example.org/r2026 @a.b.example.org"),
        ("ann@example.com", "SigningTable:4 example.com/c1"),
        ("ann@xn--bcher-kva.example", "SigningTable:5 xn--bcher-kva.example/all @lists.xn--bcher-kva.example"),
        ("info@anywhere.example", "SigningTable:6 example.org/r2026"),
        ("ann@anywhere.example", "SigningTable:7 example.net/n2026"),
    ],
)
def test_patterns_are_tried_in_their_order(address: str, signer: str) -> None:
    assert found(table(DataSet.PATTERNS, PATTERNS), address) == [signer]


NARROW = """\
*                  net
ann@*              net
.example.org       org
example.org        org
ann@.example.org   org
ann@example.org    org:@%
.org               net
"""


@pytest.mark.parametrize(
    ("address", "line"),
    [
        ("ann@example.org", 6),
        ("bob@example.org", 4),
        ("ann@a.b.example.org", 5),
        ("bob@a.b.example.org", 3),
        ("bob@other.org", 7),
        ("ann@example.com", 2),
        ("bob@example.com", 1),
    ],
)
def test_other_keys_count_by_how_narrow_they_are(address: str, line: int) -> None:
    assert [one.partition(" ")[0] for one in found(table(DataSet.FILE, NARROW), address)] == [f"SigningTable:{line}"]


def test_all_matches_sign_if_the_operator_wants_several_signatures() -> None:
    one = table(DataSet.PATTERNS, PATTERNS, all_matches=True)
    assert [each.partition(" ")[0][-1] for each in found(one, "joe@example.org")] == ["1", "2", "7"]
    one = table(DataSet.FILE, NARROW, all_matches=True)
    assert [each.partition(" ")[0][-1] for each in found(one, "ann@a.example.org")] == ["5", "3", "7", "2", "1"]


def test_a_list() -> None:
    one = table(DataSet.LIST, "example.org=org, *=net:@%")
    assert found(one, "ann@example.org") == ["entry 1 example.org/r2026"]
    assert found(one, "ann@example.net") == ["entry 2 example.net/n2026 @example.net"]


def test_a_domain_without_a_key_file_is_not_signed_for() -> None:
    one = table(DataSet.PATTERNS, "*@example.org any\n*@example.net any\n*@example.net org\n")
    assert found(one, "ann@example.org") == ["SigningTable:1 example.org/all"]
    assert found(one, "ann@example.net") == ["SigningTable:3 example.org/r2026"]


@pytest.mark.parametrize(
    ("rows", "kind", "address", "clauses"),
    [
        (
            "joe@example.org org",
            DataSet.PATTERNS,
            "ann@example.org",
            ["SigningTable:1 is for joe@example.org, and the"],
        ),
        (
            "example.org org",
            DataSet.FILE,
            "ann@a.example.org",
            ["SigningTable:1 (example.org) does not match subdomains"],
        ),
        (
            "*@example.org org",
            DataSet.PATTERNS,
            "a@b.example.org",
            ["SigningTable:1 (*@example.org) does not match subd"],
        ),
        (
            "*@example.net any",
            DataSet.PATTERNS,
            "a@example.net",
            ["SigningTable:1 matches, but /keys/%/all.private has"],
        ),
        (
            "* %",
            DataSet.PATTERNS,
            "a@example.info",
            ["SigningTable:1 matches, but the KeyTable has no key named 'example"],
        ),
        ("*@example.org org", DataSet.PATTERNS, "ann@example.org", []),
    ],
)
def test_rows_that_would_match_but_for_one_thing(rows: str, kind: DataSet, address: str, clauses: list[str]) -> None:
    near = list(table(kind, rows).near_misses(parse_mailbox(address)))
    assert [text[: len(clause)] for text, clause in zip(near, clauses, strict=True)] == clauses


def test_the_domains_of_a_table() -> None:
    assert table(DataSet.PATTERNS, PATTERNS).domains == {"example.org", "example.com", "xn--bcher-kva.example"}
    assert table(DataSet.FILE, NARROW).domains == {"example.org", "org"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("file:/a", (DataSet.FILE, "/a")),
        ("/a", (DataSet.FILE, "/a")),
        ("refile:/a", (DataSet.PATTERNS, "/a")),
        ("csl:a=b", (DataSet.LIST, "a=b")),
        ("a=b", (DataSet.LIST, "a=b")),
    ],
)
def test_the_kinds_of_data_sets(text: str, expected: tuple[DataSet, str]) -> None:
    assert data_set(text) == expected


@pytest.mark.parametrize("kind", ["dsn:mysql://x", "ldap://x", "lua:x", "db:/x"])
def test_a_data_set_that_is_not_supported(kind: str) -> None:
    with pytest.raises(TableError, match="are not supported; write file: or refile:"):
        data_set(kind)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a", "T:1: 'a' has no value"),
        ("\n\na b", "T:3: 'b' is not DOMAIN:SELECTOR:PATH"),
        ("a b:c", "T:1: 'b:c' is not DOMAIN:SELECTOR:PATH"),
        ("a example.org:s:MIIC", "T:1: the key is not a path; put the key into a file"),
        ("a -:s:/k", "T:1: '-' is not a domain"),
        ("a example.org:s_ t:/k", "T:1: 's_ t' is not a selector"),
    ],
)
def test_what_is_wrong_with_a_key_table(text: str, message: str) -> None:
    with pytest.raises(TableError, match=re.escape(message)):
        key_rows(entries(DataSet.FILE, "T", text))


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        (DataSet.PATTERNS, "*@example.org no", "T:1: the KeyTable has no key named 'no'"),
        (DataSet.PATTERNS, "example.org org", "T:1: 'example.org' never matches: patterns are compared with whole"),
        (DataSet.FILE, "*@example.org org", "T:1: '*@example.org' never matches: only refile: has patterns"),
        (DataSet.FILE, "*.example.org org", "T:1: '*.example.org' never matches: only refile: has patterns"),
    ],
)
def test_what_is_wrong_with_a_signing_table(kind: DataSet, text: str, message: str) -> None:
    with pytest.raises(TableError, match=re.escape(message)):
        signing_rows(kind, entries(kind, "T", text), {"org": None})


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("a", "a", True),
        ("*", "", True),
        ("a*a", "a", False),
        ("a*a", "aa", True),
        ("*b*b*", "abab", True),
        ("*b*b", "ab", False),
        ("a*b*c", "abc", True),
        ("a*b*c", "acb", False),
        ("a.c", "abc", False),
    ],
)
def test_wildcards(pattern: str, text: str, expected: bool) -> None:
    assert matches(pattern, text) is expected


def test_the_files_that_a_path_with_a_percent_sign_stands_for() -> None:
    pattern, domain_of = files_for("/k[1]/%/%.pem")
    assert pattern == "/k[[]1]/*/*.pem"
    match = domain_of.fullmatch("/k[1]/example.org/example.org.pem")
    assert match is not None
    assert match["domain"] == "example.org"
    assert domain_of.fullmatch("/k[1]/example.org/other.pem") is None


def test_keys_of_one_domain_in_two_rows_sign_together() -> None:
    """RSA and Ed25519 are two names in a KeyTable."""
    keys = key_rows(entries(DataSet.FILE, "K", "r example.org:r:/r\ne example.org:e:/e"))
    loaded = {"r": LoadedKey(keys["r"], {None: rsa_key()}), "e": LoadedKey(keys["e"], {None: ed25519_key()})}
    rows = signing_rows(DataSet.PATTERNS, entries(DataSet.PATTERNS, "T", "*@example.org r\n*@example.org e"), loaded)
    one = SigningTable(DataSet.PATTERNS, rows, loaded, dkim.DEFAULT_SIGNING_RULES, all_matches=True)
    first, second = one.find(parse_mailbox("ann@example.org"))
    assert [str(key.selector) for key in first.with_keys(second.keys).keys] == ["r", "e"]
