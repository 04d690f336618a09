# SPDX-License-Identifier: GPL-3.0-or-later
"""Our signatures, verified by OpenDKIM, Mail::DKIM and dkimpy on two hundred messages of many kinds.

OpenDKIM and Mail::DKIM are the copies unpacked by ``contrib/fetch.sh`` (or `ASSAY_VERIFIERS`). Keys come from
a file, so nothing asks the DNS.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import dkim as dkimpy
import pytest

from assay.model.message import split_message
from assay.model.name import Domain
from assay.protocol import dkim
from assay.protocol.dkim.canonical import Canonicalization
from signing import ed25519_key, record, rsa_key

VERIFIERS = Path(os.environ.get("ASSAY_VERIFIERS") or Path(__file__).parents[3] / ".cache" / "verifiers")
PERL = shutil.which("perl")
pytestmark = pytest.mark.skipif(
    not (VERIFIERS / "usr/sbin/opendkim").exists() or PERL is None,
    reason=f"no OpenDKIM in {VERIFIERS}: run sh contrib/fetch.sh verifiers",
)

KEYS = (dkim.SigningKey(Domain("e"), ed25519_key()), dkim.SigningKey(Domain("r"), rsa_key()))
RECORDS = {"r": record(rsa_key()), "e": record(ed25519_key())}
DOMAINS = ("example.org", "xn--bcher-kva.example")
COUNT = 200
LARGE = 10 * 1024 * 1024

#: Prints a line ``SELECTOR RESULT`` for each signature of each file that standard input names, after ``FILE``.
MAIL_DKIM = r"""
use strict; use warnings; use Mail::DKIM::Verifier; use Mail::DKIM::PublicKey;
my %records = @ARGV;
{
    no warnings 'redefine';
    *Mail::DKIM::PublicKey::fetch_async = sub {
        my ($class, %parameters) = @_;
        my $key = $class->parse($records{$parameters{Selector}});
        return sub { $parameters{Callbacks}{Success}->($key); $key };
    };
}
while (my $path = <STDIN>) {
    chomp $path;
    my $verifier = Mail::DKIM::Verifier->new;
    open my $file, '<:raw', $path or die;
    while (read $file, my $chunk, 65536) { $verifier->PRINT($chunk) }
    $verifier->CLOSE;
    print "$path";
    print ' ', $_->selector, '=', $_->result_detail =~ s/ /_/gr for $verifier->signatures;
    print "\n";
}
"""


def generated() -> dict[str, bytes]:
    """Messages by name, with CRLF, as an MTA sends them."""
    chance = random.Random(6376)  # noqa: S311 - the same messages in each run
    found = {name: _fields() + b"\r\n" + body for name, body in BODIES.items()}
    found["no header but From"] = b"From: joe@example.org\r\n\r\nhello\r\n"
    found["many recipients"] = (
        _fields(b"To: " + b",\r\n ".join(b"Reader %d <r%d@example.net>" % (n, n) for n in range(500)))
        + b"\r\nhello\r\n"
    )
    found["folded"] = _fields(b"Subject: a\r\n\t b  \r\n  c\t\r\n d", b"X-Empty: ") + b"\r\nhello\r\n"
    found["several of a name"] = (
        _fields(b"To: a@example.net", b"to: b@example.net", b"TO: c@example.net") + b"\r\nx\r\n"
    )
    found["an internationalised sender"] = (
        "From: Jörg <jörg@bücher.example>\r\nSubject: Grüße\r\nTo: анна@пример.example\r\n\r\nгосподи\r\n".encode()
    )
    found["8-bit header"] = _fields(b"Subject: caf\xe9 \xff") + b"\r\nhello\r\n"
    pieces = [
        b"word",
        b" ",
        b"  ",
        b"\t",
        b"\r\n",
        b"\r\n\r\n",
        b"=20",
        b".",
        b"..",
        b"\xe4\xb8\xad",
        b"\xe9",
        b"x" * 90,
    ]
    while len(found) < COUNT:
        body = b"".join(chance.choices(pieces, k=chance.randrange(60)))
        subject = b"".join(chance.choices([b"a", b" ", b"\t", b"\r\n b", b"=?utf-8?q?=C3=A9?=", b";", b":"], k=12))
        extra = [b"Subject: a" + subject + b"x"] + [b"List-Id: <l.example.org>"] * chance.randrange(3)
        found[f"random {len(found)}"] = _fields(*extra) + b"\r\n" + body + b"\r\n"
    return found


def _fields(*more: bytes) -> bytes:
    usual = (b"From: Joe <joe@example.org>", b"Date: Thu, 26 Nov 2026 01:00:00 +0000", b"Message-ID: <1@example.org>")
    return b"".join(line + b"\r\n" for line in (*usual, *more))


BODIES = {
    "empty": b"",
    "one empty line": b"\r\n",
    "only empty lines": b"\r\n" * 5,
    "only white space": b" \t \r\n",
    "no final line end": b"hello",
    "white space at the end of lines": b"hello \r\nthere\t\r\n \r\n",
    "empty lines at the end": b"hello\r\n\r\n\r\n",
    "dots": b".\r\n..\r\n...\r\n",
    "8-bit": "Grüße\r\n".encode() + b"caf\xe9\r\n",
    "long lines": b"x" * 5000 + b"\r\n",
    "From in the body": b"From me\r\n>From you\r\n",
    "10 MiB": (b"0123456789 \t abcdefghij\r\n" * (LARGE // 24))[:LARGE] + b"\r\n",
}


@pytest.fixture(scope="module")
def messages(tmp_path_factory: pytest.TempPathFactory) -> Mapping[Path, str]:
    """Our signed messages, each in a file, with its name. Canonicalizations alternate."""
    folder = tmp_path_factory.mktemp("messages")
    kinds = [(header, body) for header in Canonicalization for body in Canonicalization]
    found = {}
    for number, (name, octets) in enumerate(generated().items()):
        header, body = split_message(octets)
        rules = dkim.SigningRules(*kinds[number % 4])
        hashes = dkim.BodyHashes([rules.body_hash_spec])
        for start in range(0, len(body), 65_535):
            hashes.update(body[start : start + 65_535])
        domain = Domain(DOMAINS[name == "an internationalised sender"])
        signed = dkim.sign(header, hashes, domain, KEYS, rules=rules, identity=f"@{domain}", now=1_700_000_000)
        # A body without a final line end cannot be sent by SMTP: the MTA adds one, which canonicalization covers.
        whole = b"".join(one.raw for one in signed) + octets
        path = folder / f"{number:03}.eml"
        path.write_bytes(whole if whole.endswith(b"\r\n") else whole + b"\r\n")
        found[path] = f"{name}, {rules.header_canonicalization}/{rules.body_canonicalization}"
    return found


def environment() -> dict[str, str]:
    libraries = sorted({str(path.parent) for path in VERIFIERS.rglob("*.so*")})
    perl = [VERIFIERS / "usr/share/perl5", *(VERIFIERS / "usr/lib").glob("*/perl5/*")]
    return {"LD_LIBRARY_PATH": ":".join(libraries), "PERL5LIB": ":".join(map(str, perl)), "PATH": os.defpath}


def test_there_are_two_hundred(messages: Mapping[Path, str]) -> None:
    assert len(messages) == COUNT


def test_dkimpy(messages: Mapping[Path, str]) -> None:
    failed = [
        name
        for path, name in messages.items()
        if not dkimpy.DKIM(path.read_bytes()).verify(0, lambda *_, **__: RECORDS["r"].encode())
    ]
    assert failed == []


def test_mail_dkim(messages: Mapping[Path, str]) -> None:
    """Debian's version does not know Ed25519, which must not keep it from the signature with RSA."""
    assert PERL is not None
    arguments = [part for pair in RECORDS.items() for part in pair]
    done = subprocess.run(
        [PERL, "-e", MAIL_DKIM, *arguments],
        input="".join(f"{path}\n" for path in messages),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    failed = {messages[Path(path)]: result for path, result in results.items() if not result.startswith("r=pass ")}
    assert failed == {}
    assert len(results) == COUNT


def test_opendkim(messages: Mapping[Path, str], tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("".join(f"{s}._domainkey.{d} {text}\n" for d in DOMAINS for s, text in RECORDS.items()))
    configuration = tmp_path / "opendkim.conf"
    configuration.write_text(f"Mode v\nTestPublicKeys {keys}\nMaximumSignaturesToVerify 5\nOn-BadSignature accept\n")
    results = {}
    for path, name in messages.items():
        done = subprocess.run(
            [VERIFIERS / "usr/sbin/opendkim", "-vv", "-x", configuration, "-t", path],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        results[name] = sorted(re.findall(r"dkim=(\w+)", done.stdout + done.stderr))
    assert {name: result for name, result in results.items() if result != ["pass", "pass"]} == {}
