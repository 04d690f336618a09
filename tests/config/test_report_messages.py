# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with settings for reports that go out: one sentence with the place and the fix."""

from __future__ import annotations

from pathlib import Path

import pytest

from assay.cli.serve import read_for_serving
from assay.config import ConfigError
from signing import pem, rsa_key

REPORTS = "[reports]\norganization = 'Us'\ncontact = 'dmarc@ours.example'\n"
SIGNED = "[[sign.domain]]\ndomain = 'ours.example'\nselectors = ['s']\nkey_files = ['DIR/key']\n"
INCOMING = "[reports.incoming]\ndomains = ['ours.example']\n"
WHOLE = f"[store]\ndirectory = 'DIR'\n{SIGNED}{REPORTS}"

#: DIR is the directory of the file.
ROWS = {
    "no contact": ("[reports]\norganization = 'Us'\n", "reports.contact: missing; reports need both an organization"),
    "no organization": ("[reports]\ncontact = 'a@b.example'\n", "reports.organization: missing; reports need both"),
    "contact": (
        WHOLE.replace("dmarc@ours", "dmarc.ours"),
        "reports.contact: 'dmarc.ours.example' is not a mail",
    ),
    "a long contact": (WHOLE.replace("dmarc@", "d" * 31 + "@"), "is too long or not ASCII before the @; write a plain"),
    "bounces": (WHOLE + "bounces = 'nobody'\n", "reports.bounces: 'nobody' is not a mail address: no @ in the address"),
    "receiver": (WHOLE + "receiver = 'a..b'\n", "reports.receiver: 'a..b' is not a domain: empty label"),
    "older schema": (WHOLE + "older_schema = ['a@b.example']\n", "reports.older_schema: 'a@b.example' is not a domain"),
    "large": (
        WHOLE + "large_destinations = ['a b']\n",
        "reports.large_destinations: 'a b' is not an address, a",
    ),
    "relay": (WHOLE + "relay = '127.0.0.1:25'\n", "reports.relay: '127.0.0.1:25' is not the URL of a relay; write one"),
    "relay's port": (WHOLE + "relay = 'smtp://a:99999'\n", "reports.relay: 'smtp://a:99999' is not the URL of a relay"),
    "relay's login": (
        WHOLE + "relay = 'smtp://u:p@a'\n",
        "reports.relay: it contains a login name; use relay_user",
    ),
    "no password": (WHOLE + "relay_user = 'u'\n", "reports.relay_password_file: missing; the relay wants both"),
    "no user": (WHOLE + "relay_password_file = 'f'\n", "reports.relay_user: missing; the relay wants both a login"),
    "password without TLS": (
        WHOLE + "relay_user = 'u'\nrelay_password_file = 'f'\n",
        'reports.relay_tls: a password is only sent over TLS; write "required"',
    ),
    "no store": (SIGNED + REPORTS, "reports.organization: reports are made from the store; set store.directory"),
    "no key": (
        f"[store]\ndirectory = 'DIR'\n{REPORTS}",
        "reports.contact: nothing signs as ours.example, and unsigned reports are not believed; write a",
    ),
    "suppress": (WHOLE + "suppress = 'DIR/none'\n", "reports.suppress: DIR/none: cannot be read: No such file"),
    "an entry": (WHOLE + "suppress = 'DIR/entries'\n", "reports.suppress: DIR/entries:2: 'a..b' is not an address, a"),
    "our domains": (
        "[reports.incoming]\ndomains = ['a..b']\n",
        "reports.incoming.domains: 'a..b' is not a domain: empty label",
    ),
    "no domains": (
        "[reports.incoming]\nlisten = 'inet:8893@127.0.0.1'\n",
        "reports.incoming.domains: missing; write the domains that reports may be about",
    ),
    "anywhere": (
        f"{INCOMING}listen = 'inet:8893@192.0.2.1'\n",
        "reports.incoming.listen: 'inet:8893@192.0.2.1' is not an address that only this host reaches; write one such",
    ),
    "a relative socket": (
        f"{INCOMING}listen = 'unix:lmtp.sock'\n",
        "reports.incoming.listen: 'unix:lmtp.sock' is not an absolute path; write one such as unix:/run/assay/daemon/",
    ),
    "a mode": (f"{INCOMING}socket_mode = 'rw'\n", "reports.incoming.socket_mode: 'rw' is not a mode; write octal"),
    "a relative directory": (
        f"{INCOMING}keep_unreadable = 'unreadable'\n",
        "reports.incoming.keep_unreadable: 'unreadable' is not an absolute path; write one such as /var/lib",
    ),
    "no store for reports": (
        f"{INCOMING}listen = 'inet:8893@127.0.0.1'\n",
        "reports.incoming.listen: reports are kept in the store, and there is no database; set store.directory",
    ),
    "not text": (WHOLE + "suppress = 'DIR/octets'\n", "reports.suppress: DIR/octets: line 1 is not UTF-8 text"),
}


@pytest.mark.parametrize(("text", "message"), ROWS.values(), ids=ROWS)
def test_the_message_names_the_place_and_the_fix(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "key").touch(0o600)
    (tmp_path / "key").write_bytes(pem(rsa_key()))
    (tmp_path / "entries").write_text("fine.example  # and a comment\na..b\n")
    (tmp_path / "octets").write_bytes(b"\xff")
    path = tmp_path / "assay.toml"
    path.write_text(text.replace("DIR", str(tmp_path)))
    with pytest.raises(ConfigError) as raised:
        read_for_serving(path)
    assert message.replace("DIR", str(tmp_path)) in str(raised.value)


def test_what_is_right_is_taken(tmp_path: Path) -> None:
    (tmp_path / "key").touch(0o600)
    (tmp_path / "key").write_bytes(pem(rsa_key()))
    path = tmp_path / "assay.toml"
    path.write_text(WHOLE.replace("DIR", str(tmp_path)))
    configuration, _ = read_for_serving(path)
    assert configuration.reports.enabled
