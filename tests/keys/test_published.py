# SPDX-License-Identifier: GPL-3.0-or-later
"""What servers publish, compared with a key: each difference in words."""

from __future__ import annotations

import pytest

from assay.inquiry import Outcome
from assay.keys import forms
from assay.keys.forms import Form
from assay.keys.published import ServerAnswer, Sight, compare, still_there
from assay.model.name import Domain
from assay.protocol import dkim
from signing import ed25519_key, record, rsa_key

RECORD = dkim.record_of(rsa_key())


def answer(*texts: str, server: str = "ns1", truncated: bool = False) -> ServerAnswer:
    outcome = Outcome.FOUND if texts else Outcome.NODATA
    return ServerAnswer(server, outcome, tuple(text.encode() for text in texts), truncated)


SILENT = ServerAnswer("ns2", Outcome.TEMPFAIL, reason="does not answer")
MISSING = ServerAnswer("ns2", Outcome.NXDOMAIN)


@pytest.mark.parametrize(
    ("texts", "sight", "why"),
    [
        ([RECORD], "everywhere", ""),
        ([record(rsa_key(), tags="s=email; n=hello; h=sha256:sha1;")], "everywhere", ""),
        ([], "nowhere", "no TXT record at the name; publish the record"),
        ([record(rsa_key(1024))], "nowhere", "publishes another key; publish the record, or sign with the key that"),
        ([record(rsa_key(3072))], "nowhere", "publishes the key of selector r2025; publish that of this one"),
        (["v=DKIM1; k=rsa; p="], "nowhere", "the key is revoked (p= is empty); rotate to a new key, or publish"),
        ([dkim.record_of(ed25519_key())], "nowhere", "k= says ed25519, but our key is rsa; publish the record"),
        ([RECORD.replace("k=rsa", "k=ed25519")], "nowhere", "not an Ed25519 key of 32 octets; publish the record"),
        ([RECORD.replace("v=DKIM1", "v=DKIM2")], "nowhere", "key record whose v= is not first or not DKIM1; publish"),
        ([RECORD[:-9] + "*"], "nowhere", "malformed key record: p= is"),
        ([record(rsa_key(), tags="h=sha1;")], "nowhere", "h= does not allow sha256, which we sign with; remove h="),
        ([record(rsa_key(), tags="s=other;")], "nowhere", "key is not for e-mail (s=); publish the record"),
        ([record(rsa_key(), tags="t=y;")], "everywhere", "t=y: verifiers treat our mail as unsigned; remove t=y when"),
        ([RECORD, "v=spf1 -all"], "nowhere", "2 TXT records at the name, of which a verifier may take any; leave only"),
        ([RECORD, RECORD], "nowhere", "2 TXT records at the name"),
    ],
)
def test_each_difference_is_explained(texts: list[str], sight: str, why: str) -> None:
    found = compare(RECORD, [answer(*texts)], others={"r2025": dkim.record_of(rsa_key(3072))})
    assert found.sight is Sight(sight)
    assert [one.text[: len(why)] for one in found.differences] == ([why] if why else [])
    assert [one.server for one in found.differences] == (["ns1"] if why else [])


def test_a_strict_key_forbids_identities_in_subdomains() -> None:
    """RFC 6376, 3.6.1, t=s."""
    strict = [answer(record(rsa_key(), tags="t=s;"))]
    assert compare(RECORD, strict).sight is Sight.EVERYWHERE
    found = compare(RECORD, strict, signs_below=True)
    assert found.sight is Sight.NOWHERE
    assert "t=s forbids signatures whose i= is in a subdomain of d=" in found.differences[0].text


def test_an_answer_too_long_for_udp_is_reported_and_no_obstacle() -> None:
    found = compare(RECORD, [answer(RECORD, truncated=True)])
    assert found.sight is Sight.EVERYWHERE
    assert "too long for UDP" in found.differences[0].text


@pytest.mark.parametrize(
    ("answers", "sight"),
    [
        ([answer(RECORD), answer(RECORD, server="ns2")], "everywhere"),
        ([answer(RECORD), MISSING], "partly"),
        ([answer(RECORD), SILENT], "partly"),
        ([answer(), MISSING], "nowhere"),
        ([answer(), SILENT], "unknown"),
        ([SILENT], "unknown"),
        ([], "unknown"),
    ],
)
def test_every_server_counts(answers: list[ServerAnswer], sight: str) -> None:
    assert compare(RECORD, answers).sight is Sight(sight)


@pytest.mark.parametrize(
    ("answers", "sight"),
    [
        ([answer(RECORD), answer(RECORD, server="ns2")], "everywhere"),
        ([answer(RECORD), SILENT], "partly"),
        ([answer("v=DKIM1; p="), MISSING], "nowhere"),
        ([answer("v=spf1 -all")], "nowhere"),
        ([answer(), SILENT], "unknown"),
        ([], "unknown"),
    ],
)
def test_a_record_is_gone_if_no_server_has_it(answers: list[ServerAnswer], sight: str) -> None:
    assert still_there(answers) is Sight(sight)


class TestForms:
    DOMAIN, SELECTOR = Domain("example.org"), Domain("r2026")

    def test_a_zone_file_has_strings_of_at_most_255_octets(self) -> None:
        import dns.zone

        long = dkim.record_of(rsa_key(4096))
        text = forms.write(Form.ZONE, self.DOMAIN, self.SELECTOR, long, 3600)
        zone = dns.zone.from_text(text, origin="example.org", relativize=False, check_origin=False)
        (rdata,) = zone.find_rdataset("r2026._domainkey.example.org.", "TXT")
        assert b"".join(rdata.strings).decode() == long
        assert max(map(len, rdata.strings)) <= 255
        assert len(rdata.strings) == 3

    def test_the_plain_form_is_the_record(self) -> None:
        assert forms.write(Form.PLAIN, self.DOMAIN, self.SELECTOR, RECORD, 3600) == RECORD

    def test_the_form_of_providers_names_what_their_pages_ask_for(self) -> None:
        assert forms.write(Form.PROVIDER, self.DOMAIN, self.SELECTOR, RECORD, 3600).splitlines() == [
            "Name:  r2026._domainkey   (whole: r2026._domainkey.example.org)",
            "Type:  TXT",
            "TTL:   3600",
            f"Value: {RECORD}",
        ]


class TestProof:
    @pytest.mark.parametrize("bits", [1024, 2048, 4096])
    def test_what_dkimpy_signs_verifies_with_our_record(self, bits: int) -> None:
        assert dkim.prove(rsa_key(bits), dkim.record_of(rsa_key(bits))) == ""

    def test_an_ed25519_key_is_proved_too(self) -> None:
        assert dkim.prove(ed25519_key(), dkim.record_of(ed25519_key())) == ""

    def test_a_record_of_another_key_is_noticed(self) -> None:
        assert "another key" in dkim.prove(rsa_key(), dkim.record_of(rsa_key(1024)))
        assert dkim.prove(rsa_key(), "v=DKIM1; p=") == "key revoked"
        assert dkim.prove(rsa_key(), dkim.record_of(ed25519_key())) != ""
        assert dkim.prove(ed25519_key(), dkim.record_of(rsa_key())) == "the record is that of another key"
