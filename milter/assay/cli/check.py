# SPDX-License-Identifier: GPL-3.0-or-later
"""``assay check``: the daemon's verdict on a saved message, and with ``--explain`` the reasons."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from typing import Any

from assay.cli import outgoing, output
from assay.cli.opinion import Comparison, compare
from assay.cli.options import add_configuration, add_envelope, read_message
from assay.cli.plain import plain
from assay.cli.serve import read_configuration
from assay.config import Configuration, make_resolver, make_settings, make_trust
from assay.findings import Finding
from assay.inquiry import Answer, Question
from assay.model.edits import AddRecipient, Change, ChangeSender, Edit, Insert, Remove, RemoveRecipient
from assay.model.message import split_message
from assay.narration import decided, found, lookup
from assay.policy import Action, Decision, Stage
from assay.resolver import Allowance
from assay.session import Delivery, Session, Verdict, deliver

_RESULTS = "Authentication-Results"


def add_to(commands: Any) -> None:
    """Add the subcommand to the parser."""
    parser = commands.add_parser(
        "check",
        help="evaluate a saved message",
        description="Evaluate a saved message as the daemon would, and print the header fields it would write. The "
        "exit code is 0 for every verdict.",
    )
    add_envelope(parser, ip_required=False)
    parser.add_argument(
        "--outgoing",
        action="store_true",
        help="the message is yours: print what signs it, or why nothing does, and what an MTA may change afterwards; "
        "without --ip it comes from this host",
    )
    add_configuration(parser)
    parser.add_argument(
        "--explain",
        action="store_true",
        help="print each DNS question, answer and reason, the key or rule that decided, and dry-run decisions",
    )
    parser.add_argument(
        "--second-opinion",
        action="store_true",
        help="verify signatures and chain with dkimpy, read the written field with authres, and compare: each "
        "difference names the section that decides",
    )
    parser.add_argument("--json", action="store_true", help="print everything as one JSON object")
    parser.set_defaults(run=run, fail=parser.error)


def run(options: argparse.Namespace) -> int:
    """Evaluate and print."""
    configuration, _ = read_configuration(options.config)
    if options.ip is None and not options.outgoing:
        options.fail("the address of the client is required: write --ip, or --outgoing for a message of yours")
    try:
        message = read_message(options.message)
    except OSError as error:
        output.complain("check", f"{options.message}: {error.strerror}")
        return os.EX_NOINPUT
    asked: list[tuple[Question, Answer, float]] = []
    verdicts, comparisons = _evaluate(configuration, options, message, asked)
    ruling = _ruling(verdicts, len(options.rcpt))
    explanation = _explain(configuration, message, ruling) if options.outgoing else None
    if options.json:
        whole = _object(verdicts, ruling, asked)
        if explanation is not None:
            whole["sign"] = plain(explanation)
        if options.second_opinion:
            whole["second_opinion"] = [plain(comparison) for comparison in comparisons]
        output.say_object(whole)
        return os.EX_OK
    if options.explain:
        output.say((*_narrate(verdicts, asked), ""))
    if explanation is not None:
        output.say((*outgoing.narrate(explanation), ""))
    output.say(_edits(ruling))
    if options.second_opinion:
        output.say(
            ("", *(comparison.line for comparison in comparisons)) if comparisons else ("", "nothing to compare")
        )
    # Otherwise the output shows the reason already.
    if ruling.assessment.exempt and not options.explain and explanation is None:
        output.complain("check", f"not judged: {ruling.assessment.exempt}")
    return os.EX_OK


def _evaluate(
    configuration: Configuration,
    options: argparse.Namespace,
    message: bytes,
    asked: list[tuple[Question, Answer, float]],
) -> tuple[list[Verdict], list[Comparison]]:
    """The verdicts of all stages that had one, those after a refusal included, the message's last; and second opinions
    on request.
    """
    header, body = split_message(message)
    delivery = Delivery(
        options.ip,
        tuple(header),
        body,
        helo=options.helo,
        mail_from=options.mail_from,
        recipients=tuple(options.rcpt),
        authenticated=options.login,
        now=int(time.time()),
    )
    with make_resolver(configuration) as resolver:
        budget = configuration.dns.budget_seconds
        allowance = Allowance(budget)
        session = Session(
            make_settings(configuration),
            make_trust(configuration),
            lambda seconds=None: resolver.driver(seconds or budget, lambda *event: asked.append(event), allowance),
            waiting=allowance,
        )
        verdicts = deliver(session, delivery, past_refusals=True)
        if not options.second_opinion:
            return verdicts, []
        field = next(
            (edit.value for edit in verdicts[-1].edits if isinstance(edit, Insert) and edit.name == _RESULTS), ""
        )
        driver = resolver.driver(configuration.dns.budget_seconds)
        return verdicts, list(compare(verdicts[-1].assessment, body, field, driver))


def _explain(configuration: Configuration, message: bytes, ruling: Verdict) -> outgoing.Explanation:
    return outgoing.explain(make_settings(configuration), split_message(message)[0], ruling)


def _ruling(verdicts: list[Verdict], recipients: int) -> Verdict:
    """The verdict that ends the message: the first refusal that leaves no recipient, otherwise the last verdict."""
    for verdict in verdicts:
        if verdict.stage is Stage.RCPT:
            recipients -= verdict.action.refuses
        if verdict.action.refuses and (verdict.stage is not Stage.RCPT or recipients == 0):
            return verdict
    return verdicts[-1]


def _narrate(verdicts: list[Verdict], asked: list[tuple[Question, Answer, float]]) -> Iterator[str]:
    """All questions and answers in order, then each method's result and reason, then the decision at each stage."""
    for question, answer, seconds in asked:
        yield f"dns      {lookup(question, answer)} ({seconds * 1000:.0f} ms)"
    assessment = verdicts[-1].assessment
    if assessment.exempt:
        yield f"exempt   not judged: {assessment.exempt}"
    yield from map(_found, sorted(verdicts[-1].findings, key=lambda finding: finding.stage.rank))
    for verdict in verdicts:
        yield from _decided(verdict)


def _decided(verdict: Verdict) -> Iterator[str]:
    """The decision at one stage, and the decisions of keys and rules in dry run."""
    decision = verdict.decision
    where = f"at {verdict.stage}" if verdict.stage is not Stage.EOM else ""
    if verdict.stage is Stage.RCPT:
        where += f" of {', '.join(verdict.assessment.envelope.recipients)}"
    line = f"decision {_asked_for(decision, where)}"
    if decision.action is not verdict.action:
        line += " (dry run: not carried out)"
    yield line
    if decision.reply is not None:
        yield f"reply    {decision.reply}"
    for watched in decision.watched:
        yield f"watched  {_asked_for(watched, where)}"


def _asked_for(decision: Decision, where: str) -> str:
    return decided(decision.action, where, decision.by, decision.reason)


def _found(finding: Finding) -> str:
    return f"{finding.method:<8} {found(finding.result, finding.about, finding.reason, finding.grounds)}"


_ENDS = {Action.QUARANTINE: "quarantined", Action.DISCARD: "discarded"}


def _edits(verdict: Verdict) -> Iterator[str]:
    """The edits for people: those of fields and of the envelope that are there, then new fields from top to bottom."""
    if verdict.reply is not None:
        where = f" at {verdict.stage}" if verdict.stage is not Stage.EOM else ""
        yield f"refused{where}: {verdict.reply}"
        return
    if verdict.action not in (Action.ACCEPT, Action.TAG):
        yield f"{_ENDS[verdict.action]}: {verdict.decision.by}: {verdict.decision.reason}"
    for edit in verdict.edits:
        yield from _changed(edit)
    for edit in reversed(verdict.edits):
        if isinstance(edit, Insert):
            yield from f"{edit.name}: {edit.value}".split("\r\n")


def _changed(edit: Edit) -> Iterator[str]:
    """An edit of what is there already; nothing for a new field."""
    match edit:
        case Remove(name, occurrence):
            yield f"removed: {name}, number {occurrence}"
        case Change(name, occurrence, octets):
            text = octets.decode("utf-8", "surrogateescape")
            yield from f"changed: {name}, number {occurrence}: {text}".split("\r\n")
        case ChangeSender(path):
            yield f"sender changed to: <{path}>"
        case RemoveRecipient(path):
            yield f"recipient removed: <{path}>"
        case AddRecipient(path):
            yield f"recipient added: <{path}>"
        case Insert():
            pass


def _object(verdicts: list[Verdict], ruling: Verdict, asked: list[tuple[Question, Answer, float]]) -> dict[str, Any]:
    """All of it as plain values, with the names of the configuration and the headers."""
    return {
        "action": ruling.action,
        "stage": ruling.stage,
        "reply": str(ruling.reply) if ruling.reply else None,
        "decision": plain(ruling.decision),
        "earlier": [
            {"stage": verdict.stage, "action": verdict.action, "decision": plain(verdict.decision)}
            for verdict in verdicts[: verdicts.index(ruling)]
        ],
        "findings": [plain(finding) for finding in verdicts[-1].findings],
        "assessment": plain(verdicts[-1].assessment),
        "edits": [plain(edit) | {"edit": type(edit).__name__.lower()} for edit in ruling.edits],
        "dns": [
            {"name": question.name, "type": question.type, "ms": round(seconds * 1000, 1)} | plain(answer)
            for question, answer, seconds in asked
        ],
    }
