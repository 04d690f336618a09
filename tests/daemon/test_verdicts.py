# SPDX-License-Identifier: GPL-3.0-or-later
"""The replies to the client of the MTA, and what a dry run does not do."""

from __future__ import annotations

import fcntl
import struct
import termios
import time
from collections.abc import Iterator
from typing import Any

import pytest

from assay.model.message import split_message
from running import Daemon
from sending import BAD, GOOD, MESSAGE, OUR_ID, ROWS, greet, lines_of, message, results, send

ALL_ACTIONS = 0x1FF
NEUTRAL = "joe@elsewhere.example"  # of which SPF says nothing


def run(daemon: Daemon, ip: str, path: str, author: str, **options: Any) -> Any:
    with daemon.mta(**options) as mta:
        greet(mta, ip)
        return send(mta, message(author), path=path)


@pytest.fixture(scope="module")
def rejecting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    sections = {
        "iprev": {"fail": "reject"},
        "spf": {"mailfrom": {"fail": "reject"}},
        "dmarc": {"none": "quarantine", "quarantine": "tempfail", "reject": "reject"},
    }
    with Daemon(tmp_path_factory.mktemp("daemon"), ROWS | UNNAMED, **sections) as daemon:
        yield daemon


#: A client with a matching name that no domain authorizes, and one without a name.
OTHER, NAMELESS = "192.0.2.7", "192.0.2.8"
UNNAMED = {"7.2.0.192.in-addr.arpa": [["PTR", "seven.example"]], "seven.example": [["A", OTHER]]}

REPLIES = [
    pytest.param(BAD, NEUTRAL, "a@nothing.example", "550 5.7.25 ", "reverse DNS", id="IPREV fail"),
    pytest.param(OTHER, "joe@example.org", "a@nothing.example", "550 5.7.23 ", "SPF", id="SPF fail"),
    pytest.param(OTHER, NEUTRAL, "a@reject.example", "550 5.7.1 ", "DMARC", id="DMARC fail, p=reject"),
    pytest.param(OTHER, "joe@example.org", "a@reject.example", "550 5.7.26 ", "SPF", id="two failures"),
    pytest.param(BAD, "joe@example.org", "a@reject.example", "550 5.7.26 ", "DMARC", id="three failures"),
    pytest.param(OTHER, NEUTRAL, "a@quarantine.example", "451 4.7.1 ", "DMARC", id="tempfail by DMARC, p=quarantine"),
    pytest.param(
        BAD, NEUTRAL, "a@quarantine.example", "550 5.7.25 ", "reverse DNS", id="the most severe action decides alone"
    ),
    pytest.param(GOOD, "joe@example.org", "joe@example.org", "250 ", "", id="pass"),
    pytest.param(NAMELESS, NEUTRAL, "a@nothing.example", "250 ", "", id="a client without a name does not fail IPREV"),
    pytest.param(
        OTHER, NEUTRAL, "a@testing.example", "451 4.7.1 ", "DMARC", id="p=reject in test mode requests quarantine"
    ),
]


@pytest.mark.parametrize(("ip", "path", "author", "reply", "text"), REPLIES)
def test_replies(rejecting: Daemon, ip: str, path: str, author: str, reply: str, text: str) -> None:
    outcome = run(rejecting, ip, path, author)
    assert outcome.reply.startswith(reply)
    assert text in outcome.reply
    assert outcome.reply.isprintable()
    assert bool(outcome.edits) is reply.startswith("250")


def test_quarantine_keeps_the_evidence(rejecting: Daemon) -> None:
    outcome = run(rejecting, OTHER, NEUTRAL, "a@none.example")
    assert outcome.code == 250
    assert outcome.quarantine == "dmarc.none: message fails the policy of none.example"
    assert "dmarc=fail (p=none, quarantined)" in results(outcome)


def test_a_refused_message_does_not_affect_the_next_one(rejecting: Daemon) -> None:
    with rejecting.mta() as mta:
        greet(mta, GOOD)
        assert send(mta, message("a@reject.example"), path="").code == 550
        assert send(mta).code == 250


def test_a_percent_sign_in_a_reply_is_literal(rejecting: Daemon) -> None:
    outcome = run(rejecting, OTHER, "%s%n@example.org", "%d@reject.example")
    assert outcome.reply.startswith("550 5.7.26 ")


def test_a_dry_run_changes_nothing_and_logs_everything(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("daemon")
    sections = {"iprev": {"fail": "reject"}, "spf": {"mailfrom": {"fail": "reject"}}, "dmarc": {"none": "quarantine"}}
    forged = message("a@none.example", f"Authentication-Results: {OUR_ID}; spf=pass")
    with Daemon(folder, ROWS | UNNAMED, milter={"dry_run": True, "on_error": "tempfail"}, **sections) as daemon:
        with daemon.mta() as mta:
            greet(mta, BAD)
            one = send(mta, MESSAGE, queue="4D1")
            two = send(mta, forged, path=NEUTRAL, queue="4D2")
        for outcome in (one, two):
            assert (outcome.code, outcome.edits, outcome.quarantine) == (250, [], "")
        log = daemon.wait_for_log("queue=4D2")
        (line,) = lines_of(log, "4D1")
        assert "action=accept dry_run=reject" in line
        assert 'by="iprev.fail, spf.mailfrom.fail"' in line
        assert "5.7.26" in line


@pytest.mark.parametrize(("on_error", "code"), [("accept", 250), ("tempfail", 451)])
def test_on_a_change_that_the_mta_does_not_take_on_error_applies_and_it_is_logged_once(
    tmp_path_factory: pytest.TempPathFactory, on_error: str, code: int
) -> None:
    # An MTA that does not permit changes of fields, so that libmilter refuses to remove a forged one.
    with Daemon(tmp_path_factory.mktemp("daemon"), ROWS, milter={"on_error": on_error}) as daemon:
        with daemon.mta(actions=ALL_ACTIONS & ~0x10) as mta:
            greet(mta)
            forged = message("joe@example.org", f"Authentication-Results: {OUR_ID}; spf=pass")
            assert send(mta, forged, queue="4E1").code == code
            assert "dmarc=pass" in results(send(mta, queue="4E2")), "the fault of one message does not affect the next"
        log = daemon.wait_for_log("queue=4E2")
    (line,) = [line for line in log.splitlines() if "WARNING: queue=" in line]
    assert f'queue=4E1 action={on_error} problem="cannot change header: the MTA does not permit all' in line
    assert "ERROR" not in log
    assert "queue=4E1 client" not in log, "nothing is kept of a verdict that the MTA did not get"


def test_an_mta_that_leaves_before_the_verdict_is_no_bug(tmp_path_factory: pytest.TempPathFactory) -> None:
    with Daemon(tmp_path_factory.mktemp("daemon"), ROWS) as daemon:
        daemon.nameserver.delay = 0.5
        mta = daemon.mta()
        greet(mta)
        mta.mail("joe@example.org", j=OUR_ID)
        mta.rcpt("ann@example.net", i="4E1")
        for field in split_message(MESSAGE)[0]:
            mta.header(field)
        mta.command(b"N", b"", {})
        mta._macros(b"E", {"i": "4E1"})
        mta._send(b"E", b"")
        while struct.unpack("i", fcntl.ioctl(mta._connection, termios.TIOCOUTQ, bytes(4))) != (0,):
            time.sleep(0.01)  # until it has read all of it
        mta._stream.close()
        mta._connection.close()
        daemon.wait_for_log('queue=4E1 action=accept problem="cannot add header: the MTA has closed the connection')
        assert "bug=" not in daemon.log()


def test_a_dry_run_refuses_nothing_on_an_internal_fault(tmp_path_factory: pytest.TempPathFactory) -> None:
    milter = {"on_error": "tempfail", "dry_run": True}
    with Daemon(tmp_path_factory.mktemp("daemon"), ROWS, milter=milter) as daemon, daemon.mta() as mta:
        greet(mta)
        assert send(mta).code == 250


GOLDEN = (
    "queue=4L1 client=192.0.2.1 helo=mail.example.org from=<joe@example.org> rcpts=1 author=example.org iprev=pass "
    "spf.helo=pass spf.mailfrom=pass dkim=none arc=none dmarc=pass p=reject action=accept"
)


def test_one_message_one_line(rejecting: Daemon) -> None:
    with rejecting.mta() as mta:
        greet(mta)
        send(mta, queue="4L1")
    assert lines_of(rejecting.wait_for_log("queue=4L1"), "4L1") == [GOLDEN]


@pytest.mark.parametrize(
    ("queue", "helo", "path", "has"),
    [
        ("4L2", "x\r\nassay[1]: queue=4L2 action=accept", "joe@example.org", r'helo="x\x0d\x0aassay[1]: queue\x3d4L2 '),
        ("4L3", "x action=reject", "joe@example.org", r'helo="x action\x3dreject"'),
        ("4L4", 'x" action="reject', "joe@example.org", r'helo="x\" action\x3d\"reject"'),
        ("4L5", b"x\x1b[2J\x07", "joe@example.org", r'helo="x\x1b[2J\x07"'),
        ("4L6", "x", 'joe\n"@example.org', r'from="<joe\x0a\"@example.org>"'),
        ("4L7", "x", b"\xff@example.org", r'from="<\xff@example.org>"'),
        ("4L8", "x", "y" * 5000, "yyy..."),
        ("4L9", "x\u2028y\u202e", "joe@example.org", r'helo="x\u2028y\u202e"'),
    ],
)
def test_a_stranger_cannot_inject_log_lines(rejecting: Daemon, queue: str, helo: Any, path: Any, has: str) -> None:
    with rejecting.mta() as mta:
        greet(mta, helo=helo)
        send(mta, queue=queue, path=path)
    log = rejecting.wait_for_log(f"queue={queue} client=")
    lines = [line for line in log.splitlines() if f"queue={queue}" in line]
    assert len(lines) == 1
    assert has in lines[0]
    assert len(lines[0]) < 1500
    assert lines[0].count(" action=") == 1
