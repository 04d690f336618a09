# SPDX-License-Identifier: GPL-3.0-or-later
"""From a verdict to what a failure report is made of, if the author's domain asks for one by ruf= and fo=.

Of several kinds of report that a record asks for, a message gets one: that about DMARC, which says all (RFC 9991, 3).
"""

from __future__ import annotations

from msgspec.structs import replace

from assay.findings import Finding
from assay.model.message import Header
from assay.model.name import Domain
from assay.policy import Action
from assay.protocol import authres, dmarc, report, spf
from assay.protocol.report import AuthFailure, DeliveryResult, FailedSignature, FailureKind
from assay.session import Verdict
from assay.store.from_verdict import Keeping
from assay.store.rows import MAX_TEXT, IncidentRow, MessageRow

MAX_RESULTS = 2000  # characters of the Authentication-Results in a report, our choice: it has one result

#: RFC 6591, 3.2.2. A tagged message was delivered, and the report does not say to where.
_DELIVERY = {
    Action.ACCEPT: DeliveryResult.DELIVERED,
    Action.TAG: DeliveryResult.DELIVERED,
    Action.QUARANTINE: DeliveryResult.POLICY,
    Action.DISCARD: DeliveryResult.POLICY,
    Action.REJECT: DeliveryResult.REJECT,
}


def with_incident(verdict: Verdict, row: MessageRow, keeping: Keeping) -> MessageRow:
    """A row with what a failure report about the message needs, or as it is if there is to be none."""
    judged = verdict.assessment.dmarc
    if judged is None or judged.record is None or not judged.record.ruf:
        return row
    if row.dmarc is None or not row.dmarc.disposition:  # not taken: it comes again
        return row
    incident = _incident(verdict, judged, row, keeping)
    return row if incident is None else replace(row, incident=incident)


def _incident(verdict: Verdict, judged: dmarc.Evaluation, row: MessageRow, keeping: Keeping) -> IncidentRow | None:
    assessment = verdict.assessment
    mail_from = assessment.spf_mail_from
    if mail_from is not None and mail_from.guessed:  # nobody published it
        mail_from = None
    kinds = report.requested_failure_reports(
        judged,
        [signature.result for signature in assessment.dkim],
        None if mail_from is None else mail_from.result,
        # RFC 9991, 5.1; RFC 3834, 2: nothing that a program sends is answered by a program.
        is_report_mail=row.report_mail or report.is_automatic(assessment.header),
    )
    for kind in kinds:
        of_dmarc = kind is FailureKind.DMARC
        organization = judged.organizational_domain or judged.policy_domain if of_dmarc else None
        signature = report.signature_to_report(assessment.dkim, organization)
        spf_domain = _spf_domain(mail_from, organization)
        match kind:
            case FailureKind.DMARC:
                failure, about = AuthFailure.DMARC, _finding(verdict, "dmarc")
            case FailureKind.DKIM:
                if signature is None:  # it does not even say whose it is
                    continue
                failure, about = signature[0], _finding(verdict, "dkim", signature[1])
            case _:
                failure, about = AuthFailure.SPF, _finding(verdict, "spf.mailfrom")
        fields, complete = _header(assessment.header, keeping.failure_octets)
        path = assessment.envelope.reverse_path.text
        return IncidentRow(
            failure.value,
            _DELIVERY.get(verdict.action, DeliveryResult.OTHER).value,
            authres.render(keeping.host, about)[:MAX_RESULTS],
            path if len(path) <= MAX_TEXT else None,
            fields,
            complete,
            _members(signature[1]) if signature is not None and kind is not FailureKind.SPF else None,
            spf_domain if kind is not FailureKind.DKIM else "",
        )
    return None


def _spf_domain(mail_from: spf.Evaluation | None, organization: Domain | None) -> str:
    """The domain whose SPF record did not let the message pass (RFC 9991, 4: SPF-DNS); empty if there is none.

    :param organization: it is at or below; None for any.
    """
    if mail_from is None or mail_from.domain is None or mail_from.result in (spf.Result.PASS, spf.Result.TEMPERROR):
        return ""
    if organization is not None and not mail_from.domain.is_at_or_below(organization):
        return ""
    return mail_from.domain.name[:MAX_TEXT]


def _finding(verdict: Verdict, key: str, signature: FailedSignature | None = None) -> list[authres.MethodResult]:
    """The result that a report is about and no other (RFC 6591, 3.1)."""
    for found in verdict.findings:
        if found.key == key and (signature is None or _is_about(found, signature)):
            return [authres.MethodResult(found.method, found.result, found.reason, found.comment, found.properties)]
    return []


def _is_about(found: Finding, signature: FailedSignature) -> bool:
    return found.about == f"{signature.domain}/{signature.selector}" and found.result != "pass"


def _members(signature: FailedSignature) -> tuple[str, str, str]:
    return signature.domain[:MAX_TEXT], signature.selector[:MAX_TEXT], signature.identity[:MAX_TEXT]


def _header(header: Header, most: int) -> tuple[tuple[tuple[bytes, bytes], ...], bool]:
    """The first fields, and whether these are all."""
    fields: list[tuple[bytes, bytes]] = []
    left = most
    for field in header:
        left -= len(field.name) + len(field.value) + len(":\r\n")
        if left < 0:
            return tuple(fields), False
        fields.append((field.name, field.value))
    return tuple(fields), True
