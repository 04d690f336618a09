# SPDX-License-Identifier: GPL-3.0-or-later
"""Which failure reports a record asks for (RFC 9989, 4.7, fo=), and the evidence that they need."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum

from assay.inquiry import Inquiry, Outcome, Question, RecordType
from assay.model.name import Domain
from assay.protocol import dkim, dmarc, spf
from assay.protocol.report.failure import AuthFailure, FailedSignature, PublishedSpf


class FailureKind(Enum):
    """What a failure report is about: DMARC, or one mechanism regardless of alignment."""

    DMARC = "dmarc"
    DKIM = "dkim"
    SPF = "spf"


#: RFC 9989, 4.7, fo=d and fo=s: "failed evaluation". Neither what the DNS did not answer nor a domain without SPF or a
#: signature that nobody can read is a failure.
_DKIM_FAILURES = frozenset((dkim.Result.FAIL, dkim.Result.POLICY, dkim.Result.PERMERROR))
_SPF_FAILURES = frozenset((spf.Result.FAIL, spf.Result.SOFTFAIL, spf.Result.PERMERROR))


def requested_failure_reports(
    evaluation: dmarc.Evaluation,
    signatures: Iterable[dkim.Result],
    mail_from: spf.Result | None,
    *,
    is_report_mail: bool,
) -> tuple[FailureKind, ...]:
    """The failure reports that a domain owner wants about one message.

    :param signatures: the result of each signature.
    :param mail_from: the result of SPF for the MAIL FROM identity, None where it was not checked.
    :param is_report_mail: whether the message is a report or a bounce itself: reports about reports never end (RFC
        9991, 5.1).
    """
    record = evaluation.record
    if record is None or not record.ruf or record.psd == "y" or is_report_mail:  # RFC 9991, 2: psd=y
        return ()
    results = frozenset(signatures)
    # What the DNS did not answer did not fail. It may have been aligned, had there been an answer.
    dkim_failed = not evaluation.dkim_aligned and dkim.Result.TEMPERROR not in results
    spf_failed = not evaluation.spf_aligned and mail_from is not spf.Result.TEMPERROR
    is_evaluated = evaluation.result in (dmarc.Result.PASS, dmarc.Result.FAIL)
    wanted = {
        FailureKind.DMARC: is_evaluated
        and ((dkim_failed and spf_failed and "0" in record.fo) or ((dkim_failed or spf_failed) and "1" in record.fo)),
        FailureKind.DKIM: "d" in record.fo and not results.isdisjoint(_DKIM_FAILURES),
        FailureKind.SPF: "s" in record.fo and mail_from in _SPF_FAILURES,
    }
    return tuple([kind for kind, is_wanted in wanted.items() if is_wanted])


def signature_to_report(
    signatures: Sequence[dkim.Evaluation], organizational_domain: Domain | None
) -> tuple[AuthFailure, FailedSignature] | None:
    """The failed signature that a report has to name, and how it failed: the first of an aligned domain.

    :param organizational_domain: the author's. What is at or below it is taken as aligned, whether or not adkim= is
        strict: RFC 9991, 4 asks for the fields where it is, and allows them elsewhere.
    :returns: None where no such signature failed.
    """
    for signature in signatures:
        domain = signature.domain
        if (
            domain is not None
            and signature.selector
            and signature.result in _DKIM_FAILURES
            and (organizational_domain is None or domain.is_at_or_below(organizational_domain))
        ):
            return auth_failure(signature), FailedSignature(domain.name, signature.selector, signature.identity)
    return None


def auth_failure(signature: dkim.Evaluation) -> AuthFailure:
    """How a signature failed, in the words of RFC 6591, 3.3."""
    if signature.reason.startswith("body hash"):
        return AuthFailure.BODYHASH
    return AuthFailure.REVOKED if signature.reason.startswith("key revoked") else AuthFailure.SIGNATURE


def published_spf(domain: Domain) -> Inquiry[PublishedSpf | None]:
    """The SPF record of a domain, for `FailureReport.spf_record` (RFC 6591, 3.2.6).

    :returns: None where the DNS did not answer; a record without text where there is none.
    """
    (answer,) = yield [Question(domain.name, RecordType.TXT)]
    texts = [text for text in answer.texts if spf.select([text]) is not None]
    if answer.outcome is Outcome.TEMPFAIL:
        return None
    return PublishedSpf(domain.name, texts[0].decode("ascii", "backslashreplace") if texts else "")
