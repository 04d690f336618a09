# SPDX-License-Identifier: GPL-3.0-or-later
"""``assay probe``: play the MTA against a running daemon and print the message as the MTA would write it."""

from __future__ import annotations

import argparse
import os
import sys
import threading
from typing import Any

from assay.cli.mta import FilterOutcome, MilterError, Mta, apply
from assay.cli.options import add_envelope, read_message
from assay.cli.output import complain, say
from assay.config.endpoint import Endpoint, EndpointError
from assay.config.reach import refusal
from assay.model.message import Header, HeaderField, split_message
from assay.model.printable import escaped

#: To connect and to negotiate. A milter answers at once; other servers send nothing until they get a line.
_GREETING_SECONDS = 5.0
_NOTICE_SECONDS = 1.0  # until a line says what takes so long
_TIMEOUT_SECONDS = 300.0  # Postfix's milter_content_timeout
_MTA_NAME = "probe.invalid"  # RFC 6761, 6.4: a name that never exists
_QUEUE_ID = "PROBE"

EX_REFUSED = 1


def add_to(commands: Any) -> None:
    """Add the subcommand to the parser."""
    parser = commands.add_parser(
        "probe",
        help="play the MTA against a running daemon",
        description="Send a message through a milter socket and print it as the MTA would write it, or the SMTP reply "
        "that refuses it. The exit code is 0 for an accepted message, 1 for a refused, 75 for a deferred one.",
    )
    parser.add_argument("socket", metavar="SOCKET", help="inet:PORT@HOST, inet6:PORT@HOST or unix:PATH")
    add_envelope(parser)
    parser.add_argument("--mta-name", default=_MTA_NAME, metavar="NAME", help="the MTA's own name (macro j)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Send the message and print the outcome."""
    try:
        endpoint = Endpoint.parse(options.socket)
        header, body = split_message(read_message(options.message))
    except EndpointError as error:
        complain("probe", str(error))
        return os.EX_USAGE
    except OSError as error:
        complain("probe", f"{options.message}: {error.strerror}")
        return os.EX_NOINPUT
    notice = threading.Timer(_NOTICE_SECONDS, complain, ["probe", f"waiting for {endpoint} to answer as a milter"])
    notice.start()
    try:
        connection = endpoint.connect(_GREETING_SECONDS)
        mta = Mta(connection)
    except OSError as error:
        complain("probe", f"{endpoint}: {refusal(endpoint, error)}")
        return os.EX_UNAVAILABLE
    except MilterError as error:
        complain("probe", f"{endpoint} does not answer as a milter: {error}; write the value of milter.socket")
        return os.EX_UNAVAILABLE
    finally:
        notice.cancel()
    try:
        with mta:
            connection.settimeout(_TIMEOUT_SECONDS)
            return _converse(mta, options, header, body)
    except MilterError as error:
        complain("probe", f"{endpoint}: {error}")
        return os.EX_UNAVAILABLE


def _converse(mta: Mta, options: argparse.Namespace, header: Header, body: bytes) -> int:
    outcome = _send(mta, options, header, body)
    if outcome.code != 250:
        say([outcome.reply])
        return EX_REFUSED if outcome.code >= 500 else os.EX_TEMPFAIL
    if outcome.discarded:
        print("discarded: the client gets 250, and the MTA deletes the message", file=sys.stderr)
        return os.EX_OK
    if outcome.quarantine:
        print(escaped(f"quarantined: {outcome.quarantine}"), file=sys.stderr)
    for what, paths in (
        ("sender changed to", filter(None, [outcome.sender])),
        ("recipient removed", outcome.removed_recipients),
        ("recipient added", outcome.recipients),
    ):
        for path in paths:
            print(escaped(f"{what}: {path}"), file=sys.stderr)
    received = HeaderField(b"Received", f" by {options.mta_name} (assay probe) id {_QUEUE_ID}".encode())
    for field in apply(outcome.edits, header, received):
        sys.stdout.buffer.write(field.raw.replace(b"\r\n", b"\n"))
    sys.stdout.buffer.write(b"\n" + body.replace(b"\r\n", b"\n"))
    sys.stdout.buffer.flush()
    return os.EX_OK


def _send(mta: Mta, options: argparse.Namespace, header: Header, body: bytes) -> FilterOutcome:
    """Send all stages up to the first refusal."""
    login = {"auth_authen": options.login, "auth_type": "PLAIN"} if options.login else {}
    outcome = mta.connect("unknown", options.ip, j=options.mta_name, client_addr=str(options.ip))
    if outcome.code == 250:
        outcome = mta.helo(options.helo)
    if outcome.code == 250:
        outcome = mta.mail(options.mail_from.removeprefix("<").removesuffix(">"), **login)
    for path in options.rcpt or ["postmaster"]:
        if outcome.code == 250:
            outcome = mta.rcpt(path.removeprefix("<").removesuffix(">"), i=_QUEUE_ID)
    return mta.message(header, body, i=_QUEUE_ID) if outcome.code == 250 else outcome
