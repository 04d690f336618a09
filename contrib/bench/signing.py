# SPDX-License-Identifier: GPL-3.0-or-later
"""Signing: assay, OpenDKIM and rspamd on the same messages, with an RSA key, and with an Ed25519 key as well.

All of them sign for any domain in From, by one row of a table. The cost of the RSA operation alone is a row of its own:
nobody can be below it.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import members
import scenarios
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from load import Load, LoadError
from mail import Message
from members import Member, Setting
from scenarios import Contestant, Row, World

_RSA, _EDWARDS = "a=rsa-sha256", "a=ed25519-sha256"
_FLOOR_SIGNATURES = 300


def sign(world: World, messages: Sequence[Message], seconds: float, rounds: int) -> Iterator[Row]:
    """Messages of ours, which are signed: CPU by size of the body, all signers in turns."""
    with ExitStack() as stack:
        contestants: dict[str, Contestant] = {}
        for name, member in _signers(world.directory, [message.domain.name for message in messages]).items():
            scenarios.say(f"sign: starting {name}")
            try:
                running = stack.enter_context(scenarios.serving(world, (member,)))
                one = Contestant(running, scenarios.legs(world, running, messages))
                Load(one.prepared, connections=2, count=2 * len(messages)).run()
            except LoadError as error:  # this version of a peer does not know Ed25519
                yield {"scenario": "sign", "body": len(messages[0].body), "target": name, "failed": str(error)[:200]}
                continue
            contestants[name] = one
        for row in scenarios.alternate(contestants, seconds, rounds, connections=2):
            yield {"scenario": "sign", "body": len(messages[0].body)} | row
    yield {"scenario": "sign", "body": len(messages[0].body), "target": "the RSA operation alone", "cpu_ms": _floor()}


def judge(world: World, messages: Sequence[Message], seconds: float, rounds: int) -> Iterator[Row]:
    """Mail from outside, without and with signing configured."""
    keys = _keys(world.directory)
    more = {"not configured": "", "configured": _tables(keys[:1])}
    with ExitStack() as stack:
        contestants: dict[str, Contestant] = {}
        for name, text in more.items():
            scenarios.say(f"judge: starting assay, signing {name}")
            member = Member("assay", partial(members._assay, more=text), members.ASSAY.expected)
            running = stack.enter_context(scenarios.serving(world, (member,)))
            one = contestants[f"assay, signing {name}"] = Contestant(running, scenarios.legs(world, running, messages))
            scenarios.warm_up(world, one.prepared)
        for row in scenarios.alternate(contestants, seconds, rounds, connections=10):
            yield {"scenario": "judge"} | row


def _signers(directory: Path, domains: Sequence[str]) -> dict[str, Member]:
    keys = _keys(directory)
    found = {}
    for what, chosen, expected in (
        ("RSA", keys[:1], (_RSA,)),
        ("RSA and Ed25519", keys, (_RSA, _EDWARDS)),
    ):
        found |= {
            f"assay, {what}": Member("assay", _assay(chosen), expected),
            f"OpenDKIM, {what}": Member("OpenDKIM", _opendkim(chosen), expected),
            f"rspamd, {what}": Member("rspamd", _rspamd(chosen, domains), expected),
        }
    return found


def _keys(directory: Path) -> list[tuple[str, Path]]:
    """Selector and file of an RSA key and an Ed25519 key, made once."""
    found = []
    for selector in ("rsa", "ed"):
        path = directory / f"{selector}.pem"
        if not path.exists():
            key = rsa.generate_private_key(65537, 2048) if selector == "rsa" else ed25519.Ed25519PrivateKey.generate()
            path.touch(0o600)
            path.write_bytes(
                key.private_bytes(
                    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
                )
            )
        found.append((selector, path))
    return found


def _for_rspamd(path: Path) -> Path:
    """An Ed25519 key as base64 of seed and public key; an RSA key as it is."""
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        return path
    written = path.with_suffix(".base64")
    written.touch(0o600)
    written.write_bytes(base64.b64encode(key.private_bytes_raw() + key.public_key().public_bytes_raw()))
    return written


def _floor() -> float:
    """Milliseconds of one RSA-2048 signature."""
    key = rsa.generate_private_key(65537, 2048)
    began = time.process_time()
    for _ in range(_FLOOR_SIGNATURES):
        key.sign(b"x" * 32, padding.PKCS1v15(), hashes.SHA256())
    return (time.process_time() - began) * 1000 / _FLOOR_SIGNATURES


def _tables(keys: Sequence[tuple[str, Path]]) -> str:
    """OpenDKIM's tables: every key for every domain."""
    key_table = ",".join(f"{selector}=%:{selector}:{path}" for selector, path in keys)
    # A list has one entry for each address, so the second key has another one that matches too.
    signing_table = ",".join(
        f"{address}={selector}" for (selector, _), address in zip(keys, ("*", "sales@*"), strict=False)
    )
    several = "true" if len(keys) > 1 else "false"
    return f"""
[sign]
key_table = "csl:{key_table}"
signing_table = "csl:{signing_table}"
multiple_signatures = {several}
"""


def _assay(keys: Sequence[tuple[str, Path]]) -> members.Command:
    def command(setting: Setting, socket: str) -> Sequence[str]:
        return members._assay(setting, socket, f'[clients]\ninternal = ["0.0.0.0/0"]\n{_tables(keys)}')

    return command


def _opendkim(keys: Sequence[tuple[str, Path]]) -> members.Command:
    def command(setting: Setting, socket: str) -> Sequence[str]:
        folder = setting.directory
        (folder / "KeyTable").write_text("".join(f"{selector} %:{selector}:{path}\n" for selector, path in keys))
        (folder / "SigningTable").write_text("".join(f"*@* {selector}\n" for selector, _ in keys))
        (folder / "opendkim.conf").write_text(f"""
Mode s
Socket {socket}
Background no
UMask 000
Syslog yes
SyslogSuccess yes
Canonicalization relaxed/relaxed
RequireSafeKeys no
OversignHeaders From,To,Cc,Subject,Date,Reply-To,Content-Type
InternalHosts 0.0.0.0/0
KeyTable {folder}/KeyTable
SigningTable refile:{folder}/SigningTable
MultipleSignatures {"yes" if len(keys) > 1 else "no"}
""")
        return ["/usr/sbin/opendkim", "-f", "-x", str(folder / "opendkim.conf")]

    return command


def _rspamd(keys: Sequence[tuple[str, Path]], domains: Sequence[str]) -> members.Command:
    """rspamd as it judges, and with its module for signing. It knows Ed25519 keys only as base64."""
    each = " ".join(f'{{ selector = "{selector}"; path = "{_for_rspamd(path)}"; }}' for selector, path in keys)
    rows = " ".join(f'"{domain}" {{ selectors [ {each} ] }}' for domain in domains)
    signing = f"""
dkim_signing {{ sign_networks = ["0.0.0.0/0"]; sign_authenticated = true; use_domain = "header";
  use_domain_sign_networks = "header"; allow_hdrfrom_mismatch = true; allow_hdrfrom_mismatch_sign_networks = true;
  allow_username_mismatch = true; use_esld = false; check_pubkey = false; try_fallback = true; symbol = "DKIM_SIGNED";
  domain {{ {rows} }} }}
"""

    def command(setting: Setting, socket: str) -> Sequence[str]:
        command = members._rspamd(setting, socket)
        path = setting.directory / "rspamd.conf"
        text = path.read_text()
        path.write_text(text + signing)
        return command

    return command
