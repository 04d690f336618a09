# SPDX-License-Identifier: GPL-3.0-or-later
"""assay with a real Postfix: the laws, and what only Postfix can do."""

from __future__ import annotations

import grp
import os
import pwd
import re
import smtplib
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from mta.base import HOST, PROJECT, UnavailableError, free_port
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
        """Send in an open session, and return the message as stored."""
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

    def test_a_field_with_nul_is_judged_as_stored(self, site: Site) -> None:
        """Postfix truncates the field there, for us and in the store: the rest is never read."""
        raw = message().replace(b"From:  Alice  <alice@example.com>", b"From: alice@example.com\0, eve@strict.example")
        stored = site.send(raw)
        assert result_of(stored, "dmarc") == "pass"
        assert dict(fields(stored))["From"] == " alice@example.com"


RELAYS = PROJECT / "docs" / "relays.md"


class WithProxy(Postfix):
    """Postfix with a port for a proxy, configured as in docs/relays.md."""

    def configure(self) -> None:
        super().configure()
        self.proxied = free_port()
        entry = re.search(r"^10025 .*\n(?:  -o .*\n)+", RELAYS.read_text(), re.MULTILINE)
        assert entry is not None
        lines = entry[0].replace("10025", f"{HOST}:{self.proxied}").replace("-       y ", "-       n ")
        with (self.directory / "etc/master.cf").open("a") as services:
            services.write(lines)


class Proxied(smtplib.SMTP):
    """A client behind a proxy that sends this line first."""

    def __init__(self, line: str, port: int) -> None:
        self._line = line
        super().__init__(HOST, port, local_hostname="mail.example.com", timeout=20)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        made = socket.create_connection((host, port), timeout)
        made.sendall(self._line.encode())
        return made


@pytest.mark.parametrize(("client", "spf"), [("192.0.2.25", "pass"), ("192.0.2.66", "fail")])
def test_the_client_behind_a_tcp_proxy(tmp_path: Path, client: str, spf: str) -> None:
    """docs/relays.md: the PROXY protocol."""
    try:
        Postfix.check()
    except UnavailableError as missing:
        pytest.skip(str(missing))
    port = free_port()
    with Daemon(tmp_path, ROWS, socket=f"inet:{port}@{HOST}"), WithProxy(f"inet:{HOST}:{port}") as mta:
        with Proxied(f"PROXY TCP4 {client} 127.0.0.1 40000 25\r\n", mta.proxied) as session:
            session.sendmail("alice@example.com", ["proxied@example.org"], message())
        (stored,) = mta.wait_for(1, "proxied@example.org")
        assert result_of(stored, "spf") == spf


def test_xclient_is_limited_to_the_listed_hosts() -> None:
    """docs/relays.md: the parameter must have the proxy's address; with another address no client may use XCLIENT."""
    try:
        Postfix.check()
    except UnavailableError as missing:
        pytest.skip(str(missing))
    (line,) = re.findall(r"^smtpd_authorized_xclient_hosts = .*$", RELAYS.read_text(), re.MULTILINE)
    name, _, value = line.partition(" = ")
    for hosts, believed in ((value, False), (HOST, True)):
        with Postfix(extra={name: hosts}) as mta, smtplib.SMTP(HOST, mta.port) as session:
            session.ehlo()
            assert session.has_extn("xclient") is believed


def test_the_socket_of_the_snippet_is_found_below_the_queue_directory(tmp_path: Path) -> None:
    """Only the MTA's group has access to it, and its path is the same with and without a chroot."""
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
