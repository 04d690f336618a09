# SPDX-License-Identifier: GPL-3.0-or-later
"""The facts of an assessment, in the operator's words (`assay.policy.vocabulary`)."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from assay.assessment import Assessment
from assay.inquiry import Grounds
from assay.model.message import HeaderField
from assay.model.name import Domain, InvalidNameError, ReversePath
from assay.policy.addresses import normal_address, normal_mailbox
from assay.policy.standing import Direction
from assay.policy.vocabulary import (
    ArcFacts,
    AuthorFacts,
    ClientFacts,
    DmarcFacts,
    Facts,
    IprevFacts,
    ListFacts,
    SenderFacts,
    SenderIdFacts,
    SignatureFacts,
    SpfFacts,
    SpfIdentityFacts,
)
from assay.protocol import arc, authres, dkim, dmarc, iprev, senderid, spf

MAX_FIELD_OCTETS = 998  # of one field's value that a rule sees: a line (RFC 5322, 2.1.1)
MAX_TEXT = 998  # of one text of the envelope that a rule sees, our choice: an SMTP line is shorter (RFC 5321, 4.5.3.1)
#: Our choice: how many fields of a signature's h= are shown, each once. Real signatures name fewer than 50. Without a
#: bound a stranger controls the length of each line of the facts log.
MAX_FIELD_NAMES = 100
MAX_NAME_LENGTH = 64  # our choice; longer names in h= are omitted. The registry's longest is half as long.
MAX_FIELDS = 100  # of one name that a rule sees: real messages have fewer hops, and one name costs at most 100 kB


def facts(
    assessment: Assessment,
    *,
    header_names: Collection[str] = (),
    trusted_sealers: Collection[Domain] = (),
    exact: bool = False,
) -> Facts:
    """The facts of one message, as far as they are known at this stage.

    :param header_names: lower-case names of the fields that rules read.
    :param trusted_sealers: domains whose ARC seals the operator trusts.
    :param exact: local parts of addresses differ by case; otherwise they are in lower case.
    """
    client, envelope, header = assessment.client, assessment.envelope, assessment.header
    lists = header.all("List-Id")
    return Facts(
        ClientFacts(client.text, client.name[:MAX_TEXT], client.daemon),
        _OUTBOUND if assessment.exempt or envelope.authenticated else _INBOUND,
        client.helo[:MAX_TEXT],
        _sender(envelope.reverse_path, envelope.authenticated, exact),
        tuple([normal_address(path[:MAX_TEXT], exact=exact) for path in envelope.recipients]),
        _iprev(assessment.iprev),
        SpfFacts(_spf(assessment.spf_helo), _spf(assessment.spf_mail_from)),
        _author(assessment.author, assessment.dmarc, exact),
        tuple([_dkim(signature, assessment.dmarc) for signature in assessment.dkim]),
        _arc(assessment.arc, trusted_sealers, assessment.author),
        _sender_id(assessment.sender_id),
        _dmarc(assessment.dmarc),
        ListFacts(_text(lists[0])) if lists else _NO_LIST,
        {name: tuple([_text(field) for field in header.all(name)[:MAX_FIELDS]]) for name in header_names},
    )


#: The facts of methods that were not evaluated, made once.
_NO_IPREV, _NO_SPF, _NO_AUTHOR, _NO_ARC = IprevFacts(), SpfIdentityFacts(), AuthorFacts(), ArcFacts()
_NO_SENDER_ID, _NO_DMARC, _NO_LIST = SenderIdFacts(), DmarcFacts(), ListFacts()


_OUTBOUND, _INBOUND = Direction.OUTBOUND.value, Direction.INBOUND.value
_SECURE, _STALE = Grounds.SECURE, Grounds.STALE


def _text(field: HeaderField) -> str:
    """The value of a field on one line, bounded."""
    return field.unfolded[:MAX_FIELD_OCTETS].decode("utf-8", "replace")


def _sender(path: ReversePath, authenticated: str, exact: bool) -> SenderFacts:
    if path.mailbox is None:
        address = normal_address(path.text[:MAX_TEXT], exact=exact)
        return SenderFacts(address, authenticated=authenticated[:MAX_TEXT])
    local_part = path.mailbox.local_part
    return SenderFacts(
        normal_mailbox(path.mailbox, exact=exact)[:MAX_TEXT],
        (local_part if exact else local_part.lower())[:MAX_TEXT],
        path.mailbox.domain.name,
        authenticated[:MAX_TEXT],
    )


def _iprev(evaluation: iprev.Evaluation | None) -> IprevFacts:
    if evaluation is None:
        return _NO_IPREV
    return IprevFacts(
        str(evaluation.result),
        evaluation.name,
        tuple(evaluation.names),
        tuple(evaluation.confirmed),
        evaluation.reason,
        evaluation.grounds is _SECURE,
        evaluation.grounds is _STALE,
    )


def _spf(evaluation: spf.Evaluation | None) -> SpfIdentityFacts:
    if evaluation is None:
        return _NO_SPF
    return SpfIdentityFacts(
        str(evaluation.result),
        str(evaluation.domain or ""),
        evaluation.mechanism,
        evaluation.all_matched,
        evaluation.guessed,
        evaluation.reason,
        evaluation.explanation,
        evaluation.grounds is _SECURE,
        evaluation.grounds is _STALE,
    )


def _author(author: dmarc.Author | None, judged: dmarc.Evaluation | None, exact: bool) -> AuthorFacts:
    if author is None:
        return _NO_AUTHOR
    # Of several domains the one whose policy applies, so that rules and DMARC see the same domain.
    domain = author.domain or (judged.author_domain if judged is not None else None)
    return AuthorFacts(
        str(domain or ""),
        tuple([domain.name for domain in author.domains]),
        normal_address(author.mailbox[:MAX_TEXT], exact=exact),
        author.fault[:MAX_TEXT],
    )


def _dkim(evaluation: dkim.Evaluation, judged: dmarc.Evaluation | None) -> SignatureFacts:
    # SPF's identifier comes first. One that is aligned by aspf= may not be aligned by adkim=.
    identifiers = judged.aligned[judged.spf_aligned :] if judged is not None else ()
    aligned = evaluation.domain in {identifier.domain for identifier in identifiers}
    return SignatureFacts(
        str(evaluation.result),
        str(evaluation.domain or ""),
        evaluation.selector,
        evaluation.identity,
        evaluation.algorithm,
        evaluation.testing,
        aligned and evaluation.result is dkim.Result.PASS,
        _field_names(evaluation.signed_fields),
        evaluation.reason,
        evaluation.grounds is _SECURE,
        evaluation.grounds is _STALE,
    )


def _field_names(names: Sequence[str]) -> tuple[str, ...]:
    """The names in h=, each once, without names of excessive length."""
    return tuple([name for name in dict.fromkeys(names) if len(name) <= MAX_NAME_LENGTH][:MAX_FIELD_NAMES])


def _arc(evaluation: arc.Evaluation | None, trusted: Collection[Domain], author: dmarc.Author | None) -> ArcFacts:
    if evaluation is None:
        return _NO_ARC
    return ArcFacts(
        str(evaluation.result),
        tuple([str(sealer.domain) for sealer in evaluation.sealers]),
        _vouched(evaluation, trusted, author),
        evaluation.reason,
        evaluation.grounds is _SECURE,
        evaluation.grounds is _STALE,
    )


def _vouched(evaluation: arc.Evaluation, trusted: Collection[Domain], author: dmarc.Author | None) -> bool:
    """Whether sealers that are all trusted vouch for the author (RFC 8617, 7.2.1).

    A valid chain shows who handled the message, but nothing about its author. So the first sealer must have recorded
    that the message passed DMARC for the domain that is still its author's.
    """
    if evaluation.result is not arc.Result.PASS or author is None or author.domain is None:
        return False
    if not all(sealer.domain in trusted for sealer in evaluation.sealers):
        return False
    recorded = authres.parse(evaluation.sealers[0].payload.encode("utf-8", "surrogateescape"))
    if not isinstance(recorded, authres.AuthenticationResults):
        return False
    # A message has one DMARC result. If there are two, a stranger may have injected one through a value.
    results = [result for result in recorded.results if result.method == "dmarc"]
    return len(results) == 1 and results[0].result == "pass" and _names(results[0], author.domain)


def _names(result: authres.MethodResult, author_domain: Domain) -> bool:
    """Whether a recorded DMARC result is about this author domain."""
    for found in result.properties:
        if (found.ptype, found.name) == ("header", "from"):
            try:
                return Domain.parse(found.value.rpartition("@")[2]) == author_domain
            except InvalidNameError:
                return False
    return False


def _sender_id(evaluation: senderid.Evaluation | None) -> SenderIdFacts:
    if evaluation is None:
        return _NO_SENDER_ID
    return SenderIdFacts(
        str(evaluation.result),
        str(evaluation.domain or ""),
        evaluation.reason,
        evaluation.explanation,
        evaluation.grounds is _SECURE,
        evaluation.grounds is _STALE,
    )


def _dmarc(evaluation: dmarc.Evaluation | None) -> DmarcFacts:
    if evaluation is None:
        return _NO_DMARC
    return DmarcFacts(
        str(evaluation.result),
        str(evaluation.policy or ""),
        str(evaluation.disposition),
        str(evaluation.author_domain or ""),
        str(evaluation.organizational_domain or ""),
        evaluation.spf_aligned,
        evaluation.dkim_aligned,
        evaluation.reason,
        evaluation.grounds is _SECURE,
        evaluation.grounds is _STALE,
    )
