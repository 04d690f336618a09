# SPDX-License-Identifier: GPL-3.0-or-later
"""What an aggregate report says: what a record publishes, and which signatures are reported (RFC 9990, 3.1)."""

from __future__ import annotations

import pytest

from assay.protocol import dkim, dmarc
from assay.protocol.dmarc import Alignment, DiscoveryMethod, DmarcPolicy
from assay.protocol.report import MAX_SIGNATURES, DkimResult, PolicyPublished, published, reported_signatures

NONE, QUARANTINE, REJECT = DmarcPolicy


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("p=reject", PolicyPublished("a.example", REJECT, REJECT, REJECT)),
        ("p=reject; sp=none", PolicyPublished("a.example", REJECT, NONE, NONE)),
        ("p=none; np=reject", PolicyPublished("a.example", NONE, NONE, REJECT)),
        ("rua=mailto:a@a.example", PolicyPublished("a.example", NONE, NONE, NONE)),
        (
            "p=quarantine; adkim=s; aspf=s; t=y; fo=1:d; ruf=mailto:a@a.example",
            PolicyPublished(
                "a.example", QUARANTINE, QUARANTINE, QUARANTINE, "1:d", Alignment.STRICT, Alignment.STRICT, testing=True
            ),
        ),
        *[
            (f"p=none; pct={pct}", PolicyPublished("a.example", NONE, NONE, NONE, pct=number))
            for pct, number in {"0": 0, "7": 7, "100": 100, "101": 100, "-1": 100, "x": 100, "9" * 5000: 100}.items()
        ],
    ],
)
def test_what_a_record_publishes_has_its_defaults(text: str, expected: PolicyPublished) -> None:
    assert published("a.example", dmarc.parse(f"v=DMARC1; {text}".encode())) == expected


def test_how_the_record_was_found_is_told() -> None:
    record = dmarc.parse(b"v=DMARC1; p=none")
    assert published("a.example", record, DiscoveryMethod.PSL).discovery_method is DiscoveryMethod.PSL


def test_a_record_that_asks_for_nothing_cannot_be_reported() -> None:
    with pytest.raises(ValueError, match="no usable policy"):
        published("a.example", dmarc.parse(b"v=DMARC1; p=bogus"))


def test_the_most_telling_signatures_come_first() -> None:
    strict, relaxed, other, failing, first_failing = (
        DkimResult("a.example", "s", dkim.Result.PASS),
        DkimResult("mail.a.example", "s", dkim.Result.PASS),
        DkimResult("list.example", "s", dkim.Result.PASS),
        DkimResult("a.example", "s", dkim.Result.FAIL),
        DkimResult("b.example", "s", dkim.Result.TEMPERROR),
    )
    tried = [first_failing, other, failing, relaxed, strict]
    aligned = {"a.example", "mail.a.example"}
    assert reported_signatures(tried, "a.example", aligned) == (strict, relaxed, other, first_failing, failing)


def test_a_signature_without_domain_or_selector_is_left_out() -> None:
    tried = [DkimResult("", "s", dkim.Result.NEUTRAL), DkimResult("a.example", "", dkim.Result.NEUTRAL)]
    assert reported_signatures(tried, "a.example") == ()


def test_of_too_many_signatures_the_telling_are_left() -> None:
    tried = [DkimResult("b.example", str(number), dkim.Result.FAIL) for number in range(200)]
    telling = DkimResult("a.example", "s", dkim.Result.PASS)
    kept = reported_signatures([*tried, telling], "a.example")
    assert kept == (telling, *tried[: MAX_SIGNATURES - 1])
