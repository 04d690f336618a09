# SPDX-License-Identifier: GPL-3.0-or-later
"""Addresses and domains are compared by meaning, not by spelling."""

from __future__ import annotations

from ipaddress import ip_address

import msgspec
import pytest

from assay.assessment import Assessment
from assay.config import Configuration, make_policy
from assay.model.name import Domain, ReversePath
from assay.model.smtp import Client, Envelope
from assay.policy import Action, Stage, decide, facts
from assay.policy.addresses import Entries, normal_address
from assay.protocol import dmarc

#: RFC 5321, 2.3.11, 2.4, 4.1.1.3, 4.1.2 and appendix C.
ADDRESSES = [
    ("ann@example.net", "ann@example.net"),
    ("Ann@EXAMPLE.net", "ann@example.net"),
    ("ann@example.net.", "ann@example.net"),
    ('"ann"@example.net', "ann@example.net"),
    ('"a\\nn"@example.net', "ann@example.net"),
    ("@relay.example,@other.example:ann@example.net", "ann@example.net"),
    ("ann@b\u00fccher.example", "ann@xn--bcher-kva.example"),
    ("ann@XN--BCHER-KVA.example", "ann@xn--bcher-kva.example"),
    ('"Ann B"@example.net', '"ann b"@example.net'),
    ("Postmaster", "postmaster"),
    ("Ann@[192.0.2.1]", "ann@[192.0.2.1]"),
    ("ann@a..example.", "ann@a..example"),
    ("", ""),
    ("\udcffA@example.net", "\udcffa@example.net"),
]


@pytest.mark.parametrize(("text", "normal"), ADDRESSES)
def test_addresses_are_normalized(text: str, normal: str) -> None:
    assert normal_address(text) == normal
    assert normal_address(normal) == normal


def test_local_parts_are_case_sensitive_on_request() -> None:
    assert normal_address("Ann@EXAMPLE.net", exact=True) == "Ann@example.net"
    assert Entries.parse(("Ann@example.net",), exact=True).hold("Ann@EXAMPLE.net")
    assert not Entries.parse(("Ann@example.net",), exact=True).hold("ann@example.net")


def test_the_operators_choice_applies_to_facts_lists_and_rules() -> None:
    rule = {"name": "r", "when": 'mail_from.address == "Ann@example.net"', "action": "reject"}
    sections = {"addresses": {"exact_local_parts": True, "subaddress_delimiters": "+"}, "rule": [rule]}
    made = make_policy(msgspec.convert(sections, Configuration))
    for path, action in (("Ann@example.net", Action.REJECT), ("ann@example.net", Action.ACCEPT)):
        assessment = Assessment(Client(), Envelope(ReversePath.parse(path)))
        assert decide(made.facts(assessment), made, Stage.EOM).action is action


@pytest.mark.parametrize("text", [text for text, normal in ADDRESSES if normal == "ann@example.net"])
def test_facts_are_normalized(text: str) -> None:
    assessment = Assessment(
        Client(ip_address("192.0.2.1")),
        Envelope(ReversePath.parse(text), (text, "Bob@example.net")),
        author=dmarc.Author(Domain("example.net"), "Ann@example.net"),
    )
    found = facts(assessment)
    assert found.rcpt == ("ann@example.net", "bob@example.net")
    assert (found.mail_from.address, found.mail_from.local_part) == ("ann@example.net", "ann")
    assert found.author.address == "ann@example.net"
    assert facts(assessment, exact=True).rcpt[1] == "Bob@example.net"


IN, BELOW, OTHER = "joe@example.com", "joe@mail.example.com", "joe@notexample.com"
ENTRIES = [
    ("example.com", (IN, BELOW, "example.com", "mail.EXAMPLE.com."), (OTHER,)),
    ("EXAMPLE.com.", (IN, BELOW), (OTHER,)),
    (".example.com", (IN, BELOW), (OTHER,)),
    ("@example.com", (IN, "example.com", "Joe@EXAMPLE.com."), (BELOW, OTHER)),
    ("*@example.com", (IN,), (BELOW, OTHER)),
    ("*.example.com", (BELOW, "mail.example.com"), (IN, "example.com", OTHER)),
    ("joe@example.com", (IN, "<joe@example.com>", '"JOE"@example.com'), (BELOW, "ann@example.com", "example.com")),
    ("<Joe@Example.com>", (IN,), (BELOW, "ann@example.com")),
    ("b\u00fccher.example", ("x@xn--bcher-kva.example", "xn--bcher-kva.example", "x@b\u00fccher.example"), (IN,)),
    ("xn--bcher-kva.example", ("x@b\u00fccher.example", "B\u00dcCHER.example"), (IN,)),
    ("192.0.2.1", ("192.0.2.1",), ("192.0.2.2", "joe@[192.0.2.1]")),
    ("2001:DB8::1", ("2001:db8::1",), ("2001:db8::2",)),
]


@pytest.mark.parametrize(("entry", "held", "others"), ENTRIES, ids=[entry for entry, _, _ in ENTRIES])
def test_an_entry_matches_what_it_names(entry: str, held: tuple[str, ...], others: tuple[str, ...]) -> None:
    entries = Entries.parse((entry,))
    assert [text for text in held if not entries.hold(text)] == []
    assert [text for text in others if entries.hold(text)] == []
    assert not entries.hold("")
    assert not entries.hold("@")


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ("joe@", "empty domain"),
        ("@", "empty domain"),
        ("*", "letter, digit"),
        ("joe@*.example.com", "letter, digit"),
        ("example..com", "empty label"),
        ("joe doe", "a domain name cannot have"),
        ("192.0.2.0/24", "networks are for inside"),
        ("<joe@example.com", "letter|local part|bracket"),
    ],
)
def test_an_entry_that_could_never_match_is_an_error(entry: str, why: str) -> None:
    with pytest.raises(ValueError, match=f"is not an address, a domain or an IP address: .*({why})"):
        Entries.parse((entry,))


def test_sub_addresses_are_ignored_on_request() -> None:
    entries = Entries.parse(("joe@example.com", "ann+x@example.com"), delimiters="+-")
    assert entries.hold("Joe+news@example.com")
    assert entries.hold("joe-a+b@example.com")
    assert entries.hold("ann+x@example.com")
    assert not entries.hold("ann+y@example.com")
    assert not entries.hold("+joe@example.com")
    assert not Entries.parse(("joe@example.com",)).hold("joe+news@example.com")
