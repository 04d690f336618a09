# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with settings, secrets and keys for SRS and sealing: one sentence with the place and the fix."""

from __future__ import annotations

from pathlib import Path

import pytest

from assay.cli.serve import read_for_serving
from assay.config import ConfigError

ONE = "[srs]\ndomain = 'srs.example'\nsecrets_file = 'DIR/good'\n"

SEAL = (
    "[arc]\nown_domains = ['ours.example']\n"
    "[[arc.seal]]\ndomain = 'first.example'\nselector = 's'\nkey_file = 'DIR/good'\n"
)

#: DIR is the directory of the file.
ROWS = {
    "a domain that is none": (ONE.replace("srs.example", "a..b"), "srs.domain: 'a..b' is not a domain: empty label"),
    "no secrets": ("[srs]\ndomain = 'srs.example'\n", "srs.secrets_file: missing; name a file with one secret per"),
    "no such file": (ONE.replace("good", "none"), "srs.secrets_file: DIR/none: cannot be read: No such file"),
    "an empty file": (ONE.replace("good", "empty"), "srs.secrets_file: DIR/empty: the file is empty"),
    "secrets for everybody": (ONE.replace("good", "open"), "srs.secrets_file: DIR/open: anyone can read it"),
    "separator": (ONE + "separator = '.'\n", 'srs.separator: \'.\' is not a separator; write "=", "+" or "-"'),
    "minimum": (ONE + "min_hash_length = 5\n", "srs.min_hash_length: 5 is more than hash_length, so no new address"),
    "a socket": (ONE + "socketmap = 'unix:x'\n", "srs.socketmap: 'unix:x' is not an absolute path; write one such as"),
    "another socket": (ONE + "reverse_table = 'unix:x'\n", "srs.reverse_table: 'unix:x' is not an absolute path"),
    "a map of nothing": (
        "[srs]\nforward_table = 'inet:1@127.0.0.1'\n",
        "srs.domain: missing; srs.forward_table requires it",
    ),
    "no key": (SEAL.replace("good", "none"), "arc.seal 1.key_file: DIR/none: cannot be read: No such file"),
    "no key in the file": (SEAL, "arc.seal 1.key_file: DIR/good: not a private key in PEM"),
    "networks": (ONE + "networks = ['here']\n", "srs.networks: 'here' is not an IP address or a network"),
    "own domains": (ONE + "own_domains = ['ann@a.example']\n", "srs.own_domains: 'ann@a.example' is not a domain"),
    "own domains without SRS": ("[srs]\nown_domains = ['a b']\n", "srs.own_domains: 'a b' is not an address, a domain"),
    "recipient domains": (ONE + "recipient_domains = ['::1']\n", "srs.recipient_domains: '::1' is not a domain; write"),
    "sender domains": (ONE + "sender_domains = ['a b']\n", "srs.sender_domains: 'a b' is not an address, a domain"),
}


@pytest.mark.parametrize(("text", "message"), ROWS.values(), ids=ROWS)
def test_the_message_names_the_place_and_the_fix(tmp_path: Path, text: str, message: str) -> None:
    for name, content in (("good", "secret\n"), ("open", "secret\n"), ("empty", "\n")):
        (tmp_path / name).touch(0o600)
        (tmp_path / name).write_text(content)
    (tmp_path / "open").chmod(0o644)
    path = tmp_path / "assay.toml"
    path.write_text(text.replace("DIR", str(tmp_path)))
    with pytest.raises(ConfigError) as caught:
        read_for_serving(path)
    assert message.replace("DIR", str(tmp_path)) in str(caught.value)
