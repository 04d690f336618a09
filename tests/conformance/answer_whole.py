# SPDX-License-Identifier: GPL-3.0-or-later
"""What assay answers to a published case for the whole filter (kinds ``e2e`` and ``attack``).

Each message goes over the milter protocol into a real daemon, and what is compared is what a mail server behind it
would read: the Authentication-Results that came out, read by ours and by an independent reader, which must agree.
The daemon has the real clock and the default configuration: no case of these kinds asks for another time.
"""

from __future__ import annotations

import base64
import json
import signal
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import authres as independent

from assay.cli.mta import FilterOutcome
from assay.model.message import split_message
from assay.model.smtp import parse_address
from assay.protocol import authres, dkim
from conformance.answer_dkim import BEST_FIRST
from conformance.cases import Case
from running import Daemon

AUTHSERV_ID = "mx.receiver.invalid"
#: The client of a case that names none: from TEST-NET-3 (RFC 5737), which no zone of a case knows.
NOBODY = "203.0.113.77"
RECIPIENT = "victim@receiver.invalid"
#: What a case may expect, and whose result in Authentication-Results answers it where the words differ.
KEYS = ("spf", "dkim", "dmarc", "policy", "arc", "iprev", "received_spf")
METHODS = {"policy": "dmarc"}
MAX_DAEMONS = 4  # one for each distinct DNS, because a daemon's cache outlives a case; the published suites have three


@dataclass(frozen=True)
class Answer:
    """What came out of the filter for one message."""

    outcome: FilterOutcome
    results: tuple[authres.MethodResult, ...]
    received_spf: tuple[str, ...]  #: the result words of the Received-SPF fields, from top to bottom
    log: str  #: the daemon's line about the message

    def word(self, key: str) -> str:
        """The answer to one key of a case's `expect`, empty where nothing was said."""
        one = self._deciding(key)
        match key:
            case "policy":
                return one.comment.removeprefix("p=").partition(",")[0] if one else ""
            case "received_spf":
                return self.received_spf[0] if self.received_spf else ""
            case "arc":
                return one.result if one else "none"  # a message without a chain gets no result
            case _:
                return one.result if one else ""

    def reason(self, key: str) -> str:
        """Why, where the filter says it."""
        one = self._deciding(key)
        return one.reason if one else ""

    def _deciding(self, key: str) -> authres.MethodResult | None:
        """The result that answers a key."""
        of = [one for one in self.results if one.method == METHODS.get(key, key)]
        match key:
            case "spf":
                # RFC 7208, 2.4: with a null reverse-path, HELO's result is that of MAIL FROM.
                of.sort(key=lambda one: one.properties[0].name == "mailfrom", reverse=True)
            case "dkim":
                of.sort(key=lambda one: (*BEST_FIRST, dkim.Result.NONE).index(dkim.Result(one.result)))
        return of[0] if of else None


class Filter:
    """Daemons for cases, one for each distinct DNS, and their answers. Use it in a ``with`` statement."""

    def __init__(self) -> None:
        self._daemons: dict[str, tuple[ExitStack, Daemon]] = {}
        self._answers: dict[str, Answer] = {}

    def __enter__(self) -> Filter:
        return self

    def __exit__(self, *_: object) -> None:
        for stack, daemon in self._daemons.values():
            daemon.signal(signal.SIGTERM)  # the one at exit is then the second, which does not wait
            stack.close()

    def answer(self, case: Case) -> Answer:
        """Send the case's message through; the same case a second time is answered from memory."""
        if case["id"] not in self._answers:
            self._answers[case["id"]] = _send(self._daemon(case["dns"]), case, f"Q{len(self._answers):04}")
        return self._answers[case["id"]]

    def words(self, case: Case) -> tuple[str, str]:
        """The answer to a case as words for all it expects, and the reasons."""
        answer = self.answer(case)
        keys = [key for key in KEYS if key in case["expect"]]
        reasons = [answer.reason(key) for key in keys if answer.reason(key)]
        return " ".join(f"{key}={answer.word(key)}" for key in keys), "; ".join(dict.fromkeys(reasons))

    def _daemon(self, dns: dict[str, Any]) -> Daemon:
        key = json.dumps(dns, sort_keys=True)
        if key not in self._daemons:
            if len(self._daemons) >= MAX_DAEMONS:
                oldest = next(iter(self._daemons))
                self._daemons.pop(oldest)[0].close()
            stack = ExitStack()
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            daemon = Daemon(Path(folder), dns, milter={"workers": 1}, identity={"authserv_id": AUTHSERV_ID})
            self._daemons[key] = stack, stack.enter_context(daemon)
        return self._daemons[key][1]


def _send(daemon: Daemon, case: Case, queue_id: str) -> Answer:
    header, body = split_message(base64.b64decode(case["message_b64"]))
    raw = case.get("mailfrom_raw_b64")
    path = base64.b64decode(raw)[1:-1] if raw else case["mailfrom"]
    with daemon.mta() as mta:
        mta.connect("", parse_address(case.get("ip") or NOBODY), j=AUTHSERV_ID)
        mta.helo(case["helo"])
        mta.mail(path)
        mta.rcpt(case.get("rcpt", RECIPIENT), i=queue_id)
        outcome = mta.message(header, body, i=queue_id)
    log = daemon.wait_for_log(f"queue={queue_id} ")
    written = {name: [v for _, n, v in reversed(outcome.edits) if n == name and v] for _, name, _ in outcome.edits}
    (value,) = written[b"Authentication-Results"]
    return Answer(
        outcome,
        _results(value),
        tuple(one.split()[0].decode().lower() for one in written.get(b"Received-SPF", ())),
        next(line for line in log.splitlines() if f"queue={queue_id} " in line),
    )


def _results(value: bytes) -> tuple[authres.MethodResult, ...]:
    """The results in the field, if both readers read the same out of it."""
    parsed = authres.parse(value)
    assert isinstance(parsed, authres.AuthenticationResults), parsed
    assert parsed.authserv_id == AUTHSERV_ID
    field = independent.all_features().parse(f"Authentication-Results:{value.decode()}".replace("\n", "\r\n"))
    assert field.authserv_id == AUTHSERV_ID
    ours = [
        (one.method, one.result, [(each.ptype, each.name, each.value) for each in one.properties])
        for one in parsed.results
    ]
    theirs = [
        (one.method, one.result, [(each.type, each.name, each.value) for each in one.properties])
        for one in field.results
    ]
    assert ours == theirs, f"{ours}\n{theirs}"
    return parsed.results
