# SPDX-License-Identifier: GPL-3.0-or-later
"""The XML of an aggregate report, as a stream of octets (RFC 9990, 3.1.1).

Memory does not grow with the number of records: they are taken one by one, and the XML goes out in pieces.

Much of the text is a stranger's: domains of a From field, selectors, reasons that quote a record. No text can end its
element, or be a character that XML does not have: what does not print is written as ``\\xNN`` or ``\\uNNNN``, and what
is longer than its bound is cut and ends in ``...``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from enum import Enum
from ipaddress import ip_address

from assay.model.name import Domain, InvalidNameError
from assay.model.printable import escaped
from assay.protocol.report.aggregate import (
    MAX_SIGNATURES,
    AggregateReport,
    Disposition,
    OverrideReason,
    OverrideType,
    PolicyPublished,
    ReportMetadata,
    ReportRecord,
)

NAMESPACE = "urn:ietf:params:xml:ns:dmarc-2.0"  # RFC 9990, 6.1

MAX_NAME = 255  # characters of a domain or selector: more than any that the DNS can carry (RFC 1035, 2.3.4)
MAX_TEXT = 1000  # characters of a comment, a human result or an error; our choice: RFC 9990, 3.1.5 asks for terseness
MAX_REASONS = 10  # of one record; our choice: each method and rule that overrides is one
MAX_ERRORS = 10  # our choice: a record has that many tags

CLOSING = "</feedback>\n"  # after the records

_PIECE = 1 << 16  # characters that are collected before they go out


class Schema(Enum):
    """The form of a report: of RFC 9990, or the older one of RFC 7489, appendix C.

    The older one has no namespace, because what the schema declares is not what anybody writes.
    """

    RFC9990 = "9990"
    RFC7489 = "7489"


def render(
    report: AggregateReport, records: Iterable[ReportRecord], schema: Schema = Schema.RFC9990
) -> Iterator[bytes]:
    """Write a report, in UTF-8.

    :param records: what was seen, at least one; read once.
    :raises ValueError: there are no records. RFC 9990, 3.1.1.2 requires one.
    """
    pieces: list[str] = []
    length = 0
    empty = True
    for record in records:
        if empty:
            pieces.append(opening(report, schema))
            empty = False
        piece = element(record, schema)
        pieces.append(piece)
        length += len(piece)
        if length >= _PIECE:
            yield "".join(pieces).encode()
            pieces.clear()
            length = 0
    if empty:
        raise ValueError("a report has at least one record")
    pieces.append(CLOSING)
    yield "".join(pieces).encode()


def opening(report: AggregateReport, schema: Schema) -> str:
    """All that comes before the records, in the order of RFC 9990, 3.1.1.2."""
    older = schema is Schema.RFC7489
    namespace = "" if older else f' xmlns="{NAMESPACE}"'
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<feedback{namespace}>\n"
        " <version>1.0</version>\n" + _metadata(report.metadata, older) + _policy(report.policy, older)
    )


def _metadata(metadata: ReportMetadata, older: bool) -> str:
    lines = [
        " <report_metadata>\n",
        f"  <org_name>{_text(metadata.org_name)}</org_name>\n",
        f"  <email>{_text(metadata.email)}</email>\n",
        _optional("  ", "extra_contact_info", metadata.extra_contact_info),
        f"  <report_id>{_text(metadata.report_id)}</report_id>\n",
        f"  <date_range><begin>{metadata.begin}</begin><end>{metadata.end}</end></date_range>\n",
    ]
    errors = metadata.errors[:MAX_ERRORS]
    if older:  # RFC 7489, appendix C: any number of error elements, and no generator
        lines += [_optional("  ", "error", error) for error in errors]
    else:
        lines += [
            _optional("  ", "error", "; ".join(error[:MAX_TEXT] for error in errors), MAX_TEXT * MAX_ERRORS),
            _optional("  ", "generator", metadata.generator),
        ]
    return "".join(lines) + " </report_metadata>\n"


def _policy(policy: PolicyPublished, older: bool) -> str:
    values = {
        "domain": _name(policy.domain),
        "discovery_method": policy.discovery_method.value,
        "p": policy.p.value,
        "sp": policy.sp.value,
        "np": policy.np.value,
        "pct": str(policy.pct),
        "fo": _text(policy.fo, MAX_NAME),
        "adkim": policy.adkim.value,
        "aspf": policy.aspf.value,
        "testing": "y" if policy.testing else "n",
    }
    left_out = ("discovery_method", "np", "testing") if older else ("pct",)
    elements = (f"  <{name}>{value}</{name}>\n" for name, value in values.items() if name not in left_out)
    return " <policy_published>\n" + "".join(elements) + " </policy_published>\n"


def element(record: ReportRecord, schema: Schema) -> str:
    """One record, in the order of RFC 9990, 3.1.1.7 to 3.1.1.14."""
    older = schema is Schema.RFC7489
    disposition = record.disposition
    if older and disposition is Disposition.PASS:  # RFC 7489, appendix C: only what was done to the message
        disposition = Disposition.NONE
    lines = [
        " <record>\n"
        "  <row>\n"
        f"   <source_ip>{_address(record.source_ip, older)}</source_ip>\n"
        f"   <count>{record.count}</count>\n"
        "   <policy_evaluated>\n"
        f"    <disposition>{disposition.value}</disposition>\n"
        f"    <dkim>{'pass' if record.dkim_aligned else 'fail'}</dkim>\n"
        f"    <spf>{'pass' if record.spf_aligned else 'fail'}</spf>\n"
    ]
    lines += [_reason(reason, older) for reason in record.reasons[:MAX_REASONS]]
    lines.append("   </policy_evaluated>\n  </row>\n  <identifiers>\n")
    lines.append(f"   <header_from>{_name(record.header_from)}</header_from>\n")
    if record.envelope_from is not None or older:  # RFC 7489, appendix C: REQUIRED
        lines.append(f"   <envelope_from>{_name(record.envelope_from or '')}</envelope_from>\n")
    lines.append("  </identifiers>\n  <auth_results>\n")
    lines += [
        "   <dkim>\n"
        f"    <domain>{_name(signature.domain)}</domain>\n"
        f"    <selector>{_name(signature.selector)}</selector>\n"
        f"    <result>{signature.result.value}</result>\n"
        + _optional("    ", "human_result", signature.human_result)
        + "   </dkim>\n"
        for signature in record.dkim[:MAX_SIGNATURES]
    ]
    spf = record.spf
    if spf is not None:
        human_result = "" if older else _optional("    ", "human_result", spf.human_result)
        lines.append(_spf(_name(spf.domain), spf.result.value, human_result))
    elif older:  # RFC 7489, appendix C: there is always one
        lines.append(_spf(_name(record.envelope_from or ""), "none", ""))
    lines.append("  </auth_results>\n </record>\n")
    return "".join(lines)


def _address(text: str, older: bool) -> str:
    """An address: as it is, or with all its groups (RFC 7489, appendix C: eight without ``::``)."""
    if older and "::" in text:
        with suppress(ValueError):  # what is not an address is written as it is
            text = ":".join(f"{int(group, 16):x}" for group in ip_address(text).exploded.split(":"))
    return _text(text, MAX_NAME)


def _spf(domain: str, result: str, human_result: str) -> str:
    return (
        f"   <spf>\n    <domain>{domain}</domain>\n    <scope>mfrom</scope>\n    <result>{result}</result>\n"
        f"{human_result}   </spf>\n"
    )


def _reason(reason: OverrideReason, older: bool) -> str:
    """A reason. A type that the schema does not know is ``other``, and the comment says what it would be."""
    kind, comment = reason.type, reason.comment
    if kind is (OverrideType.POLICY_TEST_MODE if older else OverrideType.SAMPLED_OUT):
        comment = f"{kind.value}: {comment}" if comment else kind.value
        kind = OverrideType.OTHER
    return f"    <reason>\n     <type>{kind.value}</type>\n{_optional('     ', 'comment', comment)}    </reason>\n"


def _optional(indent: str, name: str, text: str, limit: int = MAX_TEXT) -> str:
    """An element, if there is something in it."""
    return f"{indent}<{name}>{_text(text, limit)}</{name}>\n" if text else ""


def _name(text: str) -> str:
    """A domain or selector: lower-case A-labels, if it is one at all."""
    if not text.isascii():
        with suppress(InvalidNameError):
            text = Domain.parse(text).name
    return _text(text, MAX_NAME)


#: Printable ASCII without what XML gives a meaning to, which nearly every text is.
_PLAIN = re.compile(r"[ -%'-;=?-~]*")
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def _text(text: str, limit: int = MAX_TEXT) -> str:
    """A text as the content of an element (XML 1.0, 2.2 and 2.4), cut after `limit` of its characters."""
    if len(text) > limit:
        text = text[:limit] + "..."
    if _PLAIN.fullmatch(text):
        return text
    return escaped(text).translate(_ENTITIES)
