# SPDX-License-Identifier: GPL-3.0-or-later
"""Every SMTP stage through a real worker: what each message may and may not inherit from earlier events."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from assay.cli.mta import Mta
from assay.config.endpoint import Endpoint
from assay.model.message import split_message
from running import Daemon
from sending import BAD, GOOD, MESSAGE, OUR_ID, ROWS, greet, lines_of, message, results, send, written
from signing import sign_rsa

NO_REPLY = {
    "connect": 0x1000,
    "helo": 0x2000,
    "mail": 0x4000,
    "rcpt": 0x8000,
    "header": 0x80,
    "end of header": 0x40000,
    "body": 0x80000,
}
ALL_STEPS, LEADING_SPACE = 0x1FFFFF, 0x100000
ALL_NO_REPLY = 0xFD080
ALL_ACTIONS, SETSYMLIST = 0x1FF, 0x100


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with Daemon(tmp_path_factory.mktemp("daemon"), ROWS, clients={"internal": ("10.0.0.0/8", "2001:db8:1::/48")}) as d:
        yield d


@pytest.fixture
def mta(daemon: Daemon) -> Iterator[Mta]:
    with daemon.mta() as one:
        yield one


@pytest.mark.parametrize("stage", NO_REPLY)
def test_no_reply_is_negotiated_for_all_events_but_the_last(mta: Mta, stage: str) -> None:
    assert mta.steps & NO_REPLY[stage]


def test_unwanted_events_are_negotiated_away_and_the_leading_space_is_requested(mta: Mta) -> None:
    assert mta.steps & 0x300 == 0x300  # NODATA and NOUNKNOWN
    assert mta.leading_space


def test_nothing_is_sent_where_no_reply_was_negotiated(mta: Mta) -> None:
    greet(mta)
    mta.mail("joe@example.org")
    mta.rcpt("ann@example.net")
    header, body = split_message(MESSAGE)
    for one in header:
        mta.header(one)
    mta.command(b"N", b"", {})
    mta.command(b"B", body, {})
    mta._connection.settimeout(0.3)
    with pytest.raises(TimeoutError):
        mta._connection.recv(1)
    mta._connection.settimeout(20)
    assert "dmarc=pass" in results(mta.end_of_message(i="4N0"))


def test_macros_are_requested_at_the_stages_that_read_them(mta: Mta) -> None:
    lists = {stage: names.split() for stage, names in mta.macro_lists.items()}
    connect, mail, end = 0, 2, 5  # SMFIM_CONNECT, SMFIM_ENVFROM, SMFIM_EOM
    assert {"j", "{client_addr}"} <= set(lists[connect])
    assert {"{auth_authen}", "{auth_type}"} <= set(lists[mail])
    assert "j" in lists[mail], "a list that may be empty lets the last message's login survive"
    assert "i" in lists[end]


@pytest.mark.parametrize(
    ("steps", "actions"),
    [
        pytest.param(ALL_STEPS & ~ALL_NO_REPLY, ALL_ACTIONS, id="an MTA that offers no NR bits gets replies"),
        pytest.param(ALL_STEPS & ~0x4000, ALL_ACTIONS, id="an MTA that lacks one NR bit"),
        pytest.param(0x7F, 0x3F, id="Sendmail 8.13: protocol 2"),
        pytest.param(ALL_STEPS & ~LEADING_SPACE, ALL_ACTIONS, id="an MTA without HDR_LEADSPC"),
        pytest.param(ALL_STEPS, ALL_ACTIONS & ~SETSYMLIST, id="an MTA without SETSYMLIST"),
    ],
)
def test_old_mtas(daemon: Daemon, steps: int, actions: int) -> None:
    with daemon.mta(steps=steps, actions=actions) as mta:
        assert mta.steps & ~steps == 0
        greet(mta)
        for number in range(2):
            outcome = send(mta, sign_rsa(MESSAGE, c="simple/simple", include_headers=[b"from", b"subject"]))
            assert "dkim=pass" in results(outcome), number
            assert "spf=pass" in results(outcome)
            assert outcome.edits[-1][2].startswith(b" " if mta.leading_space else b"mx.example.net")


@pytest.mark.parametrize("value", [b"x", b" x", b"  x", b"\tx", b" x\r\n\ty  z "])
def test_header_octets_reach_dkim_unchanged(mta: Mta, value: bytes) -> None:
    signed = sign_rsa(
        MESSAGE.replace(b" x\r\n", value + b"\r\n"), c="simple/simple", include_headers=[b"from", b"subject"]
    )
    greet(mta)
    assert "dkim=pass" in results(send(mta, signed))


def test_messages_on_a_connection_share_only_the_client(daemon: Daemon, mta: Mta) -> None:
    greet(mta)
    one = results(send(mta, sign_rsa(MESSAGE, include_headers=[b"from", b"subject"]), queue="4M1"))
    two = results(send(mta, message("ann@none.example"), path="", queue="4M2"))
    three = results(send(mta, message("joe@example.org"), path="joe@elsewhere.example", queue="4M3"))
    for text in (one, two, three):
        assert "iprev=pass" in text
        assert "smtp.helo=mail.example.org" in text
    assert "dkim=pass" in one
    assert "dkim=none" in two
    assert "dkim=none" in three
    assert "smtp.mailfrom" not in two
    assert "header.from=none.example" in two
    assert "smtp.mailfrom=elsewhere.example" in three
    assert "dmarc=fail" in three
    log = daemon.wait_for_log("queue=4M3")
    assert all("rcpts=1 " in lines_of(log, queue)[0] for queue in ("4M1", "4M2", "4M3"))


@pytest.mark.parametrize("aborted", [True, False], ids=["RSET", "a second MAIL"])
def test_an_unfinished_message_leaves_no_trace(mta: Mta, aborted: bool) -> None:
    greet(mta)
    mta.mail("spam@reject.example", j=OUR_ID, auth_authen="joe")
    mta.rcpt("one@example.net")
    for one in split_message(message("spam@reject.example", f"Authentication-Results: {OUR_ID}; spf=pass"))[0]:
        mta.header(one)
    mta.command(b"N", b"", {})
    mta.command(b"B", b"half a body", {})
    if aborted:
        mta.abort()
    clean = message("joe@example.org", f"Authentication-Results: {OUR_ID}; spf=pass")
    outcome = send(mta, clean)
    assert "dmarc=pass" in results(outcome)
    assert "reject.example" not in results(outcome)
    assert [edit[0] for edit in outcome.edits if edit[2] is None] == [1]


def test_an_mta_that_keeps_its_connection_for_the_next_client(daemon: Daemon, mta: Mta) -> None:
    greet(mta)
    send(mta)
    mta._send(b"K", b"")  # SMFIC_QUIT_NC
    greet(mta, BAD)
    for _ in range(2):
        text = results(send(mta))
        assert text.startswith(OUR_ID)
        assert "iprev=fail" in text
        assert "dmarc=fail" in text


def until_connect(mta: Mta) -> None:
    mta.connect("unknown", ip_address(GOOD), j=OUR_ID, client_addr=GOOD)


def until_mail(mta: Mta) -> None:
    greet(mta)
    mta.mail("joe@example.org", j=OUR_ID)


def until_rcpt(mta: Mta) -> None:
    until_mail(mta)
    mta.rcpt("ann@example.net", i="4ABC")


def until_header(mta: Mta) -> None:
    until_rcpt(mta)
    mta.header(split_message(message())[0].fields[0])


def until_end(mta: Mta) -> None:
    greet(mta)
    assert "dmarc=pass" in results(send(mta))


@pytest.mark.parametrize(
    "until",
    [until_connect, greet, until_mail, until_rcpt, until_header, until_end],
    ids=["connect", "HELO", "MAIL", "RCPT", "header", "end of message"],
)
@pytest.mark.parametrize("helo", [True, False], ids=["HELO", "no HELO"])
def test_the_next_client_is_never_judged_as_the_one_before(mta: Mta, until: Callable[[Mta], None], helo: bool) -> None:
    """libmilter ignores SMFIC_QUIT_NC at most stages, and the CONNECT after it."""
    until(mta)
    mta._send(b"K", b"")
    mta.connect("unknown", ip_address(BAD), j=OUR_ID, client_addr=BAD)
    if helo:
        mta.helo("mail.example.org")
    text = results(send(mta))
    assert "iprev=fail" in text
    assert "dmarc=fail" in text


def test_nor_by_the_name_that_the_one_before_gave(tmp_path: Path) -> None:
    rule = {"name": "r", "when": 'spf.helo.result == "pass"', "action": "reject"}
    with Daemon(tmp_path, ROWS, rule=(rule,)) as daemon, daemon.mta() as mta:
        greet(mta)
        mta._send(b"K", b"")
        mta.connect("unknown", ip_address(BAD), j=OUR_ID, client_addr=BAD)
        assert send(mta).code == 250


def test_a_message_without_any_client_is_deferred(daemon: Daemon, mta: Mta) -> None:
    mta.helo("mail.example.org")
    assert send(mta, queue="4N1").code == 451
    assert "WARNING: queue=4N1 action=tempfail problem=" in daemon.wait_for_log("the MTA did not name the client")


def test_but_not_in_a_dry_run(tmp_path: Path) -> None:
    with Daemon(tmp_path, ROWS, milter={"dry_run": True}) as daemon, daemon.mta() as mta:
        mta.helo("mail.example.org")
        assert send(mta, queue="4N1").code == 250
        assert "WARNING: queue=4N1 action=accept problem=" in daemon.wait_for_log("the MTA did not name the client")


def test_a_message_after_a_lost_connect_without_macros_is_deferred(mta: Mta) -> None:
    greet(mta)
    send(mta)
    mta._send(b"K", b"")
    mta._send(b"H", b"mail.example.org\0")
    assert send(mta).code == 451


def test_the_helo_after_starttls_replaces_the_first(mta: Mta) -> None:
    mta.connect("unknown", ip_address(GOOD), j=OUR_ID)
    mta.helo("elsewhere.example")
    mta.helo("mail.example.org", tls_version="TLSv1.3")
    text = results(send(mta))
    assert "spf=pass smtp.helo=mail.example.org" in text
    assert "elsewhere" not in text


def test_a_helo_between_messages_applies_to_later_messages(mta: Mta) -> None:
    greet(mta)
    assert "spf=pass smtp.helo=mail.example.org" in results(send(mta))
    mta.helo("elsewhere.example")
    assert "spf=none" in results(send(mta)).partition("smtp.helo=elsewhere.example")[0].rpartition(";")[2]


def test_authentication_is_decided_for_each_message(daemon: Daemon, mta: Mta) -> None:
    greet(mta)
    forged = message("joe@example.org", f"Authentication-Results: {OUR_ID}; spf=pass")
    outcomes = [
        send(mta, forged, queue="4A1"),
        send(mta, forged, queue="4A2", auth_authen="joe", auth_type="PLAIN"),
        send(mta, forged, queue="4A3"),
        send(mta, forged, queue="4A4", auth_type="EXTERNAL"),
    ]
    assert [bool(results(outcome)) for outcome in outcomes] == [True, False, True, False]
    for outcome in outcomes:  # the forged field is removed in any case
        assert (b"Authentication-Results", f" {OUR_ID}; spf=pass".encode()) not in written(outcome, forged)
    log = daemon.wait_for_log("queue=4A4")
    assert "exempt=authenticated" in lines_of(log, "4A2")[0]
    assert "exempt" not in lines_of(log, "4A3")[0]


@pytest.mark.parametrize("ip", ["10.1.2.3", "::ffff:10.1.2.3", "2001:db8:1::5"])
def test_only_forged_results_are_removed_from_mail_of_an_internal_client(mta: Mta, ip: str) -> None:
    greet(mta, ip)
    outcome = send(mta, message("joe@example.org", f"Authentication-Results: {OUR_ID}; spf=pass"))
    assert (outcome.code, outcome.edits) == (250, [(1, b"Authentication-Results", None)])


def test_mail_without_a_network_client_is_left_alone(daemon: Daemon, mta: Mta) -> None:
    mta.connect("localhost", None, j=OUR_ID)
    mta.helo("localhost")
    assert send(mta, queue="4U1").edits == []
    assert 'exempt="no network client"' in daemon.wait_for_log("queue=4U1")


def test_a_client_behind_a_pipe_is_known_by_its_macro(mta: Mta) -> None:
    mta.connect("localhost", None, j=OUR_ID, client_addr=f"IPv6:::ffff:{GOOD}")
    mta.helo("mail.example.org")
    assert "iprev=pass" in results(send(mta))


@pytest.mark.parametrize("missing", ["j", "client_addr", "i", "auth_authen"])
def test_each_macro_may_be_missing(daemon: Daemon, mta: Mta, missing: str) -> None:
    connect = {name: value for name, value in (("j", OUR_ID), ("client_addr", GOOD)) if name != missing}
    mta.connect("mail.example.org", ip_address(GOOD), **connect)
    mta.helo("mail.example.org")
    queue = {} if missing == "i" else {"i": f"4X{missing[0]}"}
    mta.mail("joe@example.org")
    mta.rcpt("ann@example.net", **queue)
    outcome = mta.message(*split_message(MESSAGE), **queue)
    assert "dmarc=pass" in results(outcome)
    assert results(outcome).startswith(OUR_ID + ";") is (missing != "j")
    daemon.wait_for_log(f"queue={queue.get('i', '-')} ")


def test_all_macros_may_be_missing(mta: Mta) -> None:
    mta.connect("unknown", ip_address(BAD))
    mta.helo("x")
    mta.mail("joe@example.org")
    mta.rcpt("ann@example.net")
    assert "dmarc=fail" in results(mta.message(*split_message(MESSAGE)))


@pytest.mark.parametrize("name", ["unknown", "[192.0.2.1]", "mail.example.org", "wrong.example", ""])
def test_the_connect_name_proves_nothing(mta: Mta, name: str) -> None:
    mta.connect(name, ip_address(BAD), j=OUR_ID)
    mta.helo("wrong.example")
    text = results(send(mta))
    assert "iprev=fail" in text
    assert "spf=fail" in text


def test_a_message_without_helo(mta: Mta) -> None:
    mta.connect("unknown", ip_address(GOOD), j=OUR_ID)
    text = results(send(mta))
    assert "dmarc=pass" in text
    assert "smtp.helo" not in text


@pytest.mark.parametrize(
    ("octets", "result"),
    [
        pytest.param(b"Subject: x\r\n\r\n", "dmarc=permerror", id="no From"),
        pytest.param(b"From: a@b.example\r\nFrom: c@reject.example\r\n\r\n", "dmarc=fail", id="two From"),
        pytest.param(b"From: joe@example.org\r\n", "dmarc=pass", id="no body"),
        pytest.param(b"\r\nbody\r\n", "dmarc=permerror", id="no header"),
        pytest.param(b"From: \xff\xfe <joe@example.org>\r\n\r\n", "dmarc=", id="octets that are not UTF-8 in From"),
        pytest.param(b"X: \xff\r\nFrom: joe@example.org\r\n\r\n\xff", "dmarc=pass", id="and elsewhere"),
    ],
)
def test_odd_messages_get_a_verdict(mta: Mta, octets: bytes, result: str) -> None:
    greet(mta)
    assert result in results(send(mta, octets))


@pytest.mark.parametrize(
    ("helo", "path"),
    [
        pytest.param(b"\xff\xfe", "joe@example.org", id="HELO that is not UTF-8"),
        pytest.param("bücher.example", "joe@example.org", id="HELO in U-labels"),
        pytest.param("a b\tc", "joe@example.org", id="HELO with white space"),
        pytest.param("", "joe@example.org", id="empty HELO"),
        pytest.param("x" * 10_000, "joe@example.org", id="endless HELO"),
        pytest.param("%s%n%d", "joe@example.org", id="HELO with formats"),
        pytest.param("h", b"\xff\xfe@example.org", id="MAIL FROM that is not UTF-8"),
        pytest.param("h", b"joe@\xff\xfe.example", id="domain of MAIL FROM that is not UTF-8"),
        pytest.param("h", "jürgen@bücher.example", id="SMTPUTF8"),
        pytest.param("h", "no address", id="MAIL FROM that is not an address"),
        pytest.param("h", "x" * 10_000 + "@example.org", id="endless MAIL FROM"),
        pytest.param("h", '"a\\"b c"@example.org', id="quoted local part"),
        pytest.param("h", "joe@" + "a." * 126 + "example", id="domain that is too long"),
    ],
)
def test_odd_envelopes_get_a_verdict_and_keep_the_connection(mta: Mta, helo: str | bytes, path: str | bytes) -> None:
    greet(mta, helo=helo)
    for _ in range(2):
        text = results(send(mta, MESSAGE, "SMTPUTF8", path=path))
        assert text.startswith(OUR_ID)
        assert "dmarc=" in text


def test_a_client_name_that_is_not_utf_8_does_not_hide_the_client(daemon: Daemon, mta: Mta) -> None:
    event = b"\xff\xfe\0" + b"4" + struct.pack("!H", 25) + BAD.encode() + b"\0"
    mta.command(b"C", event, {"j": OUR_ID, "client_addr": BAD})
    mta.helo("mail.example.org")
    text = results(send(mta))
    assert text.startswith(OUR_ID)
    assert "iprev=fail" in text
    assert "spf=fail" in text


def test_mail_of_a_client_that_neither_event_nor_macro_reports_is_deferred(mta: Mta) -> None:
    mta.command(b"C", b"\xff\xfe\0" + b"4" + struct.pack("!H", 25) + BAD.encode() + b"\0", {})
    mta.helo("mail.example.org")
    assert send(mta).code == 451


def test_a_field_name_that_is_not_utf_8_is_harmless(mta: Mta) -> None:
    greet(mta)
    for _ in range(2):
        mta.mail("joe@example.org", j=OUR_ID)
        mta.rcpt("ann@example.net")
        mta.command(b"L", b"X\xff\0 1\0", {})
        for one in split_message(MESSAGE)[0]:
            mta.header(one)
        mta.command(b"N", b"", {})
        assert "dmarc=pass" in results(mta.end_of_message(i="4H1"))


def test_a_connection_closed_in_the_middle_is_harmless(daemon: Daemon) -> None:
    mta = daemon.mta()
    greet(mta)
    mta.mail("joe@example.org")
    mta._connection.close()
    mta._stream.close()
    with daemon.mta() as other:
        greet(other)
        assert "dmarc=pass" in results(send(other))


@pytest.mark.parametrize("junk", [b"GET / HTTP/1.0\r\n\r\n", b"\0\0\0\1X", b"\xff" * 64, b"\0\0\0\0"])
def test_a_peer_that_is_not_an_mta_is_harmless(daemon: Daemon, junk: bytes) -> None:
    with Endpoint.parse(daemon.socket).connect(5) as connection:
        connection.sendall(junk)
    with daemon.mta() as other:
        greet(other)
        assert "dmarc=pass" in results(send(other))


@pytest.mark.parametrize("socket", ["unix", "inet:{port}@127.0.0.1", "inet6:{port}@::1"])
def test_sockets(tmp_path: Path, socket: str, free_port: int) -> None:
    text = "" if socket == "unix" else socket.format(port=free_port)
    with Daemon(tmp_path, ROWS, socket=text) as daemon, daemon.mta() as mta:
        greet(mta)
        assert "dmarc=pass" in results(send(mta))
