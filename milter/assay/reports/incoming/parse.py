# SPDX-License-Identifier: GPL-3.0-or-later
"""Reports as parsedmarc reads them, as values of ours. Only this module imports it.

parsedmarc is told to be offline, and finds each address in its cache, so it looks nothing up: neither in the DNS nor in
its databases of networks. It runs in a process that cannot open a socket or a file (`confine`).
"""

from __future__ import annotations

import logging
import re
from datetime import UTC, datetime
from typing import Any

import parsedmarc
from parsedmarc.config import ParserConfig

from assay.model.printable import marked
from assay.model.smtp import parse_address
from assay.protocol.report.received import (
    AggregateRow,
    AppliedPolicy,
    PolicyReason,
    ReceivedAggregate,
    ReceivedFailure,
    ReceivedTls,
    ReportedSignature,
    ReportedSpf,
    ReportSender,
    TlsFailure,
    TlsPolicy,
)
from assay.reports.incoming.mail import Feedback
from assay.reports.incoming.scan import Scan
from assay.reports.incoming.texts import MAX_TEXT, UnreadableError, domain, text

MAX_COUNT = 10**12  # messages or sessions in one row, our choice: as many as in all of a report (`screen`)
MAX_SIGNATURES = 100  # of a row (RFC 9990, 3.1.3)
MAX_REASONS = 10  # of a row, and of SPF results, words and errors; our choice: most have one or none
MAX_POLICIES = 100  # of a TLS report, our choice: most have one
MAX_TLS_FAILURES = 10_000  # of a policy, our choice: one for each address that failed

_ALWAYS_HOURS = 1e9  # parsedmarc divides longer periods among days by guessing; the counts are to be the reporter's

#: What parsedmarc says, and how it is worded here. Its other messages are those of Python, for programmers.
_WORDS = (
    (re.compile(r"Missing [a-z ]+: '?([\w-]+)'?\]?"), r"\1 is missing"),
    (re.compile(r"Invalid policy type (.*)"), r"the policy type is \1"),
    (re.compile(r".*: line (\d+) column (\d+) \(char \d+\)"), r"the JSON is broken at line \1, column \2"),
    (re.compile(r"maximum recursion depth exceeded.*"), "it is nested too deeply"),
    (re.compile(r"Aggregate reports must not contain a DOCTYPE.*"), "the XML has a DOCTYPE, which no report has"),
)
_OTHERWISE = "a field is missing or has another form"

logging.getLogger("parsedmarc").disabled = True  # it warns of what strangers send


class _NoLookup(dict[str, dict[str, str]]):
    """A cache that has each address, with nothing about it."""

    def get(self, key: str, default: Any = None, with_age: bool = False) -> dict[str, str]:
        return {"ip_address": key}


_CONFIG = ParserConfig(
    offline=True,
    always_use_local_files=True,
    normalize_timespan_threshold_hours=_ALWAYS_HOURS,
    ip_address_cache=_NoLookup(),
)


def aggregate(xml: str, scanned: Scan) -> ReceivedAggregate:
    """An aggregate report.

    :param scanned: what it consists of.
    :raises UnreadableError: it is none, or not one of its records can be used.
    :raises MemoryError: there is not enough memory.
    """
    try:
        found: Any = parsedmarc.parse_aggregate_report_xml(xml, config=_CONFIG)
    except parsedmarc.ParserError as error:
        if scanned.sound and "'feedback'" in str(error):  # parsedmarc takes want of memory for broken XML, and goes on
            raise MemoryError from None
        raise _unreadable(error, "aggregate report") from None
    metadata, published = found["report_metadata"], found["policy_published"]
    policy_domain = domain(published["domain"])
    if not policy_domain:
        raise UnreadableError("the policy domain is not a domain name")
    rows: list[AggregateRow] = []
    complaint = ""
    for record in found["records"]:
        try:
            rows.append(_row(record))
        except UnreadableError as error:
            complaint = complaint or str(error)
    left_out = max(scanned.records, len(found["records"])) - len(rows)
    complaint = complaint or ("a record has not what it must have" if left_out else "")
    if not rows:
        raise UnreadableError(f"it has no record that can be used: {complaint or 'there is none'}")
    return ReceivedAggregate(
        text(metadata["org_name"]),
        text(metadata["org_email"]),
        text(metadata["report_id"]),
        policy_domain,
        _seconds(metadata["begin_date"]),
        _seconds(metadata["end_date"]),
        AppliedPolicy(**{tag: text(published.get(tag)) for tag in AppliedPolicy.__struct_fields__}),
        tuple(rows),
        text(metadata["generator"]),
        tuple(text(error) for error in metadata["errors"][:MAX_REASONS]),
        left_out,
        complaint,
    )


def _row(record: Any) -> AggregateRow:
    source = parse_address(text(record["source"]["ip_address"]))
    if source is None:
        raise UnreadableError("the source of a record is not an IP address")
    evaluated, identifiers, results = record["policy_evaluated"], record["identifiers"], record["auth_results"]
    return AggregateRow(
        str(source),
        _count(record["count"], "a record"),
        text(evaluated["disposition"]),
        text(evaluated["dkim"]) == "pass",
        text(evaluated["spf"]) == "pass",
        domain(identifiers.get("header_from")),
        domain(identifiers.get("envelope_from")),
        domain(identifiers.get("envelope_to")),
        tuple(
            PolicyReason(text(reason.get("type")), text(reason.get("comment")))
            for reason in evaluated["policy_override_reasons"][:MAX_REASONS]
            if isinstance(reason, dict)
        ),
        tuple(
            ReportedSignature(domain(found["domain"]), text(found["selector"]), text(found["result"]))
            for found in results["dkim"][:MAX_SIGNATURES]
        ),
        tuple(
            ReportedSpf(domain(found["domain"]), text(found["scope"]), text(found["result"]))
            for found in results["spf"][:MAX_REASONS]
        ),
    )


def tls(json: str) -> ReceivedTls:
    """A TLS report.

    :raises UnreadableError: it is none, or has a number or time that is none.
    """
    try:
        found: Any = parsedmarc.parse_smtp_tls_report_json(json)
    except parsedmarc.ParserError as error:
        raise _unreadable(error, "TLS report") from None
    policies = tuple(_tls_policy(policy) for policy in found["policies"][:MAX_POLICIES])
    if not policies:
        raise UnreadableError("the TLS report has no policy")
    return ReceivedTls(
        text(found["organization_name"]),
        text(found["contact_info"]),
        text(found["report_id"]),
        policies[0].domain,
        _seconds(found["begin_date"]),
        _seconds(found["end_date"]),
        policies,
    )


def _tls_policy(policy: Any) -> TlsPolicy:
    name = domain(policy["policy_domain"])
    if not name:
        raise UnreadableError("the policy domain is not a domain name")
    return TlsPolicy(
        name,
        text(policy["policy_type"]),
        _count(policy["successful_session_count"], "a policy", least=0),
        _count(policy["failed_session_count"], "a policy", least=0),
        tuple(
            TlsFailure(
                text(failure["result_type"]),
                _count(failure["failed_session_count"], "a failure", least=0),
                text(failure.get("sending_mta_ip")),
                text(failure.get("receiving_ip")),
                text(failure.get("receiving_mx_hostname")),
                text(failure.get("failure_reason_code")),
            )
            for failure in policy.get("failure_details", ())[:MAX_TLS_FAILURES]
        ),
    )


def failure(feedback: Feedback, sender: ReportSender) -> ReceivedFailure:
    """A failure report.

    :raises UnreadableError: it is none.
    """
    # parsedmarc reads the domain from the message only where the report does not have it
    sample = f"From: <postmaster@{feedback.author_domain}>\r\n\r\n" if feedback.author_domain else "From:\r\n\r\n"
    try:
        found: Any = parsedmarc.parse_failure_report(feedback.fields, sample, feedback.arrived, config=_CONFIG)
    except parsedmarc.ParserError as error:
        raise _unreadable(error, "failure report") from None
    about = domain(found["reported_domain"])
    source = parse_address(text(found["source"]["ip_address"]))
    if not about or source is None:
        raise UnreadableError("the failure report has no domain or no address of a client")
    arrival = _seconds(found["arrival_date_utc"])
    reporter = text(found.get("reporting_mta")).rpartition(";")[2].strip()
    return ReceivedFailure(
        sender.author or reporter,
        feedback.contact,
        feedback.report_id,
        about,
        arrival,
        arrival,
        str(source),
        tuple(map(text, found["auth_failure"][:MAX_REASONS])),
        tuple(map(text, found["authentication_mechanisms"][:MAX_REASONS])),
        text(found["delivery_result"]),
        text(found["authentication_results"]),
        domain(found["dkim_domain"]),
        text(found.get("dkim_selector")),
        feedback.author_domain,
        domain(text(found["original_mail_from"]).strip("<>").rpartition("@")[2]),
        feedback.message_id,
        _count(found.get("incidents", 1), "the report"),
    )


def _count(value: Any, where: str, *, least: int = 1) -> int:
    """:raises UnreadableError: not a number that can be true."""
    try:
        count = int(value) if isinstance(value, (int, str)) and not isinstance(value, bool) else -1
    except ValueError:
        count = -1
    if not least <= count <= MAX_COUNT:
        raise UnreadableError(f"the count of {where} is {text(value)[:30] or 'empty'}")
    return count


def _seconds(written: Any) -> int:
    """Unix time of a date. parsedmarc writes them in local time, which is UTC in its process."""
    try:
        moment = datetime.fromisoformat(text(written))
    except ValueError:
        raise UnreadableError("a date of the period is not a date") from None
    return int((moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp())


def _unreadable(error: Exception, kind: str) -> UnreadableError:
    if isinstance(error.__cause__, MemoryError):
        raise MemoryError
    said = marked(str(error).strip())[:MAX_TEXT]
    matches = ((pattern.fullmatch(said), words) for pattern, words in _WORDS)
    why = next((match.expand(words) for match, words in matches if match), _OTHERWISE)
    return UnreadableError(f"not a valid {kind}: {why}")
