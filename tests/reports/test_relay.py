# SPDX-License-Identifier: GPL-3.0-or-later
"""The connection to the relay, with a real SMTP server: TLS, login and the size that it takes."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from assay.config.reports import Tls
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


def test_one_connection_for_several_messages() -> None:
    receiver = Receiver()
    receiver.replies["gone@example.com"] = "550 5.1.1 no such user"
    with relay(receiver, Tls.NEVER) as made:
        assert sent(made) is RelayOutcome.TAKEN
        assert made.send("", "gone@example.com", MESSAGE).outcome is RelayOutcome.REFUSED
        assert sent(made) is RelayOutcome.TAKEN
    assert receiver.connections == 1
