# SPDX-License-Identifier: GPL-3.0-or-later
"""Mail of ours through a session: which is signed, by what, in which order among the edits, and what the log says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from assay.daemon.journal import message_fields
from assay.log import pairs
from assay.model.edits import edited
from assay.model.message import split_message
from assay.protocol import dkim
from assay.session import Verdict
from signing import DOMAIN, SELECTOR, ed25519_key, evaluate, pem, record, rsa_key
from talking import deliver
from zone import Zone

OURS = "10.0.0.1"
MESSAGE = b"From: joe@example.org\r\nTo: ann@example.net\r\nSubject: x\r\n\r\nhello\r\n"
DNS = Zone(
    {
        f"{SELECTOR}._domainkey.{DOMAIN}": [["TXT", [record(rsa_key())]]],
        f"e2026._domainkey.{DOMAIN}": [["TXT", [record(ed25519_key())]]],
    }
)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A directory with a key for each of two selectors."""
    for name, key in ((SELECTOR, rsa_key()), ("e2026", ed25519_key())):
        path = tmp_path / f"{name}.pem"
        path.touch(0o600)
        path.write_bytes(pem(key))
    return tmp_path


def sign(folder: Path, **more: Any) -> dict[str, Any]:
    """The section that signs for example.org with both keys."""
    names = (SELECTOR, "e2026")
    row = {
        "domain": DOMAIN,
        "selectors": names,
        "key_files": [str(folder / f"{name}.pem") for name in names],
    }
    return {"clients": {"internal": ["10.0.0.0/8"]}, "sign": {"domain": [row | more]}}


def outcome(
    sections: Mapping[str, Any], octets: bytes = MESSAGE, client: str | None = OURS, **envelope: Any
) -> Verdict:
    return deliver(sections, octets, client=client, **envelope)[-1]


def results(verdict: Verdict, octets: bytes = MESSAGE) -> list[str]:
    """What becomes of the signatures at the next hop."""
    header, body = split_message(octets)
    left = b"".join(field.raw for field in edited(header, verdict.edits)) + b"\r\n" + body
    return [f"{one.selector} {one.result}" for one in evaluate(left, DNS)]


def line(verdict: Verdict) -> str:
    """The log line of a message."""
    return pairs(message_fields(verdict, waited=0))


@pytest.mark.parametrize(
    ("client", "login", "signed"),
    [
        pytest.param(OURS, "", True, id="a host of ours"),
        pytest.param("192.0.2.1", "joe", True, id="a user of ours"),
        pytest.param(None, "", True, id="the MTA's command line"),
        pytest.param("192.0.2.1", "", False, id="a stranger who writes our domain into From"),
    ],
)
def test_which_mail_is_signed(keys: Path, client: str | None, login: str, signed: bool) -> None:
    verdict = outcome(sign(keys), client=client, authenticated=login)
    assert results(verdict) == ([f"{SELECTOR} pass", "e2026 pass"] if signed else [])
    assert ("sign=example.org/sel,e2026" in line(verdict)) is signed
    assert ("sign=" in line(verdict)) is signed


@pytest.mark.parametrize(
    ("author", "why"),
    [
        ("joe@example.com", 'why="author domain example.com is in no table; nearest: example.org"'),
        ("joe@sub.example.org", 'why="author domain sub.example.org is in no table; nearest: example.org"'),
        ("joe@other", 'why="author domain other is in no table"'),
        ("a@example.org, b@example.net", 'why="2 author domains"'),
    ],
)
def test_the_log_says_why_a_message_is_not_signed(keys: Path, author: str, why: str) -> None:
    verdict = outcome(sign(keys), MESSAGE.replace(b"joe@example.org", author.encode()))
    assert f"sign=none {why} action=accept" in line(verdict)
    assert results(verdict) == []


def test_without_the_section_the_log_says_nothing_about_signing() -> None:
    assert "sign=" not in line(outcome({"clients": {"internal": ["10.0.0.0/8"]}}))


def test_subdomains_are_signed_on_request(keys: Path) -> None:
    octets = MESSAGE.replace(b"joe@example.org", b"joe@sub.example.org")
    assert results(outcome(sign(keys, subdomains=True), octets), octets) == [f"{SELECTOR} pass", "e2026 pass"]


def test_signatures_cover_what_the_other_edits_leave(keys: Path) -> None:
    octets = b"Authentication-Results: mx.example.net; dkim=pass\r\n" + MESSAGE
    sections = sign(keys) | {"identity": {"authserv_id": "mx.example.net"}}
    verdict = outcome(sections, octets)
    kinds = [type(edit).__name__ for edit in verdict.edits]
    assert kinds == ["Remove", "Insert", "Insert"]
    assert results(verdict, octets) == [f"{SELECTOR} pass", "e2026 pass"]


def test_a_dry_run_signs_nothing_and_says_what_it_would(keys: Path) -> None:
    verdict = outcome(sign(keys) | {"milter": {"dry_run": True}})
    assert verdict.edits == ()
    assert 'sign=none why="dry run, would sign as example.org/sel,e2026"' in line(verdict)


@pytest.mark.parametrize("on_error", ["tempfail", "accept"])
def test_a_message_that_cannot_be_signed(keys: Path, on_error: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise dkim.SigningError("the key does not work")

    monkeypatch.setattr(dkim, "sign", fail)
    sections = sign(keys)
    sections["sign"]["on_error"] = on_error
    verdict = outcome(sections)
    assert verdict.action == on_error
    assert (verdict.reply is not None) == (on_error == "tempfail")
    assert 'sign=none why="example.org: the key does not work"' in line(verdict)
