# SPDX-License-Identifier: GPL-3.0-or-later
"""Slow DNS names in a stranger's unfinished messages, followed by a forged message."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from assay.cli.mta import Mta
from assay.model.message import split_message
from running import Daemon
from sending import ROWS, greet, message, results, send

STRANGER, OTHER = "192.0.2.7", "198.51.100.9"
BUDGET = 5.0
VICTIM = {
    "bank.co.uk": [["TXT", ["v=spf1 -all"]]],
    "_dmarc.bank.co.uk": [["TXT", ["v=DMARC1; p=reject"]]],
}


class Slow:
    """All names in one domain."""

    def __contains__(self, name: str) -> bool:
        return name.endswith("evil.co.uk")


def junk(number: int) -> bytes:
    """A message with fifty ARC sets and ten signatures, each with different DNS names."""
    fields = []
    for one in range(1, 51):
        names = f"d=a{number}-{one}.evil.co.uk; s=s"
        fields += [
            f"ARC-Seal: i={one}; a=rsa-sha256; {names}; cv={'none' if one == 1 else 'pass'}; b=QUJD",
            f"ARC-Message-Signature: i={one}; a=rsa-sha256; {names}m; h=from; bh=QUJD; b=QUJD",
            f"ARC-Authentication-Results: i={one}; x.example; none",
        ]
    fields += [
        f"DKIM-Signature: v=1; a=rsa-sha256; d=d{number}-{one}.evil.co.uk; s=s; h=from; bh=QUJD; b=QUJD"
        for one in range(10)
    ]
    return message(f"x@m{number}.evil.co.uk", *fields)


def start(mta: Mta, number: int) -> None:
    """A message up to the end of its header and the first line of its body."""
    mta.mail(f"x@m{number}.evil.co.uk", j="mx.example.net")
    mta.rcpt("ann@example.net", i="4ABC")
    header, _ = split_message(junk(number))
    for field in header:
        mta.header(field)
    mta.command(b"N", b"", {})


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    dns = {"timeout_seconds": 3.0, "budget_seconds": BUDGET}
    with Daemon(tmp_path, ROWS | VICTIM, milter={"workers": 1}, dns=dns, dmarc={"reject": "reject"}) as one:
        one.nameserver.drop = Slow()  # type: ignore[assignment]  # it is only asked what it contains
        yield one


@pytest.mark.parametrize("client", [STRANGER, OTHER])
def test_slow_names_in_unfinished_messages_let_no_forgery_in(daemon: Daemon, client: str) -> None:
    with daemon.mta() as mta:
        greet(mta, STRANGER)
        for number in range(30):
            start(mta, number)
            mta.abort()
    with daemon.mta() as mta:
        greet(mta, client)
        begun = time.monotonic()
        outcome = send(mta, message("ceo@bank.co.uk"), path="ceo@bank.co.uk")
        took = time.monotonic() - begun
    assert outcome.code == 550, results(outcome)
    assert "dmarc=fail" in daemon.wait_for_log("action=reject")
    assert took < BUDGET


def test_slow_names_in_waiting_messages_let_no_forgery_in(daemon: Daemon) -> None:
    sessions = []
    for number in range(30):
        mta = daemon.mta()
        greet(mta, STRANGER)
        start(mta, number)
        sessions.append(mta)
    with daemon.mta() as mta:
        greet(mta, STRANGER)
        outcome = send(mta, message("ceo@bank.co.uk"), path="ceo@bank.co.uk")
    assert outcome.code == 550, results(outcome)
    for mta in sessions:
        mta.close()


def resident(daemon: Daemon) -> float:
    """MiB of the worker."""
    children = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text().split()
    status = Path(f"/proc/{children[0]}/status").read_text()
    (size,) = re.findall(r"VmRSS:\s+(\d+) kB", status)
    return int(size) / 1024


def test_a_thousand_unfinished_messages_take_no_memory(daemon: Daemon) -> None:
    with daemon.mta() as mta:
        greet(mta, STRANGER)
        for number in range(100):
            start(mta, number)
            mta.abort()
        before = resident(daemon)
        for number in range(100, 1000):
            start(mta, number)
            mta.abort()
    assert resident(daemon) < before + 15
