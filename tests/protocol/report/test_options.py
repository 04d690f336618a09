# SPDX-License-Identifier: GPL-3.0-or-later
"""Which failure reports a record asks for, to the letter of fo= (RFC 9989, 4.7), and their evidence."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

import signing
from assay.model.message import HeaderField
from assay.model.name import Domain
from assay.protocol import dkim, dmarc, spf
from assay.protocol.report import (
    AuthFailure,
    FailedSignature,
    FailureKind,
    PublishedSpf,
    auth_failure,
    published_spf,
    requested_failure_reports,
    signature_to_report,
)
from zone import Zone

DMARC, DKIM, SPF = FailureKind


def requested(
    fo: str,
    *,
    aligned: str = "",
    signatures: Iterable[str] = (),
    mail_from: str = "",
    extra: str = "",
    result: str = "",
    is_report_mail: bool = False,
) -> tuple[FailureKind, ...]:
    record = dmarc.parse(f"v=DMARC1; p=reject; ruf=mailto:a@a.example; fo={fo}; {extra}".encode())
    evaluation = dmarc.Evaluation(
        dmarc.Result(result or ("pass" if aligned else "fail")),
        "",
        record=record,
        dkim_aligned="dkim" in aligned,
        spf_aligned="spf" in aligned,
    )
    return requested_failure_reports(
        evaluation,
        map(dkim.Result, signatures),
        spf.Result(mail_from) if mail_from else None,
        is_report_mail=is_report_mail,
    )


@pytest.mark.parametrize(
    ("fo", "aligned", "expected"),
    [
        ("0", "", (DMARC,)),
        ("0", "dkim", ()),
        ("0", "spf", ()),
        ("0", "dkim spf", ()),
        ("1", "", (DMARC,)),
        ("1", "dkim", (DMARC,)),
        ("1", "spf", (DMARC,)),
        ("1", "dkim spf", ()),
        ("d", "", ()),
        ("s", "", ()),
        ("d:s", "", ()),
        ("0:d:s", "", (DMARC,)),
        ("bogus", "", (DMARC,)),
    ],
)
def test_0_wants_all_to_fail_and_1_any(fo: str, aligned: str, expected: tuple[FailureKind, ...]) -> None:
    assert requested(fo, aligned=aligned) == expected


@pytest.mark.parametrize("result", dkim.Result)
@pytest.mark.parametrize("aligned", ["", "dkim spf"])
def test_d_wants_a_signature_that_failed_aligned_or_not(result: dkim.Result, aligned: str) -> None:
    failed = result in ("fail", "policy", "permerror")
    assert requested("d", aligned=aligned, signatures=["pass", result]) == ((DKIM,) if failed else ())
    assert requested("0", aligned="spf", signatures=[result]) == ()


@pytest.mark.parametrize("result", spf.Result)
@pytest.mark.parametrize("aligned", ["", "dkim spf"])
def test_s_wants_spf_that_failed_aligned_or_not(result: spf.Result, aligned: str) -> None:
    failed = result in ("fail", "softfail", "permerror")
    assert requested("s", aligned=aligned, mail_from=result) == ((SPF,) if failed else ())
    assert requested("0", aligned="dkim", mail_from=result) == ()


def test_options_are_added_up() -> None:
    assert requested("1:d:s", signatures=["fail"], mail_from="softfail") == (DMARC, DKIM, SPF)


def test_what_the_dns_did_not_answer_did_not_fail() -> None:
    assert requested("0", signatures=["fail", "temperror"]) == ()
    assert requested("0", mail_from="temperror") == ()
    assert requested("1", aligned="spf", signatures=["temperror"]) == ()
    assert requested("1", aligned="dkim", mail_from="temperror") == ()
    assert requested("1", signatures=["temperror"], mail_from="fail") == (DMARC,)
    assert requested("0", result="temperror") == ()
    assert requested("1", result="permerror") == ()


def test_nothing_is_wanted_without_ruf_for_a_public_suffix_or_about_a_report() -> None:
    everything = {"signatures": ("fail",), "mail_from": "fail"}
    assert requested("1:d:s", **everything) == (DMARC, DKIM, SPF)
    assert requested("1:d:s", **everything, extra="psd=n") == (DMARC, DKIM, SPF)
    assert requested("1:d:s", **everything, extra="psd=y") == ()
    assert requested("1:d:s", **everything, is_report_mail=True) == ()
    for record in (None, dmarc.parse(b"v=DMARC1; p=none; fo=1; rua=mailto:a@a.example")):
        evaluation = dmarc.Evaluation(dmarc.Result.FAIL, "", record=record)
        assert requested_failure_reports(evaluation, (), None, is_report_mail=False) == ()


FIELD = HeaderField(b"DKIM-Signature", b"")


def failed(domain: str, result: str = "fail", selector: str = "s") -> dkim.Evaluation:
    name = Domain(domain) if domain else None
    return dkim.Evaluation(dkim.Result(result), "signature did not verify", FIELD, name, "@" + domain, selector)


def test_the_first_failed_signature_of_an_aligned_domain_is_named() -> None:
    ours = Domain("a.example")
    tried = [
        failed("b.example"),
        failed("a.example", "pass"),
        failed("a.example", selector=""),
        failed("", "permerror"),
    ]
    assert signature_to_report(tried, ours) is None
    named = AuthFailure.SIGNATURE, FailedSignature("mail.a.example", "s", "@mail.a.example")
    assert signature_to_report([*tried, failed("mail.a.example"), failed("a.example")], ours) == named
    assert signature_to_report([failed("a.example", "temperror")], ours) is None


@pytest.mark.parametrize(
    ("message", "record", "expected"),
    [
        (signing.sign_ed25519().replace(b"noon", b"night"), None, AuthFailure.BODYHASH),
        (signing.sign_ed25519().replace(b"lunch", b"theft"), None, AuthFailure.SIGNATURE),
        (signing.sign_ed25519(), "v=DKIM1; k=ed25519; p=", AuthFailure.REVOKED),
        (signing.sign_ed25519(), "v=DKIM1; k=bogus; p=QUJD", AuthFailure.SIGNATURE),
    ],
)
def test_how_a_signature_failed_is_said_in_the_words_of_the_rfc(
    message: bytes, record: str | None, expected: AuthFailure
) -> None:
    zone = signing.zone(record or signing.record(signing.ed25519_key()))
    (evaluation,) = signing.evaluate(message, zone)
    assert evaluation.result in (dkim.Result.FAIL, dkim.Result.PERMERROR)
    assert auth_failure(evaluation) is expected


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([["TXT", ["x"]], ["TXT", ["v=spf1 -all"]]], PublishedSpf("a.example", "v=spf1 -all")),
        ([["TXT", ["x"]]], PublishedSpf("a.example", "")),
        ([], PublishedSpf("a.example", "")),
        ([["SERVFAIL", "*"]], None),
    ],
)
def test_the_spf_record_is_looked_up(rows: list[list[object]], expected: PublishedSpf | None) -> None:
    assert Zone({"a.example": rows}).solve(published_spf(Domain("a.example"))) == expected
