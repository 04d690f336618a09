# SPDX-License-Identifier: GPL-3.0-or-later
"""The DMARC verdict (RFC 9989, 4.4 and 5.3): alignment, what a failed lookup may undo, what the owner asks for."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from publicsuffixlist import PublicSuffixList

from assay.inquiry import Inquiry
from assay.model.name import Domain
from assay.protocol import dmarc
from assay.protocol.dmarc import Identifier, LegacyPct
from zone import Zone

public_suffix = PublicSuffixList().publicsuffix
FAILS = [["SERVFAIL", "*"]]


def zone(records: dict[str, Any]) -> Zone:
    """A zone with DMARC records by domain; a value that is not a text is taken as the rows at its _dmarc name."""
    return Zone(
        {
            f"_dmarc.{name}": [["TXT", f"v=DMARC1;{value}"]] if isinstance(value, str) else value
            for name, value in records.items()
        }
    )


def identifiers(text: str) -> list[Identifier]:
    """Read "a.example pass, b.example fail"."""
    pairs = [one.split() for one in text.split(",") if one.strip()]
    return [Identifier(Domain(domain), result) for domain, result in pairs]


def evaluate(records: dict[str, Any], author: str, spf: str, dkim: str, **options: Any) -> dmarc.Evaluation:
    dns = zone(records)
    discovery = dns.solve(dmarc.discover(Domain(author), public_suffix=options.pop("public_suffix", None)))
    (mail_from,) = identifiers(spf) or [None]
    return dns.solve(dmarc.evaluate(discovery, mail_from, identifiers(dkim), **options))


REJECT = {"example.com": "p=reject"}
STRICT = {"example.com": "p=reject;adkim=s;aspf=s", "mail.example.com": "p=reject;adkim=s;aspf=s"}
BANKS = {"bank.example": "p=reject;psd=y"}
DEPARTMENT = {"example.com": "p=reject", "dept.example.com": "p=reject;psd=n"}

#: records, author domain, SPF, DKIM, expected result, SPF aligned, DKIM aligned
VERDICTS: dict[str, tuple[dict[str, Any], str, str, str, str, bool, bool]] = {
    "nothing authenticated": (REJECT, "example.com", "", "", "fail", False, False),
    "SPF of the same name": (REJECT, "example.com", "example.com pass", "", "pass", True, False),
    "DKIM of the same name": (REJECT, "example.com", "", "example.com pass", "pass", False, True),
    "both": (REJECT, "example.com", "a.example.com pass", "b.example.com pass", "pass", True, True),
    "SPF from below": (REJECT, "example.com", "bounce.example.com pass", "", "pass", True, False),
    "SPF from above": (REJECT, "a.example.com", "example.com pass", "", "pass", True, False),
    "DKIM beside": (REJECT, "a.example.com", "", "b.example.com pass", "pass", False, True),
    "any signature": (
        REJECT,
        "example.com",
        "",
        "esp.example fail, esp.example pass, example.com pass",
        "pass",
        False,
        True,
    ),
    "another domain": (REJECT, "example.com", "esp.example pass", "esp.example pass", "fail", False, False),
    "a name that only ends alike": (REJECT, "example.com", "badexample.com pass", "", "fail", False, False),
    "the top-level domain": (REJECT, "example.com", "com pass", "com pass", "fail", False, False),
    "failed identifiers": (REJECT, "example.com", "example.com fail", "example.com permerror", "fail", False, False),
    "softfail is no pass": (REJECT, "example.com", "example.com softfail", "", "fail", False, False),
    "strict, the same name": (STRICT, "example.com", "example.com pass", "example.com pass", "pass", True, True),
    "strict, from below": (
        STRICT,
        "example.com",
        "mail.example.com pass",
        "mail.example.com pass",
        "fail",
        False,
        False,
    ),
    "strict, from above": (STRICT, "mail.example.com", "example.com pass", "example.com pass", "fail", False, False),
    "strict DKIM only": (
        {"example.com": "p=reject;adkim=s"},
        "example.com",
        "a.example.com pass",
        "a.example.com pass",
        "pass",
        True,
        False,
    ),
    "strict SPF only": (
        {"example.com": "p=reject;aspf=s"},
        "example.com",
        "a.example.com pass",
        "a.example.com pass",
        "pass",
        False,
        True,
    ),
    "two customers of a public suffix": (BANKS, "a.bank.example", "b.bank.example pass", "", "fail", False, False),
    "one customer of a public suffix": (BANKS, "a.bank.example", "x.a.bank.example pass", "", "pass", True, False),
    "the public suffix itself": (
        BANKS,
        "a.bank.example",
        "bank.example pass",
        "bank.example pass",
        "fail",
        False,
        False,
    ),
    "an independent department below": (DEPARTMENT, "example.com", "dept.example.com pass", "", "fail", False, False),
    "an independent department and the rest": (
        DEPARTMENT,
        "a.dept.example.com",
        "example.com pass",
        "",
        "fail",
        False,
        False,
    ),
    "inside an independent department": (
        DEPARTMENT,
        "a.dept.example.com",
        "b.dept.example.com pass",
        "",
        "pass",
        True,
        False,
    ),
    "no record": ({}, "example.com", "example.com pass", "example.com pass", "none", False, False),
    "unusable record": ({"example.com": "p=x"}, "example.com", "example.com pass", "", "permerror", False, False),
    "SPF might have passed": (REJECT, "example.com", "example.com temperror", "", "temperror", False, False),
    "DKIM might have passed": (REJECT, "example.com", "", "a.example.com temperror", "temperror", False, False),
    "a stranger passed, and DKIM might have": (
        REJECT,
        "example.com",
        "esp.example pass",
        "esp.example pass, example.com temperror",
        "temperror",
        False,
        False,
    ),
    "a stranger might have passed": (
        REJECT,
        "example.com",
        "a.example temperror",
        "b.example temperror",
        "fail",
        False,
        False,
    ),
    "a stranger might have passed, another did": (
        REJECT,
        "example.com",
        "esp.example pass",
        "esp.example pass, com temperror, badexample.com temperror, b.example temperror",
        "fail",
        False,
        False,
    ),
    "another customer of a public suffix might have passed": (
        BANKS,
        "a.bank.example",
        "b.bank.example temperror",
        "b.bank.example temperror, bank.example temperror",
        "fail",
        False,
        False,
    ),
    "an independent department might have passed": (
        DEPARTMENT,
        "example.com",
        "dept.example.com temperror",
        "a.dept.example.com temperror",
        "fail",
        False,
        False,
    ),
    "strict, might have passed from below": (
        STRICT,
        "example.com",
        "a.example.com temperror",
        "",
        "fail",
        False,
        False,
    ),
    "strict, might have passed": (STRICT, "example.com", "example.com temperror", "", "temperror", False, False),
    "a pass is not undone by SPF": (
        REJECT,
        "example.com",
        "example.com temperror",
        "example.com pass",
        "pass",
        False,
        True,
    ),
    "a pass is not undone by DKIM": (
        REJECT,
        "example.com",
        "example.com pass",
        "example.com temperror",
        "pass",
        True,
        False,
    ),
    "discovery failed": ({"example.com": FAILS}, "example.com", "example.com pass", "", "temperror", False, False),
    "the identifier's walk failed": (
        {**REJECT, "b.a.example.com": FAILS},
        "example.com",
        "b.a.example.com pass",
        "",
        "temperror",
        False,
        False,
    ),
    "the identifier's walk failed, another passed": (
        {**REJECT, "b.a.example.com": FAILS},
        "example.com",
        "b.a.example.com pass",
        "example.com pass",
        "pass",
        False,
        True,
    ),
    "the author's walk failed behind its record": (
        {"a.example.com": "p=reject", "example.com": FAILS},
        "a.example.com",
        "b.example.com pass",
        "",
        "temperror",
        False,
        False,
    ),
    "the author's walk failed, the same name": (
        {"a.example.com": "p=reject", "example.com": FAILS},
        "a.example.com",
        "a.example.com pass",
        "",
        "pass",
        True,
        False,
    ),
    "the author's walk failed, another top-level domain": (
        {"a.example.com": "p=reject", "example.com": FAILS},
        "a.example.com",
        "b.example pass",
        "",
        "fail",
        False,
        False,
    ),
    "the author's walk failed, strict": (
        {"a.example.com": "p=reject;aspf=s;adkim=s", "example.com": FAILS},
        "a.example.com",
        "b.example.com pass",
        "",
        "fail",
        False,
        False,
    ),
}


@pytest.mark.parametrize(
    ("records", "author", "spf", "dkim", "result", "spf_aligned", "dkim_aligned"), VERDICTS.values(), ids=VERDICTS
)
def test_verdict(
    records: dict[str, Any], author: str, spf: str, dkim: str, result: str, spf_aligned: bool, dkim_aligned: bool
) -> None:
    evaluation = evaluate(records, author, spf, dkim)
    assert (evaluation.result, evaluation.spf_aligned, evaluation.dkim_aligned) == (result, spf_aligned, dkim_aligned)
    assert evaluation.reason
    assert evaluation.author_domain == Domain(author)
    if result != "fail":
        assert evaluation.disposition is dmarc.DmarcPolicy.NONE


#: record of the organizational domain, author domain, published policy, what the owner asks for
DISPOSITIONS: dict[str, tuple[str, str, str, str]] = {
    "reject": ("p=reject", "example.com", "reject", "reject"),
    "quarantine": ("p=quarantine", "example.com", "quarantine", "quarantine"),
    "none": ("p=none", "example.com", "none", "none"),
    "sp": ("p=none;sp=reject;np=reject", "a.example.com", "reject", "reject"),
    "reject in test mode": ("p=reject;t=y", "example.com", "reject", "quarantine"),
    "quarantine in test mode": ("p=quarantine;t=y", "example.com", "quarantine", "none"),
    "none in test mode": ("p=none;t=y", "example.com", "none", "none"),
    "sp in test mode": ("p=none;sp=reject;t=y", "a.example.com", "reject", "quarantine"),
    "pct is history": ("p=reject;pct=0", "example.com", "reject", "reject"),
    "bad p with rua": ("p=x;rua=mailto:a@b", "example.com", "none", "none"),
}


@pytest.mark.parametrize(("text", "author", "policy", "disposition"), DISPOSITIONS.values(), ids=DISPOSITIONS)
def test_disposition(text: str, author: str, policy: str, disposition: str) -> None:
    evaluation = evaluate({"example.com": text}, author, "", "")
    assert (evaluation.policy, evaluation.disposition) == (policy, disposition)
    assert evaluation.testing is ("t=y" in text)
    assert evaluation.sampled_out is False


def test_a_pass_asks_for_nothing() -> None:
    evaluation = evaluate(REJECT, "example.com", "example.com pass", "")
    assert (evaluation.policy, evaluation.disposition) == ("reject", "none")
    assert evaluation.aligned == (Identifier(Domain("example.com"), "pass"),)


#: record, option, draw, disposition, testing, sampled out
LEGACY: dict[str, tuple[str, LegacyPct, float, str, bool, bool]] = {
    "ignored": ("p=reject;pct=0", LegacyPct.IGNORE, 0.99, "reject", False, False),
    "0 as t": ("p=reject;pct=0", LegacyPct.ZERO_AS_T, 0.0, "quarantine", True, False),
    "1 is not as t": ("p=reject;pct=1", LegacyPct.ZERO_AS_T, 0.99, "reject", False, False),
    "t=n outweighs 0": ("p=reject;pct=0;t=n", LegacyPct.ZERO_AS_T, 0.0, "reject", False, False),
    "drawn": ("p=reject;pct=50", LegacyPct.SAMPLE, 0.49, "reject", False, False),
    "not drawn": ("p=reject;pct=50", LegacyPct.SAMPLE, 0.5, "quarantine", False, True),
    "quarantine, not drawn": ("p=quarantine;pct=0", LegacyPct.SAMPLE, 0.0, "none", False, True),
    "no pct is always drawn": ("p=reject", LegacyPct.SAMPLE, 0.999, "reject", False, False),
    "bad pct is always drawn": ("p=reject;pct=x", LegacyPct.SAMPLE, 0.999, "reject", False, False),
    "huge pct is always drawn": ("p=reject;pct=" + "9" * 5000, LegacyPct.SAMPLE, 0.999, "reject", False, False),
    "t=n outweighs sampling": ("p=reject;pct=0;t=n", LegacyPct.SAMPLE, 0.5, "reject", False, False),
    "t=y is not sampled too": ("p=reject;pct=0;t=y", LegacyPct.SAMPLE, 0.5, "quarantine", True, False),
}


@pytest.mark.parametrize(("text", "option", "draw", "disposition", "testing", "out"), LEGACY.values(), ids=LEGACY)
def test_legacy_pct(text: str, option: LegacyPct, draw: float, disposition: str, testing: bool, out: bool) -> None:
    evaluation = evaluate({"example.com": text}, "example.com", "", "", legacy_pct=option, draw=draw)
    assert (evaluation.disposition, evaluation.testing, evaluation.sampled_out) == (disposition, testing, out)


def test_undecided_np_is_temperror_unless_something_is_aligned() -> None:
    records = {"example.com": "p=none;np=reject", "a.example.com": [["CNAME", "gone.example"]]}
    dns = Zone({**zone(records).rows, "a.example.com": FAILS})
    discovery = dns.solve(dmarc.discover(Domain("a.example.com")))
    failed = dns.solve(dmarc.evaluate(discovery, None, []))
    assert (failed.result, failed.policy) == ("temperror", None)
    assert failed.reason == "A lookup of a.example.com failed, so sp= or np= is undecided: SERVFAIL"
    passed = dns.solve(dmarc.evaluate(discovery, Identifier(Domain("example.com"), "pass"), []))
    assert passed.result == "pass"


#: author domain, SPF, DKIM, names whose walks are asked
WALKS: dict[str, tuple[str, str, str, list[str]]] = {
    "the same name takes none": ("example.com", "example.com pass", "example.com pass", []),
    "another domain takes none": ("example.com", "esp.example pass", "com pass", []),
    "the organizational domain takes none": ("a.example.com", "example.com pass", "example.com pass", []),
    "what failed takes none": ("example.com", "a.example.com fail", "b.example.com neutral", []),
    "each name once": (
        "example.com",
        "a.example.com pass",
        "a.example.com pass, a.example.com pass",
        ["a.example.com"],
    ),
    "all in one batch": (
        "example.com",
        "a.example.com pass",
        "b.example.com temperror",
        ["a.example.com", "b.example.com"],
    ),
}


@pytest.mark.parametrize(("author", "spf", "dkim", "walked"), WALKS.values(), ids=WALKS)
def test_only_what_matters_is_walked(author: str, spf: str, dkim: str, walked: list[str]) -> None:
    dns = zone(REJECT)
    discovery = dns.solve(dmarc.discover(Domain(author)))
    dns.asked.clear()
    (mail_from,) = identifiers(spf)
    inquiry = dmarc.evaluate(discovery, mail_from, identifiers(dkim))
    batches = []
    try:
        batch = next(inquiry)
        while True:
            batches.append({question.name.removeprefix("_dmarc.") for question in batch})
            assert len(batch) == len(batches[-1])
            batch = inquiry.send([dns.answer(question) for question in batch])
    except StopIteration:
        pass
    assert batches == ([{*walked, "example.com", "com"}] if walked else [])


def test_walks_are_bounded_and_passes_come_first() -> None:
    failing = ", ".join(f"{number}.example.com temperror" for number in range(dmarc.MAX_WALKED_NAMES))
    assert evaluate(REJECT, "example.com", "", failing + ", x.example.com pass").result == "pass"
    deep = "a.b.c.d.e.f.example.com temperror"  # asks for as many names as there may be, and might have passed
    assert evaluate(REJECT, "example.com", deep, "a.b.example.com pass").result == "pass"
    independent = {f"{number}.example.com": "psd=n" for number in range(dmarc.MAX_WALKED_NAMES)}
    passing = ", ".join(f"{name} pass" for name in independent)
    records = {**REJECT, **independent}
    assert evaluate(records, "example.com", "", passing + ", x.example.com pass").result == "fail"
    # What takes no walk is not counted.
    assert evaluate(records, "example.com", "", passing + ", example.com pass").result == "pass"


SUFFIX: dict[str, tuple[str, str, str]] = {
    "beside": ("a.example.co.uk", "b.example.co.uk pass", "pass"),
    "another customer": ("a.example.co.uk", "other.co.uk pass", "fail"),
    "the suffix itself": ("a.example.co.uk", "co.uk pass", "fail"),
}


@pytest.mark.parametrize(("author", "spf", "result"), SUFFIX.values(), ids=SUFFIX)
def test_alignment_by_public_suffix(author: str, spf: str, result: str) -> None:
    evaluation = evaluate({"example.co.uk": "p=reject"}, author, spf, "", public_suffix=public_suffix)
    assert evaluation.result == result
    assert evaluation.method is dmarc.DiscoveryMethod.PSL
    assert evaluation.organizational_domain == Domain("example.co.uk")


def test_no_author_is_permerror() -> None:
    evaluation = dmarc.no_author("no From field")
    assert (evaluation.result, evaluation.reason) == ("permerror", "no From field")
    assert evaluation.disposition is dmarc.DmarcPolicy.NONE


LABELS = st.lists(st.sampled_from(["a", "b", "com", "example"]), min_size=1, max_size=10).map(".".join)
RECORDS = st.one_of(
    st.sampled_from(["p=reject", "p=none;psd=y", "p=none;psd=n", "p=x", "np=reject;p=none", "adkim=s;p=reject"]),
    st.just(FAILS),
)


@settings(deadline=None)  # a shared machine may pause anywhere
@given(
    st.dictionaries(LABELS, RECORDS, max_size=5),
    LABELS,
    st.lists(st.tuples(LABELS, st.sampled_from(["pass", "temperror", "fail"])), max_size=4),
)
def test_verdicts_are_those_of_the_plain_rule(
    records: dict[str, Any], author: str, signatures: list[tuple[str, str]]
) -> None:
    """The walks that `alignment` saves change no verdict: compare with one walk for each name (RFC 9989, 4.10.2)."""
    dns = zone(records)
    discovery = dns.solve(dmarc.discover(Domain(author)))
    dkim = [Identifier(Domain(name), result) for name, result in signatures]
    evaluation = dns.solve(dmarc.evaluate(discovery, None, dkim))
    assert evaluation.reason
    if discovery.result is not None:
        assert evaluation.result == discovery.result
        return
    assert discovery.record is not None

    def aligned(domain: Domain) -> bool | None:
        if domain == discovery.author_domain:
            return True
        if discovery.record is not None and discovery.record.adkim is dmarc.Alignment.STRICT:
            return False
        theirs = dns.solve(dmarc.organizational_domain(domain))
        ours = dns.solve(dmarc.organizational_domain(discovery.author_domain))
        return None if theirs is None or ours is None else theirs == ours

    verdicts = [(one.result, aligned(one.domain)) for one in dkim]
    if ("pass", True) in verdicts:
        assert evaluation.result == "pass"
    elif ("temperror", True) in verdicts or discovery.policy is None:
        assert evaluation.result == "temperror"
    elif not any(result != "fail" and verdict is None for result, verdict in verdicts):
        assert evaluation.result == "fail"
    else:  # a walk failed: some names cannot be aligned all the same
        assert evaluation.result in ("temperror", "fail")


@settings(deadline=None)
@given(
    st.dictionaries(LABELS, RECORDS, max_size=5),
    LABELS,
    st.lists(st.tuples(LABELS, st.sampled_from(["pass", "temperror", "fail"])), max_size=4),
    st.randoms(),
)
def test_in_whatever_order_answers_come_the_verdict_is_the_same(
    records: dict[str, Any], author: str, signatures: list[tuple[str, str]], draw: Random
) -> None:
    def verdict() -> Inquiry[dmarc.Evaluation]:
        discovery = yield from dmarc.discover(Domain(author))
        dkim = [Identifier(Domain(name), result) for name, result in signatures]
        return (yield from dmarc.evaluate(discovery, None, dkim))

    whole = zone(records).solve(verdict())
    piecemeal = zone(records).solve_piecemeal(verdict(), draw)
    assert (piecemeal.result, piecemeal.policy, piecemeal.disposition) == (
        whole.result,
        whole.policy,
        whole.disposition,
    )


#: records, domain that passed, result
COM_FAILS: dict[str, tuple[dict[str, str], str, str]] = {
    "below the author": ({}, "bounce.example.com", "pass"),
    "with a record of its own": ({"bounce.example.com": "p=none"}, "bounce.example.com", "pass"),
    "for itself": ({"bounce.example.com": "psd=n"}, "bounce.example.com", "fail"),
    "beside the author": ({}, "example2.com", "temperror"),
    "above the author": ({}, "com", "temperror"),
    "of another top-level domain": ({}, "example.net", "fail"),
}


@pytest.mark.parametrize(("records", "passed", "result"), COM_FAILS.values(), ids=COM_FAILS)
def test_a_failure_above_the_record_in_common_does_not_matter(
    records: dict[str, str], passed: str, result: str
) -> None:
    assert evaluate({**REJECT, **records, "com": FAILS}, "example.com", f"{passed} pass", "").result == result
