# SPDX-License-Identifier: GPL-3.0-or-later
"""The harness itself: each MTA, without a milter, stores what it was sent.

The other tests here compare stored messages header by header; these rows list what an MTA itself adds.
"""

from __future__ import annotations

import smtplib
from collections.abc import Iterator

import pytest

from mta.base import HOST, MTA, UnavailableError, body, fields
from mta.postfix import Postfix
from mta.sendmail import Sendmail

MESSAGE = b"""\
Received: from elsewhere.example (elsewhere.example [192.0.2.9])
	by relay.example; Fri, 1 Jan 2027 00:00:00 +0000
From: Author <author@example.net>
To: reader@example.org
Date: Fri, 1 Jan 2027 00:00:00 +0000
Message-ID: <1@example.net>
X-None:no space
X-Two:  two spaces
X-Folded: first
	second
 third
X-Twice: 1
X-Twice: 2
Subject: =?utf-8?Q?caf=C3=A9?=

.a line that begins with a dot
caf\xc3\xa9

the end
"""

#: The fields of MESSAGE as stored, after the MTA's own Received.
KEPT = fields(MESSAGE)


@pytest.fixture(scope="module", params=[Postfix, Sendmail], ids=["postfix", "sendmail"])
def mta(request: pytest.FixtureRequest) -> Iterator[MTA]:
    try:
        request.param.check()
    except UnavailableError as missing:
        pytest.skip(str(missing))
    with request.param() as running:
        yield running


def sent(mta: MTA, message: bytes = MESSAGE, **how: object) -> bytes:
    """Submit and return what was stored for a recipient of this message only."""
    recipient = f"r{len(mta.stored())}@example.org"
    mta.submit(message, recipients=[recipient], **how)  # type: ignore[arg-type]  # passed on as they are
    (stored,) = mta.wait_for(1, recipient)
    return stored


def test_the_stored_message_is_received_followed_by_the_message_sent(mta: MTA) -> None:
    stored = sent(mta)
    (name, value), *rest = fields(stored)
    assert name == "Received"
    assert "from client.example.net" in value
    assert "by mx.example.org" in value
    assert rest == KEPT
    assert body(stored) == body(MESSAGE)


def test_a_message_to_two_recipients_is_stored_for_both(mta: MTA) -> None:
    mta.submit(MESSAGE, recipients=["two-a@example.org", "two-b@example.com"])
    assert mta.wait_for(1, "two-a@example.org")
    assert mta.wait_for(1, "two-b@example.com")


def test_ten_megabytes_arrive_whole(mta: MTA) -> None:
    large = b"Subject: large\n\n" + b"x" * 63 + b"\n" + (b"0123456789abcdef" * 4 + b"\n") * 161_320
    assert body(sent(mta, large)) == body(large)


def test_the_client_may_connect_from_any_loopback_address(mta: MTA) -> None:
    assert "[127.0.0.23]" in fields(sent(mta, client="127.0.0.23"))[0][1]


def test_starttls_and_login(mta: MTA) -> None:
    assert "with ESMTPSA" in fields(sent(mta, starttls=True, login=True))[0][1]


def test_a_wrong_password_is_refused(mta: MTA) -> None:
    with mta.connect() as session, pytest.raises(smtplib.SMTPAuthenticationError):
        session.login("alice", "guess")


def test_two_run_at_once(mta: MTA) -> None:
    with type(mta)() as second:
        assert second.port != mta.port
        assert sent(second)
        assert len(second.stored()) == 1
        assert second.messages("nobody@example.org") == []


def test_the_processes_exit_with_the_context(mta: MTA) -> None:
    with type(mta)() as second:
        port, directory = second.port, second.directory
        sent(second)
    assert not directory.exists()
    with pytest.raises(OSError, match="refused"):
        smtplib.SMTP(HOST, port)


def test_xclient_simulates_another_client() -> None:
    try:
        Postfix.check()
    except UnavailableError as missing:
        pytest.skip(str(missing))
    with Postfix() as postfix:
        stored = sent(postfix, helo="mail.example.com", xclient={"ADDR": "192.0.2.1", "NAME": "mail.example.com"})
    assert "from mail.example.com (mail.example.com [192.0.2.1])" in fields(stored)[0][1]
