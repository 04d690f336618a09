# SPDX-License-Identifier: GPL-3.0-or-later
"""One message, explained as ``assay check --explain`` does: what was found, why, and what decided."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from assay.model.printable import escaped
from assay.model.wording import counted
from assay.store import search
from assay.store.rows import FindingRow
from assay.store.search import StoredMessage
from assay.web.explanation import explanation
from assay.web.parts import Cell, Code, Column, DataTable, Link, Moment, Pairs, Part, Remark, Several, Tone, WebPage
from assay.web.periods import word
from assay.web.site import NotFoundError, Site, WebQuery, address


def page(site: Site, query: WebQuery) -> WebPage:
    """One message, by its id."""
    identity = search.identity_of(query.item)
    stored = None if identity is None else search.message(site.store.database, identity)
    if stored is None:
        days = site.configuration.store.messages_days
        raise NotFoundError(f"there is no such message; they are kept for {counted(days, 'day')}")
    values = stored.values
    parts: list[Part] = [_decision(stored), _findings(stored.findings)]
    if values["further_findings"]:
        parts.append(Remark(f"{values['further_findings']} further findings were not kept."))
    parts += [_envelope(stored), *_policy(stored)]
    if stored.answers or stored.further_answers:
        parts.append(explanation(site, stored))
    parts += _again(stored)
    return WebPage(f"Message {values['queue'] or query.item}", tuple(parts))


def _decision(stored: StoredMessage) -> Pairs:
    values = stored.values
    rows: list[tuple[str, Cell]] = [("action", word(str(values["action"])))]
    rows += _given(values, ("decided by", "decided_by"), ("reason", "reason"), ("override", "override"))
    rows.append(("stage", values["stage"]))
    rows += _given(values, ("reply", "reply"), ("not judged", "exempt"), ("signed", "signed"), ("sealed", "sealed"))
    rows += _given(values, ("sender rewritten to", "rewritten"))
    watched = tuple(Several((word(action), by)) for action, by in stored.watched)
    if watched:
        rows.append(("dry run would have", Several(watched, apart=True)))
    return Pairs("decision", "Decision", tuple(rows))


def _findings(found: tuple[FindingRow, ...]) -> DataTable:
    rows: list[tuple[Cell, ...]] = [
        (
            each.key,
            word(each.result),
            f"{each.selector}._domainkey.{each.domain}" if each.selector else each.domain,
            "yes" if each.aligned else "",
            each.reason,
        )
        for each in found
    ]
    columns = (
        Column("method", "method"),
        Column("result", "result"),
        Column("about", "about"),
        Column("aligned", "aligned"),
        Column("reason", "why", wide=True),
    )
    return DataTable("findings", "Findings", columns, rows, empty="None: the message was not judged.")


def _envelope(stored: StoredMessage) -> Pairs:
    values = stored.values
    people = dict(stored.addresses)
    rows: list[tuple[str, Cell]] = [("time (UTC)", Moment(int(values["time"]))), ("host", values["host"])]
    client = str(values["client"])
    rows.append(("client", Link(client, address("/messages", client=client)) if client else "none"))
    rows += _given(values, ("its name", "client_name"), ("HELO", "helo"), ("direction", "direction"))
    sender = people.get("sender") or str(values["sender_domain"])
    rows.append(("sender", "<> (null)" if values["null_sender"] else sender))
    author = str(values["author_domain"])
    if author:
        rows.append(("author domain", Link(author, address("/messages", author=author))))
    if "author" in people:
        rows.append(("author", people["author"]))
    if "login" in people:
        rows.append(("login", people["login"]))
    recipients = tuple(text for role, text in stored.addresses if role == "recipient") or stored.recipient_domains
    rows.append(("recipients", Several((f"{values['recipient_count']}:", *recipients))))
    rows += _given(values, ("Message-ID", "message_id"), ("Subject", "subject"))
    waits = ", ".join(f"{stage} {milliseconds}" for stage, milliseconds in stored.waits)
    rows.append(("MTA waited (ms)", f"{values['milliseconds']}" + (f": {waits}" if waits else "")))
    return Pairs("envelope", "Message", tuple(rows))


def _policy(stored: StoredMessage) -> Iterator[Part]:
    values = stored.values
    if not values["record"]:
        return
    rows: list[tuple[str, Cell]] = [("record", Code(str(values["record"])))]
    rows += _given(values, ("asks for", "policy"), ("disposition in reports", "disposition"))
    reasons = tuple(f"{kind}: {comment}" if comment else kind for kind, comment in stored.reasons)
    if reasons:
        rows.append(("because", Several(reasons, apart=True)))
    yield Pairs("policy", "DMARC policy", tuple(rows))


def _again(stored: StoredMessage) -> Iterator[Part]:
    """How to ask again."""
    values = stored.values
    people = dict(stored.addresses)
    kept = "" if stored.answers else "The DNS answers were not kept (store.dns_answers). "
    if not values["client"]:
        yield Remark(f"{kept}It cannot be asked again: the MTA named no client address.", tone=Tone.PLAIN)
        return
    sender = "" if values["null_sender"] else people.get("sender") or f"postmaster@{values['sender_domain']}"
    words = ["assay", "check", "--explain", "--ip", str(values["client"]), "--helo", str(values["helo"])]
    command = shlex.join([*map(escaped, words), "--mail-from", escaped(sender), "MESSAGE"])
    yield Remark(f"{kept}To ask again, with the message in a file MESSAGE:", command, Tone.PLAIN)


def _given(values: dict[str, str | int | bool], *names: tuple[str, str]) -> Iterator[tuple[str, Cell]]:
    for title, column in names:
        if values[column] != "":
            yield title, values[column]
