# SPDX-License-Identifier: GPL-3.0-or-later
"""``assay policy try``: what a new configuration would have decided about logged messages."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.cli.replay import BrokenLineError, Judge, read_line
from assay.config import Configuration
from assay.daemon.journal import facts_line
from assay.policy import Action, Facts, Stage
from assay.policy.vocabulary import element, is_tree, members
from assay.session import Verdict
from running import Daemon
from sending import BAD, GOOD, ROWS, greet, message, send
from talking import deliver

SAME, DIFFERENT, UNUSABLE, NO_INPUT, CONFIG = 0, 1, 65, 66, 78
LOGGING = {"log": {"facts": "somewhere"}}
REJECTING = {"spf": {"mailfrom": {"fail": "reject"}}}

#: (client, MAIL FROM, recipients, message)
MAIL = [
    (GOOD, "joe@example.org", ("ann@example.net",), message()),
    (BAD, "joe@example.org", ("ann@example.net", "abuse@example.net"), message()),
    (BAD, "joe@example.org", ("abuse@example.net",), message()),
    (BAD, "", ("ann@example.net",), message("joe@quarantine.example", "List-Id: <list.example>")),
    ("2001:db8::1", "x@reject.example", ("bob@example.net",), message("x@reject.example", "X-Foo: bar")),
    (GOOD, "joe@example.org", ("ann@example.net",), message("joe@example.org", "X-Foo: bar", "X-Foo: foo")),
]


def rule(stage: str, when: str, action: str = "reject", **more: Any) -> dict[str, Any]:
    return {"name": "one", "stage": stage, "when": when, "action": action} | more


CONFIGURATIONS = {
    "nothing": {},
    "at the end": REJECTING,
    "at MAIL": {"spf": {"mailfrom": {"fail": "reject", "stage": "mail"}}},
    "at connect": {"iprev": {"permerror": "tempfail", "fail": "tempfail", "stage": "connect"}},
    "HELO at HELO": {"spf": {"helo": {"fail": "reject", "stage": "helo"}}},
    "at RCPT": {"spf": {"mailfrom": {"fail": "reject", "stage": "rcpt"}}},
    "a rule for recipients": {"rule": [rule("rcpt", 'rcpt.exists(one, one.startsWith("ann@"))')]},
    "a rule that accepts early": REJECTING | {"rule": [rule("connect", f'client.address == "{BAD}"', "accept")]},
    "a rule about the client's domain": {"rule": [rule("helo", 'spf.helo.result == "fail"', "tempfail")]},
    "a rule about a field": {"rule": [rule("eom", 'header("X-Foo") == "bar"', "quarantine")]},
    "a rule in dry run": {"rule": [rule("eom", "true", "discard", dry_run=True)]},
    "DMARC": {"dmarc": {"reject": "reject", "quarantine": "quarantine", "none": "tag"}},
    "a mailing list": {"dmarc": {"quarantine": "reject", "list_traffic": "accept"}},
    "IPREV": {"iprev": {"fail": "tag", "permerror": "discard"}},
    "IPREV switched off": {"iprev": {"fail": "reject", "permerror": "reject", "enabled": False}},
    "names in MAIL FROM": {"iprev": {"names_in_mail_from": "any", "name_mismatch": "reject", "stage": "mail"}},
    "no signature": {"dkim": {"none": "tag"}},
    "an internal network": REJECTING | {"clients": {"internal": ("192.0.2.64/26",)}},
    "an exempt sender": REJECTING | {"clients": {"internal": (), "exempt_senders": ("example.org",)}},
    "an exempt recipient": REJECTING | {"clients": {"internal": (), "exempt_recipients": ("abuse@example.net",)}},
    "a trusted forwarder": REJECTING | {"clients": {"internal": (), "trusted_forwarders": (BAD,)}},
    "everything at once": REJECTING | {"dmarc": {"reject": "reject", "quarantine": "reject"}, "dkim": {"none": "tag"}},
}


def configuration(sections: dict[str, Any]) -> Configuration:
    return msgspec.convert(sections, Configuration)


def verdicts_of(sections: dict[str, Any], mail: tuple[str, str, tuple[str, ...], bytes]) -> list[Verdict]:
    """The verdicts of a message under a configuration."""
    client, path, recipients, octets = mail
    paths = tuple(f"<{one}>" for one in recipients)
    return deliver(
        sections, octets, client=client, helo="mail.example.org", mail_from=f"<{path}>", recipients=paths, queue_id="4A"
    )


@pytest.mark.parametrize("name", CONFIGURATIONS)
@pytest.mark.parametrize("mail", MAIL, ids=lambda mail: f"{mail[0]} {mail[1] or '<>'}")
def test_it_decides_like_the_daemon(name: str, mail: tuple[str, str, tuple[str, ...], bytes]) -> None:
    sections = CONFIGURATIONS[name]
    asks = {"rule": [rule("eom", 'header("X-Foo") == "-"')]}  # so that the log has the field
    (logged,) = verdicts_of(LOGGING | asks, mail)
    ending = Judge.of(configuration(sections)).judge(read_line(facts_line(logged, 0.0)))
    really = verdicts_of(sections, mail)[-1]
    assert (ending.stage, ending.decision.action) == (really.stage, really.decision.action)
    if really.assessment.exempt:
        assert ending.decision.by == f"not judged: {really.assessment.exempt}"
    else:
        assert ending.decision.by == really.decision.by
        assert ending.decision.reply == really.decision.reply
        assert ending.decision.reason == really.decision.reason


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_configuration_in_force_shows_no_difference(name: str) -> None:
    sections = CONFIGURATIONS[name]
    judge = Judge.of(configuration(sections))
    for mail in MAIL:
        last = verdicts_of(sections | LOGGING, mail)[-1]
        if last.stage is Stage.EOM and last.facts is not None:
            logged = read_line(facts_line(last, 0.0))
            assert judge.judge(logged).decision.action is logged.action
    assert not judge.missing


def run(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
    ended = subprocess.run(
        [sys.executable, "-m", "assay", "policy", "try", *arguments],
        input=stdin.decode("utf-8", "surrogateescape"),
        errors="surrogateescape",
        capture_output=True,
        timeout=60,
        check=False,
        text=True,
    )
    assert "Traceback" not in ended.stderr
    return ended


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Three messages; the client of the second is not authorized."""
    path = tmp_path / "facts"
    path.write_bytes(b"".join(facts_line(verdicts_of(LOGGING, mail)[-1], 0.0) for mail in (MAIL[0], MAIL[1], MAIL[5])))
    return path


@pytest.fixture
def new(tmp_path: Path) -> Path:
    path = tmp_path / "new.toml"
    path.write_text('[spf.mailfrom]\nfail = "reject"\nstage = "mail"\n')
    return path


def test_differences_are_listed_with_a_summary(log: Path, new: Path) -> None:
    ended = run(str(log), "-c", str(new))
    assert (ended.returncode, ended.stderr) == (DIFFERENT, "")
    assert ended.stdout.splitlines() == [
        f"4A accept -> reject at mail (spf.mailfrom.fail): example.org does not permit {BAD}, by -all",
        "",
        "3 messages, 1 would have ended differently",
        "  accept -> reject: 1 (1 spf.mailfrom.fail)",
    ]


def test_no_difference(log: Path, new: Path) -> None:
    new.write_text("")
    ended = run(str(log), "-c", str(new))
    assert (ended.returncode, ended.stdout, ended.stderr) == (
        SAME,
        "3 messages, none would have ended differently\n",
        "",
    )


def test_the_former_decision_of_a_rule_is_reported(log: Path, new: Path) -> None:
    log.write_text(log.read_text().replace('"action":"accept","by":""', '"action":"reject","by":"rule old"'))
    ended = run(str(log), "-c", str(new))
    assert "4A reject (rule old) -> accept\n" in ended.stdout
    assert "  reject -> accept: 2 (2 no longer rule old)\n" in ended.stdout
    assert "1 more with the same outcome, decided by another key or rule\n" in ended.stdout


def test_a_global_dry_run_is_mentioned(log: Path, new: Path) -> None:
    new.write_text("[milter]\ndry_run = true\n" + new.read_text())
    ended = run(str(log), "-c", str(new))
    assert "accept -> reject" in ended.stdout
    assert ended.stdout.endswith("milter.dry_run is on: this configuration would have changed and refused nothing.\n")


def test_json_from_standard_input(log: Path, new: Path) -> None:
    ended = run("-", "-c", str(new), "--json", stdin=log.read_bytes())
    assert ended.returncode == DIFFERENT
    found = json.loads(ended.stdout)
    assert (found["messages"], found["skipped_lines"]) == (3, 0)
    (one,) = found["different"]
    assert one["old"] == {"action": "accept", "by": ""}
    assert one["new"] == {
        "action": "reject",
        "by": "spf.mailfrom.fail",
        "stage": "mail",
        "reason": f"example.org does not permit {BAD}, by -all",
        "reply": f"550 5.7.23 SPF of MAIL FROM: example.org does not permit {BAD}, by -all",
    }


def test_broken_lines_are_reported_by_number_and_skipped(log: Path, new: Path) -> None:
    first, second, third = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(first + b"garbage\n" + second + b"\n" + third[:100])
    ended = run(str(log), "-c", str(new))
    assert ended.returncode == DIFFERENT
    reported = ended.stderr.splitlines()
    assert [line.split(": ")[1] for line in reported] == [f"{log}:{number}" for number in (2, 4, 5)]
    assert all(line.endswith("; skipped") for line in reported)
    assert ended.stdout.endswith("3 lines skipped\n")
    assert "2 messages, 1 would" in ended.stdout


def test_a_file_of_another_kind_is_not_reported_line_by_line(log: Path, new: Path) -> None:
    log.write_bytes(b"no json\n" * 1000)
    ended = run(str(log), "-c", str(new))
    assert ended.returncode == UNUSABLE
    *reported, last = ended.stderr.splitlines()
    assert len(reported) == 21
    assert last.endswith(f"{log} has no usable line; name the file that log.facts writes, not the daemon's log")
    assert "1000 lines skipped" in ended.stdout


def changed(old: str, new: str) -> bytes:
    line = facts_line(verdicts_of(LOGGING, MAIL[1])[-1], 0.0).decode()
    assert old in line
    return line.replace(old, new).encode()


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\xff\xfe", id="no UTF-8"),
        pytest.param(b"[" * 100_000, id="deep"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"{}", id="no facts"),
        pytest.param(changed('"action":"accept"', '"action":"maybe"'), id="an unknown action"),
        pytest.param(changed('"queue":"4A"', '"queue":4'), id="a number for the queue id"),
        pytest.param(changed('"by_all":true', '"by_all":"yes"'), id="text for a truth value"),
        pytest.param(changed('"helo":"mail.example.org"', '"helo":["x"]'), id="a list for a text"),
        pytest.param(changed('"rcpt":["ann@example.net",', '"rcpt":[1,'), id="a number in a list"),
        pytest.param(changed('"list":{"id":""}', '"list":"x"'), id="text for an object"),
        pytest.param(changed('"dkim":[]', '"dkim":[{"result":"none"}]'), id="a signature without a result"),
        pytest.param(changed('"header":{}', '"header":{"x-foo":"bar"}'), id="text for the values of a field"),
    ],
)
def test_a_broken_line_ends_in_a_message(line: bytes) -> None:
    with pytest.raises(BrokenLineError):
        read_line(line)


def test_facts_that_the_log_lacks_are_reported_once(log: Path, new: Path) -> None:
    lines = [json.loads(line) for line in log.read_bytes().splitlines()]
    del lines[0]["facts"]["list"], lines[0]["facts"]["spf"]["mailfrom"]["mechanism"]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    new.write_text(
        '[senderid]\nenabled = true\nfail = "reject"\n'
        '[[rule]]\nname = "foo"\nwhen = \'header("X-Foo") == "bar" || header("X-Foo") == ""\'\naction = "reject"\n'
    )
    ended = run(str(log), "-c", str(new))
    assert ended.stderr.splitlines() == [
        'assay policy try: header("x-foo") is not in the log for 3 of 3 messages; treated as absent',
        "assay policy try: list is not in the log for 1 of 3 messages; treated as absent",
        "assay policy try: senderid is not in the log for 3 of 3 messages; treated as absent",
        "assay policy try: spf.mailfrom.mechanism is not in the log for 1 of 3 messages; treated as absent",
    ]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"rcpt":["ann@example.net"', '"rcpt":["\\"Ann\\"@EXAMPLE.net."'),
        ('"address":"joe@example.org"', '"address":"JOE@example.ORG."'),
        ('"local_part":"joe"', '"local_part":"Joe"'),
        ('"address":"joe@example.org","fault"', '"address":"Joe@example.org","fault"'),
    ],
)
def test_addresses_in_another_spelling_in_the_log_are_normalized(old: str, new: str) -> None:
    when = (
        'rcpt.exists(one, one == "ann@example.net") && mail_from.address == "joe@example.org" '
        '&& mail_from.local_part == "joe" && from.address == "joe@example.org"'
    )
    judge = Judge.of(configuration({"rule": [rule("eom", when)]}))
    for line in (changed(old, old), changed(old, new)):
        assert judge.judge(read_line(line)).decision.by == "rule one"


def test_facts_from_a_newer_version_are_ignored(log: Path) -> None:
    one = json.loads(log.read_bytes().splitlines()[0])
    one["facts"]["spf"]["novelty"] = one["facts"]["novelty"] = [1]
    one["novelty"] = None
    assert Judge.of(configuration({})).judge(read_line(json.dumps(one).encode())).decision.by == ""


def test_text_from_a_stranger_cannot_control_the_terminal(log: Path, new: Path) -> None:
    log.write_bytes(log.read_bytes().replace(b'"queue":"4A"', b'"queue":"\\u001b[2J\\u202e"'))
    ended = run(str(log), "-c", str(new))
    assert "\\x1b[2J\\u202e accept -> reject" in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "reported"),
    [
        (("nowhere", "-c", "{new}"), NO_INPUT, "nowhere: No such file"),
        (("{log}", "-c", "nowhere"), CONFIG, "nowhere: cannot be read"),
        (("{log}",), 64, "-c/--config"),
        (("/", "-c", "{new}"), NO_INPUT, "/: Is a directory"),
    ],
)
def test_unreadable_input(log: Path, new: Path, arguments: tuple[str, ...], code: int, reported: str) -> None:
    ended = run(*(one.format(log=log, new=new) for one in arguments))
    assert ended.returncode == code
    assert reported in ended.stderr


def test_the_log_of_a_daemon_can_be_tried(tmp_path: Path, new: Path) -> None:
    log = tmp_path / "facts"
    with Daemon(tmp_path, ROWS, log={"facts": str(log)}) as daemon:
        with daemon.mta() as mta:
            greet(mta, BAD, helo=b"caf\xe9")
            send(mta, message("joe@example.org"))
        daemon.wait_for_log("queue=4ABC")
    ended = run(str(log), "-c", str(new))
    assert ended.returncode == DIFFERENT
    assert ended.stdout.startswith("4ABC accept -> reject at mail (spf.mailfrom.fail)")


def _values(kind: Any) -> st.SearchStrategy[Any]:
    """Facts of the declared types with some of them missing."""
    if is_tree(kind):
        return st.fixed_dictionaries({}, optional={name: _values(fact.kind) for name, fact in members(kind).items()})
    if element(kind) is not None:
        return st.lists(_values(element(kind)), max_size=3)
    words = st.sampled_from(["", "pass", "fail", "none", "reject", "example.org", BAD, "\x00", "\ud800", "ann@x"])
    return words if kind is str else st.booleans()


RULES = [
    rule(
        "connect", 'inside(client.address, "192.0.2.0/24") && iprev.names.exists(n, below(n, "example.org"))', "reject"
    ),
    rule("rcpt", 'rcpt.exists(one, one == "ann@x") || spf.mailfrom.by_all'),
    rule("eom", 'dkim.exists(one, one.aligned && "from" in one.fields) || header("X-Foo").startsWith("p")', "discard"),
]
HARD = Judge.of(
    configuration(
        {
            "rule": RULES,
            "arc": {"trusted_sealers": ("example.org",), "fail": "tag"},
            "dkim": {"required_fields": ("From",), "unsigned_fields": "reject", "none": "tag", "unaligned": "tag"},
            "dmarc": {"reject": "reject", "malformed_from": "reject", "list_traffic": "quarantine"},
            "iprev": {"names_in_mail_from": "any", "name_mismatch": "tempfail", "stage": "mail"},
            "spf": {"mailfrom": {"fail": "reject", "stage": "rcpt"}, "helo": {"fail": "tempfail", "stage": "helo"}},
        }
    )
)


@given(_values(Facts), st.dictionaries(st.sampled_from(["x-foo", "x-bar"]), st.lists(st.text(max_size=5), max_size=2)))
def test_any_facts_lead_to_a_decision(facts: dict[str, Any], header: dict[str, Any]) -> None:
    record = {"queue": "4A", "action": "accept", "by": "", "facts": {**facts, "header": header}}
    try:
        logged = read_line(json.dumps(record).encode())
    except BrokenLineError:
        return
    assert HARD.judge(logged).decision.action in list(Action)


def test_a_client_that_is_a_relay_now_is_not_refused_itself() -> None:
    helo = rule("helo", 'helo == "mail.example.org"')
    (logged,) = verdicts_of(LOGGING, MAIL[0])
    facts = read_line(facts_line(logged, 0.0))
    relays = {"internal": (), "relays": (MAIL[0][0],)}
    assert Judge.of(configuration(LOGGING | {"rule": [helo]})).judge(facts).stage is Stage.HELO
    behind = Judge.of(configuration(LOGGING | {"rule": [helo], "clients": relays})).judge(facts)
    assert behind.stage is Stage.EOM, "its rules are tried at the end of the message, as in the daemon"
