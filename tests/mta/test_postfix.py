# SPDX-License-Identifier: GPL-3.0-or-later
"""assay behind a real Postfix: the laws, and what only Postfix can do."""

from __future__ import annotations

from typing import Any

from mta.laws import ROWS, Laws, Site, fields, message, result_of, signed
from mta.postfix import Postfix

ROWS |= {
    "six.example": [["TXT", ["v=spf1 ip6:2001:db8:25::/48 -all"]]],
    "_dmarc.six.example": [["TXT", ["v=DMARC1; p=reject"]]],
    "xn--bcher-kva.example": [["TXT", ["v=spf1 ip4:192.0.2.25 -all"]]],
    "_dmarc.xn--bcher-kva.example": [["TXT", ["v=DMARC1; p=reject"]]],
}


class TestPostfix(Laws):
    kind = Postfix
    xclient = True

    def delivered(self, site: Site, session: Any, sender: str, raw: bytes, *options: str) -> bytes:
        """Send in a session at hand; the message as stored."""
        recipient = site.recipient()
        session.sendmail(sender, [recipient], raw, mail_options=options)
        (stored,) = site.mta.wait_for(1, recipient)
        return stored

    def test_a_client_with_an_ipv6_address(self, site: Site) -> None:
        client = {"ADDR": "IPV6:2001:db8:25::1", "NAME": "[UNAVAILABLE]"}
        with site.mta.connect(helo="six.example", xclient=client) as session:
            stored = self.delivered(site, session, "alice@six.example", message("six.example"))
        assert (result_of(stored, "spf"), result_of(stored, "dmarc")) == ("pass", "pass")
        assert "policy.iprev=2001:db8:25::1" in fields(stored)[0][1].replace('"', "")

    def test_an_internationalized_sender(self, site: Site) -> None:
        raw = message("bücher.example").replace(b"alice@", "jörg@".encode())
        with site.mta.connect(helo="mail.example.com", **site.client(honest=True)) as session:
            stored = self.delivered(site, session, "jörg@bücher.example", raw, "SMTPUTF8")
        assert (result_of(stored, "spf"), result_of(stored, "dmarc")) == ("pass", "pass")
        assert fields(stored)[4:] == fields(raw)

    def test_a_message_in_chunks(self, site: Site) -> None:
        """RFC 3030: BDAT instead of DATA."""
        raw, recipient = signed(message()), site.recipient()
        with site.mta.connect(helo="mail.example.com", **site.client(honest=True)) as session:
            session.mail("<alice@example.com>")
            session.rcpt(f"<{recipient}>")
            session.send(b"BDAT 100\r\n" + raw[:100])
            assert session.getreply()[0] == 250
            session.send(b"BDAT %d LAST\r\n" % len(raw[100:]) + raw[100:])
            assert session.getreply()[0] == 250
        (stored,) = site.mta.wait_for(1, recipient)
        assert result_of(stored, "dkim") == "pass"
        assert fields(stored)[4:] == fields(raw)

    def test_a_field_with_nul_is_judged_as_it_is_stored(self, site: Site) -> None:
        """Postfix cuts the field there, for us and in the store: nobody reads the rest."""
        raw = message().replace(b"From:  Alice  <alice@example.com>", b"From: alice@example.com\0, eve@strict.example")
        stored = site.send(raw)
        assert result_of(stored, "dmarc") == "pass"
        assert dict(fields(stored))["From"] == " alice@example.com"
