# SPDX-License-Identifier: GPL-3.0-or-later
"""The operator's decisions as a real Postfix and a real Sendmail carry them out."""

from __future__ import annotations

import shutil
import smtplib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from mta.base import HOST, MTA, UnavailableError, fields, free_port
from mta.laws import ROWS, Site, message, result_of
from mta.postfix import Postfix
from mta.sendmail import Sendmail
from running import Daemon

#: Each rule applies to one local part, so that one daemon serves all tests.
RULES: list[dict[str, Any]] = [
    {
        "name": "greeting",
        "stage": "helo",
        "when": 'helo == "rude.example"',
        "action": "reject",
        "reply": "550 5.7.0 no",
    },
    {
        "name": "nobody",
        "stage": "mail",
        "when": 'mail_from.local_part == "nobody"',
        "action": "reject",
        "reply": "554 5.7.0 100% no mail from {sender}",
    },
    {
        "name": "later",
        "stage": "mail",
        "when": 'mail_from.local_part == "later"',
        "action": "tempfail",
        "reason": "busy",
    },
    {
        "name": "cut off",
        "stage": "rcpt",
        "when": 'mail_from.local_part == "flood"',
        "action": "tempfail",
        "reply": "421 4.7.0 slow down",
    },
    {"name": "closed", "stage": "rcpt", "when": 'rcpt.exists(one, one.startsWith("closed@"))', "action": "reject"},
    {"name": "odd", "when": 'mail_from.local_part == "odd"', "action": "tag", "reason": "odd"},
    {"name": "look", "when": 'mail_from.local_part == "look"', "action": "quarantine", "reason": "look at it"},
    {"name": "bad", "when": 'mail_from.local_part == "bad"', "action": "reject", "reason": "bad"},
    {"name": "void", "when": 'mail_from.local_part == "void"', "action": "discard"},
    {
        "name": "copied",
        "when": 'mail_from.local_part == "copied"',
        "add_fields": ("X-Copied: yes",),
        "remove_fields": ("X-Empty",),
        "add_recipients": ("copy@example.org",),
    },
]
SECTIONS: dict[str, Any] = {"milter": {"socket_mode": "0666"}, "headers": {"tag_subject": "[odd] "}, "rule": RULES}


class Policy:
    """The tests; a subclass names the MTA."""

    kind: ClassVar[type[MTA]]
    xclient: ClassVar[bool]

    @pytest.fixture(scope="class")
    @classmethod
    def site(cls) -> Iterator[Site]:
        try:
            cls.kind.check()
        except UnavailableError as missing:
            pytest.skip(str(missing))
        # Not tmp_path: the MTA's unprivileged processes must be able to reach the socket.
        folder = Path(tempfile.mkdtemp(prefix="assay-policy-"))
        folder.chmod(0o755)
        port = free_port()
        try:
            with (
                Daemon(folder, ROWS, socket=f"inet:{port}@{HOST}", **SECTIONS) as daemon,
                cls.kind(f"inet:{HOST}:{port}") as mta,
            ):
                yield Site(mta, daemon, cls.xclient)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def session(self, site: Site, helo: str = "mail.example.com") -> Any:
        """An SMTP session of the honest client."""
        return site.mta.connect(helo=helo, **site.client(honest=True))

    def test_mail_is_refused_at_mail_with_the_operators_text(self, site: Site) -> None:
        with self.session(site) as session:
            assert session.mail("<nobody@example.com>") == (554, b"5.7.0 100% no mail from nobody@example.com")
            assert session.mail("<later@example.com>") == (451, b"4.7.1 Refused by local policy: busy")
            assert session.mail("<alice@example.com>")[0] == 250

    def test_one_recipient_of_three_is_refused(self, site: Site) -> None:
        first, last = site.recipient(), site.recipient()
        with self.session(site) as session:
            refused = session.sendmail("alice@example.com", [first, "closed@example.org", last], message())
        assert list(refused) == ["closed@example.org"]
        assert refused["closed@example.org"][0] == 550
        # Sendmail puts the recipient before the text.
        assert refused["closed@example.org"][1].startswith(b"5.7.1 ")
        assert refused["closed@example.org"][1].endswith(b"Refused by local policy")
        for recipient in (first, last):
            (stored,) = site.mta.wait_for(1, recipient)
            assert result_of(stored, "dmarc") == "pass"

    def test_421_closes_the_connection(self, site: Site) -> None:
        with self.session(site) as session:
            session.mail("<flood@example.com>")
            code, text = session.rcpt("<bob@example.org>")
            assert (code, text) == (421, b"4.7.0 slow down")
            with pytest.raises(smtplib.SMTPServerDisconnected):
                session.noop()

    def test_a_message_is_refused_at_its_end(self, site: Site) -> None:
        with pytest.raises(smtplib.SMTPDataError) as refused:
            site.send(message(), sender="bad@example.com")
        assert refused.value.smtp_code == 550
        assert refused.value.smtp_error.startswith(b"5.7.1 Refused by local policy: bad")

    def test_a_quarantined_message_is_held(self, site: Site) -> None:
        before = set(site.mta.held())
        site.mta.submit(message(), sender="look@example.com", **site.client(honest=True))
        assert site.mta.wait_until(lambda: len(set(site.mta.held()) - before) == 1)
        assert "action=quarantine" in site.daemon.wait_for_log('by="rule look" reason="look at it"')

    def test_a_tag_precedes_the_subject(self, site: Site) -> None:
        stored = site.send(message(), sender="odd@example.com")
        found = fields(stored)
        assert [" ".join(value.split()) for name, value in found if name == "Subject"] == ["[odd] one two three"]
        assert ("X-Assay-Tag", " suspicious") in found
        assert "rule odd: odd" in " ".join(found[0][1].split())

    @pytest.mark.parametrize("subject", [b"caf\xe9 \xa3", b"\xb9\xe3\xb8\xe6\r\n \xc4\xe3", "grün".encode()])
    def test_a_tagged_subject_keeps_its_octets(self, site: Site, subject: bytes) -> None:
        raw = message().replace(b"one\r\n\ttwo\r\n   three \t", subject)
        stored = site.send(raw, sender="odd@example.com")
        assert b"Subject: [odd] " + subject.replace(b"\r\n", b"\n") in stored.replace(b"\r\n", b"\n")

    def test_a_message_without_a_subject_gets_one(self, site: Site) -> None:
        raw = message().replace(b"Subject: one\r\n\ttwo\r\n   three \t\r\n", b"")
        assert ("Subject", " [odd]") in fields(site.send(raw, sender="odd@example.com"))

    def test_fields_and_recipients_are_added_and_removed(self, site: Site) -> None:
        copies = len(site.mta.messages("copy@example.org"))
        found = fields(site.send(message(), sender="copied@example.com"))
        assert ("X-Copied", " yes") in found
        assert "X-Empty" not in [name for name, _ in found]
        assert len(site.mta.wait_for(copies + 1, "copy@example.org")) == copies + 1

    def test_a_discarded_message_is_accepted_and_not_delivered(self, site: Site) -> None:
        void, after = site.recipient(), site.recipient()
        with self.session(site) as session:
            session.sendmail("void@example.com", [void], message())
            session.sendmail("alice@example.com", [after], message())
        site.mta.wait_for(1, after)
        assert site.mta.messages(void) == []
        assert "action=discard" in site.daemon.log()

    def test_a_client_is_refused_from_helo_on(self, site: Site) -> None:
        """Both MTAs reply 250 to HELO and refuse the commands after it."""
        with self.session(site) as session:
            session.ehlo("rude.example")
            code, text = session.mail("<alice@example.com>")
            if code == 250:
                code, text = session.rcpt("<bob@example.org>")
            assert code == 550
            assert text.startswith(b"5.7.0 ")


class TestPostfix(Policy):
    kind = Postfix
    xclient = True


class TestSendmail(Policy):
    kind = Sendmail
    xclient = False
