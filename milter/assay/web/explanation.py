# SPDX-License-Identifier: GPL-3.0-or-later
"""One message in the words of ``assay check --explain``, with each DNS answer that was kept at what asked for it.

Evaluators ask the same questions again when they get the same answers. So the checks of the client, of SPF and of DMARC
are made again, with the answers as they were kept: what one asks belongs to its finding. The steps of SPF are shown if
it comes to the same result for the same reason. It may not if answers were left out, or if the limits are others now.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from assay import narration
from assay.config.build import spf_limits
from assay.inquiry import MX, Answer, Inquiry, Outcome, Question, Record, RecordType, solve
from assay.model.name import Domain, InvalidNameError, ReversePath
from assay.model.smtp import parse_address
from assay.narration import Line, lookup, spf_lines
from assay.policy import Stage
from assay.protocol import dmarc, iprev, spf
from assay.store.rows import MAX_TEXT, AnswerRow, FindingRow
from assay.store.search import StoredMessage
from assay.web.parts import Cell, Column, DataTable, Indented, Several
from assay.web.site import Site

_COLUMNS = (
    Column("text", "what was found, and what the DNS answered", wide=True),
    Column("ttl", "TTL (s)", numeric=True),
    Column("milliseconds", "waited (ms)", numeric=True),
    Column("method", ""),
    Column("level", ""),
    Column("name", ""),
    Column("type", ""),
    Column("outcome", ""),
    Column("answer", ""),
    Column("marks", ""),
)
_NOT_KEPT = Answer(Outcome.TEMPFAIL, reason="not kept")
#: In the order in which results become known, as ``assay check --explain`` has them; all others come after.
_ORDER = ("iprev", "spf.helo", "spf.mailfrom")

_TYPES = frozenset(map(str, RecordType))
_OUTCOMES = frozenset(outcome.value for outcome in Outcome)

_Kept = Mapping[Question, AnswerRow]


class _Replay(Struct, frozen=True):
    """What a check asks, and its steps if it reports any."""

    asked: tuple[Question, ...] = ()
    lines: tuple[Line, ...] = ()


def explanation(site: Site, stored: StoredMessage) -> DataTable:
    """The findings, each with its answers, and the decision."""
    kept = {Question(each.name.lower(), RecordType(each.type)): each for each in stored.answers if _known(each)}
    table = _Table(kept)
    replays = [(each, _replay(site, stored, each, kept)) for each in sorted(stored.findings, key=_rank)]
    for finding, replay in replays:
        table.add(finding, replay)
    table.add_rest()
    table.add_decision(stored)
    note = "As it was then. An answer in the cache takes no time."
    if stored.further_answers:
        note += (
            f" {stored.further_answers:,} answers are left out: too many, or they may have the sender's local part in "
            "them."
        )
    return DataTable("explanation", "Explained", _COLUMNS, table.rows, note=note)


class _Table:
    """The rows so far, and which answers are in them."""

    def __init__(self, kept: _Kept) -> None:
        self.kept = kept
        self.rows: list[tuple[Cell, ...]] = []
        self._shown: set[Question] = set()

    def add(self, finding: FindingRow, replay: _Replay) -> None:
        """A finding, the steps of its check, and the answers that it asked for."""
        about = finding.domain
        if finding.selector:
            about = f"{finding.domain}/{finding.selector}"
        elif finding.method == "spf" and about:
            about = f"{finding.key.removeprefix('spf.')} {about}"
        text = f"{finding.method} {narration.found(finding.result, about, finding.reason)}"
        self._say(finding.key, 0, text)
        for line in replay.lines:
            answer = None if line.question is None else self.kept.get(line.question)
            if answer is None or line.question is None:
                self._say(finding.key, line.level + 1, line.text + line.limits)
            else:
                self._answer(finding.key, line.level + 1, line.question, answer, line.text, line.limits)
        shown = {line.question for line in replay.lines}
        for question in replay.asked:
            if question in self.kept and question not in shown:
                self._answer(finding.key, 1, question, self.kept[question], "")

    def add_rest(self) -> None:
        """The answers that no finding asked for."""
        rest = [question for question in self.kept if question not in self._shown]
        if rest:
            self._say("", 0, "asked in advance, or for what has no finding")
        for question in rest:
            self._answer("", 1, question, self.kept[question], "")

    def add_decision(self, stored: StoredMessage) -> None:
        """What was decided, and what keys and rules in dry run would have."""
        values = stored.values
        if values["exempt"]:
            self._say("", 0, f"exempt not judged: {values['exempt']}")
        where = f"at {values['stage']}" if values["stage"] != Stage.EOM else ""
        by, reason = str(values["decided_by"]), str(values["reason"])
        self._say("", 0, f"decision {narration.decided(str(values['action']), where, by, reason)}")
        if values["reply"]:
            self._say("", 0, f"reply {values['reply']}")
        for action, rule in stored.watched:
            self._say("", 0, f"watched {narration.decided(action, where, rule, '')}")

    def _say(self, method: str, level: int, text: str) -> None:
        self.rows.append((Indented(level, text), None, None, method, level, None, None, None, None, None))

    def _answer(self, method: str, level: int, question: Question, row: AnswerRow, text: str, limits: str = "") -> None:
        text = text or lookup(question, _answer(row))
        again = question in self._shown
        self._shown.add(question)
        marks = ", ".join(mark for mark, holds in (("secure", row.secure), ("expired", row.stale)) if holds)
        cells: tuple[Cell, ...] = (
            Indented(level, f"{text}{' (as above)' if again else ''}{limits}"),
            row.ttl if row.records and not again else None,
            None if again else row.milliseconds,
            method,
            level,
            row.name,
            row.type,
            row.outcome,
            Several(row.records) if row.records else row.reason,
            marks,
        )
        self.rows.append(cells)


def _known(row: AnswerRow) -> bool:
    """Whether its words are ours: a row may come from a broker."""
    return row.type in _TYPES and row.outcome in _OUTCOMES


def _rank(finding: FindingRow) -> int:
    return _ORDER.index(finding.key) if finding.key in _ORDER else len(_ORDER)


def _replay(site: Site, stored: StoredMessage, finding: FindingRow, kept: _Kept) -> _Replay:
    if not kept:
        return _Replay()
    match finding.method:
        case "iprev":
            address = parse_address(str(stored.values["client"]))
            return _Replay() if address is None else _Replay(_asked(iprev.evaluate(address), kept)[1])
        case "spf":
            return _spf(site, stored, finding, kept)
        case "dkim" if finding.selector:
            return _Replay((Question(f"{finding.selector}._domainkey.{finding.domain}".lower(), RecordType.TXT),))
        case "arc":  # whose keys are those of sealers, which are not among the findings
            signed = {f"{each.selector}._domainkey.{each.domain}".lower() for each in stored.findings}
            return _Replay(tuple(each for each in kept if "._domainkey." in each.name and each.name not in signed))
        case "dmarc":
            return _Replay(_dmarc(str(stored.values["author_domain"]), kept))
        case _:
            return _Replay()


def _spf(site: Site, stored: StoredMessage, finding: FindingRow, kept: _Kept) -> _Replay:
    """A check of SPF, made again."""
    values = stored.values
    address = parse_address(str(values["client"]))
    if address is None:
        return _Replay()
    request = spf.Request(
        address,
        str(values["helo"]),
        receiver=site.host,
        now=int(values["time"]) // 1000,
        limits=spf_limits(site.configuration.spf),
        best_guess=site.configuration.spf.best_guess.encode(),
    )
    if finding.key == "spf.helo":
        request = request.of_helo()
    else:
        sender = dict(stored.addresses).get("sender") or f"postmaster@{values['sender_domain']}"
        request = request.of_mail_from(ReversePath.parse("" if values["null_sender"] else f"<{sender}>"))
    narrator = spf.Narrator()
    evaluation, asked = _asked(spf.check(request, narrator), kept)
    if evaluation.reason[:MAX_TEXT] != finding.reason:
        return _Replay(asked)
    return _Replay(asked, tuple(spf_lines(narrator.steps, kept)))


def _dmarc(author: str, kept: _Kept) -> tuple[Question, ...]:
    """What the search for the policy asks, and the tree walks of other domains, for alignment (RFC 9989, 4.10)."""
    try:
        _, asked = _asked(dmarc.discover(Domain.parse(author)), kept)
    except InvalidNameError:
        asked = ()
    walked = tuple(each for each in kept if each.name.startswith("_dmarc.") and each.type is RecordType.TXT)
    return tuple(dict.fromkeys((*asked, *walked)))


def _asked(inquiry: Inquiry[Any], kept: _Kept) -> tuple[Any, tuple[Question, ...]]:
    """Run an inquiry with the answers that were kept. Returns its evaluation and what it asked."""
    asked: dict[Question, None] = {}

    def answer(question: Question) -> Answer:
        question = Question(question.name.lower(), question.type)
        asked[question] = None
        row = kept.get(question)
        return _NOT_KEPT if row is None else _answer(row)

    return solve(inquiry, answer), tuple(asked)


def _answer(row: AnswerRow) -> Answer:
    """The answer that a row is of, as far as it was kept."""
    found = [record for text in row.records if (record := _record(row.type, text)) is not None]
    return Answer(Outcome(row.outcome), tuple(found), row.secure, row.ttl, row.reason, row.stale)


def _record(kind: str, text: str) -> Record | None:
    match kind:
        case RecordType.TXT:
            return text.encode("utf-8", "surrogateescape")
        case RecordType.PTR:
            return text
        case RecordType.MX:
            preference, _, exchange = text.partition(" ")
            number = int(preference) if preference.isascii() and preference.isdecimal() else 0
            return MX(number, "" if exchange == "." else exchange)
        case _:
            return parse_address(text)
