# SPDX-License-Identifier: GPL-3.0-or-later
"""Policy discovery and organizational domains (RFC 9989, 4.10): what is asked, where it stops, what applies."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from publicsuffixlist import PublicSuffixList

from assay.inquiry import Answer, Outcome, Question, RecordType
from assay.model.name import Domain
from assay.protocol import dmarc
from assay.protocol.dmarc.tree import targets
from zone import Zone

public_suffix = PublicSuffixList().publicsuffix


def zone(records: dict[str, Any]) -> Zone:
    """A zone with DMARC records (a text, or several) by domain; other keys begin with "=" and are taken as rows."""
    rows = {}
    for name, value in records.items():
        if name.startswith("="):
            rows[name[1:]] = value
        else:
            texts = [value] if isinstance(value, str) else value
            rows[f"_dmarc.{name}"] = [["TXT", f"v=DMARC1;{text}"] for text in texts]
    return Zone(rows)


FAILS = [["SERVFAIL", "*"]]

TARGETS = {
    "one label": ("com", ["com"]),
    "two labels": ("example.com", ["example.com", "com"]),
    "eight labels": ("a.b.c.d.e.f.g.h", ["a.b.c.d.e.f.g.h", "b.c.d.e.f.g.h", *["c.d.e.f.g.h", "d.e.f.g.h"]]),
    "nine labels skip one": ("z.a.b.c.d.e.f.g.h", ["z.a.b.c.d.e.f.g.h", "b.c.d.e.f.g.h", "c.d.e.f.g.h"]),
}


@pytest.mark.parametrize(("name", "first"), TARGETS.values(), ids=TARGETS)
def test_targets(name: str, first: list[str]) -> None:
    walked = targets(Domain(name))
    assert list(walked[: len(first)]) == first
    assert len(walked) == min(name.count(".") + 1, dmarc.MAX_QUERIES)
    assert walked[-1] == name.rpartition(".")[2]


ORGANIZATIONAL: dict[str, tuple[str, dict[str, Any], str]] = {
    "no record: the name itself": ("a.b.example.com", {}, "a.b.example.com"),
    "the only record": ("a.b.example.com", {"b.example.com": "p=none"}, "b.example.com"),
    "the record with the fewest labels": (
        "a.b.example.com",
        {"a.b.example.com": "p=none", "b.example.com": "p=none", "example.com": "p=none"},
        "example.com",
    ),
    "even a top-level domain without psd=": ("example.com", {"example.com": "p=none", "com": "p=none"}, "com"),
    "psd=n ends it": ("a.b.example.com", {"b.example.com": "p=none;psd=n", "example.com": "p=none"}, "b.example.com"),
    "psd=n of the name itself": ("b.example.com", {"b.example.com": "psd=n", "example.com": "p=none"}, "b.example.com"),
    "one below psd=y": ("a.b.bank.example", {"bank.example": "psd=y"}, "b.bank.example"),
    "one below psd=y, not further up": (
        "a.b.bank.example",
        {"bank.example": "psd=y", "example": "p=none"},
        "b.bank.example",
    ),
    "one below psd=y before the records below it": (
        "a.b.bank.example",
        {"a.b.bank.example": "p=none", "bank.example": "psd=y"},
        "b.bank.example",
    ),
    "psd=y of the name itself": ("bank.example", {"bank.example": "psd=y", "example": "p=none"}, "bank.example"),
    "one below psd=y at a level that was skipped": (
        "i.h.g.f.e.d.c.b.a",
        {"g.f.e.d.c.b.a": "psd=y"},
        "h.g.f.e.d.c.b.a",
    ),
    "a record at a level that is skipped": ("i.h.g.f.e.d.c.b.a", {"h.g.f.e.d.c.b.a": "psd=n"}, "i.h.g.f.e.d.c.b.a"),
    "several records are none": (
        "a.example.com",
        {"a.example.com": ["p=none", "p=none"], "com": "psd=y"},
        "example.com",
    ),
    "an unusable record counts": ("a.example.com", {"example.com": "adkim=s"}, "example.com"),
    "a failure behind the end": (
        "a.example.com",
        {"a.example.com": "psd=n", "=_dmarc.example.com": FAILS},
        "a.example.com",
    ),
    "a failure before the end": ("a.example.com", {"=_dmarc.example.com": FAILS, "com": "psd=y"}, "None"),
}


@pytest.mark.parametrize(("name", "records", "expected"), ORGANIZATIONAL.values(), ids=ORGANIZATIONAL)
def test_organizational_domain(name: str, records: dict[str, Any], expected: str) -> None:
    assert str(zone(records).solve(dmarc.organizational_domain(Domain(name)))) == expected


def test_organizational_domain_by_public_suffix_asks_nothing() -> None:
    for name, expected in {
        "a.b.example.co.uk": "example.co.uk",
        "co.uk": "co.uk",
        "example.com": "example.com",
    }.items():
        dns = zone({})
        inquiry = dmarc.organizational_domain(Domain(name), public_suffix=public_suffix)
        assert dns.solve(inquiry) == Domain(expected)
        assert not dns.asked


#: author domain, records, expected: result (None: there is a policy), policy, policy domain, reason
DISCOVERY: dict[str, tuple[str, dict[str, Any], str | None, str | None, str | None, str]] = {
    "own record: p": (
        "example.com",
        {"example.com": "p=reject;sp=none"},
        None,
        "reject",
        "example.com",
        "_dmarc.example.com",
    ),
    "own record of a subdomain: p": (
        "a.example.com",
        {"a.example.com": "p=quarantine;sp=none;np=none", "example.com": "p=reject"},
        None,
        "quarantine",
        "a.example.com",
        "",
    ),
    "organizational domain's record: sp": (
        "a.example.com",
        {"example.com": "p=reject;sp=quarantine"},
        None,
        "quarantine",
        "example.com",
        "",
    ),
    "organizational domain's record: p": (
        "a.example.com",
        {"example.com": "p=reject"},
        None,
        "reject",
        "example.com",
        "",
    ),
    "not the first record upwards": (
        "a.b.example.com",
        {"b.example.com": "p=none", "example.com": "p=reject"},
        None,
        "reject",
        "example.com",
        "",
    ),
    "psd=n makes it the first": (
        "a.b.example.com",
        {"b.example.com": "p=none;psd=n", "example.com": "p=reject"},
        None,
        "none",
        "b.example.com",
        "",
    ),
    "public suffix's record": (
        "a.b.bank.example",
        {"bank.example": "p=reject;psd=y"},
        None,
        "reject",
        "bank.example",
        "",
    ),
    "organizational domain before public suffix": (
        "a.b.bank.example",
        {"b.bank.example": "p=none", "bank.example": "p=reject;psd=y"},
        None,
        "none",
        "b.bank.example",
        "",
    ),
    "a record between is not used for want of the organizational domain's": (
        "a.b.c.bank.example",
        {"b.c.bank.example": "p=none", "bank.example": "p=reject;psd=y"},
        None,
        "reject",
        "bank.example",
        "",
    ),
    "no record": ("a.example.com", {}, "none", None, None, "no DMARC record for a.example.com"),
    "several records": (
        "example.com",
        {"example.com": ["p=none", "p=none"]},
        "none",
        None,
        None,
        "2 DMARC records at _dmarc.example.com: all are discarded",
    ),
    "several records, one above": (
        "a.example.com",
        {"a.example.com": ["p=none", "p=none"], "example.com": "p=reject"},
        None,
        "reject",
        "example.com",
        "",
    ),
    "own record neither with p nor rua": (
        "example.com",
        {"example.com": "adkim=s"},
        "none",
        None,
        "example.com",
        "no usable",
    ),
    "own record with a bad p": (
        "example.com",
        {"example.com": "p=x"},
        "permerror",
        None,
        "example.com",
        "no usable policy",
    ),
    "own unusable record hides the one above": (
        "a.example.com",
        {"a.example.com": "p=x", "example.com": "p=reject"},
        "permerror",
        None,
        "a.example.com",
        "",
    ),
    "failure at the author domain": (
        "example.com",
        {"=_dmarc.example.com": FAILS, "com": "p=none"},
        "temperror",
        None,
        None,
        "TXT lookup of _dmarc.example.com failed: SERVFAIL",
    ),
    "failure above": (
        "a.example.com",
        {"=_dmarc.example.com": FAILS},
        "temperror",
        None,
        None,
        "TXT lookup of _dmarc.example.com failed: SERVFAIL",
    ),
    "failure above an own record": (
        "a.example.com",
        {"a.example.com": "p=reject", "=_dmarc.example.com": FAILS},
        None,
        "reject",
        "a.example.com",
        "",
    ),
    "failure behind the end": (
        "a.example.com",
        {"example.com": "p=reject;psd=n", "=_dmarc.com": FAILS},
        None,
        "reject",
        "example.com",
        "",
    ),
    "np for a domain that does not exist": (
        "a.example.com",
        {"example.com": "p=none;sp=none;np=reject"},
        None,
        "reject",
        "example.com",
        "",
    ),
    "sp for a domain with an address": (
        "a.example.com",
        {"example.com": "p=none;np=reject", "=a.example.com": [["A", "192.0.2.1"]]},
        None,
        "none",
        "example.com",
        "",
    ),
    "sp for a domain that only has names below": (
        "a.example.com",
        {"example.com": "p=none;np=reject", "=www.a.example.com": [["A", "192.0.2.1"]]},
        None,
        "none",
        "example.com",
        "",
    ),
    "sp where something is below _dmarc": (
        "a.example.com",
        {"example.com": "p=none;np=reject", "=x._dmarc.a.example.com": [["TXT", "x"]]},
        None,
        "none",
        "example.com",
        "",
    ),
    "undecided np": (
        "a.example.com",
        {"example.com": "p=none;np=reject", "=a.example.com": FAILS, "=_dmarc.a.example.com.": []}
        | {"=_dmarc.a.example.com": [["CNAME", "gone.example.com"]]},
        None,
        None,
        "example.com",
        "",
    ),
}


@pytest.mark.parametrize(
    ("author", "records", "result", "policy", "policy_domain", "reason"), DISCOVERY.values(), ids=DISCOVERY
)
def test_discover(
    author: str,
    records: dict[str, Any],
    result: str | None,
    policy: str | None,
    policy_domain: str | None,
    reason: str,
) -> None:
    discovery = zone(records).solve(dmarc.discover(Domain(author)))
    assert discovery.result == result
    assert discovery.policy == policy
    assert discovery.policy_domain == (policy_domain and Domain(policy_domain))
    assert reason in discovery.reason
    assert discovery.reason


QUERIES: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "own record": ("a.example.com", {"a.example.com": "p=none"}, ["a.example.com"]),
    "all the way": ("a.example.com", {"example.com": "p=none"}, ["a.example.com", "example.com", "com"]),
    "psd=n": ("a.b.example.com", {"b.example.com": "psd=n"}, ["a.b.example.com", "b.example.com"]),
    "failure": ("a.example.com", {"=_dmarc.example.com": FAILS}, ["a.example.com", "example.com"]),
}


@pytest.mark.parametrize(("author", "records", "names"), QUERIES.values(), ids=QUERIES)
def test_queries_are_those_of_the_rfc(author: str, records: dict[str, Any], names: list[str]) -> None:
    discovery = zone(records).solve(dmarc.discover(Domain(author)))
    assert list(discovery.queries) == [f"_dmarc.{name}" for name in names]


def test_the_walk_is_one_batch() -> None:
    inquiry = dmarc.discover(Domain("a.b.c.d.e.f.g.h.i.j"))
    batch = next(inquiry)
    assert len(batch) == dmarc.MAX_QUERIES
    assert {question.type for question in batch} == {RecordType.TXT}
    with pytest.raises(StopIteration):
        inquiry.send([Answer(Outcome.NXDOMAIN)] * len(batch))


EXISTENCE: dict[str, tuple[str, dict[str, Any], bool]] = {
    "np differs": ("p=none;np=reject", {}, True),
    "np is the same": ("p=reject;np=reject", {}, False),
    "another TXT proves it": ("p=none;np=reject", {"=_dmarc.a.example.com": [["TXT", "x"]]}, False),
    "no data proves it": ("p=none;np=reject", {"=_dmarc.a.example.com": []}, False),
}


@pytest.mark.parametrize(("text", "rows", "asked"), EXISTENCE.values(), ids=EXISTENCE)
def test_existence_is_asked_only_where_it_matters(text: str, rows: dict[str, Any], asked: bool) -> None:
    dns = zone({"example.com": text, **rows})
    dns.solve(dmarc.discover(Domain("a.example.com")))
    assert (Question("a.example.com", RecordType.A) in dns.asked) is asked


def test_undecided_np_is_reported() -> None:
    *_, (author, records, *_) = DISCOVERY.values()
    discovery = zone(records).solve(dmarc.discover(Domain(author)))
    assert discovery.failure == "A lookup of a.example.com failed, so sp= or np= is undecided: SERVFAIL"


BY_SUFFIX: dict[str, tuple[str, dict[str, Any], str | None, str | None, list[str]]] = {
    "own record": ("a.example.co.uk", {"a.example.co.uk": "p=none"}, None, "none", ["a.example.co.uk"]),
    "organizational domain's": (
        "a.b.example.co.uk",
        {"b.example.co.uk": "p=none", "example.co.uk": "p=reject"},
        None,
        "reject",
        ["a.b.example.co.uk", "example.co.uk"],
    ),
    "sp": ("a.example.com", {"example.com": "p=none;sp=reject"}, None, "reject", ["a.example.com", "example.com"]),
    "psd= means nothing": (
        "a.example.com",
        {"example.com": "p=none", "com": "psd=y"},
        None,
        "none",
        ["a.example.com", "example.com"],
    ),
    "public suffix's record is not used": ("a.co.uk", {"co.uk": "p=reject;psd=y"}, "none", None, ["a.co.uk"]),
    "several records end it": (
        "a.example.com",
        {"a.example.com": ["", ""], "example.com": "p=none"},
        "none",
        None,
        ["a.example.com"],
    ),
    "failure": ("a.example.com", {"=_dmarc.a.example.com": FAILS}, "temperror", None, ["a.example.com"]),
    "failure that does not matter": (
        "a.example.com",
        {"a.example.com": "p=none", "=_dmarc.example.com": FAILS},
        None,
        "none",
        ["a.example.com"],
    ),
}


@pytest.mark.parametrize(("author", "records", "result", "policy", "names"), BY_SUFFIX.values(), ids=BY_SUFFIX)
def test_discover_by_public_suffix(
    author: str, records: dict[str, Any], result: str | None, policy: str | None, names: list[str]
) -> None:
    discovery = zone(records).solve(dmarc.discover(Domain(author), public_suffix=public_suffix))
    assert (discovery.result, discovery.policy) == (result, policy)
    assert list(discovery.queries) == [f"_dmarc.{name}" for name in names]
    assert discovery.method is dmarc.DiscoveryMethod.PSL


@settings(deadline=None)  # a shared machine may pause anywhere
@given(st.integers(1, 12), st.dictionaries(st.integers(1, 12), st.sampled_from(["p=none", "psd=y", "psd=n"])))
def test_an_organizational_domain_is_its_own_one(length: int, records: dict[int, str]) -> None:
    labels = "abcdefghijkl"
    dns = zone({".".join(labels[12 - depth :]): text for depth, text in records.items()})
    start = Domain(".".join(labels[12 - length :]))
    found = dns.solve(dmarc.organizational_domain(start))
    assert found is not None
    assert start.is_at_or_below(found)
    assert dns.solve(dmarc.organizational_domain(found)) == found
