# SPDX-License-Identifier: GPL-3.0-or-later
"""A rule that accepts ends evaluation for its scope: the client, the HELO name, the message or one recipient."""

from __future__ import annotations

from ipaddress import ip_address

import msgspec
import pytest

from assay.config import Configuration, make_settings
from assay.policy import Action, Stage
from assay.session import Session
from sending import BAD, ROWS
from talking import NOW, configured
from zone import Zone

REFUSING = {"spf": {"mailfrom": {"fail": "reject", "stage": "rcpt"}}, "clients": {"internal": ()}}


def session(stage: str, when: str, **sections: object) -> Session:
    """A session that rejects SPF failures at RCPT, with one rule that accepts."""
    rule = {"name": "ours", "stage": stage, "when": when, "action": "accept"}
    return configured(REFUSING | {"rule": [rule]} | sections, Zone(ROWS))


def begin(one: Session, helo: str = "friend.example") -> None:
    one.connect(ip_address(BAD), "")
    one.helo(helo)
    one.mail("<joe@example.org>", now=NOW)


@pytest.mark.parametrize(
    ("stage", "when"),
    [
        ("connect", f'client.address == "{BAD}"'),
        ("helo", 'helo == "friend.example"'),
        ("mail", 'mail_from.domain == "example.org"'),
    ],
)
def test_it_applies_to_later_stages(stage: str, when: str) -> None:
    one = session(stage, when)
    begin(one)
    for _ in range(2):  # and so is the client's next message
        assert one.rcpt("<ann@example.net>") is None
        verdict = one.end_of_message(queue_id="", now=NOW)
        assert verdict is not None
        assert (verdict.action, verdict.decision.by) == (Action.ACCEPT, "rule ours")
        one.mail("<joe@example.org>", now=NOW)


def test_a_new_helo_is_evaluated_again() -> None:
    one = session("helo", 'helo == "friend.example"')
    begin(one)
    one.helo("stranger.example")
    one.mail("<joe@example.org>", now=NOW)
    verdict = one.rcpt("<ann@example.net>")
    assert verdict is not None
    assert verdict.action is Action.REJECT


def test_a_new_client_is_evaluated_again() -> None:
    one = session("connect", f'client.address == "{BAD}"')
    begin(one)
    one.connect(ip_address("192.0.2.67"), "")
    one.mail("<joe@example.org>", now=NOW)
    verdict = one.rcpt("<ann@example.net>")
    assert verdict is not None
    assert verdict.action is Action.REJECT


@pytest.mark.parametrize("order", [("abuse", "ann"), ("ann", "abuse")])
@pytest.mark.parametrize(
    "one",
    [
        pytest.param(session("rcpt", 'rcpt.exists(one, one.startsWith("abuse@"))'), id="a rule"),
        pytest.param(
            session("rcpt", "false", clients={"internal": (), "exempt_recipients": ("abuse@example.net",)}),
            id="exempt_recipients",
        ),
    ],
)
def test_at_rcpt_each_recipient_is_decided_alone_in_any_order(one: Session, order: tuple[str, ...]) -> None:
    begin(one)
    refused = [
        who
        for who in order
        if (verdict := one.rcpt(f"<{who}@example.net>")) is not None and verdict.action is Action.REJECT
    ]
    assert refused == ["ann"]
    verdict = one.end_of_message(queue_id="", now=NOW)
    assert verdict is not None
    assert verdict.assessment.envelope.recipients == ("abuse@example.net",)
    assert verdict.action is Action.ACCEPT, "the mildest action of all recipients"
    assert [one.action for one in verdict.decision.watched] == [Action.REJECT]


@pytest.mark.parametrize(
    ("section", "stage", "earliest"),
    [("helo", "connect", "helo"), ("mailfrom", "connect", "mail"), ("mailfrom", "helo", "mail")],
)
def test_a_stage_before_the_methods_result_is_an_error(section: str, stage: str, earliest: str) -> None:
    configuration = msgspec.convert({"spf": {section: {"stage": stage}}}, Configuration)
    with pytest.raises(ValueError, match=rf"spf\.{section}\.stage: '{stage}' is too early; write {earliest}"):
        make_settings(configuration)


def test_every_method_may_refuse_at_the_first_stage_with_its_result() -> None:
    stages = {"iprev": {"stage": "connect"}, "spf": {"helo": {"stage": "helo"}, "mailfrom": {"stage": "mail"}}}
    assert not make_settings(msgspec.convert(stages, Configuration)).policy.acts_at(Stage.MAIL)
