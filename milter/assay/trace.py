# SPDX-License-Identifier: GPL-3.0-or-later
"""The trace header fields of one message: results as fields to insert, and forged fields to remove.

One Authentication-Results with every result (RFC 8601) and a Received-SPF for each SPF identity that was checked
(RFC 7208, 9.1). All of it is data: the filter performs the edits at end of message.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import attrgetter

from msgspec import Struct

from assay.assessment import Assessment
from assay.findings import Finding
from assay.model.edits import Change, Edit, Insert, Remove
from assay.model.message import Header, HeaderField
from assay.policy import Action, Decision, Edits
from assay.protocol import authres, dmarc, spf


class Forgeries(Struct, frozen=True):
    """Recognises fields that claim to be ours, and those that a stranger must not send, one field at a time."""

    authserv_ids: tuple[str, ...]

    def claims(self, field: HeaderField) -> bool:
        """Whether the field must be removed because only we may write it (RFC 8601, 5; RFC 7208, 9.1).

        Results of an unsupported version are removed too, whoever they name: RFC 8601, 5 has it as a MUST for mail from
        outside, because later readers might interpret such a field in any way.
        """
        match field.key:
            case b"authentication-results":
                return authres.claims(field.value, self.authserv_ids) or authres.is_of_another_version(field.value)
            case b"received-spf":
                return authres.forged_received_spf(field.value, self.authserv_ids)
            case _:
                return False


def remove_edits(header: Header, names: Iterable[str], forged: Iterable[tuple[str, int]]) -> tuple[Remove, ...]:
    """Edits that remove fields; for each name, the last occurrence first.

    MTAs renumber the fields of a name after each removal, so a removal from the top would hit the wrong field of the
    next one (CVE-2022-48521).

    :param header: the message's header as received.
    :param names: fields to remove, all of each name.
    :param forged: (name, occurrence) of single fields to remove.
    """
    pairs = {(name.lower(), occurrence): name for name, occurrence in forged}
    for name in names:
        pairs |= {(name.lower(), occurrence): name for occurrence in range(1, len(header.all(name)) + 1)}
    ordered = sorted(pairs.items(), key=lambda item: -item[0][1])
    return tuple(Remove(name, occurrence) for (_, occurrence), name in ordered)


def decision_edits(header: Header, edits: Edits) -> Iterator[Edit]:
    """The other edits of the header that a decision asks for: changes, then new fields."""
    if edits.subject_tag:
        yield _tagged_subject(header, edits.subject_tag)
    for name, value in edits.add:
        yield Insert(name, value)


def _tagged_subject(header: Header, tag: str) -> Edit:
    """Put the tag in front of the Subject, unless it is already there; add a Subject to a message without one."""
    subjects = header.all("Subject")
    if not subjects:
        return Insert("Subject", tag.rstrip())
    start = tag.encode()
    if subjects[0].unfolded.startswith(start):
        return Change("Subject", 1, subjects[0].value.lstrip(b" \t\r\n"))
    return Change("Subject", 1, start + subjects[0].value.lstrip(b" \t\r\n"))


class Wanted(Struct, frozen=True):
    """What the operator wants in the trace fields."""

    received_spf: bool = True
    received_spf_local_part: bool = True  #: the local part of the reverse-path, in Received-SPF
    arc_none: bool = False  #: arc=none for a message without a chain
    hide_none: bool = False  #: no result "none" of any method
    authenticated: bool = False  #: auth=pass for users who have logged in, whose mail is not judged
    single_spf: bool = False  #: one result of SPF: that of MAIL FROM, else that of HELO


def insert_edits(
    assessment: Assessment, found: Sequence[Finding], decision: Decision, authserv_id: str, wanted: Wanted
) -> tuple[Insert, ...]:
    """The fields that report the results, in the order in which to insert them: the last one ends up on top."""
    results = _results(found, decision, wanted)
    fields = [Insert("Authentication-Results", authres.render(authserv_id, results))]
    client, mail_from = assessment.client, assessment.spf_mail_from
    path = assessment.envelope.reverse_path.text
    if not wanted.received_spf_local_part and not (mail_from is not None and mail_from.uses_local_part):
        path = path.rpartition("@")[2] if "@" in path else ""  # RFC 7208, 9.2
    for evaluation in (assessment.spf_mail_from, assessment.spf_helo):
        if wanted.received_spf and evaluation is not None and client.address is not None:
            value = spf.render(
                evaluation,
                client_address=client.address,
                helo=client.helo,
                envelope_from=path,
                receiver=authserv_id,
            )
            fields.append(Insert("Received-SPF", value))
    return tuple(reversed(fields))


def auth_edits(login: str, authserv_id: str) -> tuple[Insert, ...]:
    """The field for mail of a user who has logged in, which is not judged (RFC 8601, 2.7.4)."""
    result = authres.MethodResult("auth", _PASS, properties=(authres.Property("smtp", "auth", login),))
    return (Insert("Authentication-Results", authres.render(authserv_id, [result])),)


#: Our choice, for one method: with as many as the default of dkim.max_signatures allows, a hostile field stays below
#: 40 KiB.
MAX_RESULTS = 20


def _results(all_found: Sequence[Finding], decision: Decision, wanted: Wanted) -> list[authres.MethodResult]:
    """All findings to report. For a method with more than `MAX_RESULTS`, those that passed come first."""
    found = [finding for finding in all_found if finding.written or (wanted.arc_none and finding.method == "arc")]
    if wanted.single_spf:
        first = next((finding for finding in found if finding.method == "spf"), None)
        found = [finding for finding in found if finding.method != "spf" or finding is first]
    if wanted.hide_none:
        found = [finding for finding in found if finding.result != _NONE]
    if len(found) > MAX_RESULTS:
        found = _bounded(found)
    return [_result(finding, decision) for finding in found]


def _bounded(found: Iterable[Finding]) -> list[Finding]:
    bounded: list[Finding] = []
    for _, group in groupby(found, key=attrgetter("method")):
        of_method = list(group)
        if len(of_method) > MAX_RESULTS:
            of_method = sorted(of_method, key=lambda finding: finding.result != _PASS)[:MAX_RESULTS]
        bounded += of_method
    return bounded


_PASS, _NONE = "pass", "none"


def _result(found: Finding, decision: Decision) -> authres.MethodResult:
    comment = found.comment
    if found.method == "dmarc" and (local := _local(found, decision)):
        comment = f"{comment}, {local}" if comment else local
    reason = found.reason if found.result != _PASS else ""
    return authres.MethodResult(found.method, found.result, reason, comment, found.properties)


#: What happens to a message that gets trace fields, as words of a comment.
_ACTS = {Action.ACCEPT: "accepted", Action.TAG: "tagged", Action.QUARANTINE: "quarantined"}


def _local(found: Finding, decision: Decision) -> str:
    """What was done here about a failure, whatever its owner asks for (RFC 9989, 5.4; RFC 8617, 7.2.1).

    An operator's rule is always reported here, because no other result would.
    """
    if found.result == dmarc.Result.FAIL and decision.action in _ACTS:
        return ": ".join(filter(None, (_ACTS[decision.action], decision.override)))
    return decision.override if decision.by.startswith("rule ") else ""
