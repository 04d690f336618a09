# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole messages through a real daemon, byte for byte: what goes in and what comes out lies in ``golden/``.

``golden/README`` tells what is in a case, and how to add one.
"""

from __future__ import annotations

import json
import os
import signal
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from assay.cli import mta
from assay.model.message import Header, HeaderField, split_message
from assay.model.smtp import parse_address
from running import Daemon

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(path.parent for path in GOLDEN.glob("*/message"))
UPDATE = bool(os.environ.get("GOLDEN_UPDATE"))

MTA_NAME = "mx.example.net"
QUEUE_ID = "4GOLDEN"
#: What the MTA writes on top of what it received. Our fields have to end up above it.
RECEIVED = HeaderField(b"Received", b" by mx.example.net (the MTA's own field)")

ENVELOPE_KEYS = {"ip", "name", "helo", "mail_from", "rcpt", "authenticated", "parameters", "configuration"}

DaemonFor = Callable[[Path, dict[str, Any]], Daemon]


@pytest.fixture(scope="module")
def daemon_for(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonFor]:
    """One daemon for each distinct zone and configuration, for as long as the cases run."""
    started: dict[str, Daemon] = {}

    def start(zone: Path, configuration: dict[str, Any]) -> Daemon:
        key = json.dumps([str(zone), configuration], sort_keys=True)
        if key not in started:
            sections = {
                name: {option: tuple(value) if isinstance(value, list) else value for option, value in values.items()}
                for name, values in configuration.items()
            }
            sections["dns"] = {"zone": str(zone)}
            sections["milter"] = {"workers": 1} | sections.get("milter", {})
            started[key] = stack.enter_context(Daemon(tmp_path_factory.mktemp("daemon"), **sections))
        return started[key]

    with ExitStack() as stack:
        yield start
        for daemon in started.values():
            daemon.signal(signal.SIGTERM)  # the one at exit is then the second, which does not wait


@pytest.mark.parametrize("case", [pytest.param(path, id=path.name) for path in CASES])
def test_golden(case: Path, daemon_for: DaemonFor) -> None:
    envelope = tomllib.loads((case / "envelope.toml").read_text("utf-8"))
    assert envelope.keys() <= ENVELOPE_KEYS
    own_zone = case / "zone"
    zone = own_zone if own_zone.exists() else GOLDEN / "zone"
    daemon = daemon_for(zone, envelope.get("configuration", {}))
    result = _render(*_send(daemon, envelope, (case / "message").read_bytes()))
    expected = case / "expected"
    if UPDATE:
        expected.write_bytes(result)
    assert result.decode("utf-8", "backslashreplace") == expected.read_bytes().decode("utf-8", "backslashreplace")
    assert result == expected.read_bytes()
    assert "bug=" not in daemon.log()


def test_there_are_cases() -> None:
    assert len(CASES) > 20


def _send(daemon: Daemon, envelope: dict[str, Any], message: bytes) -> tuple[mta.FilterOutcome, Header, bytes, bytes]:
    """Deliver the message as an MTA would; what came of it, and the lines' end in the file."""
    header, body = split_message(message)
    sasl = {"auth_authen": envelope["authenticated"], "auth_type": "PLAIN"} if "authenticated" in envelope else {}
    with daemon.mta() as connection:
        connection.connect(envelope.get("name", "unknown"), parse_address(envelope["ip"]), j=MTA_NAME)
        connection.helo(envelope["helo"])
        connection.mail(envelope["mail_from"], *envelope.get("parameters", ()), **sasl)
        for path in envelope["rcpt"]:
            connection.rcpt(path, i=QUEUE_ID)
        outcome = connection.message(header, body, i=QUEUE_ID)
    line_end = b"\r\n" if message.partition(b"\n")[0].endswith(b"\r") else b"\n"
    return outcome, mta.apply(outcome.edits, header, RECEIVED), body, line_end


def _render(outcome: mta.FilterOutcome, header: Header, body: bytes, line_end: bytes) -> bytes:
    """The reply, the quarantine if it came to that, and, unless it is refused, the message as the MTA stores it."""
    lines = [outcome.reply]
    if outcome.quarantine:
        lines.append(f"quarantine: {outcome.quarantine}")
    head = "".join(f"{line}\n" for line in lines).encode()
    if outcome.code != 250:
        return head
    message = b"".join(one.raw for one in header) + b"\r\n" + body
    return head + b"\n" + message.replace(b"\r\n", line_end)
