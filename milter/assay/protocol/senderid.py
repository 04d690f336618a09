# SPDX-License-Identifier: GPL-3.0-or-later
"""Sender ID (RFC 4406) and the purported responsible address it checks (PRA, RFC 4407).

Both RFCs are historic, and the method is deprecated in RFC 8601. It is here for domains that still publish ``spf2.0``
records. The policy language and its evaluation are SPF's; what differs is the address that is checked, the choice of
the record and the answer for a domain that does not exist. The positional modifiers of RFC 4406, 3.3 were never
defined: like all unknown modifiers they are read and ignored.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from functools import partial

from msgspec import Struct
from msgspec.structs import replace

from assay.inquiry import Grounds, Inquiry
from assay.model.message import Header, HeaderField
from assay.model.name import Domain, InvalidNameError, Mailbox
from assay.protocol import spf
from assay.protocol.syntax.address import AddressFault, parse_addresses


class Result(StrEnum):
    """The results of Sender ID (RFC 4406, 4.2) in the words of RFC 8601, 2.7.2."""

    NONE = "none"
    NEUTRAL = "neutral"
    PASS = "pass"
    FAIL = "fail"
    SOFTFAIL = "softfail"
    TEMPERROR = "temperror"
    PERMERROR = "permerror"


class Scope(StrEnum):
    """Which address a record applies to (RFC 4406, 3.1)."""

    MFROM = "mfrom"
    PRA = "pra"


class Spf1(StrEnum):
    """What a ``v=spf1`` record counts for."""

    IGNORE = "ignore"  #: nothing: its publisher meant SPF's identities (the IESG's note on RFC 4406)
    FALLBACK = "fallback"  #: it stands in where there is no spf2.0 record for the scope (RFC 4406, 3.4 and 4.4)
    PREFER = "prefer"  #: it wins over spf2.0, so that scope mfrom never contradicts SPF (RFC 7208 is the newer)


class ResponsibleAddress(Struct, frozen=True):
    """The outcome of the PRA algorithm (RFC 4407, 2).

    `field` is the name of the chosen header field in lower case, as the ``header.`` property of RFC 8601 wants it; it
    is empty if no field could be chosen. `mailbox` is None where `fault` says why there is no PRA.
    """

    mailbox: Mailbox | None
    field: str
    fault: str = ""


class Evaluation(Struct, frozen=True):
    """What Sender ID found out. The members that SPF has too mean the same as in `spf.Evaluation`.

    `domain` and `sender` are of the PRA, or of the address that the `scope` applies to.
    """

    result: Result
    scope: Scope
    domain: Domain | None
    sender: str
    field: str = ""
    """The header field that gave the PRA, in lower case; empty for another scope and where there is no PRA."""

    mechanism: str = ""
    reason: str = ""
    explanation: str = ""
    dns_terms: int = 0
    void_lookups: int = 0
    grounds: Grounds = Grounds.UNPROVEN


# RFC 4406, 3.1: the version, and scopes without white space. No repeated class contains the comma: linear. The minor
# version must be well formed and is otherwise ignored (RFC 4406, 4.4).
_VERSION = re.compile(rb"spf2\.[0-9]+/([A-Z][A-Z0-9._-]*(?:,[A-Z][A-Z0-9._-]*)*)(?= |\Z)", re.IGNORECASE)
_TRACE_FIELDS = (b"received", b"return-path")


def responsible_address(header: Header) -> ResponsibleAddress:
    """Find the address that most recently sent this message on its way (RFC 4407, 2)."""
    chosen = _choose_field(header)
    if isinstance(chosen, str):
        return ResponsibleAddress(None, "", chosen)
    name = chosen.key.decode("ascii")
    addresses = parse_addresses(chosen.value)
    # RFC 4407, 2, step 5: the field must hold one mailbox, and that must have a domain.
    if isinstance(addresses, AddressFault):
        return ResponsibleAddress(None, name, f"malformed {name} field: {addresses.reason}")
    if len(addresses.mailboxes) != 1 or addresses.groups:
        return ResponsibleAddress(None, name, f"{name} field does not hold exactly one mailbox")
    mailbox = addresses.mailboxes[0]
    try:
        return ResponsibleAddress(Mailbox(mailbox.local_part, Domain.parse(mailbox.domain)), name)
    except InvalidNameError as error:
        return ResponsibleAddress(None, name, f"no usable domain in the {name} field: {error}")


def check_pra(header: Header, request: spf.Request, *, spf1: Spf1 = Spf1.IGNORE) -> Inquiry[Evaluation]:
    """Check whether this client may send for the purported responsible address.

    :param request: the client, and how to check it; what identity it names does not matter.
    :param spf1: RFC 4406, 4.4 wants `Spf1.FALLBACK`, and its IESG note says whom that harms.
    """
    found = responsible_address(header)
    if found.mailbox is None:
        # RFC 4406, 4: a message without a PRA is treated like one from a forger.
        return Evaluation(Result.FAIL, Scope.PRA, None, "", found.field, reason=found.fault)
    mailbox = found.mailbox
    request = replace(request, domain=mailbox.domain.name, sender=f"{mailbox.local_part}@{mailbox.domain}", fault="")
    return (yield from check_host(request, Scope.PRA, field=found.field, spf1=spf1))


def check_host(request: spf.Request, scope: Scope, *, field: str = "", spf1: Spf1 = Spf1.IGNORE) -> Inquiry[Evaluation]:
    """check_host() as RFC 4406, 4 changes it.

    :param request: what to check; its identity and selector are replaced by those of the scope.
    :param field: the header field that named the PRA, in lower case.
    """
    identity = spf.Identity.PRA if scope is Scope.PRA else spf.Identity.MAILFROM
    selector = partial(select_record, scope=scope, spf1=spf1)
    evaluation = yield from spf.check_host(replace(request, identity=identity, selector=selector))
    result, reason = Result(evaluation.result.value), evaluation.reason
    if result is Result.NONE and not evaluation.domain_exists and scope is Scope.PRA:
        result = Result.FAIL  # RFC 4406, 4.3: unlike in SPF, nobody may send for a domain that does not exist
    elif result is Result.NONE and evaluation.domain_exists:
        reason = f"{evaluation.domain or 'the domain'} publishes no record for the scope {scope}"
    return Evaluation(
        result,
        scope,
        evaluation.domain,
        evaluation.sender,
        field,
        evaluation.mechanism,
        reason,
        evaluation.explanation,
        evaluation.dns_terms,
        evaluation.void_lookups,
        evaluation.grounds,
    )


def select_record(texts: Sequence[bytes], scope: Scope, *, spf1: Spf1) -> spf.SpfRecord | None:
    """Choose the record for a scope among a domain's TXT records and read it (RFC 4406, 4.4)."""
    if spf1 is Spf1.PREFER:
        record = spf.select(texts)
        if record is not None:
            return record
    chosen = []
    for text in texts:
        match = _VERSION.match(text)
        if match is not None and scope.value.encode() in match[1].lower().split(b","):
            chosen.append(text[match.end() :])
    # RFC 4406, 3.4 would have any spf2.0 record hide the v=spf1 record, 4.4 only one for the scope, and says how.
    if not chosen:
        return spf.select(texts) if spf1 is Spf1.FALLBACK else None
    if len(chosen) > 1:
        return spf.SpfRecord(faults=(f"{len(chosen)} spf2.0 records for the scope {scope} where one is allowed",))
    return spf.parse_terms(chosen[0])


def _choose_field(header: Header) -> HeaderField | str:
    """Steps 1 to 4 of RFC 4407, 2: the field that has the PRA, or why there is none.

    Unlike the Resent- fields, Sender and From may occur only once, so a second one is not an older layer but an attempt
    to show another reader another sender.
    """
    resent = _choose_resent(header)
    if resent is not None:
        return resent
    for name in ("Sender", "From"):
        fields = [field for field in header.all(name) if _has_value(field)]
        if len(fields) > 1:
            return f"{len(fields)} {name} fields where one is allowed"
        if fields:
            return fields[0]
    return "no From field"


def _choose_resent(header: Header) -> HeaderField | None:
    """Steps 1 and 2: the topmost Resent-Sender, unless it belongs to an older resending than a Resent-From above.

    A resender puts fields on top of the message, and each hop puts a Received above those. So a trace field between the
    two shows that different people added them.
    """
    resent_from: HeaderField | None = None
    trace_below = False
    for field in header:
        if field.key in _TRACE_FIELDS:
            trace_below = resent_from is not None
        elif field.key == b"resent-from" and _has_value(field):
            resent_from = resent_from or field
        elif field.key == b"resent-sender" and _has_value(field):
            if not trace_below:
                return field
            break
    return resent_from


def _has_value(field: HeaderField) -> bool:
    """Whether a field is not empty (RFC 4407, 2)."""
    return bool(field.unfolded)
