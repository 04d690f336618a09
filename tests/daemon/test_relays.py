# SPDX-License-Identifier: GPL-3.0-or-later
"""A relay whose Received field is not understood loses SPF for all its mail: this is logged, but not per message."""

from __future__ import annotations

import pytest

from assay.config.site import ClientsSection
from assay.daemon import journal
from assay.daemon.journal import Journal
from assay.daemon.seldom import SELDOM, Seldom
from assay.log import Level, Log
from assay.model.network import Networks
from assay.model.smtp import parse_address
from assay.policy import Trust
from assay.session import Session, Settings
from sending import ROWS, message
from talking import greet, talk
from zone import Rows, Zone

RELAY = "192.0.2.99"


def warnings(received: list[str], *, client: str = RELAY) -> list[str]:
    """What is logged for messages whose relay wrote these fields."""
    lines: list[str] = []
    to = Journal(Log(lambda level, text: lines.append(text) if level is Level.WARNING else None))
    trust = Trust(relays=Networks.parse([RELAY]))
    for value in received:
        one = Session(Settings(), trust, lambda: Zone(ROWS))
        greet(one, client)
        to.enter(talk(one, message("joe@example.org", f"Received: {value}")), {})
    return lines


def test_a_field_that_is_not_understood_is_logged_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(journal.time, "monotonic", lambda: now[0])
    (line,) = warnings(["from a.test via\r\n\tcarrier pigeon", "from b.test via carrier pigeon"])
    assert line.startswith("relay does not report its client: queue=")
    assert line.endswith('received="from a.test via carrier pigeon"')
    seldom = Seldom()
    assert [seldom.due(at) for at in (0.0, SELDOM - 1, SELDOM, SELDOM + 1)] == [True, False, True, False]


def test_the_field_is_logged_as_text_from_a_stranger() -> None:
    """It contains HELO: it must not add words or control characters to the line."""
    (line,) = warnings(["from x\x1b[2J dmarc=pass action=accept " + "y" * 5000])
    assert "\x1b" not in line
    assert "dmarc=pass" not in line
    assert len(line) < 600


NAME = "mx2.example.net"
POINTER = "99.2.0.192.in-addr.arpa"
HONEST = {POINTER: [["PTR", NAME]], NAME: [["A", RELAY]]}


@pytest.mark.parametrize(
    ("name", "rows", "relayed"),
    [
        pytest.param(NAME, HONEST, True, id="confirmed"),
        pytest.param("MX2.Example.NET.", HONEST, True, id="in another spelling"),
        pytest.param(NAME, HONEST | {NAME: [["A", "192.0.2.98"]]}, False, id="a PTR that a stranger wrote"),
        pytest.param(NAME, {}, False, id="the MTA's word alone"),
        pytest.param("", HONEST, False, id="a name that the MTA does not report"),
        pytest.param("x." + NAME, {POINTER: [["PTR", "x." + NAME]], "x." + NAME: [["A", RELAY]]}, False, id="below"),
        pytest.param(NAME, HONEST | {NAME: [["SERVFAIL", "A"]]}, False, id="the DNS fails"),
    ],
)
def test_a_relay_is_known_by_a_forward_confirmed_name(name: str, rows: Rows, relayed: bool) -> None:
    one = Session(Settings(), Trust(relay_names=frozenset((NAME,))), lambda: Zone({**ROWS, **rows}))
    one.connect(parse_address(RELAY), name)
    one.helo(NAME)
    received = "Received: from mail.example.org (mail.example.org [192.0.2.1]) by mx2"
    verdict = talk(one, message("joe@example.org", received))
    assert str(verdict.assessment.client.address) == ("192.0.2.1" if relayed else RELAY)


CHAIN = ["from {claim} by inner.example.net with ESMTP", "from mail.example.org (mail.example.org [192.0.2.1]) by mx2"]


@pytest.mark.parametrize(
    ("claim", "rows", "judged"),
    [
        pytest.param(f"{NAME} ({NAME} [{RELAY}])", HONEST, "192.0.2.1", id="confirmed"),
        pytest.param(f"{NAME} ([{RELAY}])", HONEST, "192.0.2.1", id="by HELO, and confirmed"),
        pytest.param(f"x ({NAME.upper()} [{RELAY}])", HONEST, "192.0.2.1", id="another HELO"),
        pytest.param(f"{NAME} ({NAME} [203.0.113.9])", HONEST, "203.0.113.9", id="a claim"),
        pytest.param(
            f"{NAME} ({NAME} [{RELAY}])",
            HONEST | {NAME: [["A", "192.0.2.98"]]},
            RELAY,
            id="a PTR that a stranger wrote",
        ),
        pytest.param(f"x.test (other.test [{RELAY}])", HONEST, RELAY, id="it claims nothing"),
    ],
)
def test_a_named_relay_behind_a_relay(claim: str, rows: Rows, judged: str) -> None:
    trust = Trust(relays=Networks.parse(["192.0.2.77"]), relay_names=frozenset((NAME,)))
    session = Session(Settings(), trust, lambda: Zone({**ROWS, **rows}))
    greet(session, "192.0.2.77")
    fields = [f"Received: {value.format(claim=claim)}" for value in CHAIN]
    verdict = talk(session, message("joe@example.org", *fields))
    assert str(verdict.assessment.client.address) == judged


def test_no_more_is_looked_up_for_clients_that_do_not_claim_to_be_a_relay() -> None:
    zones = [Zone(ROWS), Zone(ROWS)]
    for zone, trust in zip(zones, (Trust(), Trust(relay_names=frozenset((NAME,)))), strict=True):
        one = Session(Settings(), trust, lambda zone=zone: zone)
        greet(one)
        talk(one)
    assert zones[0].asked == zones[1].asked


@pytest.mark.parametrize("name", ["*.example.net", ".example.net", "net", "a b.example", "192.0.2.99", "@example.net"])
def test_a_relay_name_that_is_not_a_host_name_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match="relay_names"):
        ClientsSection(relay_names=(name,))


@pytest.mark.parametrize("client", [RELAY, "192.0.2.1"])
def test_nothing_is_logged_for_fields_that_are_understood_or_of_strangers(client: str) -> None:
    received = "from x (x.example [192.0.2.7]) by relay" if client == RELAY else "from a.test via carrier pigeon"
    assert warnings([received], client=client) == []
