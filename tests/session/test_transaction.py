# SPDX-License-Identifier: GPL-3.0-or-later
"""One message: what is started when, what bounds hold, and how the methods come together."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import dkim as dkimpy
import pytest

from assay.model.message import HeaderField, split_message
from assay.protocol import dkim
from assay.session import Settings
from assay.session.fields import MAX_HEADER_FIELDS, MAX_HEADER_OCTETS, MAX_TRACE_FIELDS
from assay.session.signatures import MAX_KEYS_AHEAD
from assay.session.transaction import MAX_RECIPIENTS
from sending import BAD, GOOD, MESSAGE, OUR_ID, ROWS, message
from signing import KEY_NAME, pem, record, rsa_key, sign_rsa
from talking import NOW, Postponing, configured, feed, greet, inserted, removed, session, talk
from zone import Zone

GOOD_ADDRESS = ip_address(GOOD)


def asked(zone: Zone, since: int = 0) -> list[str]:
    return [question.name for question in zone.asked[since:]]


def test_questions_are_asked_as_soon_as_their_fact_is_there() -> None:
    zone = Zone(ROWS)
    one = session(new_driver=lambda: zone)
    steps = []

    def step(name: str) -> None:
        steps.append((name, asked(zone, sum(len(names) for _, names in steps))))

    one.connect(GOOD_ADDRESS, "", mta_name=OUR_ID)
    step("connect")
    one.helo("mail.example.org")
    step("helo")
    one.mail("<joe@example.org>", now=NOW)
    step("mail")
    one.rcpt("<ann@example.net>")
    step("rcpt")
    for each in split_message(sign_rsa(MESSAGE, include_headers=[b"from"]))[0]:
        one.header(each)
        step(each.name.decode().lower())
    one.end_of_header()
    one.body(b"hello\r\n")
    step("body")
    assert one.end_of_message(queue_id="", now=NOW) is not None
    step("end")
    found = dict(steps)
    assert "1.2.0.192.in-addr.arpa" in found["connect"]
    assert "mail.example.org" in found["helo"]
    assert found["mail"] == ["example.org"]  # whether its walk is needed, only the author domain will tell
    assert found["rcpt"] == found["subject"] == found["body"] == []
    assert KEY_NAME in found["dkim-signature"]
    assert "_dmarc.example.org" in found["from"]
    assert [name for name in found["end"] if not name.startswith("_dmarc.")] == []


def test_arc_keys_are_asked_for_as_their_fields_arrive() -> None:
    zone = Zone({})
    one = session(new_driver=lambda: zone)
    greet(one)
    one.mail("<joe@example.org>", now=NOW)
    for number, (name, domain) in enumerate((("ARC-Seal", "a.example"), ("ARC-Message-Signature", "b.example")), 1):
        one.header(HeaderField(name.encode(), f" i=1; a=rsa-sha256; d={domain}; s=sel; b=AAAA".encode()))
        keys = [question.name for question in zone.asked if "_domainkey" in question.name]
        assert len(keys) == number
        assert keys[-1] == f"sel._domainkey.{domain}"
    for name in (b"ARC-Seal", b"ARC-Message-Signature") * 50:  # those of older sets stand below
        one.header(HeaderField(name, b" i=1; a=rsa-sha256; d=c.example; s=sel; b=AAAA"))
    one.header(HeaderField(b"ARC-Seal", b" no tags"))
    assert sum("_domainkey" in question.name for question in zone.asked) == 2


def test_without_arc_no_key_of_a_chain_is_asked_for() -> None:
    zone = Zone({})
    one = session(Settings(arc=False), new_driver=lambda: zone)
    greet(one)
    one.mail("<joe@example.org>", now=NOW)
    one.header(HeaderField(b"ARC-Seal", b" i=1; a=rsa-sha256; d=a.example; s=sel; b=AAAA"))
    assert not any("_domainkey" in question.name for question in zone.asked)


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_the_body_may_be_cut_anywhere(size: int) -> None:
    octets = sign_rsa(MESSAGE.replace(b"hello", b"a \t b\r\n\r\n\r\nc  \r\n\r\n"), c="relaxed/relaxed")
    one = session()
    greet(one)
    one.mail("<joe@example.org>", now=NOW)
    header, body = split_message(octets)
    feed(one, *header)
    one.end_of_header()
    for start in range(0, len(body), size):
        one.body(body[start : start + size])
    verdict = one.end_of_message(queue_id="", now=NOW)
    assert verdict is not None
    assert [str(signature.result) for signature in verdict.assessment.dkim] == ["pass"]


def judged(
    octets: bytes,
    settings: Settings | None = None,
    *,
    ip: str = GOOD,
    path: str = "<joe@example.org>",
    rows: object = None,
) -> Any:
    """The assessment of a message; any evaluation in it may be None, which the assertions would tell."""
    one = session(settings, rows=rows)
    greet(one, ip)
    return talk(one, octets, path=path).assessment


@pytest.mark.parametrize(
    ("octets", "fault"),
    [
        pytest.param(b"\r\nx", "no From", id="none"),
        pytest.param(b"From: a@b.example\r\n" * 50 + b"\r\n", "", id="fifty"),
        pytest.param(b"From: a@1.x, b@2.x, c@3.x, d@4.x, e@5.x\r\n\r\n", "", id="five domains"),
        pytest.param(b"From: joe\r\n\r\n", "", id="no domain"),
    ],
)
def test_without_an_author_domain_to_ask_for_dmarc_is_a_permerror(octets: bytes, fault: str) -> None:
    found = judged(octets)
    assert found.dmarc.result == "permerror"
    assert found.author.domain is None
    assert found.author.fault


ROWS_OF_SEVERAL = {
    "example.org": [["TXT", [f"v=spf1 ip4:{GOOD} -all"]]],
    "_dmarc.example.org": [["TXT", ["v=DMARC1; p=none"]]],
    "_dmarc.mild.example": [["TXT", ["v=DMARC1; p=quarantine"]]],
    "_dmarc.strict.example": [["TXT", ["v=DMARC1; p=reject"]]],
    "_dmarc.down.example": [["SERVFAIL", "TXT"]],
}
SEVERAL = [
    pytest.param("joe@example.org, a@strict.example", "fail", "reject", "strict.example", id="strictest last"),
    pytest.param("a@strict.example, joe@example.org", "fail", "reject", "strict.example", id="strictest first"),
    pytest.param("a@mild.example <joe@example.org>", "fail", "quarantine", "mild.example", id="display name"),
    pytest.param("joe@example.org, a@silent.example", "fail", "none", "example.org", id="one without a record"),
    pytest.param("a@one.example, a@two.example", "none", "none", "one.example", id="none has a record"),
    pytest.param("a@mild.example, a@down.example", "temperror", "none", "down.example", id="one that may be strict"),
    pytest.param("a@strict.example, a@down.example", "fail", "reject", "strict.example", id="one that cannot be more"),
    pytest.param("joe@example.org\r\nFrom: a@strict.example", "fail", "reject", "strict.example", id="two fields"),
]


@pytest.mark.parametrize(("authors", "result", "asked", "domain"), SEVERAL)
def test_of_several_authors_none_passes_and_the_strictest_policy_applies(
    authors: str, result: str, asked: str, domain: str
) -> None:
    found = judged(f"From: {authors}\r\n\r\n".encode(), rows=ROWS_OF_SEVERAL)
    assert found.spf_mail_from.result == "pass"
    assert (found.dmarc.result, found.dmarc.disposition) == (result, asked)
    assert str(found.dmarc.author_domain) == domain
    assert found.author.domain is None


def test_two_equal_from_fields_have_one_author() -> None:
    found = judged(b"From: joe@example.org\r\nFrom: joe@example.org\r\n\r\n")
    assert found.dmarc.result == "pass"


@pytest.mark.parametrize(
    "filler",
    [pytest.param([f"X: {'y' * MAX_HEADER_OCTETS}"], id="octets"), pytest.param(["X: y"] * 10_000, id="fields")],
)
@pytest.mark.parametrize("dry_run", [False, True])
def test_a_header_beyond_the_bounds_is_refused_by_name(filler: list[str], dry_run: bool) -> None:
    one = session(Settings(dry_run=dry_run, dry_run_headers=True))
    greet(one)
    verdict = talk(one, message("joe@example.org", f"Received-SPF: pass receiver={OUR_ID}", *filler))
    assert verdict.decision.action == "reject"
    assert (verdict.decision.by, verdict.decision.reason) == (
        "header flood",
        f"header longer than {MAX_HEADER_OCTETS} octets or {MAX_HEADER_FIELDS} fields",
    )
    assert (verdict.action, verdict.edits) == ("accept" if dry_run else "reject", ())
    assert (verdict.reply is None) is dry_run


def test_exempt_mail_has_no_bound_of_its_header() -> None:
    one = session(internal=("192.0.2.0/24",))
    greet(one)
    octets = message("joe@example.org", *["X: y"] * 10_001, f"Received-SPF: pass receiver={OUR_ID}")
    verdict = talk(one, octets)
    assert (verdict.action, removed(verdict)) == ("accept", [("Received-SPF", 1)])


@pytest.mark.parametrize(
    "filler", [[f"X: {'y' * (MAX_HEADER_OCTETS - 2000)}"], ["X: y"] * (MAX_HEADER_FIELDS - 3)], ids=["octets", "fields"]
)
def test_a_header_below_the_bounds_is_read(filler: list[str]) -> None:
    found = judged(sign_rsa(message("joe@example.org", *filler)))
    assert (found.dmarc.result, [one.result for one in found.dkim]) == ("pass", ["pass"])


@pytest.mark.parametrize("name", ["Authentication-Results", "Received-SPF"])
def test_more_trace_fields_than_hops_write_are_removed_unread(name: str) -> None:
    fields = [f"{name}: other.example; none"] * (MAX_TRACE_FIELDS + 2)
    one = session()
    greet(one)
    gone = removed(talk(one, message("joe@example.org", *fields)))
    assert gone == [(name, MAX_TRACE_FIELDS + 2), (name, MAX_TRACE_FIELDS + 1)]


def test_recipients_have_a_bound() -> None:
    one = session()
    greet(one)
    one.mail("<joe@example.org>", now=NOW)
    for number in range(MAX_RECIPIENTS + 5):
        one.rcpt(f"<{number}@example.net>")
    one.end_of_header()
    verdict = one.end_of_message(queue_id="", now=NOW)
    assert verdict is not None
    assert len(verdict.assessment.envelope.recipients) == MAX_RECIPIENTS


class TestSignatures:
    SIGNED = sign_rsa(MESSAGE, include_headers=[b"from"])
    OTHER = b"DKIM-Signature: v=1; a=rsa-sha256; d=other%d.example; s=s; h=from; bh=AAAA; b=AAAA\r\n"

    @pytest.mark.parametrize("last", [True, False], ids=["last", "first"])
    def test_the_author_domains_signature_is_among_those_tried(self, last: bool) -> None:
        others = b"".join(self.OTHER % number for number in range(20))
        signature, rest = self.SIGNED[: -len(MESSAGE)], MESSAGE
        octets = others + signature + rest if last else signature + others + rest
        found = judged(octets, Settings(dkim=dkim.SignatureRules(max_signatures=3)), path="<x@elsewhere.example>")
        assert len(found.dkim) == 3
        assert found.dkim_skipped == 18
        assert found.dmarc.result == "pass"

    @pytest.mark.parametrize(
        "junk",
        [OTHER, b"DKIM-Signature: d=other%d.example\r\n", b"DKIM-Signature: v=1; d=other%d.example; d=example.org\r\n"],
        ids=["well-formed", "malformed", "ambiguous"],
    )
    def test_a_thousand_of_others_hide_no_signature(self, junk: bytes) -> None:
        for near in (b"example.org", b"a.example.org", b"b.a.example.org"):
            author = b"From: joe@a.example.org\r\n\r\nhello\r\n"
            rows = ROWS | {f"sel._domainkey.{near.decode()}": [["TXT", [record(rsa_key())]]]}
            signed = dkimpy.sign(author, b"sel", near, pem(rsa_key()), include_headers=[b"from"])
            octets = b"".join(junk % number for number in range(1000)) + signed + author
            assert judged(octets, path="<x@elsewhere.example>", rows=rows).dmarc.result == "pass"

    def test_a_bounded_number_is_parsed_and_each_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        parsed: list[HeaderField] = []
        parse = dkim.parse
        monkeypatch.setattr(dkim, "parse", lambda field: (parsed.append(field), parse(field))[1])
        others = b"".join(self.OTHER % number for number in range(1000)) + b"DKIM-Signature: nonsense\r\n" * 1000
        found = judged(others + self.SIGNED)
        assert len(parsed) == len(set(map(id, parsed))) <= 10 + MAX_KEYS_AHEAD
        assert len(found.dkim) + found.dkim_skipped == 2001

    def test_keys_of_those_that_matter_for_dmarc_are_asked_for_first(self) -> None:
        zone = Zone(ROWS)
        one = session(new_driver=lambda: zone)
        greet(one)
        talk(one, b"".join(self.OTHER % number for number in range(4)) + self.SIGNED)
        keys = [name.partition("._domainkey.")[2] for name in asked(zone) if "_domainkey" in name]
        assert keys == ["other0.example", "other1.example", "example.org", "other2.example", "other3.example"]

    def test_keys_are_asked_for_no_more_signatures_than_are_tried(self) -> None:
        zone = Zone(ROWS)
        one = session(Settings(dkim=dkim.SignatureRules(max_signatures=3)), new_driver=lambda: zone)
        greet(one)
        talk(one, b"".join(self.OTHER % number for number in range(200)) + MESSAGE)
        assert sum("_domainkey" in name for name in asked(zone)) <= 6

    def test_broken_ones_have_the_bound_too(self) -> None:
        found = judged(
            b"DKIM-Signature: nonsense\r\n" * 200 + MESSAGE, Settings(dkim=dkim.SignatureRules(max_signatures=3))
        )
        assert len(found.dkim) == 3
        assert found.dmarc.result == "pass"

    def test_two_equal_signatures_are_two(self) -> None:
        signature = self.SIGNED[: -len(MESSAGE)]
        assert [str(one.result) for one in judged(signature * 2 + MESSAGE).dkim] == ["pass", "pass"]

    def test_a_key_that_cannot_be_had_is_not_a_failure(self) -> None:
        rows = ROWS | {KEY_NAME: [["SERVFAIL", "*"]]}
        found = judged(self.SIGNED, rows=rows, path="<x@elsewhere.example>")
        assert [str(one.result) for one in found.dkim] == ["temperror"]
        assert found.dmarc.result == "temperror"

    def test_a_strangers_key_that_cannot_be_had_hides_no_failure(self) -> None:
        rows = ROWS | {"s._domainkey.other1.example": [["SERVFAIL", "*"]], "x.example": [["SERVFAIL", "*"]]}
        found = judged(self.OTHER % 1 + MESSAGE, rows=rows, path="<a@x.example>")
        assert [str(one.result) for one in found.dkim] == ["temperror"]
        assert found.spf_mail_from.result == "temperror"
        assert found.dmarc.result == "fail"

    @pytest.mark.parametrize("field", [b"Subject: pay\r\n", b"SUBJECT\t: pay\r\n"])
    def test_a_second_subject_on_a_signed_message(self, field: bytes) -> None:  # RFC 6376, 8.15
        signed = sign_rsa(MESSAGE, include_headers=[b"from", b"subject"])
        assert judged(signed, path="<x@elsewhere.example>").dmarc.result == "pass"
        one = session()
        greet(one)
        verdict = talk(one, field + signed, path="<x@elsewhere.example>")
        assert "dkim=policy" in inserted(verdict)[0]
        assert "policy.unsigned-field=violated" in inserted(verdict)[0]
        assert "dmarc=fail" in inserted(verdict)[0]

    def test_the_settings_reach_the_verifier(self) -> None:
        rows = ROWS | {KEY_NAME: [["TXT", [record(rsa_key(1024))]]]}
        octets = sign_rsa(MESSAGE, include_headers=[b"from"], key=rsa_key(1024))
        assert str(judged(octets, rows=rows).dkim[0].result) == "pass"
        strict = Settings(dkim=dkim.SignatureRules(min_rsa_bits=2048))
        assert str(judged(octets, strict, rows=rows).dkim[0].result) == "policy"


class TestDmarc:
    def test_helo_does_not_count(self) -> None:
        # RFC 9989, 4.4.2: SPF of HELO passes for mail.example.org, that of MAIL FROM says nothing.
        found = judged(message("a@example.org"), path="<x@elsewhere.example>")
        assert found.spf_helo.result == "pass"
        assert found.dmarc.result == "fail"

    def test_helo_counts_for_the_null_reverse_path(self) -> None:
        found = judged(message("a@example.org"), path="<>")
        assert found.spf_mail_from.result == "pass"
        assert str(found.spf_mail_from.domain) == "mail.example.org"
        assert found.dmarc.result == "pass"

    def test_a_guess_is_not_a_pass(self) -> None:
        rows = {name: row for name, row in ROWS.items() if name != "example.org"} | {"example.org": [["A", GOOD]]}
        found = judged(MESSAGE, Settings(spf_best_guess=b"v=spf1 a -all"), rows=rows)
        assert (found.spf_mail_from.result, found.spf_mail_from.guessed) == ("pass", True)
        assert found.dmarc.result == "fail"

    def test_relaxed_alignment_takes_the_organizational_domain(self) -> None:
        rows = ROWS | {"sub.example.org": [["TXT", ["v=spf1 ip4:192.0.2.1 -all"]]]}
        assert judged(MESSAGE, path="<joe@sub.example.org>", rows=rows).dmarc.result == "pass"

    def test_strict_alignment_does_not(self) -> None:
        rows = ROWS | {
            "sub.example.org": [["TXT", ["v=spf1 ip4:192.0.2.1 -all"]]],
            "_dmarc.example.org": [["TXT", ["v=DMARC1; p=reject; aspf=s; adkim=s"]]],
        }
        assert judged(MESSAGE, path="<joe@sub.example.org>", rows=rows).dmarc.result == "fail"

    def test_two_records_are_none(self) -> None:
        rows = ROWS | {"_dmarc.example.org": [["TXT", ["v=DMARC1; p=reject"]], ["TXT", ["v=DMARC1; p=none"]]]}
        assert judged(MESSAGE, rows=rows, ip=BAD).dmarc.result in ("none", "permerror")

    @pytest.mark.parametrize("name", ["example.org", "_dmarc.example.org"])
    def test_a_temporary_error_is_never_a_failure(self, name: str) -> None:
        assert judged(MESSAGE, rows=ROWS | {name: [["SERVFAIL", "*"]]}).dmarc.result == "temperror"


class TestForged:
    def test_occurrences_are_counted_by_name(self) -> None:
        ours, other = f"Authentication-Results: {OUR_ID}; a=b", "Authentication-Results: x.example; a=b"
        spf = f"Received-SPF: pass receiver={OUR_ID}"
        one = session()
        greet(one)
        verdict = talk(one, message("joe@example.org", other, ours, spf, other, ours.lower(), spf))
        assert removed(verdict) == [
            ("authentication-results", 4),
            ("Authentication-Results", 2),
            ("Received-SPF", 2),
            ("Received-SPF", 1),
        ]

    def test_white_space_before_the_colon_is_not_part_of_the_name(self) -> None:
        one = session()
        greet(one)
        assert removed(talk(one, message("joe@example.org", f"Authentication-Results \t: {OUR_ID}; a=b"))) == [
            ("Authentication-Results", 1)
        ]

    def test_they_do_not_hide_a_signature_over_them(self) -> None:
        octets = message("joe@example.org", f"Authentication-Results: {OUR_ID}; a=b")
        signed = sign_rsa(octets, include_headers=[b"from", b"authentication-results"], c="simple/simple")
        one = session()
        greet(one)
        verdict = talk(one, signed)
        assert "dkim=pass" in inserted(verdict)[0]
        assert removed(verdict) == [("Authentication-Results", 1)]


def test_everything_is_cancelled_at_the_end() -> None:
    driver = Postponing(Zone(ROWS))
    one = session(new_driver=lambda: driver)
    greet(one)
    of_client = len(driver.started)
    talk(one, sign_rsa(MESSAGE, include_headers=[b"from"]))
    unfinished = [p for p in driver.started[of_client:] if p.inquiry is not None and not p.cancelled]
    assert unfinished == []


def test_all_is_cancelled_once_a_relay_names_a_host_of_ours() -> None:
    driver = Postponing(Zone(ROWS))
    one = configured({"clients": {"relays": (GOOD,), "internal": ("10.0.0.0/8",)}}, driver)
    greet(one)
    one.mail("<joe@example.org>", now=NOW)
    one.header(HeaderField(b"From", b" joe@example.org"))
    assert driver.started
    one.header(HeaderField(b"Received", b" from a (a.example [10.1.1.1]) by relay.example"))
    assert all(pending.cancelled for pending in driver.started)


def test_a_field_after_the_end_of_an_exempt_message_is_harmless() -> None:
    one = session(internal=("192.0.2.0/24",))
    greet(one)
    one.mail("<joe@example.org>", now=NOW)
    one.end_of_header()
    one.body(b"x")
    one.header(HeaderField(b"From", b" x"))
    verdict = one.end_of_message(queue_id="", now=NOW)
    assert verdict is not None
    assert verdict.edits == ()
