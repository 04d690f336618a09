# SPDX-License-Identifier: GPL-3.0-or-later
"""One connection: what a message inherits from it, and who is not judged."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from msgspec.structs import replace

from assay.model.message import HeaderField
from assay.model.network import Networks
from assay.model.smtp import parse_address
from assay.policy import Action, Trust
from assay.session import Session, Settings
from sending import BAD, GOOD, OUR_ID, ROWS, message
from talking import NOW, Postponing, feed, greet, inserted, policy_of, removed, session, talk
from zone import Zone

FORGED = f"Authentication-Results: {OUR_ID}; spf=pass"


def test_a_message_is_judged() -> None:
    one = session()
    greet(one)
    verdict = talk(one)
    found = verdict.assessment
    assert verdict.action is Action.ACCEPT
    assert (found.iprev and found.iprev.result) == "pass"
    assert (found.spf_helo and found.spf_helo.result) == "pass"
    assert (found.spf_mail_from and found.spf_mail_from.result) == "pass"
    assert (found.dmarc and found.dmarc.result) == "pass"
    assert found.envelope.queue_id == "4A"
    assert found.envelope.recipients == ("ann@example.net",)


@pytest.mark.parametrize(
    ("ip", "internal", "authenticated", "judge", "exempt"),
    [
        pytest.param(GOOD, (), "", False, "", id="a stranger"),
        pytest.param(GOOD, ("192.0.2.0/24",), "", False, "internal network 192.0.2.0/24", id="internal"),
        pytest.param(GOOD, ("10.0.0.0/8, 192.0.2.1",), "", False, "internal network 192.0.2.1/32", id="list in a text"),
        pytest.param("::ffff:192.0.2.1", ("192.0.2.0/24",), "", False, "internal network 192.0.2.0/24", id="v4-mapped"),
        pytest.param(GOOD, ("::ffff:192.0.2.0/120",), "", False, "internal network 192.0.2.0/24", id="mapped network"),
        pytest.param("2001:db8::1", ("2001:DB8::/32",), "", False, "internal network 2001:db8::/32", id="IPv6"),
        pytest.param("2001:db8::1", ("0.0.0.0/0",), "", False, "", id="all of IPv4 is not IPv6"),
        pytest.param(GOOD, ("192.0.2.2/31",), "", False, "", id="the neighbouring network"),
        pytest.param(GOOD, (), "joe", False, "authenticated", id="authenticated"),
        pytest.param(GOOD, (), "joe", True, "", id="authenticated, to be judged all the same"),
        pytest.param(GOOD, ("192.0.2.1",), "joe", True, "internal network 192.0.2.1/32", id="internal comes first"),
        pytest.param(None, (), "", False, "no network client", id="no network client"),
    ],
)
def test_who_is_exempt(ip: str | None, internal: tuple[str, ...], authenticated: str, judge: bool, exempt: str) -> None:
    one = session(internal=internal, judge_authenticated=judge)
    one.connect(None if ip is None else parse_address(ip), "", mta_name=OUR_ID)
    one.helo("mail.example.org")
    verdict = talk(one, message("joe@example.org", FORGED), authenticated=authenticated)
    assert verdict.assessment.exempt == exempt
    assert bool(inserted(verdict)) is not bool(exempt)
    assert removed(verdict) == [("Authentication-Results", 1)], "whoever it comes from"


@pytest.mark.parametrize("trusted", [True, False])
@pytest.mark.parametrize("internal", [True, False])
def test_results_of_trusted_mtas_stay(internal: bool, trusted: bool) -> None:
    trust = Trust(
        internal=Networks.parse(["192.0.2.0/24"] if internal else []),
        trusted_results=Networks.parse(["192.0.2.1"] if trusted else ["192.0.2.2"]),
    )
    one = Session(Settings(), trust, lambda: Zone(ROWS))
    greet(one)
    verdict = talk(one, message("joe@example.org", FORGED))
    assert removed(verdict) == ([] if trusted else [("Authentication-Results", 1)])
    assert bool(inserted(verdict)) is not internal


class Waiting:
    """What a session says about the waiting of the MTA."""

    def __init__(self) -> None:
        self.said: list[float | str] = []

    def allow(self, share: float) -> None:
        self.said.append(share)

    def renew(self) -> None:
        self.said.append("renew")


def test_what_a_message_may_wait_at_each_stage_and_the_next_one_again() -> None:
    waiting = Waiting()
    one = Session(Settings(), Trust(), lambda: Zone(ROWS), waiting=waiting)
    greet(one)
    assert waiting.said == [0.5]
    for _ in range(2):
        waiting.said.clear()
        talk(one)
        assert waiting.said == [0.75, 1.0, "renew", 0.5]
    one.mail("<joe@example.org>", now=NOW)
    waiting.said.clear()
    one.mail("<joe@example.org>", now=NOW)
    assert waiting.said == ["renew", 0.5], "a message that was refused or aborted counts as one"


def test_nothing_is_asked_for_an_exempt_message() -> None:
    zone = Zone(ROWS)
    one = session(internal=("192.0.2.0/24",), new_driver=lambda: zone)
    greet(one)
    talk(one)
    assert zone.asked == []


def test_authentication_is_looked_at_for_each_message() -> None:
    one = session()
    greet(one)
    exempt = [talk(one, authenticated=name).assessment.exempt for name in ("", "joe", "", "joe")]
    assert exempt == ["", "authenticated", "", "authenticated"]


def test_the_second_helo_replaces_the_first_and_its_evaluation() -> None:
    driver = Postponing(Zone(ROWS))
    one = session(new_driver=lambda: driver)
    one.connect(ip_address(GOOD), "", mta_name=OUR_ID)
    one.helo("elsewhere.example")
    first = driver.started[-1]
    one.helo("mail.example.org")
    assert first.cancelled
    found = talk(one).assessment
    assert found.client.helo == "mail.example.org"
    assert found.spf_helo is not None
    assert str(found.spf_helo.domain) == "mail.example.org"
    assert found.iprev is not None, "which HELO does not change"


def test_iprev_and_helo_are_evaluated_once_for_all_messages() -> None:
    zone = Zone(ROWS)
    one = session(new_driver=lambda: zone)
    greet(one)
    before = len(zone.asked)
    talk(one)
    talk(one)
    names = [question.name for question in zone.asked]
    assert before == 4  # PTR and A; TXT and A of the HELO
    assert names.count("1.2.0.192.in-addr.arpa") == 1
    assert names.count("example.org") == 2


@pytest.mark.parametrize("how", ["abort", "a second MAIL", "close"])
def test_what_is_not_finished_is_cancelled_and_forgotten(how: str) -> None:
    driver = Postponing(Zone(ROWS))
    one = session(new_driver=lambda: driver)
    greet(one)
    of_client = list(driver.started)
    one.mail("<spam@reject.example>", now=NOW)
    one.rcpt("<one@example.net>")
    feed(
        one,
        HeaderField(b"From", b" spam@reject.example"),
        HeaderField(b"Authentication-Results", f" {OUR_ID}; a=b".encode()),
    )
    of_message = driver.started[len(of_client) :]
    assert len(of_message) == 2  # SPF, discovery
    if how == "close":
        one.close()
        assert all(pending.cancelled for pending in of_client)
        assert all(pending.cancelled for pending in of_message)
        return
    if how == "abort":
        one.abort()
        assert one.end_of_message(queue_id="", now=NOW) is None
    verdict = talk(one)
    assert all(pending.cancelled for pending in of_message)
    assert not any(pending.cancelled for pending in of_client)
    assert removed(verdict) == []
    assert verdict.assessment.envelope.recipients == ("ann@example.net",)
    assert verdict.assessment.dmarc is not None
    assert str(verdict.assessment.dmarc.author_domain) == "example.org"


@pytest.mark.parametrize(
    ("configured", "told", "used"),
    [
        ("id.example", "mta.example", "id.example"),
        ("", "mta.example", "mta.example"),
        ("", "", "host.example"),
    ],
    ids=["the configured one", "the MTA's own", "the host's"],
)
def test_the_authserv_id(configured: str, told: str, used: str) -> None:
    one = session(Settings(authserv_id=configured, fallback_authserv_id="host.example"))
    greet(one, mta_name=told)
    forged = f"Authentication-Results: {used}; spf=pass"
    verdict = talk(one, message("joe@example.org", forged))
    assert inserted(verdict)[0].startswith(used + ";")
    assert removed(verdict) == [("Authentication-Results", 1)]


def test_further_ids_are_removed_too() -> None:
    one = session(Settings(further_authserv_ids=("old.example",)))
    greet(one)
    fields = [f"Authentication-Results: {name}; spf=pass" for name in ("old.example", "other.example", OUR_ID)]
    assert removed(talk(one, message("joe@example.org", *fields))) == [
        ("Authentication-Results", 3),
        ("Authentication-Results", 1),
    ]


def test_stages_may_be_missing() -> None:
    one = session()
    for event in (lambda: one.rcpt("<a@b.example>"), one.end_of_header, lambda: one.body(b"x"), one.abort):
        event()
    one.header(HeaderField(b"From", b" a@b.example"))
    assert one.end_of_message(queue_id="", now=NOW) is None
    verdict = talk(one)
    assert verdict.assessment.iprev is None
    assert verdict.assessment.spf_mail_from is None
    assert verdict.assessment.dmarc is not None
    assert verdict.assessment.dmarc.result == "fail"
    one.close()
    one.close()


@pytest.mark.parametrize("enabled", [True, False])
def test_iprev_can_be_switched_off(enabled: bool) -> None:
    one = session(Settings(iprev=enabled))
    greet(one)
    assert (talk(one).assessment.iprev is not None) is enabled


def test_a_dry_run_has_the_decision_and_nothing_else() -> None:
    settings = Settings(policy=policy_of({"spf": {"mailfrom": {"fail": "reject"}}}), dry_run=True)
    dry, wet = session(settings), session(replace(settings, dry_run=False))
    for one in (dry, wet):
        greet(one, BAD)
    verdict, real = talk(dry, message("joe@example.org", FORGED)), talk(wet)
    assert (verdict.action, verdict.reply, verdict.edits) == (Action.ACCEPT, None, ())
    assert verdict.decision == real.decision
    assert real.action is Action.REJECT
    assert real.reply is not None
