# SPDX-License-Identifier: GPL-3.0-or-later
"""What must hold for assay with any MTA: the tests that Postfix and Sendmail share.

A message goes over SMTP to a real MTA and from there to a real daemon with a test DNS, and is read as it was stored.
The tests compare the names of all header fields in order, the sender's fields octet by octet, and the results as
another library reads them.
"""

from __future__ import annotations

import itertools
import shutil
import signal
import smtplib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import authres
import dkim as dkimpy
import pytest

from mta.base import HOST, HOSTNAME, MTA, UnavailableError, body, crlf, fields, free_port
from running import Daemon
from signing import pem, record, rsa_key

SELECTOR = "sel"

#: The clients of honest and of other mail: through XCLIENT, or for an MTA without it, on the loopback.
HONEST, OTHER = "192.0.2.25", "198.51.100.7"
HONEST_LOOPBACK, OTHER_LOOPBACK = "127.0.0.25", "127.0.0.7"

_SPF = f"v=spf1 ip4:{HONEST} ip4:{HONEST_LOOPBACK} -all"
_KEY = record(rsa_key())


def _domain(name: str, policy: str) -> dict[str, list[list[Any]]]:
    return {
        name: [["TXT", [_SPF]]],
        f"_dmarc.{name}": [["TXT", [f"v=DMARC1; p={policy}"]]],
        f"{SELECTOR}._domainkey.{name}": [["TXT", [_KEY[:200], _KEY[200:]]]],
        f"mail.{name}": [["A", HONEST], ["A", HONEST_LOOPBACK], ["TXT", [_SPF]]],
    }


ROWS = {
    **_domain("example.com", "none"),
    **_domain("strict.example", "reject"),
    **_domain("doubtful.example", "quarantine"),
    "25.2.0.192.in-addr.arpa": [["PTR", "mail.example.com"]],
    "25.0.0.127.in-addr.arpa": [["PTR", "mail.example.com"]],
}

#: The names of the fields that assay writes on top of a judged message.
STAMPS = ["Authentication-Results", "Received-SPF", "Received-SPF"]

#: Fields in every form that a sender may use, and whose signature must still verify.
ODD_FIELDS = b"""\
From:  Alice  <alice@%s>
To:bob@example.org
Subject: one
\ttwo
   three \t
X-Octets: caf\xc3\xa9 and \xe9
X-Empty:
X-Folded-At-Once:
 value
Date: Fri, 1 Jan 2027 00:00:00 +0000
Message-ID: <1@example.com>
"""


def message(domain: str = "example.com", text: bytes = b"Hello  \n\n.dot\n\n\n") -> bytes:
    """An unsigned message from alice at `domain`."""
    return crlf(ODD_FIELDS % domain.encode() + b"\n" + text)


def signed(original: bytes, domain: str = "example.com", canonicalization: str = "simple/simple") -> bytes:
    """The message with a signature over all its fields prepended."""
    header, _, body_form = canonicalization.partition("/")
    names = [name.encode().lower() for name, _ in fields(original) if name != "DKIM-Signature"]
    options = {"canonicalize": (header.encode(), body_form.encode()), "include_headers": names}
    return dkimpy.sign(original, SELECTOR.encode(), domain.encode(), pem(rsa_key()), **options) + original


def results(stored: bytes) -> list[tuple[str, str]]:
    """The (method, result) pairs of the first field, which must be ours, as the authres library reads them."""
    name, value = fields(stored)[0]
    assert name == "Authentication-Results"
    parsed = authres.AuthenticationResultsHeader.parse(f"{name}:{value}")
    assert parsed.authserv_id == HOSTNAME
    return [(one.method, one.result) for one in parsed.results]


def result_of(stored: bytes, method: str) -> str:
    """The only or first result of a method."""
    return next(result for name, result in results(stored) if name == method)


def names(stored: bytes) -> list[str]:
    """The names of all fields, from top to bottom."""
    return [name for name, _ in fields(stored)]


#: The author that a mail reader may show is at strict.example.
FORGED_AUTHORS = [
    b"ceo@strict.example <ceo@strict.example>",
    b"ceo@strict.example <alice@example.com>",
    b"ceo@strict.example, alice@example.com",
    b'"CEO\\" <ceo@strict.example> "\' <alice@example.com>',
    b'"CEO <ceo@strict.example>',
    b"CEO, Inc. <ceo@strict.example>",
    b"[CEO] <ceo@strict.example>",
    b"Zo\xeb <ceo@strict.example>",
    b"CEO <@relay.example:ceo@strict.example>",
    b"CEO <ceo@strict.example.>",
    b"CEO <ceo@pay-.strict.example>",
    b"CEO <ceo@" + b"x" * 64 + b".strict.example>",
    b"ceo @ strict . example",
    b"ceo@strict example, <alice@example.com>",
    b"ceo@strict>.example, <alice@example.com>",
    b"strict.example!ceo, <alice@example.com>",
    b"<ceo@strict.example>,",
    b"alice@example.com\nFrom: ceo@strict.example",
    b"alice@example.com\nFrom : ceo@strict.example",
    b"Undisclosed:;",
    b"CEO",
]


@dataclass
class Site:
    """An MTA with assay as its milter, and the way to simulate another client."""

    mta: MTA
    daemon: Daemon
    xclient: bool
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def client(self, honest: bool) -> dict[str, Any]:
        """Options of `MTA.connect` that set the client's address."""
        if self.xclient:
            return {"xclient": {"ADDR": HONEST if honest else OTHER, "NAME": "[UNAVAILABLE]"}}
        return {"client": HONEST_LOOPBACK if honest else OTHER_LOOPBACK}

    def send(
        self,
        raw: bytes,
        *,
        sender: str = "alice@example.com",
        helo: str = "mail.example.com",
        honest: bool = True,
        **options: Any,
    ) -> bytes:
        """Submit to a new recipient, and return the message as stored."""
        recipient = self.recipient()
        self.mta.submit(raw, sender=sender, recipients=[recipient], helo=helo, **self.client(honest), **options)
        (stored,) = self.mta.wait_for(1, recipient)
        return stored

    def recipient(self) -> str:
        """A recipient not used before."""
        return f"r{next(self.numbers)}@example.org"


class Laws:
    """The tests; a subclass names the MTA."""

    kind: ClassVar[type[MTA]]
    xclient: ClassVar[bool]
    SECTIONS: ClassVar[Mapping[str, dict[str, Any]]] = {
        "milter": {"socket_mode": "0666"},
        "dmarc": {"reject": "reject", "quarantine": "quarantine"},
    }

    @pytest.fixture(scope="class", params=["inet", "unix"])
    @classmethod
    def site(cls, request: pytest.FixtureRequest) -> Iterator[Site]:
        try:
            cls.kind.check()
        except UnavailableError as missing:
            pytest.skip(str(missing))
        # Not tmp_path: the MTA's unprivileged processes must have access to the socket.
        folder = Path(tempfile.mkdtemp(prefix="assay-site-"))
        folder.chmod(0o755)
        port = free_port()
        ours, theirs = {
            "inet": (f"inet:{port}@{HOST}", f"inet:{HOST}:{port}"),
            "unix": (f"unix:{folder}/assay.sock", f"unix:{folder}/assay.sock"),
        }[request.param]
        try:
            with Daemon(folder, ROWS, socket=ours, **cls.SECTIONS) as daemon, cls.kind(theirs) as mta:
                yield Site(mta, daemon, cls.xclient)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    # -- genuine messages

    @pytest.mark.parametrize("canonicalization", ["simple/simple", "relaxed/relaxed", "simple/relaxed"])
    def test_a_genuine_message_passes_and_is_stored_unchanged(self, site: Site, canonicalization: str) -> None:
        raw = signed(message(), canonicalization=canonicalization)
        stored = site.send(raw)
        assert sorted(results(stored)) == sorted(
            [("iprev", "pass"), ("spf", "pass"), ("spf", "pass"), ("dkim", "pass"), ("dmarc", "pass")]
        )
        assert names(stored) == [*STAMPS, "Received", *names(raw)]
        assert fields(stored)[4:] == fields(raw)
        assert body(stored) == body(raw)

    def test_every_line_assay_writes_is_short_and_folded_as_rfc_5322_requires(self, site: Site) -> None:
        for name, value in fields(site.send(signed(message())))[: len(STAMPS)]:
            lines = f"{name}:{value}".split("\n")
            assert all(len(line) <= 78 for line in lines)
            assert value.startswith(" ")
            assert all(line[:1] in "\t " and line.strip() for line in lines[1:])

    def test_ten_megabytes_pass(self, site: Site) -> None:
        raw = signed(message(text=(b"0123456789abcdef" * 4 + b"\n") * 161_320))
        stored = site.send(raw)
        assert result_of(stored, "dkim") == "pass"
        assert body(stored) == body(raw)

    def test_all_of_ten_signatures_are_reported(self, site: Site) -> None:
        raw = message()
        for _ in range(10):
            raw = signed(raw)
        stored = site.send(raw)
        assert [result for method, result in results(stored) if method == "dkim"] == ["pass"] * 10
        assert fields(stored)[4:] == fields(raw)

    def test_a_message_without_an_author_is_refused_where_dmarc_failures_are(self, site: Site) -> None:
        with pytest.raises(smtplib.SMTPDataError) as refused:
            site.send(b"")
        assert refused.value.smtp_code == 550
        assert refused.value.smtp_error == b"5.6.0 DMARC: no From field"

    @pytest.mark.parametrize("line", [b"X-Octet-\xe9: 1", b"X Space: 1", b": 1", b"no colon"], ids=repr)
    def test_a_line_that_is_not_a_field_ends_the_header(self, site: Site, line: bytes) -> None:
        """What follows is body text: an author there authorizes nothing, and a forged result there is harmless."""
        text = b"Authentication-Results: mx.example.org; dmarc=pass\r\n" + message()
        stored = site.send(b"From: joe@above.example\r\n" + line + b"\r\n" + text)
        assert result_of(stored, "dmarc") == "none"
        assert body(crlf(b"\n" + line + b"\n" + text)) in stored

    def test_a_modified_message_fails(self, site: Site) -> None:
        stored = site.send(signed(message()).replace(b"Hello", b"hello"), honest=False)
        assert (result_of(stored, "dkim"), result_of(stored, "dmarc")) == ("fail", "fail")

    def test_a_bounce_is_judged_by_its_helo(self, site: Site) -> None:
        stored = site.send(signed(message()), sender="")
        assert result_of(stored, "spf") == "pass"
        assert "smtp.helo=mail.example.com" in fields(stored)[0][1]

    # -- forged messages

    def test_a_forged_message_fails(self, site: Site) -> None:
        stored = site.send(message(), honest=False)
        assert (result_of(stored, "spf"), result_of(stored, "dmarc")) == ("fail", "fail")
        assert fields(stored)[4:] == fields(message())

    def test_a_forged_message_is_rejected_where_the_domain_requests_it(self, site: Site) -> None:
        before = len(site.mta.stored())
        with pytest.raises(smtplib.SMTPDataError) as refused:
            site.send(message("strict.example"), sender="alice@strict.example", honest=False)
        assert refused.value.smtp_code == 550
        assert b"5.7." in refused.value.smtp_error
        assert b"strict.example" in refused.value.smtp_error
        assert len(site.mta.stored()) == before

    @pytest.mark.parametrize("author", FORGED_AUTHORS)
    def test_a_forged_author_is_rejected_in_every_form(self, site: Site, author: bytes) -> None:
        before = len(site.mta.stored())
        raw = crlf(b"From: " + author + b"\nTo: bob@example.org\nSubject: x\n\nHello\n")
        with pytest.raises(smtplib.SMTPDataError) as refused:
            site.send(raw)  # by the owner of example.com, for whom SPF passes
        assert refused.value.smtp_code == 550
        assert len(site.mta.stored()) == before

    def test_a_forged_message_is_quarantined_where_the_domain_requests_it(self, site: Site) -> None:
        before = len(site.mta.held())
        site.mta.submit(message("doubtful.example"), sender="alice@doubtful.example", **site.client(honest=False))
        assert site.mta.wait_until(lambda: len(site.mta.held()) == before + 1)

    @pytest.mark.parametrize(
        "flood",
        [[b"X: 1"] * 10_001, [b"X: " + b"x" * 60_000] * 40],
        ids=["fields", "octets"],
    )
    @pytest.mark.parametrize("place", ["above", "below"])
    def test_a_flood_of_header_fields_does_not_hide_the_author(
        self, site: Site, flood: list[bytes], place: str
    ) -> None:
        """Sendmail itself refuses such a header (MaxHeadersLength)."""
        header, _, text = message("strict.example").partition(b"\r\n\r\n")
        lines = b"\r\n".join(line[:998] if site.mta.name == "sendmail" else line for line in flood)
        fields_in_order = [lines, header] if place == "above" else [header, lines]
        before = len(site.mta.stored())
        with pytest.raises(smtplib.SMTPDataError) as refused:
            site.send(b"\r\n".join(fields_in_order) + b"\r\n\r\n" + text, sender="a@strict.example", honest=False)
        assert refused.value.smtp_code in (550, 552)
        assert len(site.mta.stored()) == before

    @pytest.mark.parametrize(
        "forged",
        [
            pytest.param(
                [b"Authentication-Results: mx.example.org; dmarc=pass header.from=example.com"],
                id="a field as we write it",
            ),
            pytest.param([b"Authentication-Results:\n\t(c) mx.example.org\n ; spf=pass"], id="folded and commented"),
            pytest.param(
                [b"AUTHENTICATION-results:MX.Example.ORG 1;dkim=pass"], id="in another letter case, with a version"
            ),
            pytest.param([b"Authentication-Results : mx.example.org; none"], id="with a space before the colon"),
            pytest.param([b'Authentication-Results: "mx.example.org"; none'], id="quoted"),
            pytest.param([b"Authentication-Results: mx.example.org; spf=pass (\xff\xfe)"], id="with odd octets"),
            pytest.param([b"Authentication-Results: mx.example.org; none"] * 5, id="five times"),
        ],
    )
    def test_forged_results_are_removed(self, site: Site, forged: Sequence[bytes]) -> None:
        kept = b"Authentication-Results: relay.example; spf=fail smtp.mailfrom=example.com"
        raw = signed(message())
        top, bottom = forged[: len(forged) // 2], forged[len(forged) // 2 :]
        header, _, text = raw.partition(b"\r\n\r\n")
        lying = crlf(b"\n".join([*top, kept, header, *bottom, kept])) + b"\r\n\r\n" + text
        stored = site.send(lying)
        kept_field = fields(kept)[0]
        assert fields(stored)[4:] == [kept_field, *fields(raw), kept_field]
        assert result_of(stored, "dkim") == "pass"

    def test_forged_fields_among_others_are_removed_by_their_index_per_name(self, site: Site) -> None:
        theirs = b"Authentication-Results: relay.example; x-%d=pass"
        ours = b"Authentication-Results: mx.example.org; x-%d=pass"
        lines = [(theirs if number % 3 == 1 else ours) % number for number in range(12)]
        raw = message()
        stored = site.send(crlf(b"\n".join(lines) + b"\n") + raw)
        expected = [line for line in lines if b"relay.example" in line]
        assert fields(stored)[4:] == [*(fields(line)[0] for line in expected), *fields(raw)]

    # -- several messages on a connection

    def test_two_messages_on_one_connection_are_judged_separately(self, site: Site) -> None:
        first, second = site.recipient(), site.recipient()
        with site.mta.connect(helo="mail.example.com", **site.client(honest=True)) as session:
            session.sendmail("alice@example.com", [first], signed(message()))
            session.sendmail("alice@elsewhere.example", [second], message("elsewhere.example"))
        (true,), (unknown,) = site.mta.wait_for(1, first), site.mta.wait_for(1, second)
        assert result_of(true, "dkim") == "pass"
        assert "dkim=pass" not in fields(unknown)[0][1]
        assert result_of(unknown, "dmarc") == "none"
        assert names(unknown) == [*STAMPS, "Received", *names(message())]

    def test_an_aborted_transaction_leaves_no_trace(self, site: Site) -> None:
        recipient = site.recipient()
        with site.mta.connect(helo="mail.example.com", **site.client(honest=True)) as session:
            session.mail("<forgotten@strict.example>")
            session.rcpt("<nobody@example.org>")
            session.rset()
            session.sendmail("alice@example.com", [recipient], signed(message()))
        (stored,) = site.mta.wait_for(1, recipient)
        assert "strict.example" not in "".join(value for _, value in fields(stored)[:4])
        assert result_of(stored, "dmarc") == "pass"

    def test_authenticated_mail_is_not_judged_but_forged_results_are_removed(self, site: Site) -> None:
        raw = message()
        stored = site.send(
            b"Authentication-Results: mx.example.org; dmarc=pass\r\n" + raw, honest=False, starttls=True, login=True
        )
        assert names(stored) == ["Received", *names(raw)]

    def test_a_login_between_two_messages_applies_to_later_messages(self, site: Site) -> None:
        before, after = site.recipient(), site.recipient()
        with site.mta.connect(helo="mail.example.com", **site.client(honest=False)) as session:
            session.sendmail("alice@example.com", [before], message())
            session.login("alice", "wonderland")
            session.sendmail("alice@example.com", [after], message())
        assert result_of(site.mta.wait_for(1, before)[0], "dmarc") == "fail"
        assert names(site.mta.wait_for(1, after)[0]) == ["Received", *names(message())]

    def test_the_helo_after_starttls_replaces_the_first(self, site: Site) -> None:
        recipient = site.recipient()
        with site.mta.connect(helo="first.strict.example", **site.client(honest=True)) as session:
            session.starttls()
            session.ehlo("mail.example.com")
            session.sendmail("alice@example.com", [recipient], signed(message()))
        (stored,) = site.mta.wait_for(1, recipient)
        assert "smtp.helo=mail.example.com" in fields(stored)[0][1]
        assert "strict.example" not in fields(stored)[0][1]
        assert [result for method, result in results(stored) if method == "spf"] == ["pass", "pass"]

    def test_a_reload_in_the_middle_of_a_session_loses_nothing(self, site: Site) -> None:
        first, second = site.recipient(), site.recipient()
        with site.mta.connect(helo="mail.example.com", **site.client(honest=True)) as session:
            session.sendmail("alice@example.com", [first], signed(message()))
            site.daemon.signal(signal.SIGHUP)
            session.sendmail("alice@example.com", [second], signed(message()))
        for recipient in (first, second):
            assert result_of(site.mta.wait_for(1, recipient)[0], "dmarc") == "pass"

    # -- without the daemon

    def test_without_the_daemon_mail_is_deferred(self) -> None:
        try:
            self.kind.check()
        except UnavailableError as missing:
            pytest.skip(str(missing))
        with self.kind(f"inet:{HOST}:{free_port()}") as mta:
            with pytest.raises(smtplib.SMTPException) as refused:
                mta.submit(message())
            assert "4" in str(refused.value)
            assert mta.stored() == []
