# SPDX-License-Identifier: GPL-3.0-or-later
"""Every door that a stranger's text leaves by: nothing steers a terminal, and nothing passes for a result of ours.

The doors are the two trace fields, the SMTP reply, the quarantine reason, the two lines of the log, and what the
command line prints. The texts are a HELO, a reverse-path, a client's name in the DNS, names of a signature, and an
explanation.
"""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from assay.cli.main import main
from assay.cli.output import say, say_object
from assay.cli.plain import plain
from assay.daemon.connection import Connection
from assay.daemon.journal import event, message_fields
from assay.log import pairs
from assay.model.printable import escaped
from assay.policy import Action
from assay.protocol import authres
from assay.session import Settings, Verdict
from assay.trace import Insert
from sending import BAD, ROWS, message
from talking import greet, policy_of, session, talk

#: NEL and CSI of C1, DEL, a right-to-left override and an isolate, ESC, BEL, line ends of every kind, octets that were
#: not UTF-8, and a surrogate that nobody can have sent.
STEERING = "\x85\x9b\x7f\u202e\u2066\x1b\x07\n\r\0\u2028\u2029\u061c\udc9b\udcff\ud800"
LIE = "dmarc=pass header.from=victim.example"
HOSTILE = [
    f"x; {LIE}",
    f'x"; {LIE}; x="',
    f"x\\; {LIE}",
    f"x) {LIE} (",
    f"x( {LIE}",
    f"x {LIE}",
    "dmarc=pass",
    "DMARC /1 =pass",
    "x action=accept by=nobody",
    "x; receiver=mx.example.net; identity=mailfrom",
    "x\r\n\tdmarc=pass",
    STEERING,
    "x" + STEERING + LIE,
]


def doors(text: str) -> Iterator[tuple[str, str]]:
    """A message with the text wherever a stranger may put it, through a session: (door, what comes out)."""
    rows = ROWS | {
        "66.2.0.192.in-addr.arpa": [["PTR", text]],
        "bad.example": [["TXT", ["v=spf1 exists:%{l}.%{h}.bad.example -all exp=why.bad.example"]]],
        "why.bad.example": [["TXT", ["%{l} %{h} %{o}"]]],
    }
    for action in (Action.QUARANTINE, Action.REJECT):
        policy = policy_of(
            {
                "spf": {"mailfrom": {"fail": action, "softfail": action, "permerror": action, "none": action}},
                "iprev": {"fail": action, "permerror": action},
                "replies": {"texts": {"spf.mailfrom": "{helo} {sender} {sender_domain} {reason} {author_domain}"}},
            }
        )
        one = session(Settings(policy=policy), rows=rows)
        greet(one, BAD, helo=text)
        quoted = "".join(f"={octet:02X}" for octet in text.encode("utf-8", "surrogatepass"))
        signatures = (
            f"DKIM-Signature: v=1; a=rsa-sha256; d=none.example; s=s; i={quoted}@none.example; h=from; bh=AA; b=AA",
            f"DKIM-Signature: v=1; a=rsa-sha256; d=none.example; s={_one_line(text)}; h=from; bh=AA; b=AA",
        )
        verdict = talk(one, message("a@none.example", *signatures), path=f'<"{text}"@bad.example>')
        yield from _out(verdict, action)


def _one_line(text: str) -> str:
    return "".join(one for one in text if one not in "\r\n").encode("utf-8", "replace").decode()


def _out(verdict: Verdict, action: Action) -> Iterator[tuple[str, str]]:
    assert verdict.action is action
    for edit in verdict.edits:
        if isinstance(edit, Insert):
            yield edit.name, edit.value
    if verdict.reply is not None:
        yield "reply", "\n".join(verdict.reply.lines)
    if action is Action.QUARANTINE:
        yield "quarantine", _quarantine_reason(verdict)
    yield "log", pairs(message_fields(verdict, waited=0.0))
    yield "event", event(verdict, 32473)
    out = io.StringIO()
    with redirect_stdout(out):
        say([verdict.decision.reason, verdict.assessment.client.helo])
        say_object(plain(verdict.assessment))
    yield "terminal", out.getvalue()


def _quarantine_reason(verdict: Verdict) -> str:
    class Context:
        reason = ""

        def quarantine(self, reason: str) -> None:
            self.reason = reason

        def addheader(self, *_: object) -> None:
            pass

        chgheader = addheader

    context = Context()
    connection = Connection.__new__(Connection)
    connection.leading_space = True
    connection.perform(context, verdict)
    return context.reason


def naive(door: str, text: str) -> None:
    """Read what came out as the simplest program would."""
    assert escaped(text, keep="\r\n\t" if door not in ("log", "event", "quarantine") else "") == text, door
    if door == "terminal":
        return
    unfolded = re.sub(r"\r\n[ \t]+", " ", text)
    if door == "Authentication-Results":
        _, *parts = (part.strip() for part in unfolded.split(";"))
        read = authres.parse(text.encode())
        assert isinstance(read, authres.AuthenticationResults)
        assert [part.split("=")[0] for part in parts] == [one.method for one in read.results]
        assert "dmarc=pass" not in unfolded.lower()
        assert len(re.findall(r"dmarc[\s/0-9]*=", unfolded, re.IGNORECASE)) == 2, "the result and the policy"
        assert unfolded.count("header.from=") == 1
        assert unfolded.count("(") == unfolded.count(")")
        assert unfolded.count('"') % 2 == 0
    elif door == "Received-SPF":
        for key in ("client-ip", "envelope-from", "helo", "receiver", "identity"):
            assert len(re.findall(rf"(?<![\w-]){key}\s*=", unfolded, re.IGNORECASE)) == 1
        assert unfolded.count(";") == len([part for part in unfolded.split("; ") if "=" in part])
        assert "dmarc=" not in unfolded.lower()
    elif door == "log":
        assert "dmarc=pass" not in text.lower()
        assert len(re.findall(r"(?:^|\s)action=", text)) == 1
        assert len(re.findall(r"(?:^|\s)by=", text)) == 1
    else:
        assert door in ("reply", "quarantine", "event")
        assert "dmarc=pass" not in text.lower()
        assert not (door != "event" and re.search(r";\s*(?:receiver|dmarc|from|header[a-z.]*)\s*=", text)), text


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_nothing_gets_out_that_is_misread(text: str) -> None:
    seen = set()
    for door, out in doors(text):
        seen.add(door)
        naive(door, out)
    assert {"Authentication-Results", "Received-SPF", "reply", "quarantine", "log", "event", "terminal"} <= seen


_WORDS = st.sampled_from(
    [*HOSTILE, *STEERING, *';"\\()=@. \t', "dmarc", "=pass", "header.from", "spf", "by", "/1", "a"]
)


@settings(database=None, deadline=None, max_examples=80)
@given(st.lists(_WORDS, max_size=8).map("".join))
@example("dmarc" + "1" * 300 + "=pass")
def test_no_mixture_gets_out_that_is_misread(text: str) -> None:
    for door, out in doors(text):
        naive(door, out)


@pytest.mark.parametrize("flags", [("--json",), ("--explain",), ()])
@pytest.mark.parametrize("character", [*STEERING, "é"])
def test_check_prints_whatever_is_in_the_dns(tmp_path: Path, flags: tuple[str, ...], character: str) -> None:
    """A client's name of octets beyond ASCII was the end of ``--json``."""
    octets = character.encode("utf-8", "surrogatepass" if character == "\ud800" else "surrogateescape")
    name = "".join(f"\\{octet:03d}" for octet in octets) + ".example."
    (tmp_path / "zone").write_text(f"66.2.0.192.in-addr.arpa. PTR a{name}\na{name} A 192.0.2.66\n")
    (tmp_path / "assay.toml").write_text(f'[dns]\nnameservers = "none"\nzone = "{tmp_path}/zone"\n')
    saved = tmp_path / "message"
    saved.write_bytes(message("joe@example.org"))
    arguments = [str(saved), "--ip", BAD, "--helo", f"x{character}", "--mail-from", f"{character}@example.org"]
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        assert main(["check", "-c", str(tmp_path / "assay.toml"), *arguments, *flags]) == 0
        sys.stdout.flush()
    printed = out.buffer.getvalue().decode()  # type: ignore[attr-defined]  # it is a BytesIO
    assert escaped(printed, keep="\n\t") == printed
    assert err.getvalue() == ""
    if flags == ("--json",):
        assert json.loads(printed)["assessment"]["iprev"]
