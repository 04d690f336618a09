# SPDX-License-Identifier: GPL-3.0-or-later
"""Mail of ours through a session: which is signed, by what, in which order among the edits, and what the log says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import UnsupportedAlgorithm

from assay.daemon.journal import Journal, message_fields
from assay.log import Level, Log, pairs
from assay.model.edits import edited
from assay.model.message import HeaderField, split_message
from assay.protocol import dkim
from assay.session import Verdict
from assay.session.fields import MAX_HEADER_FIELDS, MAX_HEADER_OCTETS, Fields
from signing import DOMAIN, SELECTOR, ed25519_key, evaluate, pem, record, rsa_key
from talking import deliver
from zone import Zone

OURS = "10.0.0.1"
MESSAGE = b"From: joe@example.org\r\nTo: ann@example.net\r\nSubject: x\r\n\r\nhello\r\n"
DNS = Zone(
    {
        f"{SELECTOR}._domainkey.{DOMAIN}": [["TXT", [record(rsa_key())]]],
        f"e2026._domainkey.{DOMAIN}": [["TXT", [record(ed25519_key())]]],
    }
)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A directory with a key for each of two selectors."""
    for name, key in ((SELECTOR, rsa_key()), ("e2026", ed25519_key())):
        path = tmp_path / f"{name}.pem"
        path.touch(0o600)
        path.write_bytes(pem(key))
    return tmp_path


def sign(folder: Path, **more: Any) -> dict[str, Any]:
    """The section that signs for example.org with both keys."""
    names = (SELECTOR, "e2026")
    row = {
        "domain": DOMAIN,
        "selectors": names,
        "key_files": [str(folder / f"{name}.pem") for name in names],
    }
    return {"clients": {"internal": ["10.0.0.0/8"]}, "sign": {"domain": [row | more]}}


def outcome(
    sections: Mapping[str, Any], octets: bytes = MESSAGE, client: str | None = OURS, **envelope: Any
) -> Verdict:
    return deliver(sections, octets, client=client, **envelope)[-1]


def results(verdict: Verdict, octets: bytes = MESSAGE) -> list[str]:
    """What becomes of the signatures at the next hop."""
    header, body = split_message(octets)
    left = b"".join(field.raw for field in edited(header, verdict.edits)) + b"\r\n" + body
    return [f"{one.selector} {one.result}" for one in evaluate(left, DNS)]


def line(verdict: Verdict) -> str:
    """The log line of a message."""
    return pairs(message_fields(verdict, waited=0))


@pytest.mark.parametrize(
    ("client", "login", "signed"),
    [
        pytest.param(OURS, "", True, id="a host of ours"),
        pytest.param("192.0.2.1", "joe", True, id="a user of ours"),
        pytest.param(None, "", True, id="the MTA's command line"),
        pytest.param("192.0.2.1", "", False, id="a stranger who writes our domain into From"),
    ],
)
def test_which_mail_is_signed(keys: Path, client: str | None, login: str, signed: bool) -> None:
    verdict = outcome(sign(keys), client=client, authenticated=login)
    assert results(verdict) == ([f"{SELECTOR} pass", "e2026 pass"] if signed else [])
    assert ("sign=example.org/sel,e2026" in line(verdict)) is signed
    assert ("sign=" in line(verdict)) is signed


@pytest.mark.parametrize(
    ("author", "why"),
    [
        ("joe@example.com", 'why="author domain example.com is in no table; nearest: example.org"'),
        ("joe@sub.example.org", 'why="author domain sub.example.org is in no table; nearest: example.org"'),
        ("joe@other", 'why="author domain other is in no table"'),
        ("a@example.org, b@example.net", 'why="2 author domains"'),
    ],
)
def test_the_log_says_why_a_message_is_not_signed(keys: Path, author: str, why: str) -> None:
    verdict = outcome(sign(keys), MESSAGE.replace(b"joe@example.org", author.encode()))
    assert f"sign=none {why} action=accept" in line(verdict)
    assert results(verdict) == []


def test_without_the_section_the_log_says_nothing_about_signing() -> None:
    assert "sign=" not in line(outcome({"clients": {"internal": ["10.0.0.0/8"]}}))


def test_subdomains_are_signed_on_request(keys: Path) -> None:
    octets = MESSAGE.replace(b"joe@example.org", b"joe@sub.example.org")
    assert results(outcome(sign(keys, subdomains=True), octets), octets) == [f"{SELECTOR} pass", "e2026 pass"]


def test_signatures_cover_what_the_other_edits_leave(keys: Path) -> None:
    octets = b"Authentication-Results: mx.example.net; dkim=pass\r\n" + MESSAGE
    sections = sign(keys) | {"identity": {"authserv_id": "mx.example.net"}}
    verdict = outcome(sections, octets)
    kinds = [type(edit).__name__ for edit in verdict.edits]
    assert kinds == ["Remove", "Insert", "Insert"]
    assert results(verdict, octets) == [f"{SELECTOR} pass", "e2026 pass"]


def test_a_dry_run_signs_nothing_and_says_what_it_would(keys: Path) -> None:
    verdict = outcome(sign(keys) | {"milter": {"dry_run": True}})
    assert verdict.edits == ()
    assert 'sign=none why="dry run, would sign as example.org/sel,e2026"' in line(verdict)


@pytest.mark.parametrize("on_error", ["tempfail", "accept"])
def test_a_message_that_cannot_be_signed(keys: Path, on_error: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise dkim.SigningError("the key does not work")

    monkeypatch.setattr(dkim, "sign", fail)
    sections = sign(keys)
    sections["sign"]["on_error"] = on_error
    verdict = outcome(sections)
    assert verdict.action == on_error
    assert (verdict.reply is not None) == (on_error == "tempfail")
    assert 'sign=none why="example.org: the key does not work"' in line(verdict)


FLOOD = b"X: y\r\n" * (MAX_HEADER_FIELDS + 1)


class TestHeaderBeyondItsBounds:
    """It cannot be signed, and mail of a domain with p=reject is lost without a signature."""

    @pytest.mark.parametrize(
        "octets",
        [
            pytest.param(FLOOD + MESSAGE, id="author below the bound"),
            pytest.param(MESSAGE.replace(b"\r\n\r\n", b"\r\n" + FLOOD + b"\r\n"), id="author above the bound"),
            pytest.param(b"X: " + b"y" * MAX_HEADER_OCTETS + b"\r\n" + MESSAGE, id="octets"),
        ],
    )
    @pytest.mark.parametrize("on_error", ["tempfail", "accept"])
    def test_mail_that_should_be_signed_follows_on_error(self, keys: Path, octets: bytes, on_error: str) -> None:
        sections = sign(keys)
        sections["sign"]["on_error"] = on_error
        verdict = outcome(sections, octets)
        assert verdict.action == on_error
        assert verdict.edits == ()
        assert sign_as(verdict) == (f"none header longer than {MAX_HEADER_OCTETS} octets or {MAX_HEADER_FIELDS} fields")

    @pytest.mark.parametrize(
        ("author", "said"),
        [
            (b"joe@example.net", "none author domain example.net is in no table"),
            (b"joe@example.org\r\nFrom: joe@example.com", "none 2 author domains in 2 From fields"),
        ],
        ids=["another domain", "no single author"],
    )
    def test_mail_that_nothing_signs_goes_on(self, keys: Path, author: bytes, said: str) -> None:
        verdict = outcome(sign(keys), FLOOD + MESSAGE.replace(b"joe@example.org", author))
        assert verdict.action == "accept"
        assert sign_as(verdict).startswith(said)

    def test_a_rule_that_leaves_mail_unsigned_is_followed(self, keys: Path) -> None:
        rule = {"name": "probe", "when": 'mail_from.authenticated == "probe"', "sign": False}
        verdict = outcome(sign(keys) | {"rule": [rule]}, FLOOD + MESSAGE, authenticated="probe")
        assert (verdict.action, sign_as(verdict)) == ("accept", "none rule probe")

    def test_what_is_kept_of_it_is_bounded(self) -> None:
        fields = Fields(None)
        for field in split_message(FLOOD + b"\r\n")[0]:
            fields.add(field)
        for _ in range(100):
            fields.add(HeaderField(b"From", b" joe@example.org"))
        assert len(fields.complete().fields) == 2

    def test_a_dry_run_says_so(self, keys: Path) -> None:
        verdict = outcome(sign(keys) | {"milter": {"dry_run": True}}, FLOOD + MESSAGE)
        assert (verdict.action, verdict.edits) == ("accept", ())
        assert "none header longer than" in sign_as(verdict)


def test_what_can_sign_does_if_another_cannot(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = dkim.sign

    def fail(*arguments: Any, **options: Any) -> Any:
        if arguments[2].name == "example.net":
            raise dkim.SigningError("the key does not work")
        return real(*arguments, **options)

    monkeypatch.setattr(dkim, "sign", fail)
    for on_error, action, said in (
        ("accept", "accept", "example.org/sel example.net: the key does not work"),
        ("tempfail", "tempfail", "none example.net: the key does not work"),
    ):
        sections = with_table(keys, "*@example.org org\n*@example.net net\n", mail_from=True, on_error=on_error)
        verdict = outcome(sections, mail_from="<bounce@example.net>")
        assert (verdict.action, sign_as(verdict)) == (action, said)


def sign_as(verdict: Verdict) -> str:
    """The word of the log line, and the reason if there is one."""
    assert verdict.signed is not None
    return " ".join(filter(None, (verdict.signed.word, verdict.signed.why)))


def with_table(folder: Path, signing_table: str, **more: Any) -> dict[str, Any]:
    """OpenDKIM's tables: names ``org`` and ``ed`` for example.org, ``net`` for example.net, ``any`` for any."""
    rows = {"org": f"{DOMAIN}:{SELECTOR}", "ed": f"{DOMAIN}:e2026", "net": "example.net:n2026", "any": "%:a2026"}
    table = "".join(
        f"{name}  {row}:{folder}/{'e2026' if name == 'ed' else SELECTOR}.pem\n" for name, row in rows.items()
    )
    (folder / "KeyTable").write_text(table)
    (folder / "SigningTable").write_text(signing_table)
    return {
        "clients": {"internal": ["10.0.0.0/8"]},
        "sign": {"key_table": f"{folder}/KeyTable", "signing_table": f"refile:{folder}/SigningTable"} | more,
    }


def test_opendkim_s_tables_sign(keys: Path) -> None:
    sections = with_table(keys, "*@example.org org:@%\n*@example.org ed\n* any\n")
    assert results(outcome(sections)) == [f"{SELECTOR} pass"]
    sections["sign"]["multiple_signatures"] = True
    verdict = outcome(sections)
    assert sign_as(verdict) == "example.org/sel,e2026,a2026"
    assert results(verdict)[:2] == [f"{SELECTOR} pass", "a2026 permerror"], "RSA first"
    octets = MESSAGE.replace(b"joe@example.org", b"joe@anywhere.example")
    assert sign_as(outcome(sections, octets)) == "anywhere.example/a2026"


def test_sections_go_before_the_table(keys: Path) -> None:
    sections = with_table(keys, "* any\n")
    sections["sign"]["domain"] = sign(keys)["sign"]["domain"]
    assert sign_as(outcome(sections)) == "example.org/sel,e2026"


SENDER_FIELD = MESSAGE.replace(b"From: joe@example.org", b"From: ann@example.com\r\nSender: joe@example.org")


@pytest.mark.parametrize(
    ("octets", "keys_on", "said"),
    [
        pytest.param(
            SENDER_FIELD,
            {},
            "none author domain example.com is in no table; nearest: example.org",
            id="Sender does not count by itself",
        ),
        pytest.param(SENDER_FIELD, {"sender_field": True}, "example.org/sel,e2026", id="Sender on request"),
        pytest.param(
            MESSAGE.replace(b"From: joe@example.org", b"Sender: joe@example.org"),
            {"sender_field": True},
            "example.org/sel,e2026",
            id="Sender without From",
        ),
        pytest.param(
            MESSAGE.replace(b"joe@example.org", b"ann@example.com"),
            {"mail_from": True},
            "example.org/sel,e2026",
            id="MAIL FROM on request",
        ),
        pytest.param(MESSAGE, {"mail_from": True}, "example.org/sel,e2026", id="the same domain signs once"),
        pytest.param(
            SENDER_FIELD.replace(b"joe@example.org", b"joe@example.org, ann@example.org"),
            {"sender_field": True},
            "none author domain example.com is in no table; nearest: example.org",
            id="Sender with two addresses",
        ),
    ],
)
def test_whose_domain_counts(keys: Path, octets: bytes, keys_on: dict[str, Any], said: str) -> None:
    sections = sign(keys)
    sections["sign"] |= keys_on
    assert sign_as(outcome(sections, octets, mail_from="<bounce@example.org>")) == said


@pytest.mark.parametrize(
    ("login", "client", "said"),
    [
        ("joe", "192.0.2.1", "example.org/sel,e2026"),
        ("ann", "192.0.2.1", "none login ann may not sign as example.org"),
        ("", "10.0.0.1", "none client 10.0.0.1 may not sign as example.org"),
        ("", "10.1.0.1", "example.org/sel,e2026"),
        ("", None, "none local mail may not sign as example.org"),
    ],
)
def test_who_may_sign(keys: Path, login: str, client: str | None, said: str) -> None:
    (keys / "senders").write_text("joe example.org\n10.1.0.0/16 example.org\nann example.net\n")
    sections = sign(keys)
    sections["sign"]["senders"] = str(keys / "senders")
    assert sign_as(outcome(sections, client=client, authenticated=login)) == said


def test_names_are_written_in_a_labels(keys: Path) -> None:
    octets = "From: joe@bücher.example\r\nSubject: x\r\n\r\nhello\r\n".encode()
    verdict = outcome(sign(keys, domain="Bücher.example", identity="author"), octets)
    (*_, top) = [edit for edit in verdict.edits if edit.name == "DKIM-Signature"]
    assert "d=xn--bcher-kva.example;" in top.value
    assert "i=joe@xn--bcher-kva.example;" in top.value.replace("\r\n ", " ")


def test_the_directory_of_keys(keys: Path) -> None:
    (keys / "e2026.pem").rename(keys / "e2026.private")
    sections = sign(keys, key_files=(), key_directory=str(keys))
    assert results(outcome(sections)) == [f"{SELECTOR} pass", "e2026 pass"]


def test_judging_and_signing_share_one_hash_of_the_body(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    real = dkim.BodyHashes

    def counted(specs: Any) -> dkim.BodyHashes:
        made.append(len(set(specs)))
        return real(specs)

    monkeypatch.setattr(dkim, "BodyHashes", counted)
    outcome(sign(keys))
    assert max(made) == 1


def rule(when: str, sign: bool | str, **more: Any) -> dict[str, Any]:
    return {"name": "r", "when": when, "sign": sign} | more


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (rule('mail_from.authenticated == "bulk"', False), "example.org/sel,e2026"),
        (rule('from.domain == "example.org"', False), "none rule r"),
        (rule('header("X-No") != ""', False), "none rule r"),
        (rule('rcpt.exists(one, one == "ann@example.net")', False), "none rule r"),
        (rule('direction == "outbound" && inside(client.address, "10.0.0.0/8")', False), "none rule r"),
        (rule("true", False, dry_run=True), "example.org/sel,e2026 rule r would decide, but is in dry run"),
    ],
)
def test_a_rule_can_keep_mail_of_ours_unsigned(keys: Path, one: dict[str, Any], said: str) -> None:
    octets = b"X-No: 1\r\n" + MESSAGE
    verdict = outcome(sign(keys) | {"rule": [one]}, octets, recipients=("<ann@example.net>",))
    assert sign_as(verdict) == said


def test_a_rule_can_name_the_domain(keys: Path) -> None:
    octets = MESSAGE.replace(b"joe@example.org", b"joe@example.com")
    (keys / "senders").write_text("joe example.com\n")
    sections = sign(keys) | {"rule": [rule("true", "EXAMPLE.org")]}
    sections["sign"]["senders"] = str(keys / "senders")
    verdict = outcome(sections, octets)
    assert sign_as(verdict) == "example.org/sel,e2026", "the operator's rule may sign for anybody"


@pytest.mark.parametrize("when", ["true", 'list.id == ""', 'dmarc.result != "pass"'])
def test_a_rule_for_mail_of_ours_does_not_sign_a_stranger_s(keys: Path, when: str) -> None:
    rules = [rule('direction == "inbound" && client.name == "x"', True), rule(when, True, name="ours")]
    verdict = outcome(sign(keys) | {"rule": rules}, client="192.0.2.1")
    assert results(verdict) == []
    verdict = outcome(sign(keys) | {"rule": rules[1:]}, client="192.0.2.1")
    assert (results(verdict), verdict.signed) == ([], None)


def test_a_rule_about_signing_says_nothing_about_the_action(keys: Path) -> None:
    rules = [rule('direction == "inbound"', True, dry_run=True)]
    verdict = outcome(sign(keys) | {"rule": rules}, client="192.0.2.1")
    assert verdict.decision.watched == ()


@pytest.mark.parametrize(("client", "signed"), [("192.0.2.1", True), ("192.0.2.2", False)])
def test_a_rule_that_names_the_direction_signs_mail_from_outside(keys: Path, client: str, signed: bool) -> None:
    when = 'direction == "inbound" && inside(client.address, "192.0.2.1")'
    sections = sign(keys) | {"rule": [rule(when, True)]}
    verdict = outcome(sections, client=client)
    assert results(verdict) == ([f"{SELECTOR} pass", "e2026 pass"] if signed else [])
    names = [edit.name for edit in verdict.edits]
    assert "Authentication-Results" in names
    assert names[-2:] == (["DKIM-Signature"] * 2 if signed else names[-2:])


def test_a_message_that_is_refused_is_not_signed(keys: Path) -> None:
    sections = sign(keys) | {
        "rule": [rule('direction == "inbound"', True), {"name": "no", "when": "true", "action": "reject"}]
    }
    verdict = outcome(sections, client="192.0.2.1")
    assert verdict.action == "reject"
    assert "DKIM-Signature" not in [edit.name for edit in verdict.edits]


def test_the_log_names_what_may_break_a_signature(keys: Path) -> None:
    octets = MESSAGE.replace(b"hello", b"gr\xc3\xbc\xc3\x9fe " + b"x" * 1000)
    assert "sign=example.org/sel,e2026 hazard=8bit,long-line" in line(outcome(sign(keys), octets))
    octets = b"Cc: joe\r\n" + octets
    assert "hazard=8bit,long-line,incomplete-address" in line(outcome(sign(keys), octets))
    unsigned, signed = b"X-Spam: " + b"x" * 1000 + b"\r\n", b"References: " + b"x" * 1000 + b"\r\n"
    assert "hazard=" not in line(outcome(sign(keys), unsigned + MESSAGE))
    assert "hazard=long-line action=" in line(outcome(sign(keys), signed + MESSAGE))
    assert "hazard=8bit,long-line,incomplete-address" in line(outcome(sign(keys), signed + octets))


@pytest.mark.parametrize(("login", "wanted", "field"), [("joe", True, True), ("", True, False), ("joe", False, False)])
def test_users_who_have_logged_in_on_request(keys: Path, login: str, wanted: bool, field: bool) -> None:
    sections = sign(keys) | {"headers": {"authenticated": wanted}, "identity": {"authserv_id": "mx.example.net"}}
    verdict = outcome(sections, client="10.0.0.1", authenticated=login)
    written = [" ".join(edit.value.split()) for edit in verdict.edits if edit.name == "Authentication-Results"]
    assert written == (["mx.example.net; auth=pass smtp.auth=joe"] if field else [])
    assert results(verdict) == [f"{SELECTOR} pass", "e2026 pass"]


def test_a_key_that_cannot_sign_follows_on_error(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bytes:
        raise UnsupportedAlgorithm("not in this mode")

    monkeypatch.setattr("assay.protocol.dkim.sign_field.sign_digest", fail)
    verdict = outcome(sign(keys))
    assert str(verdict.reply).startswith("451 4.7.5 ")
    assert verdict.decision.by == "sign.on_error"
    assert sign_as(verdict) == "none example.org: the key of sel cannot sign: not in this mode"


def test_of_several_domains_the_author_s_is_on_top(keys: Path) -> None:
    sections = with_table(keys, "*@example.org org\n*@example.net net\n", mail_from=True)
    verdict = outcome(sections, mail_from="<bounce@example.net>")
    assert sign_as(verdict) == "example.org/sel+example.net/n2026"
    header, _ = split_message(MESSAGE)
    first, second = edited(header, verdict.edits).all("DKIM-Signature")
    assert b"d=example.org;" in first.value
    assert b"d=example.net;" in second.value


def test_a_hazard_is_a_warning_once_in_a_while(keys: Path) -> None:
    lines: list[tuple[Level, str]] = []
    journal = Journal(Log(lambda level, text: lines.append((level, text)), Level.INFO))
    verdict = outcome(sign(keys), MESSAGE.replace(b"hello", b"gr\xc3\xbc\xc3\x9fe"))
    for _ in range(2):
        journal.enter(verdict, {})
    warned = [text for level, text in lines if level is Level.WARNING]
    assert warned == ["a signature may break in transit (docs/signing.md): queue=- hazard=8bit"]


def test_mail_of_users_that_is_judged_is_signed_too(keys: Path) -> None:
    sections = sign(keys)
    sections["clients"] = {"judge_authenticated": True}
    verdict = outcome(sections, client="192.0.2.1", authenticated="joe")
    names = [edit.name for edit in verdict.edits]
    assert "Authentication-Results" in names
    assert names[-2:] == ["DKIM-Signature"] * 2
    assert results(verdict) == [f"{SELECTOR} pass", "e2026 pass"]
    line_of = line(verdict)
    assert "dmarc=" in line_of
    assert "sign=example.org/sel,e2026" in line_of


def test_rules_decide_about_it_with_its_results(keys: Path) -> None:
    sections = sign(keys, canonicalization="simple/simple")
    sections["clients"] = {"judge_authenticated": True}
    sections["rule"] = [
        rule('direction == "outbound" && dmarc.result == "pass"', False),
        rule('direction == "inbound"', True),
    ]
    verdict = outcome(sections, client="192.0.2.1", authenticated="joe")
    assert results(verdict) == [f"{SELECTOR} pass", "e2026 pass"]
