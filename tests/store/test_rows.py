# SPDX-License-Identifier: GPL-3.0-or-later
"""What is kept of a verdict."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from assay.config import Configuration, make_settings, make_trust
from assay.model.message import split_message
from assay.model.smtp import parse_address
from assay.session import Session, Verdict
from assay.session.delivery import Delivery, deliver
from assay.session.transaction import MAX_RECIPIENTS
from assay.store import from_verdict as making
from assay.store import rows
from assay.store.from_verdict import Keeping, message_row, new_id
from assay.store.rows import DmarcRow, FindingRow, MessageRow, decode, encode
from signing import KEY_NAME, MESSAGE, NOW, record, rsa_key, sign_rsa
from zone import Zone

GOOD, BAD = "192.0.2.1", "203.0.113.9"


def verdicts(
    policy: str = "p=reject",
    message: bytes = MESSAGE,
    *,
    address: str = GOOD,
    mail_from: str = "<ann@example.org>",
    recipients: Sequence[str] = ("<bob@example.net>",),
    authenticated: str = "",
    **sections: Any,
) -> list[Verdict]:
    """The verdicts on a message, played to a session that is configured as a worker's."""
    dns = Zone(
        {
            "example.org": [["TXT", [f"v=spf1 ip4:{GOOD} -all"]]],
            "_dmarc.example.org": [["TXT", [f"v=DMARC1; {policy}"]]],
            "guess.example": [["A", "192.0.2.1"]],
            KEY_NAME: [["TXT", [record(rsa_key())]]],
        }
    )
    configuration = msgspec.convert({"identity": {"authserv_id": "mx.example.net"}, **sections}, Configuration)
    header, body = split_message(message)
    session = Session(make_settings(configuration), make_trust(configuration), lambda: dns)
    delivery = Delivery(
        parse_address(address),
        header.fields,
        body,
        helo="mail.example.org",
        mail_from=mail_from,
        recipients=tuple(recipients),
        authenticated=authenticated,
        queue_id="4Q",
        now=NOW,
    )
    return deliver(session, delivery)


def kept(verdict: Verdict, **keeping: bool) -> MessageRow:
    return message_row(
        verdict, Keeping("mx.example.net", **keeping), now=NOW + 0.5, waits={"mail": 0.0001, "eom": 0.02}
    )


def dmarc_of(*arguments: Any, **options: Any) -> DmarcRow:
    found = kept(verdicts(*arguments, **options)[-1]).dmarc
    assert found is not None
    return found


class TestMessage:
    def test_what_a_postmaster_looks_for(self) -> None:
        row = kept(verdicts(message=b"Message-ID: <1@example.org>\r\n" + MESSAGE)[-1])
        assert row.time == NOW * 1000 + 500
        assert (row.queue, row.message_id) == ("4Q", "<1@example.org>")
        assert (row.host, row.stage, row.direction, row.action) == ("mx.example.net", "eom", "inbound", "accept")
        assert (row.client, row.helo) == (GOOD, "mail.example.org")
        assert (row.sender_domain, row.author_domain, row.organizational_domain) == ("example.org",) * 3
        assert (row.recipient_count, row.recipient_domains) == (1, ("example.net",))
        assert (row.milliseconds, row.waits) == (20, (("eom", 20),))

    def test_recipients_that_were_not_looked_at_are_counted(self) -> None:
        recipients = tuple(f"<{number}@example.net>" for number in range(MAX_RECIPIENTS + 2))
        assert kept(verdicts(recipients=recipients)[-1]).recipient_count == MAX_RECIPIENTS + 2

    def test_people_are_left_out_unless_wanted(self) -> None:
        verdict = verdicts(authenticated="ann", clients={"judge_authenticated": True})[-1]
        octets = encode(kept(verdict))
        assert b"ann" not in octets
        assert b"bob" not in octets
        assert b"lunch" not in octets
        row = kept(verdict, addresses=True, subjects=True)
        assert (row.sender, row.author, row.login) == ("ann@example.org", "ann@example.org", "ann")
        assert row.recipients == ("bob@example.net",)
        assert row.subject == "lunch\tand  dinner"

    def test_the_local_part_of_a_rewritten_sender_is_left_out_too(self) -> None:
        assert making._kept_address("SRS0=hash=tt=example.org=ann@srs.example", Keeping("")) == "srs.example"

    @pytest.mark.parametrize(
        ("path", "domain", "null"),
        [
            ("<>", "", True),
            ("<ann@EXAMPLE.org>", "example.org", False),
            ("<ann@bücher.example>", "xn--bcher-kva.example", False),
            ("<ann@not_valid..example>", "not_valid..example", False),
            ("<ann>", "", False),
        ],
    )
    def test_the_sender(self, path: str, domain: str, null: bool) -> None:
        row = kept(verdicts(mail_from=path)[-1])
        assert (row.sender_domain, row.null_sender) == (domain, null)

    def test_a_refusal_before_the_message(self) -> None:
        verdict = verdicts(address=BAD, spf={"mailfrom": {"fail": "reject", "stage": "mail"}})[-1]
        row = kept(verdict)
        assert (row.stage, row.action, row.by) == ("mail", "reject", "spf.mailfrom.fail")
        assert row.reply.startswith("550 5.7.23")
        assert row.dmarc is None

    def test_what_a_dry_run_would_have_done(self) -> None:
        row = kept(verdicts(address=BAD, dmarc={"reject": "reject"}, milter={"dry_run": True})[-1])
        assert (row.action, row.watched) == ("accept", (("reject", "dmarc.reject"),))
        rule = {"name": "strict", "when": "spf.mailfrom.result == 'fail'", "action": "reject", "dry_run": True}
        row = kept(verdicts(address=BAD, rule=[rule])[-1])
        assert (row.action, row.watched) == ("accept", (("reject", "rule strict"),))


class TestFindings:
    def test_all_methods(self) -> None:
        row = kept(verdicts(message=sign_rsa(MESSAGE))[-1])
        assert {finding.key: finding.result for finding in row.findings} == {
            "iprev": "permerror",
            "spf.mailfrom": "pass",
            "spf.helo": "none",
            "dkim": "pass",
            "arc": "none",
            "dmarc": "pass",
        }

    def test_which_identifier_and_whether_it_is_aligned(self) -> None:
        row = kept(verdicts(message=sign_rsa(MESSAGE))[-1])
        found = {finding.key: finding for finding in row.findings}
        assert (found["dkim"].domain, found["dkim"].selector, found["dkim"].aligned) == ("example.org", "sel", True)
        assert (found["spf.mailfrom"].domain, found["spf.mailfrom"].aligned) == ("example.org", True)
        assert not found["spf.helo"].aligned
        assert found["dmarc"].domain == "example.org"

    def test_a_best_guess_is_no_result_of_a_domain_that_publishes_none(self) -> None:
        row = kept(verdicts(mail_from="<ann@guess.example>", spf={"best_guess": "v=spf1 ip4:192.0.2.0/24 -all"})[-1])
        (found,) = [finding for finding in row.findings if finding.key == "spf.mailfrom"]
        assert (found.result, found.domain) == ("none", "guess.example")
        assert found.reason.startswith("best guess, because guess.example has no record: ")

    def test_a_pass_that_is_not_aligned(self) -> None:
        other = MESSAGE.replace(b"ann@example.org", b"ann@example.com")
        row = kept(verdicts(message=sign_rsa(other))[-1])
        (signature,) = [finding for finding in row.findings if finding.key == "dkim"]
        assert (signature.result, signature.aligned) == ("pass", False)

    def test_they_are_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(making, "MAX_FINDINGS", 3)
        row = kept(verdicts(message=sign_rsa(MESSAGE))[-1])
        assert (len(row.findings), row.further_findings) == (3, 3)

    def test_of_too_many_signatures_those_that_tell_most_are_left(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(making, "MAX_FINDINGS", 7)
        passing = sign_rsa(MESSAGE)
        failing = passing[: passing.index(b"From:")].replace(b"s=sel", b"s=old")
        row = kept(verdicts(message=failing * 3 + passing, address=BAD)[-1])
        assert [(found.key, found.result) for found in row.findings] == [
            ("iprev", "permerror"),
            ("spf.mailfrom", "fail"),
            ("spf.helo", "none"),
            ("dkim", "permerror"),
            ("dkim", "pass"),
            ("arc", "none"),
            ("dmarc", "pass"),
        ]
        assert row.further_findings == 2


class TestDmarc:
    """What goes into aggregate reports (RFC 9990, 3.1.1)."""

    def test_a_pass_under_a_policy(self) -> None:
        found = dmarc_of("p=reject; rua=mailto:d@example.org")
        assert found == DmarcRow(
            rows.PublishedRow("example.org", "v=DMARC1; p=reject; rua=mailto:d@example.org", "treewalk"),
            "reject",
            "pass",
            dkim_aligned=False,
            spf_aligned=True,
        )

    def test_a_pass_without_a_policy(self) -> None:
        assert dmarc_of("p=none").disposition == "none"

    @pytest.mark.parametrize(
        ("policy", "action", "disposition"),
        [
            ("reject", "reject", "reject"),
            ("reject", "discard", "reject"),
            ("quarantine", "quarantine", "quarantine"),
            ("quarantine", "tag", "quarantine"),
        ],
    )
    def test_what_was_asked_for_was_done(self, policy: str, action: str, disposition: str) -> None:
        found = dmarc_of(f"p={policy}", address=BAD, dmarc={policy: action})
        assert (found.policy, found.disposition, found.reasons) == (policy, disposition, ())

    def test_nothing_is_configured(self) -> None:
        found = dmarc_of("p=reject", address=BAD)
        assert (found.disposition, found.reasons) == ("none", (("local_policy", ""),))

    def test_something_gentler_is_configured(self) -> None:
        found = dmarc_of("p=reject", address=BAD, dmarc={"reject": "quarantine"})
        assert found.disposition == "quarantine"
        assert [kind for kind, _ in found.reasons] == ["local_policy"]

    def test_a_rule_decided_and_says_why(self) -> None:
        rule = {"name": "list", "when": "true", "action": "accept", "reason": "a list that we know"}
        found = dmarc_of("p=reject", address=BAD, dmarc={"reject": "reject"}, rule=[rule])
        assert (found.disposition, found.reasons) == ("none", (("local_policy", "rule list: a list that we know"),))

    def test_a_rule_refused_what_passed(self) -> None:
        rule = {"name": "no", "when": "true", "action": "reject", "reason": "unwanted"}
        found = dmarc_of("p=none", rule=[rule])
        assert (found.disposition, [kind for kind, _ in found.reasons]) == ("reject", ["local_policy"])

    def test_the_domain_is_testing(self) -> None:
        found = dmarc_of("p=reject; t=y", address=BAD, dmarc={"quarantine": "quarantine"})
        assert (found.disposition, found.reasons) == ("quarantine", (("policy_test_mode", ""),))

    def test_a_trusted_forwarder(self) -> None:
        clients = {"trusted_forwarders": [BAD]}
        found = dmarc_of("p=reject", address=BAD, dmarc={"reject": "reject"}, clients=clients)
        assert (found.disposition, found.reasons) == ("none", (("trusted_forwarder", "trusted forwarder"),))

    def test_a_dry_run(self) -> None:
        found = dmarc_of("p=reject", address=BAD, dmarc={"reject": "reject"}, milter={"dry_run": True})
        assert (found.disposition, found.reasons) == ("none", (("local_policy", "dry run"),))

    @pytest.mark.parametrize("address", [BAD, GOOD])
    def test_a_deferred_message_counts_when_it_comes_again(self, address: str) -> None:
        rule = {"name": "later", "when": "true", "action": "tempfail"}
        assert dmarc_of("p=reject", address=address, rule=[rule]).disposition == ""

    def test_without_a_record_there_is_nothing_to_report(self) -> None:
        other = MESSAGE.replace(b"ann@example.org", b"ann@example.com")
        assert kept(verdicts(message=other)[-1]).dmarc is None


class TestForm:
    def test_ids_are_uuids_that_sort_by_time(self) -> None:
        first, second = new_id(1000), new_id(1001)
        assert first < second
        assert uuid.UUID(bytes=first).version == 7
        assert uuid.UUID(bytes=first).variant == uuid.RFC_4122
        assert len({new_id(1000) for _ in range(1000)}) == 1000

    def test_workers_that_are_forked_from_one_process_make_others(self) -> None:
        """Each starts with the state of its parent."""
        drawn = []
        for _ in range(3):
            reading, writing = os.pipe()
            process = os.fork()
            if not process:
                os.write(writing, new_id(1000))
                os._exit(0)
            os.close(writing)
            with open(reading, "rb") as answer:
                drawn.append(answer.read())
            os.waitpid(process, 0)
        assert len({*drawn, new_id(1000)}) == 4
        assert {len(each) for each in drawn} == {16}

    def test_a_row_of_excessive_length_is_cut(self) -> None:
        row = kept(verdicts()[-1])
        long = FindingRow("dkim", "dkim", "fail", "ä" * 255, "ö" * 255, reason="ü" * 255)
        octets = encode(msgspec.structs.replace(row, findings=(long,) * 100, recipients=("ß" * 255,) * 100))
        assert len(octets) <= rows.MAX_ROW_OCTETS
        assert decode(octets).further_findings == 80

    def test_octets_that_are_not_utf_8(self) -> None:
        row = msgspec.structs.replace(kept(verdicts()[-1]), helo="\udcff")
        assert decode(encode(row)).helo == "\\xff"

    @pytest.mark.parametrize("octets", [b"", b"\x90", b"\xc1", b"nonsense", encode(kept(verdicts()[-1]))[:-1]])
    def test_what_is_not_a_row(self, octets: bytes) -> None:
        with pytest.raises(ValueError, match=r".") as raised:
            decode(octets)
        assert not isinstance(raised.value, UnicodeError)
