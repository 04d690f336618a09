# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the time of a message goes: its events, one after another, in this process, without MTA, libmilter and load.

    stages.py NAMESERVER < messages

Reads pickled messages (`mail.Message`), looks up what they need once, and then sends them through
`assay.daemon.connection` again and again. Prints JSON: the microseconds of each event, the median of all messages.
"""

from __future__ import annotations

import gc
import json
import os
import pickle
import statistics
import sys
import time
from collections import defaultdict
from typing import Any

from mail import MTA, Message

from assay.config import Configuration, make_resolver, make_settings, make_trust
from assay.config.site import DnsSection, IdentitySection
from assay.daemon.connection import Connection, Service, SessionCount, actions, silent_steps
from assay.daemon.journal import Journal
from assay.daemon.worker import COLLECT, session_maker
from assay.log import Log
from assay.policy import OnError

_PASSES = 20
_EVENTS = {b"From": "From", b"DKIM-Signature": "DKIM-Signature"}


class Context:
    """The part of pymilter's context that is used."""

    def __init__(self, message: Message) -> None:
        self.edits: list[tuple[str, str]] = []
        self._macros = {"j": MTA, "i": "4FxyzABC", "{client_addr}": message.domain.address, "{daemon_name}": "smtpd"}

    def setsymlist(self, _stage: int, _names: str) -> None:
        """Nothing to do."""

    def getsymval(self, name: str) -> str | None:
        """A macro's value."""
        return self._macros.get(name)

    def addheader(self, name: str, value: str, _index: int) -> None:
        """Note a field."""
        self.edits.append((name, value))


def main() -> None:
    messages: list[Message] = pickle.load(sys.stdin.buffer)  # noqa: S301  # of the benchmark itself
    configuration = Configuration(identity=IdentitySection(authserv_id=MTA), dns=DnsSection(nameservers=(sys.argv[1],)))
    settings, trust = make_settings(configuration), make_trust(configuration)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    with make_resolver(configuration) as resolver:
        service = Service(
            new_session=session_maker(settings, trust, resolver, configuration.dns.budget_seconds),
            no_reply=silent_steps(settings),
            actions=actions(settings),
            on_error=OnError.TEMPFAIL,
            on_no_client=OnError.TEMPFAIL,
            journal=Journal(Log(lambda _level, text: _write(nowhere, text))),
            sessions=SessionCount(),
        )
        spent: dict[str, list[float]] = defaultdict(list)
        for _ in range(2):  # the answers, and the memory of evaluations
            for message in messages:
                _send(service, message, defaultdict(list))
        gc.freeze()
        gc.set_threshold(*COLLECT)
        for _ in range(_PASSES):
            for message in messages:
                _send(service, message, spent)
    print(json.dumps({event: statistics.median(seconds) * 1e6 for event, seconds in spent.items()}))


def _write(descriptor: int, text: str) -> None:
    os.write(descriptor, text.encode())


def _send(service: Service, message: Message, spent: dict[str, list[float]]) -> None:
    """One session with one message; fields that are not evaluated count together."""
    context: Any = Context(message)
    at = time.perf_counter()
    taken: dict[str, float] = defaultdict(float)

    def passed(event: str) -> None:
        nonlocal at
        now = time.perf_counter()
        taken[event] += now - at
        at = now

    connection = Connection(service)
    connection.negotiate(context, [0x1FF, 0x1FFFFF, 0, 0])
    connection.connect(context, message.domain.host, 2, (message.domain.address, 40000))
    passed("connect")
    connection.helo(context, message.domain.host)
    passed("HELO")
    connection.mail(context, f"<{message.sender}>".encode(), b"SIZE=4096")
    connection.rcpt(context, b"<user0@bench.example>")
    passed("MAIL, RCPT")
    for name, value in message.fields:
        connection.header(context, name.decode(), value.replace(b"\r\n", b"\n"))
        passed(_EVENTS.get(name, "other fields"))
    connection.end_of_header(context)
    passed("end of header")
    connection.body(context, message.body)
    passed("body")
    connection.end_of_message(context)
    passed("end of message")
    connection.session.close()
    passed("close")
    if not any("dmarc=pass" in value and "dkim=pass" in value for _, value in context.edits):
        raise SystemExit(f"stages: not the right result: {context.edits}")
    for event, seconds in taken.items():
        spent[event].append(seconds)


if __name__ == "__main__":
    main()
