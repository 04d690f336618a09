# SPDX-License-Identifier: GPL-3.0-or-later
"""ARC sealing in a session: which mail is sealed, by which key, and what the next hop finds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dkim as dkimpy
import pytest

from assay.daemon.journal import message_fields
from assay.log import pairs
from assay.model.edits import Insert, edited
from assay.model.message import Header, split_message
from assay.protocol import arc
from assay.protocol.dkim import BodyHashes
from assay.session import Verdict
from signing import DOMAIN, SELECTOR, pem, record, rsa_key, sign_rsa
from talking import NOW, deliver
from zone import Zone

DNS = Zone(
    {
        "_dmarc.example.org": [["TXT", ["v=DMARC1; p=reject"]]],
        f"{SELECTOR}._domainkey.{DOMAIN}": [["TXT", [record(rsa_key())]]],
        "arc._domainkey.first.example": [["TXT", [record(rsa_key())]]],
        "arc._domainkey.second.example": [["TXT", [record(rsa_key())]]],
    }
)
ARC_FIELDS = ["ARC-Seal", "ARC-Message-Signature", "ARC-Authentication-Results"]


@pytest.fixture
def sections(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    path = tmp_path / "arc.pem"
    path.touch(0o600)
    path.write_bytes(pem(rsa_key()))

    def make(domain: str = "first.example", **more: Any) -> dict[str, Any]:
        row = {"domain": domain, "selector": "arc", "key_file": str(path)}
        return {
            "identity": {"authserv_id": f"mx.{domain}"},
            "arc": {"own_domains": ["ours.example"], "seal": [row | more]},
        }

    return make


def sent(sections: dict[str, Any], octets: bytes, *recipients: str, **more: Any) -> Verdict:
    envelope = {"mail_from": "<joe@example.org>", "recipients": [f"<{path}>" for path in recipients], "dns": DNS}
    return deliver(sections, octets, **(envelope | more))[-1]


def leaves(verdict: Verdict, octets: bytes) -> bytes:
    """The message as the next hop gets it."""
    header, body = split_message(octets)
    return b"".join(field.raw for field in edited(Header(tuple(header)), verdict.edits)) + b"\r\n" + body


def inserted(verdict: Verdict) -> list[str]:
    return [edit.name for edit in reversed(verdict.edits) if isinstance(edit, Insert)]


def validate(octets: bytes) -> arc.Evaluation:
    fields, body = split_message(octets)
    header = Header(tuple(fields))
    chain = arc.parse_chain(header)
    assert isinstance(chain, arc.Chain)
    hashes = BodyHashes(chain.body_hash_specs)
    hashes.update(body)
    return arc.verify(chain, DNS.solve(arc.fetch_keys(chain, header)), header, hashes, now=NOW)


def log(verdict: Verdict) -> str:
    return pairs(message_fields(verdict, waited=0.0))


def dkimpy_validates(octets: bytes) -> bytes:
    def answer(name: bytes, timeout: int = 5) -> bytes:
        rows = DNS.rows[name.decode().rstrip(".")]
        return "".join(rows[0][1]).encode()

    cv, _, _ = dkimpy.arc_verify(octets, dnsfunc=answer)
    return cv or b""


def test_mail_that_leaves_is_sealed_on_top_of_our_results(sections: Any) -> None:
    octets = sign_rsa()
    verdict = sent(sections(), octets, "bob@a.example")
    assert inserted(verdict) == [*ARC_FIELDS, "Authentication-Results", "Received-SPF", "Received-SPF"]
    assert "seal=first.example/arc" in log(verdict)
    left = leaves(verdict, octets)
    assert validate(left).result is arc.Result.PASS
    assert dkimpy_validates(left) == b"pass"
    values = {edit.name: edit.value for edit in verdict.edits if isinstance(edit, Insert)}
    results = values["ARC-Authentication-Results"].removeprefix("i=1; ")
    plain = " ".join(values["Authentication-Results"].split())
    assert " ".join(results.split()) == plain
    for name in ARC_FIELDS:  # RFC 8617, 4.1.1 to 4.1.3: the instance comes first
        assert values[name].startswith("i=1;")
    assert "cv=none" in values["ARC-Seal"]


def test_a_second_hop_continues_the_chain(sections: Any) -> None:
    octets = sign_rsa()
    first = leaves(sent(sections(), octets, "bob@a.example"), octets)
    verdict = sent(sections("second.example"), first, "carl@b.example")
    second = leaves(verdict, first)
    evaluation = validate(second)
    assert evaluation.result is arc.Result.PASS
    assert [str(sealer.domain) for sealer in evaluation.sealers] == ["first.example", "second.example"]
    assert dkimpy_validates(second) == b"pass"
    assert "arc=pass" in next(e.value for e in verdict.edits if isinstance(e, Insert) and e.name == ARC_FIELDS[2])


def test_a_broken_chain_is_sealed_as_failed_and_never_again(sections: Any) -> None:
    octets = sign_rsa()
    first = leaves(sent(sections(), octets, "bob@a.example"), octets).replace(b"\r\n\r\n", b"\r\n\r\nadded\r\n", 1)
    verdict = sent(sections("second.example"), first, "carl@b.example")
    assert "cv=fail" in next(e.value for e in verdict.edits if isinstance(e, Insert) and e.name == "ARC-Seal")
    second = leaves(verdict, first)
    again = sent(sections(), second, "dan@c.example")
    assert not set(ARC_FIELDS) & set(inserted(again))  # RFC 8617, 5.1, step 2
    assert 'seal=none seal.why="the chain failed before"' in log(again)


@pytest.mark.parametrize(
    ("more", "recipients", "why"),
    [
        ({}, ["bob@ours.example"], "recipient bob@ours.example is ours"),
        ({}, ["bob@a.example", "eve@below.ours.example"], "recipient eve@below.ours.example is ours"),
        ({}, ["Postmaster"], "recipient Postmaster is ours"),
        ({"recipient_domains": ["a.example"]}, ["bob@a.example", "eve@b.example"], "no arc.seal covers all recipients"),
    ],
)
def test_other_mail_is_not_sealed(sections: Any, more: dict[str, Any], recipients: list[str], why: str) -> None:
    verdict = sent(sections(**more), sign_rsa(), *recipients)
    assert not set(ARC_FIELDS) & set(inserted(verdict))
    assert f'seal=none seal.why="{why}"' in log(verdict)


def test_the_first_row_that_has_all_recipients_seals(sections: Any) -> None:
    settings = sections(recipient_domains=["a.example"])
    settings["arc"]["seal"] += sections("second.example")["arc"]["seal"]
    assert "seal=first.example/arc" in log(sent(settings, sign_rsa(), "bob@a.example"))
    assert "seal=second.example/arc" in log(sent(settings, sign_rsa(), "bob@a.example", "eve@b.example"))


def test_mail_of_ours_refused_mail_and_a_dry_run_are_not_sealed(sections: Any) -> None:
    internal = sections() | {"clients": {"internal": ["192.0.2.0/24"]}}
    assert not sent(internal, sign_rsa(), "bob@a.example").edits
    refused = sent(sections() | {"dmarc": {"reject": "reject"}}, b"From: joe@example.org\r\n\r\n", "bob@a.example")
    assert refused.action.refuses
    assert refused.sealed is None
    dry = sent(sections() | {"milter": {"dry_run": True, "dry_run_headers": True}}, sign_rsa(), "bob@a.example")
    assert not set(ARC_FIELDS) & set(inserted(dry))


def test_forged_results_in_our_name_are_not_sealed(sections: Any) -> None:
    octets = b"Authentication-Results: mx.first.example; dmarc=pass header.from=bank.example\r\n" + sign_rsa()
    verdict = sent(sections(), octets, "bob@a.example")
    results = next(e.value for e in verdict.edits if isinstance(e, Insert) and e.name == ARC_FIELDS[2])
    assert "bank.example" not in results
    assert validate(leaves(verdict, octets)).result is arc.Result.PASS


def test_results_of_another_mta_of_ours_stay_and_are_not_sealed(sections: Any) -> None:
    octets = b"Authentication-Results: mx.first.example; auth=pass smtp.auth=joe\r\n" + sign_rsa()
    verdict = sent(sections() | {"clients": {"trusted_results": ["0.0.0.0/0"]}}, octets, "bob@a.example")
    left = leaves(verdict, octets)
    assert b"smtp.auth=joe" in left
    assert b"smtp.auth=joe" not in left[: left.index(b"Received-SPF")]
    assert validate(left).result is arc.Result.PASS


@pytest.mark.parametrize("now", [NOW])
def test_a_sealed_message_with_8_bit_and_no_body(sections: Any, now: int) -> None:
    for octets in (
        b"From: joe@example.org\r\nSubject: Gr\xc3\xbc\xc3\x9fe \xe9\r\n\r\n",
        b"From: joe@example.org\r\nSubject: x\r\n y\r\n\t z \r\n\r\n \t\r\n\r\n\xff\r\n\r\n\r\n",
        b"From: joe@example.org\r\n",
    ):
        verdict = sent(sections(), octets, "bob@a.example", now=now)
        assert validate(leaves(verdict, octets)).result is arc.Result.PASS


#: What large sites write into the first set, where readers and sealers have differed.
FIRST_HOPS = {
    "Microsoft": (
        b"mx.microsoft.com",
        b" mx.microsoft.com 1; spf=pass\r\n smtp.mailfrom=example.org; dmarc=pass action=none"
        b" header.from=example.org;\r\n dkim=pass header.d=example.org; arc=none",
    ),
    "Google": (
        b"mx.google.com",
        b" mx.google.com;\r\n       dkim=pass header.i=@example.org header.s=sel header.b=AbCd/e+f;\r\n"
        b"       spf=pass (google.com: domain of joe@example.org designates 192.0.2.10 as permitted sender)"
        b" smtp.mailfrom=joe@example.org;\r\n       dmarc=pass (p=REJECT sp=REJECT dis=NONE)"
        b" header.from=example.org;\r\n       dara=pass header.i=@example.net",
    ),
}


@pytest.mark.parametrize("site", FIRST_HOPS)
def test_the_chain_of_a_large_site_goes_on(sections: Any, site: str) -> None:
    identifier, results = FIRST_HOPS[site]
    message = b"Authentication-Results:" + results + b"\r\n" + sign_rsa()
    fields = dkimpy.arc_sign(message, b"arc", b"first.example", pem(rsa_key()), identifier, timestamp=NOW)
    octets = b"".join(fields) + message
    assert validate(octets).result is arc.Result.PASS
    verdict = sent(sections("second.example"), octets, "carl@b.example")
    left = leaves(verdict, octets)
    assert validate(left).result is arc.Result.PASS
    assert dkimpy_validates(left) == b"pass"


@pytest.mark.parametrize("octets", [sign_rsa(), b"From: joe@example.org\r\n\r\nhello\r\n"], ids=["signed", "unsigned"])
def test_a_rule_seals_or_keeps_from_it(sections: Any, octets: bytes) -> None:
    rule = {"rule": [{"name": "r", "when": "true", "forward": True}]}
    verdict = sent(sections() | rule, octets, "bob@ours.example")
    assert validate(leaves(verdict, octets)).result is arc.Result.PASS
    rule["rule"][0]["forward"] = False
    assert 'seal=none seal.why="rule r"' in log(sent(sections() | rule, octets, "bob@a.example"))
