# SPDX-License-Identifier: GPL-3.0-or-later
"""Submission to a real Postfix and a real Sendmail is signed, and another instance judges the same message.

The first MTA takes mail of ours and signs. What it stores is what the next hop gets, and is sent to a second MTA with
an instance of its own, which must find ``dkim=pass dmarc=pass``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from assay.model.message import split_message
from mta.base import HOST, MTA, UnavailableError, free_port
from mta.laws import fields, result_of
from mta.postfix import Postfix
from mta.sendmail import Sendmail
from running import Daemon
from signing import ed25519_key, evaluate, pem, record, rsa_key
from zone import Zone

DOMAIN, SIMPLE, UMLAUT = "example.com", "simple.example", "bücher.example"
ROWS = {
    "r2026._domainkey.simple.example": [["TXT", [record(rsa_key())]]],
    "r2026._domainkey.xn--bcher-kva.example": [["TXT", [record(rsa_key())]]],
    "_dmarc.xn--bcher-kva.example": [["TXT", ["v=DMARC1; p=reject"]]],
    "r2026._domainkey.example.com": [["TXT", [record(rsa_key())]]],
    "e2026._domainkey.example.com": [["TXT", [record(ed25519_key())]]],
    "example.com": [["TXT", ["v=spf1 -all"]]],
    "_dmarc.example.com": [["TXT", ["v=DMARC1; p=reject"]]],
}
FIELDS = b"Date: Thu, 26 Nov 2026 01:00:00 +0000\r\nMessage-ID: <1@example.com>\r\n"
PLAIN = b"From: Alice <alice@example.com>\r\nTo: reader@example.org\r\nSubject: hello\r\n" + FIELDS + b"\r\nHello\r\n"

#: Messages that an MTA may change, by name. Both MTAs must leave the signature whole.
MESSAGES = {
    "plain": PLAIN,
    "folded": PLAIN.replace(b"hello", b"a\r\n\tfolded   subject\r\n  of three  lines"),
    "many recipients": PLAIN.replace(
        b"reader@example.org", b",\r\n ".join(b"Reader %d <r%d@example.org>" % (n, n) for n in range(200))
    ),
    "8-bit": PLAIN.replace(b"Hello", b"MIME: Gr\xc3\xbc\xc3\x9fe \xe9"),
    "white space and dots": PLAIN.replace(b"Hello", b" Hello \t \r\n.\r\n..\r\n \r\n\r\n"),
    "empty": PLAIN.replace(b"Hello\r\n", b""),
    "without Date and Message-ID": PLAIN.replace(FIELDS, b""),
    "without To": PLAIN.replace(b"To: reader@example.org\r\n", b""),
    "with Bcc and Return-Path": b"Return-Path: <x@example.org>\r\nBcc: y@example.org\r\n" + PLAIN,
    "bare addresses": PLAIN.replace(b"Alice <alice@example.com>", b"alice@example.com (Alice)"),
    "large": PLAIN + b"0123456789 \t abcdefghijklmnopqrstuvwxyz\r\n" * 30_000,
}


@pytest.fixture(scope="module", params=[Postfix, Sendmail], ids=lambda kind: kind.name)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """An MTA with a daemon that signs, and one with a daemon that judges."""
    try:
        request.param.check()
    except UnavailableError as missing:
        pytest.skip(str(missing))
    folder = tmp_path_factory.mktemp(request.param.name)
    names = {"r2026": rsa_key(), "e2026": ed25519_key()}
    for name, key in names.items():
        path = folder / f"{name}.pem"
        path.touch(0o600)
        path.write_bytes(pem(key))
    rows = (
        {"domain": DOMAIN, "selectors": (*names,), "key_directory": str(folder)},
        {
            "domain": SIMPLE,
            "selectors": ("r2026",),
            "key_directory": str(folder),
            "canonicalization": "simple/simple",
        },
        {"domain": UMLAUT, "selectors": ("r2026",), "key_directory": str(folder), "identity": "author"},
    )
    signs = {"sign": {"domain": rows}, "clients": {"internal": ("127.0.0.0/8",)}}
    with ExitStack() as stack:
        daemons, mtas = [], []
        for name, sections in (("signs", signs), ("judges", {})):
            (folder / name).mkdir()
            port = free_port()
            daemon = Daemon(folder / name, ROWS, socket=f"inet:{port}@{HOST}", **sections)
            daemons.append(stack.enter_context(daemon))
            mtas.append(stack.enter_context(request.param(f"inet:{HOST}:{port}")))
        yield SimpleNamespace(daemons=daemons, mtas=mtas, count=0)


def send(world: Any, octets: bytes, *, login: bool = False) -> tuple[bytes, bytes]:
    """The message as the first MTA and then as the second one stores it."""
    world.count += 1
    recipient = f"reader{world.count}@example.org"
    first, second = world.mtas
    first.submit(octets, sender="alice@example.com", recipients=[recipient], login=login)
    (signed,) = first.wait_for(1, recipient)
    second.submit(signed, sender="alice@example.com", recipients=[recipient])
    (judged,) = second.wait_for(1, recipient)
    return signed, judged


@pytest.mark.parametrize("name", MESSAGES)
def test_a_submitted_message_is_signed_and_passes_at_the_next_hop(world: Any, name: str) -> None:
    signed, judged = send(world, MESSAGES[name])
    own = [value for key, value in fields(signed) if key == "DKIM-Signature"]
    assert [re.search("a=([^;]+)", value)[1] for value in own] == ["rsa-sha256", "ed25519-sha256"]  # type: ignore[index]  # all have it
    assert [key for key, _ in fields(signed)][:2] == ["DKIM-Signature"] * 2
    found = evaluate(signed.replace(b"\n", b"\r\n"), Zone(ROWS))
    assert [str(one.result) for one in found] == ["pass", "pass"]
    assert (result_of(judged, "dkim"), result_of(judged, "dmarc")) == ("pass", "pass")


def test_the_log_of_the_signer(world: Any) -> None:
    send(world, PLAIN)
    assert "sign=example.com/r2026,e2026 action=accept" in world.daemons[0].log()


def test_a_user_who_has_logged_in(world: Any) -> None:
    _, judged = send(world, PLAIN, login=True)
    assert result_of(judged, "dmarc") == "pass"


def test_a_stranger_who_writes_our_domain_into_from_is_judged_and_not_signed(world: Any) -> None:
    mta: MTA = world.mtas[1]
    mta.submit(PLAIN, sender="alice@example.com", recipients=["forged@example.org"])
    (stored,) = mta.wait_for(1, "forged@example.org")
    assert split_message(stored)[0].all("DKIM-Signature") == ()
    assert result_of(stored, "dmarc") == "fail"


def test_simple_canonicalization_survives_an_mta_that_changes_nothing(world: Any) -> None:
    """The folding of the signature itself is part of what is signed."""
    octets = PLAIN.replace(b"Alice <alice@example.com>", b"<alice@simple.example>")
    signed, _ = send(world, octets)
    found = evaluate(signed.replace(b"\n", b"\r\n"), Zone(ROWS))
    assert [str(one.result) for one in found] == ["pass"]


def test_an_internationalised_sender(world: Any) -> None:
    """RFC 6531; Sendmail does not offer SMTPUTF8 here."""
    octets = PLAIN.replace(b"Alice <alice@example.com>", "Jörg <jörg@bücher.example>".encode())
    octets = octets.replace(b"hello", "Grüße".encode())
    first, second = world.mtas
    for mta in (first, second):
        with mta.connect() as session:
            if not session.has_extn("smtputf8"):
                pytest.skip("no SMTPUTF8")
            session.sendmail("jörg@bücher.example", ["eai@example.org"], octets, mail_options=["SMTPUTF8"])
        (octets,) = mta.wait_for(1, "eai@example.org")
        octets = octets.replace(b"\n", b"\r\n")
    (own,) = [value for key, value in fields(octets) if key == "DKIM-Signature"]
    assert "d=xn--bcher-kva.example;" in own
    assert "i=j=C3=B6rg@xn--bcher-kva.example;" in own
    # Not by authres, which knows no local part beyond ASCII.
    results = next(value for key, value in fields(octets) if key == "Authentication-Results")
    assert re.findall(r"(?<![\w.])(dkim|dmarc)=(\w+)", results) == [("dkim", "pass"), ("dmarc", "pass")]


EIGHT = PLAIN.replace(b"\r\n\r\nHello", b"\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nGr\xc3\xbc\xc3\x9fe")
#: What Sendmail changes after milters (docs/signing.md): lines of its .mc file, message, whether the signature holds.
OF_SENDMAIL = {
    "nothing": ("", PLAIN, True),
    "an address without a domain": ("", PLAIN.replace(b"reader@example.org", b"joe"), False),
    "8-bit text": ("", EIGHT, False),
    "8-bit text, as the page says": ("define(`SMTP_MAILER_FLAGS', `8')dnl", EIGHT, True),
    "no recipients": ("", MESSAGES["without To"], True),
    "no recipients, and To is added": (
        "define(`confNO_RCPT_ACTION', `add-to-undisclosed')",
        MESSAGES["without To"],
        False,
    ),
    "no recipients, and Bcc is added": ("define(`confNO_RCPT_ACTION', `add-bcc')", MESSAGES["without To"], True),
    "another domain": ("MASQUERADE_AS(`example.net')dnl\nMASQUERADE_DOMAIN(`example.com')dnl", PLAIN, False),
}


def test_what_sendmail_changes_after_it_is_signed(tmp_path: Path) -> None:
    """Sent to a host without 8BITMIME."""
    try:
        Postfix.check()
        Sendmail.check()
    except UnavailableError as missing:
        pytest.skip(str(missing))
    (tmp_path / "r2026.pem").touch(0o600)
    (tmp_path / "r2026.pem").write_bytes(pem(rsa_key()))
    row = {"domain": DOMAIN, "selectors": ("r2026",), "key_directory": str(tmp_path)}
    sections: dict[str, Any] = {"sign": {"domain": (row,)}, "clients": {"internal": ("127.0.0.0/8",)}}
    port = free_port()
    with (
        Daemon(tmp_path, ROWS, socket=f"inet:{port}@{HOST}", **sections) as daemon,
        Postfix(extra={"smtpd_discard_ehlo_keywords": "8bitmime, smtputf8"}) as last,
        ExitStack() as stack,
    ):
        by_lines: dict[str, MTA] = {}
        for number, (what, (lines, octets, holds)) in enumerate(OF_SENDMAIL.items()):
            if lines not in by_lines:
                mta = Sendmail(f"inet:{HOST}:{port}", extra=lines, routes={"last.example": last.port})
                by_lines[lines] = stack.enter_context(mta)
            recipient = f"r{number}@last.example"
            with by_lines[lines].connect() as session:
                session.sendmail("alice@example.com", [recipient], octets, ["BODY=8BITMIME"])
            (arrived,) = last.wait_for(1, recipient)
            (found,) = evaluate(arrived.replace(b"\n", b"\r\n"), Zone(ROWS))
            assert (str(found.result) == "pass") is holds, what
        log = daemon.log()
    assert re.findall(r" hazard=(\S+) action=", log) == ["incomplete-address", "8bit", "8bit"]
