# SPDX-License-Identifier: GPL-3.0-or-later
"""Where reports go: the URIs of rua= and ruf=, and whether their hosts want the reports (RFC 9990, 4).

Anybody can publish a record that names somebody else's address. So a host outside the organizational domain of the
policy domain has to publish that it takes the reports; if it does not, nothing is sent there. A question without an
answer is neither: the destination is unknown, and it may be asked again later.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from enum import StrEnum
from urllib.parse import unquote_to_bytes, urlsplit

from msgspec import Struct

from assay.inquiry import Answer, Inquiry, Outcome, Question, RecordType
from assay.model.name import MAX_DOMAIN_LENGTH, Domain, InvalidNameError, Mailbox, parse_mailbox
from assay.protocol.dmarc import DmarcRecord, PublicSuffix, is_record, parse
from assay.protocol.dmarc.tree import answers_by_name, below_suffix, questions, read_walk, targets

#: Of one record; our choice (RFC 9990, 3.5: "up to the Receiver's limits"): each is a message, and may be another
#: domain's. Honest records have one to three.
MAX_DESTINATIONS = 10
MAX_LOCAL_PART = 64  # octets; RFC 5321, 4.5.3.1.1
_MAX_DIGITS = 12  # of a size limit; more is not a limit


class Tag(StrEnum):
    """The tag that names the destinations: of aggregate reports, or of failure reports (RFC 9991, 5)."""

    RUA = "rua"
    RUF = "ruf"


class Usability(StrEnum):
    """Whether reports may be sent to a URI."""

    USABLE = "usable"
    REFUSED = "refused"
    UNKNOWN = "unknown"  #: a question had no answer: ask again later, and send nothing until then


class Recipient(Struct, frozen=True):
    """An address to send to.

    `max_size` is the most octets that a whole message to it may have, None for no limit. It is of RFC 7489, 6.2. RFC
    9989, 4.8 says that reporters should ignore it, but what is larger only comes back.
    """

    mailbox: Mailbox
    max_size: int | None = None


class ReportUri(Struct, frozen=True):
    """One URI of a record.

    `reason` is one clause for a postmaster. `recipients` are the addresses in place of the URI: one, or those by which
    its host overrides it (RFC 9990, 4, step 9). There are none unless it is usable.
    """

    uri: str
    usability: Usability
    reason: str
    recipients: tuple[Recipient, ...] = ()


class Destinations(Struct, frozen=True):
    """The URIs of a record in its order, and what was found out about each."""

    uris: tuple[ReportUri, ...]

    @property
    def recipients(self) -> tuple[Recipient, ...]:
        """The addresses to send to, each once."""
        found = (recipient for each in self.uris for recipient in each.recipients)
        return tuple({recipient.mailbox: recipient for recipient in found}.values())

    @property
    def unknown(self) -> bool:
        """Whether asking again may find further recipients."""
        return any(each.usability is Usability.UNKNOWN for each in self.uris)


class UriError(ValueError):
    """A URI that nothing can be sent to. The message says why in one clause."""


def parse_mailto(uri: str) -> Mailbox:
    """The one address of a mailto URI (RFC 6068, 2), from which percent-encoding is removed.

    Header fields after a ``?`` are ignored: their authors could name recipients that nobody verifies. There is one
    address only: a comma in a DMARC URI has to be encoded (RFC 9989, 4.8), and an encoded comma does not separate
    addresses (RFC 6068, 2).

    :raises UriError: another scheme, no address, or one that cannot be mailed without extensions.
    """
    scheme, _, rest = uri.partition(":")
    if scheme.lower() != "mailto":
        raise UriError("only mailto: is sent to")
    if not rest.isascii():
        raise UriError("not ASCII")  # in a URI, other characters are encoded
    octets = unquote_to_bytes(rest.partition("?")[0])
    try:
        mailbox = parse_mailbox(octets.decode("utf-8"))
        host = Domain.parse_host(mailbox.domain.name)
    except UnicodeDecodeError:
        raise UriError("not UTF-8") from None
    except InvalidNameError as error:
        raise UriError(str(error)) from None
    local_part = mailbox.local_part
    if octets.startswith(b"@") or not local_part or len(local_part) > MAX_LOCAL_PART:
        raise UriError("not an address")
    if not local_part.isascii() or not local_part.isprintable():
        raise UriError("the local part is not of printable ASCII characters")
    if "@" in local_part:
        raise UriError("more than one @ in the address")
    if len(host.labels) < 2:  # localhost, and other names that mean something else at each site
        raise UriError("the host has a single label")
    return mailbox


#: Part of a list, with the name of the tag before the first one. Only after the scheme can a URI have a "=".
_SIZED = re.compile(r"(?:^|[,;])[ \t]*+(?>(?:[A-Za-z]++[ \t]*+=[ \t]*+)?)([^,;! \t]++)!([0-9]++)([kmgtKMGT]?)")
_UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}  # powers of two; RFC 7489, 6.2


def size_limits(record: DmarcRecord) -> dict[str, int]:
    """The URIs of a record that have a size limit, with the limit in octets (RFC 7489, 6.2)."""
    return {
        uri: int(number) << _UNITS[unit.lower()]
        for uri, number, unit in _SIZED.findall(record.text)
        if len(number) <= _MAX_DIGITS
    }


def evaluate_destinations(
    policy_domain: Domain, record: DmarcRecord, tag: Tag, *, public_suffix: PublicSuffix | None = None
) -> Inquiry[Destinations]:
    """Find out where the reports about a policy domain may be sent (RFC 9990, 4; RFC 9991, 5).

    Two batches of questions at most: the tree walks of the domains that may belong together, and the records by which
    other hosts agree.

    :param policy_domain: where the record was found.
    :param public_suffix: use RFC 7489's organizational domain instead of the tree walk.
    """
    uris = record.rua if tag is Tag.RUA else record.ruf
    found: dict[str, ReportUri] = {}
    mailboxes: dict[str, Mailbox] = {}
    for position, uri in enumerate(uris):
        if tag is Tag.RUF and record.psd == "y":
            # RFC 9991, 2 and RFC 9990, 7.3: the domains below it are other organizations'.
            found[uri] = _refused(uri, "psd=y: no failure reports are sent to public suffixes")
        elif position >= MAX_DESTINATIONS:
            found[uri] = _refused(uri, f"more than {MAX_DESTINATIONS} destinations")
        else:
            try:
                mailboxes[uri] = parse_mailto(uri)
            except UriError as error:
                found[uri] = _refused(uri, str(error))
    hosts = tuple(dict.fromkeys(mailbox.domain for mailbox in mailboxes.values()))
    internal = yield from _internal(policy_domain, hosts, public_suffix)
    external = [host for host in hosts if internal[host] is False]
    replies = yield from _replies(policy_domain, external)
    limits = size_limits(record)
    for uri, mailbox in mailboxes.items():
        is_internal = internal[mailbox.domain]
        recipient = Recipient(mailbox, limits.get(uri))
        if is_internal is None:
            found[uri] = ReportUri(uri, Usability.UNKNOWN, "its organizational domain was not found: the DNS failed")
        elif is_internal:
            found[uri] = ReportUri(uri, Usability.USABLE, "in the same organizational domain", (recipient,))
        else:
            name = _report_name(policy_domain, mailbox.domain)
            found[uri] = _external(uri, recipient, name, replies.get(mailbox.domain), tag)
    return Destinations(tuple([found[uri] for uri in uris]))


def _refused(uri: str, reason: str) -> ReportUri:
    return ReportUri(uri, Usability.REFUSED, reason)


def _internal(
    policy_domain: Domain, hosts: Sequence[Domain], public_suffix: PublicSuffix | None
) -> Inquiry[dict[Domain, bool | None]]:
    """Whether each host has the organizational domain of the policy domain; None where a question failed."""
    if public_suffix is not None:
        listed = below_suffix(policy_domain, public_suffix)
        return {host: below_suffix(host, public_suffix) == listed for host in hosts}
    verdicts: dict[Domain, bool | None] = {host: host == policy_domain for host in hosts}
    # An organizational domain is at or above its name: without a label in common, two names have different ones.
    related = [host for host in hosts if host != policy_domain and host.labels[-1] == policy_domain.labels[-1]]
    if related:
        asked = questions(dict.fromkeys(name for domain in (policy_domain, *related) for name in targets(domain)))
        answers = answers_by_name(asked, (yield list(asked)))
        ours = read_walk(policy_domain, answers).organizational_domain
        for host in related:
            theirs = read_walk(host, answers).organizational_domain
            verdicts[host] = None if ours is None or theirs is None else ours == theirs
    return verdicts


def _report_name(policy_domain: Domain, host: Domain) -> str:
    """Where a host publishes that it takes reports about a domain (RFC 9990, 4, steps 1 to 3)."""
    return f"{policy_domain}._report._dmarc.{host}"


def _replies(policy_domain: Domain, hosts: Iterable[Domain]) -> Inquiry[dict[Domain, Answer]]:
    """What the hosts publish, without those whose name would be too long (RFC 9990, 4, steps 4 and 5)."""
    names = {host: _report_name(policy_domain, host) for host in hosts}
    asked = {host: name for host, name in names.items() if len(name) <= MAX_DOMAIN_LENGTH}
    if not asked:
        return {}
    answers = yield [Question(name, RecordType.TXT) for name in asked.values()]
    return dict(zip(asked, answers, strict=True))


def _external(uri: str, recipient: Recipient, name: str, answer: Answer | None, tag: Tag) -> ReportUri:
    """Read what the host of another organization publishes (RFC 9990, 4, steps 4 to 9)."""
    if answer is None:
        return _refused(uri, "the name of the record by which its host would agree is too long for the DNS")
    if answer.outcome is Outcome.TEMPFAIL:
        return ReportUri(uri, Usability.UNKNOWN, f"TXT lookup of {name} failed: {answer.reason}")
    records = [parse(text) for text in answer.texts if is_record(text)]
    if not records:
        return _refused(uri, f"its host does not ask for these reports: no DMARC record at {name}")
    uris = [(each, record) for record in records for each in (record.rua if tag is Tag.RUA else record.ruf)]
    overrides: dict[Mailbox, Recipient] = {}
    for override, record in uris:
        if _host(override) != recipient.mailbox.domain.name:
            # RFC 9990, 4: then a report MUST NOT go to the original URI either.
            return _refused(uri, f"{tag}= at {name} names another host")
        with suppress(UriError):  # RFC 9989, 4.7: schemes that are not supported are ignored
            mailbox = parse_mailto(override)
            overrides.setdefault(mailbox, Recipient(mailbox, size_limits(record).get(override)))
    if overrides:
        recipients = tuple(overrides.values())[:MAX_DESTINATIONS]
        return ReportUri(uri, Usability.USABLE, f"authorized and replaced by {name}", recipients)
    if uris:
        return _refused(uri, f"{tag}= at {name} has no address to send to")
    return ReportUri(uri, Usability.USABLE, f"authorized by {name}", (recipient,))


def _host(uri: str) -> str:
    """The host of a URI, empty where it has none."""
    try:
        return parse_mailto(uri).domain.name
    except UriError:
        try:
            return (urlsplit(uri).hostname or "").rstrip(".")
        except ValueError:
            return ""
