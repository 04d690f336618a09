# SPDX-License-Identifier: GPL-3.0-or-later
"""Warnings of ``assay config check``: settings that weaken protection or violate a standard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from assay.config import Configuration, risks
from signing import ed25519_key, pem, rsa_key

#: Settings, and the beginning of their only warning.
RISKS: dict[str, tuple[dict[str, Any], str]] = {
    "a dry run that keeps forged fields": ({"milter": {"dry_run": True}}, "milter.dry_run: "),
    "no password of the database": (
        {"store": {"directory": "/", "database": "postgresql://db.example/assay", "password_file": "/none"}},
        "store.password_file: /none: cannot be read: No such file or directory; ",
    ),
    "no password of the broker": (
        {"store": {"directory": "/", "broker": "amqp://mq.example/", "broker_password_file": "/none"}},
        "store.broker_password_file: /none: cannot be read: No such file or directory; ",
    ),
    "figures for anybody": ({"metrics": {"listen": "inet:9810@192.0.2.1"}}, "metrics.listen = 'inet:9810@192.0.2.1': "),
    "figures on all addresses": ({"metrics": {"listen": "inet6:9810@::"}}, "metrics.listen = 'inet6:9810@::': "),
    "a page for anybody": (
        {"web": {"listen": "inet:8891@192.0.2.1", "token_file": "/t"}},
        "web.listen = 'inet:8891@192.0.2.1': ",
    ),
    "the AD bit of a plain nameserver elsewhere": (
        {"dns": {"trust_ad": True, "nameservers": ["127.0.0.1", "tls://192.0.2.1", "[2001:db8::53]:5353"]}},
        "dns.trust_ad: anyone on the path to the nameserver [2001:db8::53]:5353 ",
    ),
    "more terms than a record may have": ({"spf": {"dns_terms": 11}}, "spf.dns_terms = 11: "),
    "more void lookups": ({"spf": {"void_lookups": 3}}, "spf.void_lookups = 3: "),
    "keys that are too short": ({"dkim": {"min_rsa_bits": 768}}, "dkim.min_rsa_bits = 768: "),
    "short keys of our own": ({"keys": {"rsa_bits": 1024}}, "keys.rsa_bits = 1024: "),
    "an overlap shorter than retries": ({"keys": {"overlap_days": 4}}, "keys.overlap_days = 4: "),
    "Ed25519 alone": ({"keys": {"types": ["ed25519"]}}, "keys.types has no 'rsa': "),
    "neutral worse than none": ({"spf": {"mailfrom": {"neutral": "reject"}}}, "spf.mailfrom.neutral = 'reject': "),
    "neutral better than none": ({"spf": {"helo": {"none": "tag"}}}, "spf.helo.neutral = 'accept': "),
    **{
        f"{section}.temperror refused": ({section: {"temperror": "reject"}}, f"{section}.temperror = 'reject': ")
        for section in ("iprev", "dkim", "senderid", "dmarc")
    },
    "spf.helo.temperror refused": ({"spf": {"helo": {"temperror": "reject"}}}, "spf.helo.temperror = 'reject': "),
    "spf.mailfrom.temperror discarded": (
        {"spf": {"mailfrom": {"temperror": "discard"}}},
        "spf.mailfrom.temperror = 'discard': ",
    ),
    "lists and stricter domains": (
        {"dmarc": {"list_traffic": "accept", "stricter_domains": ["a.example"]}},
        "dmarc.list_traffic = 'accept': ",
    ),
    **{
        f"dmarc.{key} past dmarc.{followed}": (
            {"dmarc": {followed: "quarantine", key: "tag"}},
            f"dmarc.{key} = 'tag': this is a way past dmarc.{followed} = 'quarantine', ",
        )
        for key in ("temperror", "malformed_from")
        for followed in ("quarantine", "no_policy")
    },
}


def warnings(values: dict[str, Any]) -> list[str]:
    return list(risks(msgspec.convert(values, Configuration)))


@pytest.mark.parametrize(("values", "begins"), RISKS.values(), ids=RISKS)
def test_a_risk(values: dict[str, Any], begins: str) -> None:
    (said,) = warnings(values)
    assert said.startswith(begins)
    assert said.isprintable()


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"spf": {"dns_terms": 10, "mailfrom": {"none": "tag", "neutral": "tag"}}, "dkim": {"min_rsa_bits": 2048}},
        {"dmarc": {"reject": "reject", "quarantine": "quarantine"}},
        {"dmarc": {"reject": "reject", "temperror": "tempfail", "malformed_from": "quarantine"}},
        {"dmarc": {"reject": "tag", "temperror": "accept", "malformed_from": "accept"}},
        {"dmarc": {"temperror": "tempfail", "list_traffic": "quarantine"}, "dkim": {"temperror": "tempfail"}},
        {"store": {"database": "postgresql://db.example/assay", "password_file": "/none"}},  # it has no directory
    ],
)
def test_no_risk(values: dict[str, Any]) -> None:
    assert warnings(values) == []


@pytest.mark.parametrize(
    ("bits", "begins"), [(1024, "sign.domain 1: the key s of example.org has 1024 bits, "), (2048, "")]
)
def test_a_short_key_that_signs(tmp_path: Path, bits: int, begins: str) -> None:
    path = tmp_path / "key"
    path.touch(0o600)
    path.write_bytes(pem(rsa_key(bits)))
    row = {"domain": "example.org", "selectors": ["s"], "key_files": [str(path)]}
    said = warnings({"sign": {"domain": [row]}})
    assert [one[: len(begins)] for one in said] == ([begins] if begins else [])


def test_a_key_of_another_type_is_not_short(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.touch(0o600)
    path.write_bytes(pem(ed25519_key()))
    row = {"domain": "example.org", "selectors": ["s"], "key_files": [str(path)]}
    assert warnings({"sign": {"domain": [row]}}) == []


@pytest.mark.parametrize("listen", ["inet:1@127.0.0.1", "inet6:1@::1", "inet:1", "inet:1@localhost", "unix:/run/m"])
def test_figures_for_this_host_are_no_risk(listen: str) -> None:
    assert warnings({"metrics": {"listen": listen}}) == []


def test_srs_secrets_that_can_be_guessed(tmp_path: Path) -> None:
    """A comment of the file would be the secret that signs."""
    file = tmp_path / "secrets"
    file.touch(0o600)
    file.write_text("# made by joe\nwednesday\nK5sXyq0dVn2R\n")
    values = {"srs": {"domain": "forward.example", "secrets_file": str(file)}}
    comment, short = warnings(values)
    assert comment == (
        f"srs.secrets_file: {file}: secret 1 begins with #, and comments count as secrets too; remove the line"
    )
    assert short.startswith(f"srs.secrets_file: {file}: secret 2 has 9 octets, and anyone who guesses it ")
    file.write_text("")
    assert not warnings(values)  # an error, which is reported as such
