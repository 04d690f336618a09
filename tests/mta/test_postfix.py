# SPDX-License-Identifier: GPL-3.0-or-later
"""assay behind a real Postfix: the laws, and what only Postfix can do."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from pathlib import Path
from typing import Any

import pytest

from mta.base import UnavailableError
from mta.laws import ROWS, Laws, Site, fields, message, result_of, signed
from mta.postfix import OWNER, SNIPPET, Postfix
from running import Daemon

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


def test_the_socket_of_the_snippet_is_found_below_the_queue_directory(tmp_path: Path) -> None:
    """Nobody but the MTA's group gets at it, and its path is the same with and without a chroot."""
    try:
        Postfix.check()
    except UnavailableError as missing:
        pytest.skip(str(missing))
    (line,) = (line for line in SNIPPET.read_text().splitlines() if line.startswith("smtpd_milters"))
    assert line == "smtpd_milters = unix:assay/assay.sock"
    group = pwd.getpwnam(OWNER).pw_gid
    with Postfix(line.partition(" = ")[2]) as mta:
        folder = mta.directory / "queue" / "assay"
        folder.mkdir()
        os.chown(folder, 0, group)
        folder.chmod(0o770)
        place = {"socket_group": grp.getgrgid(group).gr_name}
        with Daemon(tmp_path, ROWS, socket=f"unix:{folder}/assay.sock", milter=place) as daemon:
            made = (folder / "assay.sock").stat()
            assert (stat.S_IMODE(made.st_mode), made.st_gid) == (0o660, group)
            site = Site(mta, daemon, xclient=True)
            assert result_of(site.send(signed(message())), "dmarc") == "pass"
