# SPDX-License-Identifier: GPL-3.0-or-later
"""The operator's policy through real workers: the replies to the MTA at each stage, and what is logged."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from assay.cli.mta import FilterOutcome, Mta
from assay.model.message import split_message
from running import Daemon, until
from sending import BAD, GOOD, MESSAGE, OUR_ID, ROWS, greet, lines_of, message, results, send

NO_REPLY = {"connect": 0x1000, "helo": 0x2000, "mail": 0x4000, "rcpt": 0x8000}
FORWARDER, RELAY = "198.51.100.9", "203.0.113.9"
ZONE = ROWS | {
    "exempt.example": [["TXT", ["v=spf1 -all"]]],
    "explaining.example": [["TXT", ["v=spf1 -all exp=why.explaining.example"]]],
    "why.explaining.example": [["TXT", ["%{i} is not ours, 100%% sure"]]],
    "soft.example": [["TXT", ["v=spf1 ~all"]]],
    "slow.example": [["TXT", ["v=spf1 -all"]]],
    "guess.example": [["A", "192.0.2.7"]],
    "_dmarc.guess.example": [["TXT", ["v=DMARC1; p=reject"]]],
}

#: The stage, its configuration, and the reply to the MTA. At connect libmilter allows no text.
STAGES: list[tuple[str, dict[str, Any], str]] = [
    ("connect", {"iprev": {"fail": "reject", "stage": "connect"}}, "550 5.7.1 Command rejected"),
    (
        "helo",
        {"spf": {"helo": {"fail": "tempfail", "stage": "helo"}}},
        "451 4.7.23 SPF of HELO mail.example.org: mail.example.org does not permit 192.0.2.66, by -all",
    ),
    (
        "mail",
        {"spf": {"mailfrom": {"fail": "reject", "stage": "mail"}}},
        "550 5.7.23 SPF of MAIL FROM: example.org does not permit 192.0.2.66, by -all",
    ),
    (
        "rcpt",
        {"iprev": {"fail": "reject", "stage": "rcpt"}, "replies": {"generic": True}},
        "550 5.7.1 Refused by local policy",
    ),
    (
        "eom",
        {
            "iprev": {"fail": "reject"},
            "spf": {"mailfrom": {"fail": "reject"}},
            "replies": {"texts": {"iprev": "100%s"}},
        },
        "550 5.7.26 100%s; SPF of MAIL FROM: example.org does not permit 192.0.2.66, by -all",
    ),
]


@pytest.mark.parametrize(("stage", "sections", "reply"), STAGES, ids=[stage for stage, _, _ in STAGES])
def test_each_stage_refuses_as_configured(tmp_path: Path, stage: str, sections: dict[str, Any], reply: str) -> None:
    with Daemon(tmp_path, ZONE, **sections) as daemon, daemon.mta() as mta:
        silent = [name for name, step in NO_REPLY.items() if mta.steps & step]
        assert silent == [name for name in NO_REPLY if name != stage], "no reply at the other stages"
        heard = [
            ("connect", mta.connect("unknown", ip_address(BAD), j=OUR_ID, client_addr=BAD)),
            ("helo", mta.helo("mail.example.org")),
            ("mail", mta.mail("joe@example.org", j=OUR_ID)),
            ("rcpt", mta.rcpt("ann@example.net", i="4R")),
        ]
        if stage == "eom":
            heard.append(("eom", mta.message(*split_message(MESSAGE), i="4R")))
        assert [(name, one.reply) for name, one in heard if one.code != 250] == [(stage, reply)]
        line = daemon.wait_for_log("action=reject" if stage != "helo" else "action=tempfail")
        assert (f"stage={stage} " in line) is (stage != "eom")
        with daemon.mta() as other:
            greet(other)
            assert "dmarc=pass" in results(send(other))


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that acts only at the end of the message or at RCPT, so that tests can share it."""
    folder = tmp_path_factory.mktemp("daemon")

    def on(word: str, **more: Any) -> dict[str, Any]:
        return {"name": word, "when": f'header("X-Do") == "{word}"'} | more

    with Daemon(
        folder,
        ZONE,
        clients={
            "daemon_names": ("submission",),
            "trusted_forwarders": ("198.51.100.0/24",),
            "relays": ("203.0.113.0/24",),
            "exempt_senders": ("exempt.example",),
            "exempt_recipients": ("abuse@example.net",),
        },
        spf={"mailfrom": {"fail": "reject", "softfail": "quarantine", "stage": "rcpt"}},
        dmarc={"reject": "reject", "quarantine": "quarantine"},
        headers={"tag_subject": "[bad] ", "tag_field": "X-Bad: yes"},
        log={"facts": str(folder / "facts"), "enterprise": 32473},
        rule=[
            {
                "name": "closed",
                "stage": "rcpt",
                "when": 'rcpt.exists(one, one == "closed@example.net")',
                "action": "reject",
                "reason": "closed",
            },
            {
                "name": "slow down",
                "stage": "rcpt",
                "when": 'helo == "fast.example"',
                "action": "tempfail",
                "reply": "421 4.7.0 {helo}, slow down",
            },
            on(
                "edit",
                add_fields=("X-A: 1", "X-B: two"),
                remove_fields=("X-Gone",),
                add_recipients=("copy@example.net",),
            ),
            on("tag", action="tag", reason="looks odd"),
            on("discard", action="discard"),
            on("hold", action="quarantine", reason="look at it"),
            on("421", action="tempfail", reply="421 4.7.0 bye"),
            on("lines", action="reject", reply="550 5.7.1 100% {reason}", reason="sure"),
        ],
    ) as running:
        yield running


@pytest.fixture
def mta(daemon: Daemon) -> Iterator[Mta]:
    with daemon.mta() as one:
        yield one


def do(mta: Mta, word: str, *fields: str, queue: str, **options: Any) -> FilterOutcome:
    """A good message with the header field that a rule matches."""
    greet(mta)
    return send(mta, message("joe@example.org", f"X-Do: {word}", *fields), queue=queue, **options)


# -- actions


def test_only_the_recipient_that_a_rule_refuses_is_refused(mta: Mta) -> None:
    greet(mta)
    mta.mail("joe@example.org", j=OUR_ID)
    codes = [mta.rcpt(f"{who}@example.net", i="4C").reply for who in ("ann", "closed", "bob")]
    assert codes == ["250 2.0.0 continue", "550 5.7.1 Refused by local policy: closed", "250 2.0.0 continue"]
    assert "dmarc=pass" in results(mta.message(*split_message(MESSAGE), i="4C"))


def test_a_refused_recipient_is_not_counted_and_is_logged_separately(daemon: Daemon, mta: Mta) -> None:
    greet(mta)
    mta.mail("joe@example.org", j=OUR_ID)
    mta.rcpt("ann@example.net", i="4D")
    mta.rcpt("closed@example.net", i="4D")
    mta.message(*split_message(MESSAGE), i="4D")
    log = daemon.wait_for_log("queue=4D ")
    assert [line for line in lines_of(log, "4D") if "rcpts=1 " in line]
    assert "stage=rcpt client=192.0.2.1 helo=mail.example.org from=<joe@example.org> rcpts=1" in log
    assert 'by="rule closed"' in log


def test_421_is_sent_as_configured(mta: Mta) -> None:
    greet(mta, helo="fast.example")
    mta.mail("joe@example.org", j=OUR_ID)
    assert mta.rcpt("ann@example.net", i="4E").reply == "421 4.7.0 fast.example, slow down"
    assert do(mta, "421", queue="4F").reply == "421 4.7.0 bye"


def test_percent_signs_are_preserved(mta: Mta) -> None:
    assert do(mta, "lines", queue="4G").reply == "550 5.7.1 100% sure"


def test_an_explanation_is_a_separate_reply_line(mta: Mta) -> None:
    greet(mta, BAD)
    mta.mail("joe@explaining.example", j=OUR_ID)
    lines = mta.rcpt("ann@example.net", i="4H").reply.split("\r\n")
    assert lines[0].startswith("550-5.7.23 SPF of MAIL FROM: explaining.example does not permit 192.0.2.66")
    assert lines[1] == "550 5.7.23 explaining.example explains: 192.0.2.66 is not ours, 100% sure"


def test_a_tag_adds_a_field_and_a_subject_prefix(daemon: Daemon, mta: Mta) -> None:
    outcome = do(mta, "tag", queue="4T")
    assert (0, b"X-Bad", b" yes") in outcome.edits
    assert (1, b"Subject", b" [bad] x") in outcome.edits
    assert "dmarc=pass (p=reject, rule tag: looks odd)" in results(outcome)
    assert 'action=tag by="rule tag" reason="looks odd"' in daemon.wait_for_log("queue=4T")


def test_a_rule_without_an_action_only_changes_the_message(mta: Mta) -> None:
    outcome = do(mta, "edit", "X-Gone: 1", "x-gone: 2", queue="4A")
    assert outcome.code == 250
    assert outcome.edits[:4] == [
        (2, b"X-Gone", None),
        (1, b"X-Gone", None),
        (0, b"X-A", b" 1"),
        (0, b"X-B", b" two"),
    ]
    assert outcome.recipients == ["<copy@example.net>"]
    assert "dmarc=pass" in results(outcome)


def test_discard_replies_250(mta: Mta) -> None:
    outcome = do(mta, "discard", queue="4J")
    assert outcome.reply == "250 2.0.0 discarded"
    assert outcome.edits == []


def test_hold_is_the_mtas_quarantine(mta: Mta) -> None:
    outcome = do(mta, "hold", queue="4K")
    assert (outcome.code, outcome.quarantine) == (250, "rule hold: look at it")
    assert "dmarc=pass (p=reject, rule hold: look at it)" in results(outcome)


def test_a_quarantine_at_an_early_stage_waits_for_the_end(mta: Mta) -> None:
    greet(mta, BAD)
    mta.mail("joe@soft.example", j=OUR_ID)
    assert mta.rcpt("ann@example.net", i="4L").code == 250
    outcome = mta.message(*split_message(message("joe@other.example")), i="4L")
    assert outcome.quarantine.startswith("spf.mailfrom.softfail: soft.example probably does not permit")


# -- whose mail is judged


def test_mail_of_an_exempt_sender_is_recorded_but_not_acted_on(daemon: Daemon, mta: Mta) -> None:
    greet(mta, BAD)
    outcome = send(mta, path="joe@exempt.example", queue="4M")
    assert outcome.code == 250
    assert "spf=fail" in results(outcome)
    log = daemon.wait_for_log("queue=4M")
    assert 'dry_run="reject by spf.mailfrom.fail, dmarc.reject"' in log
    assert 'reason="not acted on: exempt sender"' in log


def test_an_exempt_recipient_receives_everything(mta: Mta) -> None:
    greet(mta, BAD)
    mta.mail("joe@example.org", j=OUR_ID)
    assert mta.rcpt("ann@example.net", i="4N").code == 550
    assert mta.rcpt("abuse@example.net", i="4N").code == 250
    outcome = mta.message(*split_message(MESSAGE), i="4N")
    assert outcome.code == 250
    assert "dmarc=fail" in results(outcome)


def test_mail_of_a_trusted_forwarder_is_recorded_but_not_acted_on(daemon: Daemon, mta: Mta) -> None:
    greet(mta, FORWARDER)
    outcome = send(mta, queue="4O")
    assert outcome.code == 250
    assert "dmarc=fail (p=reject, accepted: trusted forwarder)" in results(outcome)
    assert "policy.dmarc=reject" in results(outcome)
    assert 'reason="spf.mailfrom.fail, dmarc.reject not acted on: trusted forwarder"' in daemon.wait_for_log("queue=4O")


def test_a_listed_daemon_is_internal(daemon: Daemon, mta: Mta) -> None:
    greet(mta, BAD, daemon_name="submission")
    assert send(mta, queue="4P").edits == []
    assert 'exempt="daemon submission"' in daemon.wait_for_log("queue=4P")


def test_an_unlisted_daemon_is_not_internal(mta: Mta) -> None:
    greet(mta, BAD, daemon_name="smtpd")
    mta.mail("joe@example.org", j=OUR_ID)
    assert mta.rcpt("ann@example.net", i="4Q").code == 550


def test_an_authenticated_user_is_not_judged(mta: Mta) -> None:
    greet(mta, BAD)
    outcome = send(mta, queue="4U", auth_authen="joe")
    assert (outcome.code, outcome.edits) == (250, [])


RELAYED = [
    ("Postfix", f"from mail.example.org (unknown [{BAD}])\r\n\tby relay.example (Postfix) with ESMTP id 1", BAD),
    ("Sendmail", f"from mail.example.org (x.example [{BAD}] (may be forged)) by relay.example; date", BAD),
    ("Exim", f"from [{BAD}] (helo=mail.example.org)\r\n\tby relay.example with esmtp", BAD),
    ("Exim, a lying HELO", f"from [{BAD}] (helo=[{GOOD}])\r\n\tby relay.example with esmtp", BAD),
    ("Postfix, a lying HELO", f"from [{GOOD}] (unknown [{BAD}])\r\n\tby relay.example (Postfix) with ESMTP id 1", BAD),
    ("an honest client", f"from mail.example.org (mail.example.org [{GOOD}]) by relay.example", GOOD),
]


@pytest.mark.parametrize(("form", "received", "client"), RELAYED, ids=[form for form, _, _ in RELAYED])
def test_behind_a_relay_the_relays_client_is_judged(mta: Mta, form: str, received: str, client: str) -> None:
    greet(mta, RELAY, "relay.example")
    mta.mail("joe@example.org", j=OUR_ID)
    assert mta.rcpt("ann@example.net", i="4V").code == 250, "the client is not known yet"
    outcome = mta.message(*split_message(message("joe@example.org", f"Received: {received}")), i="4V")
    if client == BAD:
        assert outcome.reply.startswith("550 5.7.26 SPF of MAIL FROM: example.org does not permit 192.0.2.66")
    else:
        assert "spf=pass smtp.mailfrom=example.org" in results(outcome)


def test_behind_a_relay_the_rules_of_earlier_stages_are_tried_at_the_end(mta: Mta) -> None:
    greet(mta, RELAY, "relay.example")
    received = f"Received: from fast.example (unknown [{GOOD}]) by relay.example"
    outcome = send(mta, message("joe@example.org", received), queue="4W")
    assert outcome.reply == "421 4.7.0 fast.example, slow down"


# -- what is logged


def facts_of(daemon: Daemon, queue: str) -> dict[str, Any]:
    lines = (daemon.folder / "facts").read_bytes().splitlines()
    records = [json.loads(line) for line in lines]
    return next(one for one in records if one["queue"] == queue)


def test_the_facts_of_each_message_are_one_line_of_json(daemon: Daemon, mta: Mta) -> None:
    greet(mta, BAD, helo=b'"h]\\\x7f' + b"\xc3\xa9")
    send(mta, path="joe@soft.example", queue="4X")
    daemon.wait_for_log("queue=4X ")
    record = facts_of(daemon, "4X")
    assert (record["action"], record["by"]) == ("reject", "dmarc.reject")
    assert abs(record["time"] - time.time()) < 60
    assert record["facts"]["helo"] == '"h]\\\x7f\u00e9'
    assert record["facts"]["spf"]["mailfrom"]["result"] == "softfail"
    assert record["facts"]["rcpt"] == ["ann@example.net"]


def test_the_facts_hold_octets_that_are_not_utf_8(daemon: Daemon, mta: Mta) -> None:
    greet(mta)
    send(mta, path=b"\xff@example.org", queue="4Y")
    daemon.wait_for_log("queue=4Y ")
    assert facts_of(daemon, "4Y")["facts"]["mail_from"]["address"] == "\\xff@example.org"


def test_the_facts_file_is_not_world_readable(daemon: Daemon, mta: Mta) -> None:
    assert (daemon.folder / "facts").stat().st_mode & 0o007 == 0


#: RFC 5424, 6.3: in a value a quote, a backslash and a closing bracket must follow a backslash.
_ELEMENT = re.compile(r'\[assay@32473((?: [!#-<>-\\^-~]{1,32}="(?:[^"\\\]]|\\["\\\]])*")+)\]')
_PARAMETER = re.compile(r' ([a-z]+)="((?:[^"\\\]]|\\["\\\]])*)"')


def events(log: str) -> list[dict[str, str]]:
    found = []
    for line in log.splitlines():
        text = line.partition(": ")[2]
        if text.startswith("[assay@"):
            element = _ELEMENT.fullmatch(text)
            assert element, text
            found.append({name: re.sub(r"\\(.)", r"\1", value) for name, value in _PARAMETER.findall(element[1])})
    return found


@pytest.mark.parametrize(
    ("helo", "shown"),
    [
        ("plain.example", "plain.example"),
        ('"] [assay@32473 client="192.0.2.9"]', '"] [assay@32473 client?"192.0.2.9"]'),
        ("back\\slash\\", "back\\slash\\"),
        ("tab\tand\x1b[2J", "tab?and?[2J"),
        ("b\u00fccher.example", "b\u00fccher.example"),
        ("x" * 1000, "x" * 256),
    ],
    ids=range(6),
)
def test_a_refusal_is_an_event_in_structured_data(daemon: Daemon, mta: Mta, helo: str, shown: str) -> None:
    sender = f"{helo[:9].encode().hex()}@example.org"  # another for each
    greet(mta, BAD, helo)
    mta.mail(sender, j=OUR_ID)
    mta.rcpt("ann@example.net", i="4Z")
    log = daemon.wait_for_log(f'from="{sender}"')
    (event,) = [one for one in events(log) if one["from"] == sender]
    assert event == {
        "client": BAD,
        "helo": shown,
        "from": sender,
        "stage": "rcpt",
        "action": "reject",
        "by": "spf.mailfrom.fail",
        "reply": "550 5.7.23 SPF of MAIL FROM: example.org does not permit 192.0.2.66, by -all",
    }


def test_an_accepted_message_is_not_an_event(daemon: Daemon, mta: Mta) -> None:
    greet(mta, helo="accepted.example")
    send(mta, queue="5A")
    daemon.wait_for_log("queue=5A ")
    assert not [one for one in events(daemon.log()) if one["helo"] == "accepted.example"]


# -- separate daemons


def test_a_global_dry_run_refuses_at_no_stage(tmp_path: Path) -> None:
    sections = {
        "iprev": {"fail": "reject", "stage": "connect"},
        "spf": {"mailfrom": {"fail": "reject", "stage": "mail"}},
    }
    with Daemon(tmp_path, ZONE, milter={"dry_run": True}, **sections) as daemon, daemon.mta() as mta:
        greet(mta, BAD)
        outcome = send(mta, queue="4A")
        assert (outcome.code, outcome.edits) == (250, [])
        log = daemon.wait_for_log("queue=4A")
        assert log.count("action=accept dry_run=reject") == 3, "once for each stage, and for the message"


def test_a_reload_reads_the_lists_again(tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("other.example\n")
    rule = {"name": "blocked", "stage": "mail", "when": 'listed(mail_from.domain, "blocked")', "action": "reject"}
    with Daemon(tmp_path, ZONE, lists={"blocked": str(blocked)}, rule=[rule]) as daemon:

        def code() -> int:
            with daemon.mta() as mta:
                greet(mta)
                return mta.mail("joe@example.org", j=OUR_ID).code

        assert code() == 250
        blocked.write_text("Example.ORG  # as of today\n")
        assert code() == 250
        daemon.signal(signal.SIGHUP)
        daemon.wait_for_log("reloaded")
        until(lambda: code() == 550, "the old worker may still take a session")
        blocked.unlink()
        daemon.signal(signal.SIGHUP)
        log = daemon.wait_for_log("lists.blocked:")
        assert "No such file" in log
        assert code() == 550, "the old configuration stays"


LIMITS = [
    pytest.param({"budget_seconds": 1.0}, {}, id="as a message has before its end"),
    pytest.param({"budget_seconds": 20.0}, {"seconds": 0.5}, id="of its own"),
]


@pytest.mark.parametrize(("dns", "limit"), LIMITS)
def test_spf_over_its_time_limit_ends_in_temperror(
    tmp_path: Path, dns: dict[str, float], limit: dict[str, float]
) -> None:
    """RFC 7208, 4.6.4: at least twenty seconds, and over the limit temperror."""
    spf = {"mailfrom": {"temperror": "tempfail", "stage": "mail"}} | limit
    with Daemon(tmp_path, ZONE, dns=dns | {"timeout_seconds": 30.0}, spf=spf) as daemon:
        daemon.nameserver.delays["slow.example"] = 20.0
        with daemon.mta() as mta:
            greet(mta)
            began = time.monotonic()
            reply = mta.mail("joe@slow.example", j=OUR_ID).reply
            assert 0.4 < time.monotonic() - began < 10
            assert reply.startswith("451 4.7.24 SPF of MAIL FROM: ")
            assert "dmarc=pass" in results(send(mta, queue="4S"))


def test_a_best_guess_is_marked_everywhere_and_has_no_effect(tmp_path: Path) -> None:
    sections = {"spf": {"best_guess": "v=spf1 a/24 -all"}, "log": {"facts": str(tmp_path / "facts")}}
    with Daemon(tmp_path, ZONE, **sections) as daemon, daemon.mta() as mta:
        greet(mta)
        outcome = send(mta, message("joe@guess.example"), path="joe@guess.example", queue="4B")
        assert "spf=pass (best guess) smtp.mailfrom=guess.example" in results(outcome)
        assert "dmarc=fail" in results(outcome)
        (received,) = [
            value for _, name, value in outcome.edits if name == b"Received-SPF" and b"best guess" in (value or b"")
        ]
        assert received is not None
        text = " ".join(received.decode().split())
        assert text.startswith(
            "pass (mx.example.net: best guess, because guess.example has no record: guess.example permits"
        )
        assert "spf.mailfrom=pass guessed=yes" in daemon.wait_for_log("queue=4B")
        assert facts_of(daemon, "4B")["facts"]["spf"]["mailfrom"]["guessed"] is True
        assert facts_of(daemon, "4B")["facts"]["spf"]["helo"]["guessed"] is False
