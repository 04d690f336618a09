# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a message is judged, by client, login and sender, and by the Received field of a relay."""

from __future__ import annotations

import pytest

from assay.model.network import Networks
from assay.model.smtp import parse_address
from assay.policy import Direction, Standing, Trust
from assay.policy.addresses import Entries

TRUST = Trust(
    internal=Networks.parse(["10.0.0.0/8", "127.0.0.0/8"]),
    relays=Networks.parse(["192.0.2.99"]),
    trusted_results=Networks.parse(["127.0.0.1", "192.0.2.50"]),
    daemon_names=frozenset(["submission"]),
    exempt_senders=Entries.parse(["spared.example"]),
)
STRANGER = "192.0.2.1"


@pytest.mark.parametrize(
    ("address", "daemon", "standing"),
    [
        pytest.param(STRANGER, "", Standing(), id="a stranger"),
        pytest.param("10.1.1.1", "", Standing(Direction.OUTBOUND, "internal network 10.0.0.0/8"), id="internal"),
        pytest.param(STRANGER, "submission", Standing(Direction.OUTBOUND, "daemon submission"), id="submission"),
        pytest.param(
            "127.0.0.1",
            "",
            Standing(Direction.RETURNED, "internal network 127.0.0.0/8", cleaned=False),
            id="a content filter that returns mail",
        ),
        pytest.param("192.0.2.50", "", Standing(cleaned=False), id="a border MTA: judged again, its results kept"),
        pytest.param("192.0.2.99", "", Standing(relayed=True), id="a relay"),
        pytest.param(None, "", Standing(Direction.OUTBOUND, "no network client"), id="the command line"),
    ],
)
def test_the_standing_of_a_client(address: str | None, daemon: str, standing: Standing) -> None:
    parsed = None if address is None else parse_address(address)
    assert TRUST.of_client(parsed, daemon) == standing


def test_a_client_hidden_by_a_proxy_is_external() -> None:
    assert TRUST.of_client(None, "", local=False) == Standing()


@pytest.mark.parametrize(
    ("client", "sender", "login", "standing"),
    [
        (STRANGER, "a@b.example", "", Standing()),
        (STRANGER, "a@b.example", "joe", Standing(Direction.OUTBOUND, "authenticated")),
        (STRANGER, "a@spared.example", "", Standing(spared="exempt sender")),
        ("192.0.2.99", "a@spared.example", "", Standing(spared="exempt sender", relayed=True)),
        ("192.0.2.50", "a@b.example", "joe", Standing(Direction.OUTBOUND, "authenticated", cleaned=False)),
        ("192.0.2.50", "a@spared.example", "", Standing(spared="exempt sender", cleaned=False)),
        ("10.1.1.1", "a@spared.example", "joe", Standing(Direction.OUTBOUND, "internal network 10.0.0.0/8")),
    ],
)
def test_the_standing_of_a_message(client: str, sender: str, login: str, standing: Standing) -> None:
    assert TRUST.of_message(TRUST.of_client(parse_address(client), ""), sender, login) == standing


@pytest.mark.parametrize(
    ("address", "standing"),
    [
        pytest.param(STRANGER, Standing(spared="exempt sender"), id="a stranger"),
        pytest.param(None, Standing(spared="exempt sender"), id="a field without an address"),
        pytest.param("127.0.0.1", Standing(spared="exempt sender", relayed=True), id="the relay's own content filter"),
        pytest.param("192.0.2.99", Standing(spared="exempt sender", relayed=True), id="another relay"),
        pytest.param(
            "10.1.1.1",
            Standing(Direction.OUTBOUND, "internal network 10.0.0.0/8, behind a relay"),
            id="one of our own hosts",
        ),
    ],
)
def test_the_standing_of_a_relayed_message(address: str | None, standing: Standing) -> None:
    message = TRUST.of_message(TRUST.of_client(parse_address("192.0.2.99"), ""), "a@spared.example", "")
    assert TRUST.of_relayed(message, None if address is None else parse_address(address)) == standing


@pytest.mark.parametrize("address", [STRANGER, "10.1.1.1"])
def test_results_of_a_trusted_relay_are_kept(address: str) -> None:
    networks = Networks.parse(("192.0.2.99",))
    trust = Trust(internal=Networks.parse(("10.0.0.0/8",)), relays=networks, trusted_results=networks)
    message = trust.of_message(trust.of_client(parse_address("192.0.2.99"), ""), "a@b.example", "")
    assert not trust.of_relayed(message, parse_address(address)).cleaned
