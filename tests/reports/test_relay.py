# SPDX-License-Identifier: GPL-3.0-or-later
"""The connection to the relay, with a real SMTP server: TLS, login and the size that it takes."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session

from assay.config.reports import Tls
from assay.reports import relay as relaying
from assay.reports.relay import Relay, RelayError, RelayOutcome
from certificates import CertificateAuthority
from receiving import Receiver

MESSAGE = (b"Subject: report\r\n\r\n", b"text\r\n")


@pytest.fixture
def authority(tmp_path: Path) -> CertificateAuthority:
    return CertificateAuthority(tmp_path)


@pytest.fixture
def trusted(authority: CertificateAuthority, monkeypatch: pytest.MonkeyPatch) -> CertificateAuthority:
    """The authority, which this process trusts."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    return authority


def context(authority: CertificateAuthority, name: str = "localhost") -> ssl.SSLContext:
    certificate, key = authority.issue([name])
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    made.load_cert_chain(certificate, key)
    return made


@contextmanager
def relay(
    receiver: Receiver, tls: Tls, *, user: str = "", password: str = "", implicit: bool = False
) -> Iterator[Relay]:
    with (
        receiver,
        Relay(
            "localhost", receiver.port, implicit_tls=implicit, tls=tls, user=user, password=password, name="mx.example"
        ) as made,
    ):
        yield made


def sent(made: Relay) -> RelayOutcome:
    return made.send("", "d@example.com", MESSAGE).outcome


class TestTls:
    @pytest.mark.parametrize(("tls", "is_encrypted"), [(Tls.OFFERED, True), (Tls.NEVER, False)])
    def test_what_is_offered_is_used(self, authority: CertificateAuthority, tls: Tls, is_encrypted: bool) -> None:
        """Also with a certificate that nobody trusts (RFC 7435)."""
        receiver = Receiver(starttls=context(authority))
        with relay(receiver, tls) as made:
            assert sent(made) is RelayOutcome.TAKEN
        assert receiver.encrypted == [is_encrypted]

    def test_without_tls_where_it_is_not_offered(self) -> None:
        receiver = Receiver()
        with relay(receiver, Tls.OFFERED) as made:
            assert sent(made) is RelayOutcome.TAKEN
        assert receiver.encrypted == [False]

    def test_nothing_is_sent_where_it_is_required_and_not_offered(self) -> None:
        receiver = Receiver()
        with relay(receiver, Tls.REQUIRED) as made, pytest.raises(RelayError, match="does not offer STARTTLS"):
            sent(made)
        assert receiver.taken == []

    def test_a_valid_certificate_is_required(self, trusted: CertificateAuthority) -> None:
        receiver = Receiver(starttls=context(trusted))
        with relay(receiver, Tls.REQUIRED) as made:
            assert sent(made) is RelayOutcome.TAKEN
        assert receiver.encrypted == [True]

    def test_nothing_is_sent_to_a_certificate_of_another_host(self, trusted: CertificateAuthority) -> None:
        receiver = Receiver(starttls=context(trusted, "other.example"))
        with relay(receiver, Tls.REQUIRED) as made, pytest.raises(RelayError, match=r"(?i)certificate"):
            sent(made)
        assert receiver.taken == []

    def test_nothing_is_sent_to_a_certificate_that_nobody_trusts(self, authority: CertificateAuthority) -> None:
        receiver = Receiver(starttls=context(authority))
        with relay(receiver, Tls.REQUIRED) as made, pytest.raises(RelayError, match=r"(?i)certificate"):
            sent(made)
        assert receiver.taken == []

    @pytest.mark.parametrize("name", ["localhost", "other.example"])
    def test_from_the_beginning(self, trusted: CertificateAuthority, name: str) -> None:
        receiver = Receiver(tls=context(trusted, name))
        with relay(receiver, Tls.OFFERED, implicit=True) as made:
            if name == "localhost":
                assert sent(made) is RelayOutcome.TAKEN
            else:
                with pytest.raises(RelayError, match=r"(?i)certificate"):
                    sent(made)
        assert receiver.encrypted == [True] * (name == "localhost")


class TestLogin:
    def test_login(self, trusted: CertificateAuthority) -> None:
        receiver = Receiver(starttls=context(trusted), login=("assay", "the secret"))
        with relay(receiver, Tls.REQUIRED, user="assay", password="the secret") as made:
            assert sent(made) is RelayOutcome.TAKEN
        assert len(receiver.taken) == 1

    @pytest.mark.parametrize(
        ("password", "words"), [("another secret", "535"), ("le secr\u00e9t", "the password is not ASCII")]
    )
    def test_a_wrong_password_is_reported_and_not_shown(
        self, trusted: CertificateAuthority, password: str, words: str
    ) -> None:
        receiver = Receiver(starttls=context(trusted), login=("assay", "the secret"))
        with (
            relay(receiver, Tls.REQUIRED, user="assay", password=password) as made,
            pytest.raises(RelayError, match=words) as raised,
        ):
            sent(made)
        assert "secr" not in str(raised.value)
        assert receiver.taken == []

    def test_a_relay_that_knows_no_login(self, trusted: CertificateAuthority) -> None:
        receiver = Receiver(starttls=context(trusted))
        with relay(receiver, Tls.REQUIRED, user="assay", password="the secret") as made, pytest.raises(RelayError):
            sent(made)
        assert receiver.taken == []


@pytest.mark.parametrize(("octets", "found"), [(12_345, 12_345), (0, None)])
def test_the_size_that_it_takes(octets: int, found: int | None) -> None:
    receiver = Receiver()
    receiver.max_octets = octets
    with relay(receiver, Tls.NEVER) as made:
        assert made.max_size == found


class TestHandingOver:
    def test_a_relay_that_does_not_answer_may_have_taken_it(self) -> None:
        receiver = Receiver()
        receiver.silent.add("d@example.com")
        with relay(receiver, Tls.NEVER) as made:
            assert sent(made) is RelayOutcome.UNANSWERED
            receiver.silent.clear()
            assert sent(made) is RelayOutcome.TAKEN  # over another connection
        assert len(receiver.taken) == 2

    def test_it_waits_for_the_answer_longer_than_for_others(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(relaying, "TIMEOUT_SECONDS", 0.5)
        receiver = Slow()
        with relay(receiver, Tls.NEVER) as made:
            assert sent(made) is RelayOutcome.TAKEN
            assert sent(made) is RelayOutcome.TAKEN
            with pytest.raises(RelayError, match="timed out"):
                made.send("", "slow@example.com", MESSAGE)

    def test_a_connection_that_is_lost_before_the_end_took_nothing(self) -> None:
        receiver = Receiver()
        with relay(receiver, Tls.NEVER) as made:
            made.send("", "d@example.com", MESSAGE)
            connection = made._connection
            assert connection is not None
            assert connection.sock is not None
            with pytest.raises(RelayError):
                made.send("", "d@example.com", MESSAGE, partial(connection.sock.shutdown, socket.SHUT_WR))
        assert len(receiver.taken) == 1

    def test_without_leave_the_end_is_not_sent(self) -> None:
        receiver = Receiver()

        def forbid() -> None:
            raise LookupError

        with relay(receiver, Tls.NEVER) as made:
            with pytest.raises(LookupError):
                made.send("", "d@example.com", MESSAGE, forbid)
            assert sent(made) is RelayOutcome.TAKEN
        assert len(receiver.taken) == 1

    @pytest.mark.parametrize(
        ("reply", "outcome"),
        [
            ("451 4.3.0 no", "deferred"),
            ("550 5.7.1 no", "refused"),
            ("552 5.2.2 mailbox full", "refused"),
            ("552 5.3.4 no", "too large"),
        ],
    )
    def test_a_refusal_is_no_silence(self, reply: str, outcome: str) -> None:
        receiver = Receiver()
        receiver.at_data["d@example.com"] = reply
        with relay(receiver, Tls.NEVER) as made:
            assert sent(made) == outcome
            receiver.at_data["d@example.com"] = "421 4.3.2 going down"
            with pytest.raises(RelayError, match="going down"):
                sent(made)

    @pytest.mark.parametrize(
        ("reply", "outcome"),
        [
            ("554 5.7.1 <d@example.com>: Relay access denied", "denied"),
            ("530 5.7.0 Authentication required", "denied"),
            ("530 Authentication required", "denied"),
            ("550 5.1.1 no such user", "refused"),
            ("550 no", "refused"),
            ("450 4.7.1 greylisted", "deferred"),
            ("450 5.7.1 greylisted", "deferred"),
        ],
    )
    def test_who_refuses_an_address(self, reply: str, outcome: str) -> None:
        receiver = Receiver()
        receiver.replies["d@example.com"] = reply
        with relay(receiver, Tls.NEVER) as made:
            assert sent(made) == outcome
            receiver.replies.clear()
            assert sent(made) is RelayOutcome.TAKEN
        assert receiver.connections == 1

    def test_a_refusal_holds_though_the_relay_hangs_up_after_it(self) -> None:
        receiver = HangingUp()
        with relay(receiver, Tls.NEVER) as made:
            assert made.send("", "gone@example.com", MESSAGE).outcome is RelayOutcome.REFUSED
            assert sent(made) is RelayOutcome.TAKEN  # over another connection
        assert receiver.connections == 2

    def test_a_full_stop_at_the_beginning_of_a_line(self) -> None:
        receiver = Receiver()
        with relay(receiver, Tls.NEVER) as made:
            made.send("", "d@example.com", [b".Subject: x\r\n", b"\r\n.\r\n..\r\n"])
        ((_, _, octets),) = receiver.taken
        assert octets == b".Subject: x\r\n\r\n.\r\n..\r\n"


class HangingUp(Receiver):
    """It refuses one address, and closes the connection instead of the reply to the next command."""

    async def handle_RCPT(  # noqa: N802  # aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[Any]
    ) -> str:
        if address == "gone@example.com":
            return "550 5.1.1 no such user"
        return await super().handle_RCPT(server, session, envelope, address, options)

    async def handle_RSET(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802  # likewise
        server.transport.abort()
        return "250 2.0.0 Ok"


class Sparing(Receiver):
    """It takes one message over a connection, and ends it at the next."""

    def __init__(self, reply: str) -> None:
        """:param reply: before it closes the connection; none if it is empty."""
        super().__init__()
        self._reply = reply
        self._served: set[int] = set()

    async def handle_MAIL(  # noqa: N802  # aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[Any]
    ) -> str:
        if self.connections in self._served:
            if not self._reply:
                server.transport.abort()
            return self._reply or "250 2.1.0 Ok"
        self._served.add(self.connections)
        return await super().handle_MAIL(server, session, envelope, address, options)


class Slow(Receiver):
    """It takes a second for the answer to a message, or to RCPT of one address."""

    async def handle_RCPT(  # noqa: N802  # aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[Any]
    ) -> str:
        if address == "slow@example.com":
            await asyncio.sleep(1)
        return await super().handle_RCPT(server, session, envelope, address, options)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802  # likewise
        await asyncio.sleep(1)
        return await super().handle_DATA(server, session, envelope)


def test_one_connection_for_several_messages() -> None:
    receiver = Receiver()
    receiver.replies["gone@example.com"] = "550 5.1.1 no such user"
    with relay(receiver, Tls.NEVER) as made:
        assert sent(made) is RelayOutcome.TAKEN
        assert made.send("", "gone@example.com", MESSAGE).outcome is RelayOutcome.REFUSED
        assert sent(made) is RelayOutcome.TAKEN
    assert receiver.connections == 1


@pytest.mark.parametrize("reply", ["421 4.7.0 too many messages", ""])
def test_a_relay_that_ends_a_connection_after_a_message_gets_the_next_over_another(reply: str) -> None:
    receiver = Sparing(reply)
    with relay(receiver, Tls.NEVER) as made:
        assert [sent(made) for _ in range(3)] == [RelayOutcome.TAKEN] * 3
    assert receiver.connections == len(receiver.taken) == 3


def test_a_relay_that_takes_nothing_is_not_asked_for_ever() -> None:
    receiver = Receiver()
    with relay(receiver, Tls.NEVER) as made:
        assert sent(made) is RelayOutcome.TAKEN
        receiver.at_mail = "421 4.3.2 going down"
        with pytest.raises(RelayError, match="going down"):
            sent(made)
        assert receiver.connections == 2
        with pytest.raises(RelayError, match="going down"):  # without a message before
            sent(made)
        assert receiver.connections == 3
    assert len(receiver.taken) == 1
