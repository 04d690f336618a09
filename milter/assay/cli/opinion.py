# SPDX-License-Identifier: GPL-3.0-or-later
"""``assay check --second-opinion``: compare assay with the libraries dkimpy and authres on a message.

If the two differ, the RFC decides, so each difference names the section. Nothing here changes a verdict.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct
from msgspec.structs import replace

from assay.assessment import Assessment
from assay.inquiry import Answer, Driver, Inquiry, Outcome, Question, RecordType
from assay.model.name import Domain, InvalidNameError
from assay.model.wording import counted
from assay.protocol import arc, authres, dkim
from assay.protocol.arc import second as second_arc
from assay.protocol.authres.second import second_reading
from assay.protocol.dkim import second as second_dkim


class Comparison(Struct, frozen=True):
    """One item that both evaluated. `agrees` is None if the library has no result; `section` decides a difference."""

    method: str
    about: str
    library: str
    ours: str
    theirs: str
    agrees: bool | None
    reason: str = ""
    section: str = ""

    @property
    def line(self) -> str:
        """The comparison for a person."""
        about = f"{self.about}: " if self.about else ""
        head = f"{self.method:<8} {about}"
        if self.agrees is None:
            return f"{head}assay says {self.ours}; {self.library} cannot say: {self.reason}"
        if self.agrees:
            both = f"both say {self.ours}"
            return head + (both if self.ours == self.theirs else f"{self.library} agrees with {self.ours}")
        reason = f": {self.reason}" if self.reason else ""
        return f"{head}assay says {self.ours}, {self.library} says {self.theirs}{reason}; {self.section} decides"


def compare(assessment: Assessment, body: bytes, field: str, driver: Driver) -> Iterator[Comparison]:
    """Get the second opinions on one message.

    :param body: as on the wire.
    :param field: the value of the Authentication-Results field that was written, empty for none.
    :param driver: gives the libraries the same DNS answers that assay had.
    """
    message = b"".join(each.raw for each in assessment.header) + b"\r\n" + body

    def find_text(name: str) -> bytes | None:
        answer = driver.start(_ask(name)).result()
        if answer.outcome is Outcome.TEMPFAIL:
            raise second_dkim.NoAnswerError
        return next((record for record in answer.records if isinstance(record, bytes)), None)

    fields = assessment.header.all("DKIM-Signature")
    for evaluation in assessment.dkim:
        position = next((at for at, signature in enumerate(fields) if signature is evaluation.field), None)
        if position is not None:
            yield _signature(evaluation, second_dkim.second_opinion(message, position, find_text), body)
    if assessment.arc is not None:
        yield _chain(assessment.arc, second_arc.second_opinion(message, find_text))
    if field:
        yield compare_field(field)


def _ask(name: str) -> Inquiry[Answer]:
    try:
        (answer,) = yield [Question(Domain.parse(name).name, RecordType.TXT)]
    except InvalidNameError:
        return Answer(Outcome.NXDOMAIN)
    return answer


def _signature(evaluation: dkim.Evaluation, opinion: second_dkim.Opinion[bool], body: bytes) -> Comparison:
    about = f"{evaluation.domain}/{evaluation.selector}" if evaluation.domain else ""
    theirs = {True: "pass", False: "fail", None: ""}[opinion.value]
    # The library has one result for everything but pass. A temporary error is not an opinion.
    good = evaluation.result is dkim.Result.PASS
    agrees = None if opinion.value is None else opinion.value is good
    if evaluation.result is dkim.Result.TEMPERROR:
        agrees = None
    section = "" if agrees is not False else second_dkim.section(opinion.reason if good else evaluation.reason)
    if agrees is False and b"\n" in body.replace(b"\r\n", b""):
        section = "RFC 6376, 5.3"  # dkimpy reads a bare line feed as CRLF; the signer should have converted it
    reason = opinion.reason if good or agrees is None else evaluation.reason
    return Comparison("dkim", about, "dkimpy", evaluation.result, theirs, agrees, reason, section)


def _chain(evaluation: arc.Evaluation, opinion: second_dkim.Opinion[arc.Result]) -> Comparison:
    agrees = None if opinion.value is None else opinion.value is evaluation.result
    reason = evaluation.reason if agrees is False and evaluation.result is not arc.Result.PASS else opinion.reason
    section = second_arc.SECTION if agrees is False else ""
    return Comparison("arc", "", "dkimpy", evaluation.result, str(opinion.value or ""), agrees, reason, section)


def compare_field(value: str) -> Comparison:
    """Whether authres reads our field as we do. Comments are for people and not compared."""
    meant = authres.parse(value.encode("utf-8", "surrogateescape"))
    found = second_reading(value)
    if isinstance(meant, authres.FieldFault):  # a bug in assay: it cannot read its own field
        return Comparison("authres", "", "authres", meant.reason, "", False, section="RFC 8601, 2.2")
    if isinstance(found, authres.FieldFault):
        section = "RFC 6532, 3.2" if not value.isascii() else "RFC 8601, 2.2"
        return Comparison("authres", "", "authres", _count(meant), found.reason, False, section=section)
    ours = [_essence(result) for result in meant.results]
    theirs = [_essence(result) for result in found.results]
    agrees = ours == theirs and meant.authserv_id.lower() == found.authserv_id
    # The library keeps the backslashes of a quoted-string.
    section = "" if agrees else "RFC 5322, 3.2.4" if "\\" in value else "RFC 8601, 2.2"
    return Comparison("authres", "", "authres", _count(meant), _count(found), agrees, _unlike(ours, theirs), section)


def _unlike(ours: Sequence[authres.MethodResult], theirs: Sequence[authres.MethodResult]) -> str:
    """What the library misses in the first result that differs; empty if all are the same."""
    for our, other in zip(ours, theirs, strict=False):
        if our != other:
            # The library omits a quoted-string that is not the last value of its result.
            lost = [f"{each.ptype}.{each.name}" for each in our.properties if each not in other.properties]
            return f"it does not read {', '.join(lost) or 'the reason'} of {our.method}={our.result}"
    return ""


def _essence(result: authres.MethodResult) -> authres.MethodResult:
    return replace(result, comment="", reason=" ".join(result.reason.split()))


def _count(read: authres.AuthenticationResults) -> str:
    return f"{counted(len(read.results), 'result')} of {read.authserv_id.lower()}"
