# SPDX-License-Identifier: GPL-3.0-or-later
"""What a validating resolver says is secure: a signed zone on a real nameserver, through a real unbound, to the log,
the facts, the rules and ``assay check --explain``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dns.message
import dns.query
import pytest

import unbound
from assay.cli.main import main
from certificates import CertificateAuthority
from knot import Knot, needs_knot, zone_text
from nameserver import NameServer
from running import Daemon
from sending import GOOD, MESSAGE, ROWS, greet, lines_of, results, send
from signing import record, rsa_key, sign_rsa
from unbound import Unbound

pytestmark = [
    needs_knot,
    pytest.mark.skipif(not unbound.PROGRAM.exists(), reason=unbound.MISSING),
]

ZONE = zone_text(
    "example.org",
    '@ TXT "v=spf1 ip4:192.0.2.1 -all"',
    '_dmarc TXT "v=DMARC1; p=reject"',
    f"sel._domainkey TXT {' '.join(json.dumps(part) for part in (record(rsa_key())[:200], record(rsa_key())[200:]))}",
    f"mail A {GOOD}",
    'mail TXT "v=spf1 a include:unsigned.example -all"',
)
OTHERS: dict[str, Any] = {
    "1.2.0.192.in-addr.arpa": ROWS["1.2.0.192.in-addr.arpa"],
    "unsigned.example": [["TXT", ["v=spf1 ip4:192.0.2.2 -all"]]],
}
SIGNED = sign_rsa(MESSAGE, include_headers=[b"from"])


def validating(folder: Path, knot: Knot, upstream: NameServer, anchor: str) -> Unbound:
    """An unbound that validates the zone by this key, and forwards all else."""
    folder.mkdir()
    clauses = (
        'module-config: "validator iterator"',
        f'trust-anchor: "{anchor}"',
        'local-zone: "2.0.192.in-addr.arpa." nodefault',
        "stub-zone:",
        'name: "example.org"',
        f"stub-addr: {knot.address}@{knot.port}",
    )
    return Unbound(folder, upstream, CertificateAuthority(folder).issue(["localhost"]), "\n    ".join(clauses))


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Two nameservers: one that validates, and one to which all that is signed is forged."""
    folder = tmp_path_factory.mktemp("dnssec")
    with NameServer(OTHERS) as upstream, Knot(folder / "knot", {"example.org": ZONE}, signed=True) as knot:
        knot.wait_for("example.org", "DNSKEY")
        answer = dns.query.tcp(dns.message.make_query("example.org", "DNSKEY"), knot.address, port=knot.port, timeout=5)
        anchor = next(f"example.org. DNSKEY {key}" for key in answer.answer[0] if key.flags & 1)
        forged = anchor[:-8] + ("AAAAAAA=" if anchor.endswith("=") else "AAAAAAAA")
        with (
            validating(folder / "good", knot, upstream, anchor) as good,
            validating(folder / "bad", knot, upstream, forged) as bad,
        ):
            yield f"127.0.0.1:{good.plain}", f"127.0.0.1:{bad.plain}"


def sections(folder: Path, server: str, trusted: bool, budget: float = 20.0) -> dict[str, Any]:
    rule = {
        "name": "secure",
        "when": "dmarc.dnssec && !iprev.dnssec && dkim.exists(s, s.dnssec)",
        "add_fields": ("X-Secure: yes",),
    }
    return {
        "dns": {"nameservers": (server,), "trust_ad": trusted, "budget_seconds": budget},
        "log": {"facts": str(folder / "facts")},
        "rule": [rule],
    }


@pytest.mark.parametrize("trusted", [True, False])
def test_secure_results_are_shown_if_the_resolver_is_trusted(
    tmp_path: Path, servers: tuple[str, str], trusted: bool
) -> None:
    with Daemon(tmp_path, **sections(tmp_path, servers[0], trusted)) as daemon, daemon.mta() as mta:
        greet(mta)
        outcomes = [send(mta, SIGNED, queue=queue) for queue in ("4AAA", "4BBB")]  # the second one is remembered
        for queue, outcome in zip(("4AAA", "4BBB"), outcomes, strict=True):
            assert "dmarc=pass" in results(outcome)
            assert any(name == b"X-Secure" for _, name, _ in outcome.edits) is trusted
            daemon.wait_for_log(f"queue={queue}")
            (line,) = lines_of(daemon.log(), queue)
            # SPF of HELO ends before the include, which is not signed.
            assert ("dnssec=spf.helo,spf.mailfrom,dkim,dmarc " in f"{line} ") is trusted, line
            assert ("dnssec" in line) is trusted
            assert "stale" not in line
        for text in (tmp_path / "facts").read_bytes().splitlines():
            facts = json.loads(text)["facts"]
            found = [facts["spf"]["helo"], facts["spf"]["mailfrom"], *facts["dkim"], facts["dmarc"]]
            assert [each["dnssec"] for each in found] == [trusted] * 4
            assert (facts["iprev"]["dnssec"], facts["arc"]["dnssec"]) == (False, False)


def test_one_answer_that_is_not_signed_is_enough(tmp_path: Path, servers: tuple[str, str]) -> None:
    with Daemon(tmp_path, **sections(tmp_path, servers[0], True)) as daemon, daemon.mta() as mta:
        greet(mta, "192.0.2.2")
        assert "spf=pass" in results(send(mta, SIGNED, path="joe@mail.example.org"))
        daemon.wait_for_log("queue=4ABC")
        (line,) = lines_of(daemon.log(), "4ABC")
        assert "dnssec=dkim,dmarc " in f"{line} ", line


def test_what_is_forged_is_a_temperror(tmp_path: Path, servers: tuple[str, str]) -> None:
    with Daemon(tmp_path, **sections(tmp_path, servers[1], True, 2.0)) as daemon, daemon.mta() as mta:
        greet(mta)
        assert "dmarc=temperror" in results(send(mta, SIGNED))
        daemon.wait_for_log("queue=4ABC")
        assert "dnssec" not in "".join(lines_of(daemon.log(), "4ABC"))


def test_each_question_and_each_result_says_so(
    tmp_path: Path, servers: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "message").write_bytes(SIGNED)
    (tmp_path / "assay.toml").write_text(f'[dns]\nnameservers = ["{servers[0]}"]\ntrust_ad = true\n')
    options = ["--ip", GOOD, "--helo", "mail.example.org", "--mail-from", "joe@example.org", "--explain"]
    assert main(["check", "--config", str(tmp_path / "assay.toml"), *options, str(tmp_path / "message")]) == 0
    said = capsys.readouterr().out
    assert 'dns      TXT _dmarc.example.org (secure): "v=DMARC1; p=reject"' in said
    assert "dns      PTR 1.2.0.192.in-addr.arpa: mail.example.org" in said
    (dmarc,) = [line for line in said.splitlines() if line.startswith("dmarc ")]
    assert dmarc.endswith("; its DNS answers are secure (DNSSEC)")
    (iprev,) = [line for line in said.splitlines() if line.startswith("iprev ")]
    assert "DNSSEC" not in iprev
