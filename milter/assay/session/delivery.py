# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole message played to a session, stage by stage, as an MTA would."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from assay.model.message import HeaderField
from assay.model.smtp import Address
from assay.policy import Stage
from assay.session.session import Session
from assay.session.transaction import Verdict

_CHUNK_OCTETS = 65_535  # of the body at a time, as libmilter passes it


class Delivery(Struct, frozen=True):
    """One message and its envelope, and what the MTA reports about the client.

    :param address: of the client; None where there is no network client.
    :param name: the client's name as the MTA resolved it, empty for unknown.
    :param mail_from: the reverse-path, with or without angle brackets.
    :param recipients: the forward-paths, with or without angle brackets.
    :param now: Unix time in seconds.
    """

    address: Address | None
    header: tuple[HeaderField, ...]
    body: bytes = b""
    name: str = ""
    helo: str = ""
    mail_from: str = "<>"
    recipients: tuple[str, ...] = ()
    mta_name: str = ""
    daemon: str = ""
    authenticated: str = ""
    queue_id: str = ""
    now: int = 0


def deliver(session: Session, delivery: Delivery, *, past_refusals: bool = False) -> list[Verdict]:
    """Play a message to a new session.

    :param past_refusals: go on after a refusal, to show what would follow.
    :returns: the verdicts of the stages that had one, in order. The last ends the message, unless `past_refusals`.
    """
    verdicts: list[Verdict] = []
    left = len(delivery.recipients)
    for verdict in _stages(session, delivery):
        if verdict is None:
            continue
        verdicts.append(verdict)
        if verdict.action.refuses and not past_refusals:
            left -= verdict.stage is Stage.RCPT
            if verdict.stage is not Stage.RCPT or not left:
                break
    session.close()
    return verdicts


def _stages(session: Session, delivery: Delivery) -> Iterator[Verdict | None]:
    yield session.connect(delivery.address, delivery.name, mta_name=delivery.mta_name, daemon=delivery.daemon)
    yield session.helo(delivery.helo)
    yield session.mail(delivery.mail_from, authenticated=delivery.authenticated, now=delivery.now)
    for path in delivery.recipients:
        yield session.rcpt(path)
    for field in delivery.header:
        session.header(field)
    session.end_of_header()
    for start in range(0, len(delivery.body), _CHUNK_OCTETS):
        session.body(delivery.body[start : start + _CHUNK_OCTETS])
    yield session.end_of_message(queue_id=delivery.queue_id, now=delivery.now)
