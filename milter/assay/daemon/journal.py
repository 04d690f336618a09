# SPDX-License-Identifier: GPL-3.0-or-later
"""One message, one line: a verdict in the log, in the words of the configuration and the headers.

There are two optional records of the same verdict: the facts as JSON, for ``assay policy try``, and for a refusal an
event in RFC 5424's structured data, for tools that watch logs.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from assay import log
from assay.daemon.keeper import Keeper
from assay.daemon.meter import Meter
from assay.daemon.seldom import Seldom
from assay.findings import Finding
from assay.inquiry import Grounds
from assay.log import appended
from assay.log.appended import AppendedFile
from assay.metrics import Page
from assay.model.edits import Remove
from assay.model.printable import marked, without_claims
from assay.model.wording import counted
from assay.policy import ACCEPTED, Action, Decision, Stage
from assay.policy.vocabulary import sound
from assay.session import Verdict

_UNPROVEN = Grounds.UNPROVEN
MAX_SHOWN = 5  # findings with one key; the header names them all


class FactsLog:
    """The file of facts, and how many messages lack there."""

    def __init__(self, file: AppendedFile, to: log.Log) -> None:
        self._file = file
        self._log = to
        self._seldom = Seldom()
        self._lost = 0

    def append(self, line: bytes) -> None:
        """Append a line. If that fails it is lost and counted: the verdict does not wait for a disk."""
        try:
            self._file.append(line)
        except OSError as error:
            self._lost += 1
            if self._seldom.due(time.monotonic()):
                self._log.warning(f"log.facts: {error.strerror}; the facts of messages are lost")
            return
        if self._lost:
            self._log.warning(f"log.facts: written again; the facts of {counted(self._lost, 'message')} were lost")
            self._lost = 0


class Journal(Struct, frozen=True):
    """Where verdicts are recorded.

    `facts` is the facts log, None if there is none; `enterprise` is the private enterprise number of the structured
    data, 0 for none; `meter` counts; `keeper` hands verdicts to the store, None if there is none.
    """

    log: log.Log
    facts: FactsLog | None = None
    enterprise: int = 0
    meter: Meter = msgspec.field(default_factory=lambda: Meter(Page.private()))
    keeper: Keeper | None = None
    unread: Seldom = msgspec.field(default_factory=Seldom)
    hazards: Seldom = msgspec.field(default_factory=Seldom)

    def enter(self, verdict: Verdict, waits: Mapping[str, float]) -> None:
        """Record a verdict.

        :param waits: seconds that the MTA waited for us, by stage.
        """
        self.meter.verdict(verdict)
        self.log.info("", message_fields(verdict, waited=waits.get(Stage.EOM, 0.0)))
        if self.keeper is not None:
            self.keeper.keep(verdict, time.time(), waits)
        received = verdict.assessment.unread_received
        if received and verdict.stage is Stage.EOM and self.unread.due(time.monotonic()):
            # SPF and IPREV were not evaluated: the field does not say who the client is.
            text = " ".join(received.decode("utf-8", "surrogateescape").split())
            queue = verdict.assessment.envelope.queue_id or "-"
            self.log.warning("relay does not report its client:", (("queue", queue), ("received", text)))
        if verdict.signed is not None and verdict.signed.hazards and self.hazards.due(time.monotonic()):
            queue = verdict.assessment.envelope.queue_id or "-"
            hazards = ",".join(verdict.signed.hazards)
            self.log.warning(
                "a signature may break in transit (docs/signing.md):", (("queue", queue), ("hazard", hazards))
            )
        if self.enterprise and verdict.action.refuses:
            self.log.info(event(verdict, self.enterprise))
        if self.facts is not None and verdict.stage is Stage.EOM and verdict.facts is not None:
            self.facts.append(facts_line(verdict, time.time()))


def open_journal(to: log.Log, facts: str, enterprise: int, meter: Meter, keeper: Keeper | None = None) -> Journal:
    """Open the records that the configuration names.

    :param facts: a path, empty for none.
    :raises ValueError: it cannot be opened; the message names it.
    """
    if not facts:
        return Journal(to, None, enterprise, meter, keeper)
    try:
        return Journal(to, FactsLog(AppendedFile(facts), to), enterprise, meter, keeper)
    except OSError as error:
        raise ValueError(f"log.facts: {facts}: cannot be written: {error.strerror}") from error


def check_facts(facts: str) -> None:
    """Check that a worker can open the facts log.

    :raises ValueError: it cannot be opened; the message names the path.
    """
    try:
        if facts:
            appended.check(facts)
    except OSError as error:
        fix = f"; create {os.path.dirname(facts)}" if error.errno == errno.ENOENT else ""
        raise ValueError(f"log.facts: {facts}: cannot be written: {error.strerror}{fix}") from error


def message_fields(verdict: Verdict, *, waited: float) -> tuple[log.Field, ...]:
    """The line of one message, or of a refusal before it."""
    assessment, decision = verdict.assessment, verdict.decision
    return (
        ("queue", assessment.envelope.queue_id or "-"),
        ("stage", verdict.stage if verdict.stage is not Stage.EOM else None),
        ("client", assessment.client.text or "-"),
        ("helo", assessment.client.helo or "-"),
        ("from", f"<{assessment.envelope.reverse_path.text}>"),
        ("rcpts", len(assessment.envelope.recipients) + assessment.envelope.further_recipients),
        ("rcpts.skipped", assessment.envelope.further_recipients or None),
        *(_evaluations(verdict) if not assessment.exempt else (("exempt", assessment.exempt),)),
        *_signing(verdict),
        *_sealing(verdict),
        *_rewriting(verdict),
        ("action", verdict.action),
        ("dry_run", _not_done(verdict)),
        ("reply", decision.reply),
        ("by", decision.by or None),
        ("reason", decision.reason if decision.reply is None and decision.reason else None),
        ("removed", sum([isinstance(edit, Remove) for edit in verdict.edits]) or None),
        ("ms", round(waited * 1000)),
    )


def _signing(verdict: Verdict) -> tuple[tuple[str, object], ...]:
    """What signed a message of ours, or why nothing did."""
    if verdict.signed is None:
        return ()
    return (
        ("sign", verdict.signed.word),
        ("why", verdict.signed.why or None),
        ("hazard", ",".join(verdict.signed.hazards) or None),
    )


def _sealing(verdict: Verdict) -> tuple[tuple[str, object], ...]:
    """What sealed a message that leaves again, or why nothing did."""
    if verdict.sealed is None:
        return ()
    return ("seal", verdict.sealed.word), ("seal.why", verdict.sealed.why or None)


def _rewriting(verdict: Verdict) -> Iterator[tuple[str, object]]:
    """The new sender of a forwarded message, or why it keeps its own; and the SRS addresses that were turned back."""
    for recipient, original in verdict.turned_back:
        yield "turned_back", f"<{recipient}> to <{original}>"
    if verdict.rewritten is not None:
        yield "srs", f"<{verdict.rewritten.sender}>" if verdict.rewritten.sender else "none"
        yield "srs.why", verdict.rewritten.why or None
        warnings = (verdict.rewritten.warning, verdict.rewritten.doubt)
        yield "srs.warning", "; ".join(filter(None, warnings)) or None


def _not_done(verdict: Verdict) -> str | None:
    """What would have been done: by the decision if all is a dry run, or by single keys and rules in dry run."""
    if verdict.decision is ACCEPTED:
        return None
    texts = [_would(decision) for decision in verdict.decision.watched]
    if verdict.decision.action is not verdict.action:
        texts.insert(0, str(verdict.decision.action))
    return "; ".join(texts) if texts else None


def _would(decision: Decision) -> str:
    text = f"{decision.action} by {decision.by}" if decision.by else str(decision.action)
    return f"{text}: {decision.reason}" if decision.action is Action.ACCEPT and decision.reason else text


def event(verdict: Verdict, enterprise: int) -> str:
    """A refusal as an RFC 5424 structured data element (6.3). Values are escaped as 6.3.3 requires."""
    assessment = verdict.assessment
    parameters = (
        ("client", assessment.client.text),
        ("helo", assessment.client.helo),
        ("from", assessment.envelope.reverse_path.text),
        ("stage", verdict.stage),
        ("action", verdict.action),
        ("by", verdict.decision.by),
        ("reply", verdict.reply or ""),
    )
    return f"[assay@{enterprise} " + " ".join(f'{name}="{_parameter(str(value))}"' for name, value in parameters) + "]"


def _parameter(value: str) -> str:
    """RFC 5424, 6.3.3: backslash, quote and bracket are escaped. What is not printable is marked."""
    cut = without_claims(marked(value[: log.MAX_VALUE_LENGTH]))
    return cut.replace("\\", "\\\\").replace('"', '\\"').replace("]", "\\]")


def facts_line(verdict: Verdict, now: float) -> bytes:
    """The facts and the decision, as one line of JSON."""
    record: dict[str, Any] = {
        "time": round(now, 3),
        "queue": verdict.assessment.envelope.queue_id,
        "action": verdict.decision.action,
        "by": verdict.decision.by,
        "facts": verdict.facts,
    }
    try:
        return msgspec.json.encode(record) + b"\n"
    except UnicodeEncodeError:  # octets that are not UTF-8
        return msgspec.json.encode(sound(msgspec.to_builtins(record))) + b"\n"


def _evaluations(verdict: Verdict) -> list[tuple[str, object]]:
    """The findings in the order of the stages; those with the same key in one entry."""
    entries: list[tuple[str, object]] = []
    author = verdict.assessment.author
    if author is not None:
        entries.append(("author", ",".join([domain.name for domain in author.domains]) or "-"))
    by_key: dict[str, list[Finding]] = {}
    for finding in sorted(verdict.findings, key=_place):
        if finding.key in by_key:
            by_key[finding.key].append(finding)
        else:
            by_key[finding.key] = [finding]
    resting: dict[str, dict[str, None]] = {}  # the keys of findings, by what they rest on
    for key, found in by_key.items():
        entries.append((key, ",".join([finding.word or finding.result for finding in found[:MAX_SHOWN]])))
        for finding in found:
            entries += finding.more
            if finding.grounds is not _UNPROVEN:
                word = "dnssec" if finding.grounds is Grounds.SECURE else "stale"
                resting.setdefault(word, {})[key] = None
    entries += [(word, ",".join(keys)) for word, keys in resting.items()]
    return entries


def _place(finding: Finding) -> int:
    return finding.stage.rank
