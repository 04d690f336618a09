# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known about the publication of our keys, and that no message waits for it."""

from __future__ import annotations

import pytest

from assay.inquiry import Driver
from assay.keys import DomainRow, DomainTable, OnSignError, Signatory, Signing, Unpublished
from assay.model.message import split_message
from assay.model.name import Domain, ReversePath
from assay.model.smtp import Client, Envelope
from assay.protocol import dkim
from assay.session.outgoing import Outgoing, Signed
from assay.session.publications import AGAIN, PATIENCE, Publications
from signing import ed25519_key, record, rsa_key
from talking import NOW, Postponing
from zone import Zone

OTHER = dkim.SigningKey(Domain("e"), ed25519_key())
OLD = dkim.SigningKey(Domain("old"), rsa_key(1024))
DOMAIN = Domain("example.org")
KEY = dkim.SigningKey(Domain("s"), rsa_key())
NAME = "s._domainkey.example.org"
HERE = {NAME: [["TXT", [record(rsa_key())]]]}


class World:
    """Publications over a zone that can be changed, whose answers may be there at once or later."""

    def __init__(self, rows: dict[str, list[list[object]]], *, late: bool = False) -> None:
        self.zone = Zone(rows)
        self.late = Postponing(self.zone) if late else None
        self.told: list[str] = []
        self.known = Publications(self.driver, self.told.append)

    def driver(self, _: float | None = None) -> Driver:
        return self.late or self.zone

    def publish(self, rows: dict[str, list[list[object]]]) -> None:
        self.zone.__init__(rows)  # type: ignore[misc]  # its rows change

    def missing(self, now: int = NOW) -> bool:
        return self.known.missing(DOMAIN, KEY, now)

    def answer(self) -> None:
        assert self.late is not None
        self.late.started.pop(0).result()


@pytest.mark.parametrize(
    ("rows", "missing"),
    [
        (HERE, False),
        ({}, True),
        ({NAME: [["A", "192.0.2.1"]]}, True),
        ({NAME: [["TXT", [record(rsa_key(1024))]]]}, True),
        ({NAME: [["TXT", [record(ed25519_key())]]]}, True),
        ({NAME: [["TXT", ["v=DKIM1; p="]]]}, True),
        ({NAME: [["TXT", ["v=spf1 -all"]], ["TXT", [record(rsa_key())]]]}, False),
        ({NAME: [["TXT", [record(rsa_key(), tags="t=y;")]]]}, False),
        ({NAME: [["SERVFAIL", "*"]]}, False),
    ],
)
def test_a_key_is_missing_only_if_the_dns_says_so(rows: dict[str, list[list[object]]], missing: bool) -> None:
    world = World(rows)
    assert world.missing() is missing
    assert bool(world.told) is missing


def test_nobody_waits_for_an_answer_and_it_is_asked_for_once() -> None:
    world = World({}, late=True)
    assert world.late is not None
    for _ in range(3):
        assert world.missing() is False, "nothing is known yet"
    assert len(world.late.started) == 1
    world.answer()
    assert world.missing() is True
    assert world.told == [
        f"mail is signed with a key that the DNS does not publish at {NAME}: the name does not exist; "
        "see: assay keys check"
    ]


def test_what_is_known_is_used_while_it_is_looked_up_again() -> None:
    world = World({}, late=True)
    world.missing()
    world.answer()
    world.publish(HERE)
    assert world.missing(NOW + AGAIN - 1) is True
    assert world.late is not None
    assert world.late.started == []
    assert world.missing(NOW + AGAIN) is True
    world.answer()
    assert world.missing(NOW + AGAIN) is False
    assert world.told[1:] == [f"the DNS publishes the key at {NAME} again"]


def test_a_dns_that_does_not_answer_changes_nothing() -> None:
    world = World({})
    assert world.missing() is True
    world.publish({NAME: [["SERVFAIL", "*"]]})
    for later in range(AGAIN, 5 * AGAIN, 60):
        assert world.missing(NOW + later) is True
    assert len(world.told) == 1
    world.publish(HERE)
    assert world.missing(NOW + 6 * AGAIN) is False


def test_a_lookup_that_is_lost_is_repeated() -> None:
    world = World({}, late=True)
    assert world.late is not None
    world.missing()
    world.late.started.clear()
    world.missing(NOW + PATIENCE - 1)
    assert world.late.started == []
    world.missing(NOW + PATIENCE)
    assert len(world.late.started) == 1


def test_a_clock_that_goes_back_does_not_keep_an_old_answer() -> None:
    world = World({})
    assert world.missing(NOW + 1_000_000) is True
    world.publish(HERE)
    assert world.missing(NOW) is False


def test_each_fault_is_named() -> None:
    for text, words in (("v=DKIM1; p=", "key revoked"), (record(rsa_key(1024)), "another key")):
        world = World({NAME: [["TXT", [text]]]})
        world.missing()
        assert f"does not publish at {NAME}: {words}; see" in world.told[0]


E_HERE = {"e._domainkey.example.org": [["TXT", [record(ed25519_key())]]]}
OLD_HERE = {"old._domainkey.example.org": [["TXT", [record(rsa_key(1024))]]]}
FAILING: dict[str, list[list[object]]] = {name: [["SERVFAIL", "*"]] for name in (NAME, *E_HERE, *OLD_HERE)}


def signed(rows: dict[str, list[list[object]]], unpublished: str, *, late: bool = False) -> Signed:
    """What becomes of a message of example.org, which has two keys, and a retiring one."""
    signatory = Signatory(DOMAIN, (KEY, OTHER), reserve=(OLD,))
    signing = Signing(
        (DomainTable({DOMAIN.name: DomainRow(signatory)}),),
        on_error=OnSignError.ACCEPT,
        unpublished=Unpublished(unpublished),
    )
    world = World(rows, late=late)
    world.known.prepare(signing, NOW)
    header, body = split_message(b"From: joe@example.org\r\n\r\nhello\r\n")
    outgoing = Outgoing(signing, Client(), Envelope(ReversePath("")), world.known)
    hashes = dkim.BodyHashes(outgoing.header_complete(header))
    hashes.update(body)
    return outgoing.sign(header, hashes, NOW)


@pytest.mark.parametrize(
    ("rows", "unpublished", "word"),
    [
        (HERE | E_HERE, "sign", "example.org/s,e"),
        (HERE, "sign", "example.org/s,e"),
        ({}, "sign", "example.org/s,e"),
        (HERE | E_HERE | OLD_HERE, "fall back", "example.org/s,e"),
        (HERE | OLD_HERE, "fall back", "example.org/s"),
        (E_HERE, "fall back", "example.org/e"),
        (OLD_HERE, "fall back", "example.org/old"),
        ({}, "fall back", "example.org/s,e"),
        (FAILING, "fall back", "example.org/s,e"),
        (HERE | E_HERE, "tempfail", "example.org/s,e"),
        (E_HERE | OLD_HERE, "tempfail", "example.org/e"),
        (FAILING, "tempfail", "example.org/s,e"),
    ],
)
def test_what_signs_when_keys_are_not_published(
    rows: dict[str, list[list[object]]], unpublished: str, word: str
) -> None:
    found = signed(rows, unpublished)
    assert found.word == word
    assert found.on_error is None
    assert len(found.edits) == word.count(",") + 1


@pytest.mark.parametrize("rows", [{}, OLD_HERE])
def test_mail_is_deferred_if_the_operator_says_so_and_no_key_is_published(rows: dict[str, list[list[object]]]) -> None:
    found = signed(rows, "tempfail")
    assert found.word == "none"
    assert found.why == "no key of example.org is published"
    assert (found.on_error, found.by) == (OnSignError.TEMPFAIL, "sign.unpublished")


def test_a_message_that_comes_before_the_answer_is_signed() -> None:
    assert signed({}, "tempfail", late=True).word == "example.org/s,e"
