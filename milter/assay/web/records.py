# SPDX-License-Identifier: GPL-3.0-or-later
"""The DNS records of a domain of ours: what is expected, what is found, and what to publish. Inquiries, no more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from ipaddress import IPv4Address

from msgspec import Struct
from msgspec.structs import replace

from assay.inquiry import Answer, Inquiry, Outcome, Question, RecordType
from assay.keys import forms
from assay.keys.forms import Form
from assay.keys.published import ServerAnswer, Sight, compare
from assay.keys.rotation import KeyState
from assay.model.name import Domain
from assay.model.smtp import Address
from assay.protocol import dkim, dmarc, iprev, spf
from assay.protocol.report.destinations import Tag, UriError, Usability, evaluate_destinations, parse_mailto

#: The client that no record of ours names: of a network for documentation.
STRANGER = IPv4Address("203.0.113.1")
MAX_EXCHANGES = 10  # hosts of a domain whose addresses are looked up; our choice
MAX_ADDRESSES = 20  # of a host, likewise
_FEW_TERMS_LEFT = 2
_TTL = 3600


class RecordState(StrEnum):
    """How a record is."""

    GOOD = "good"
    DOUBT = "doubtful"
    BAD = "wrong"
    UNKNOWN = "unknown"  #: the DNS did not answer


class Checked(Struct, frozen=True):
    """One record.

    :ivar what: SPF, DKIM and so on.
    :ivar name: where it is.
    :ivar why: one clause, with the fix.
    :ivar publish: the record to publish, as a zone file has it; empty if there is nothing to publish.
    :ivar terms: of an SPF record and of all that it includes: whose, the term, and what it counts.
    """

    what: str
    name: str
    state: RecordState
    expected: str
    found: str
    why: str = ""
    publish: str = ""
    terms: tuple[tuple[str, str, str], ...] = ()


class OurKey(Struct, frozen=True):
    """A key of a domain of ours.

    :ivar state: in its ring; None if it is in none and signs because the configuration names it.
    """

    domain: str
    selector: str
    record: str
    state: KeyState | None = None
    below: bool = False


Check = Inquiry[tuple[Checked, ...]]


def checks(domain: Domain, keys: Sequence[OurKey], host: str, now: int) -> Iterator[Check]:
    """The inquiries about a domain. They do not depend on each other.

    :param keys: of this domain.
    :param host: the name of this host, which sends mail of the domain.
    :param now: seconds since 1970.
    """
    yield exchanges(domain)
    yield sender_policy(domain, host, now)
    yield signing_keys(domain, keys)
    yield author_policy(domain)
    yield reverse_names(host)


def exchanges(domain: Domain) -> Check:
    """MX, and that each exchange has an address (RFC 5321, 5.1)."""
    (answer,) = yield [Question(domain.name, RecordType.MX)]
    expected = "hosts that take mail for it, each with an address"
    if answer.outcome is Outcome.TEMPFAIL:
        return (_silent("MX", domain.name, expected, answer),)
    found = sorted(answer.exchanges, key=lambda record: (record.preference, record.exchange))
    if not found:
        why = "no MX record: mail goes to the address of the name itself, or nowhere"
        return (Checked("MX", domain.name, RecordState.DOUBT, expected, _outcome(answer), why),)
    if all(not record.exchange for record in found):  # RFC 7505
        return (Checked("MX", domain.name, RecordState.GOOD, expected, "null MX", "it takes no mail"),)
    hosts = [record.exchange for record in found if record.exchange][:MAX_EXCHANGES]
    addresses = yield from _addresses(hosts)
    text = ", ".join(f"{record.preference} {record.exchange or '.'}" for record in found)
    without = [host for host in hosts if addresses[host] == ()]
    silent = [host for host in hosts if addresses[host] is None]
    if without:
        why = f"no address: {', '.join(without)}"
        return (Checked("MX", domain.name, RecordState.BAD, expected, text, why),)
    if silent:
        return (
            Checked("MX", domain.name, RecordState.UNKNOWN, expected, text, f"no answer about {', '.join(silent)}"),
        )
    return (Checked("MX", domain.name, RecordState.GOOD, expected, text),)


def sender_policy(domain: Domain, host: str, now: int) -> Check:
    """SPF: what a stranger gets, how many lookups the record takes, and what this host gets (RFC 7208, 4.6.4)."""
    expected = "one record that ends in -all or ~all, takes at most 10 lookups, and permits this host"
    narrator = spf.Narrator()
    found = yield from _sender_policy(domain, STRANGER, now, narrator)
    (answer,) = yield [Question(domain.name, RecordType.TXT)]
    record = next((text for text in answer.texts if text[:6].lower() == b"v=spf1"), b"")
    shown = record.decode("utf-8", "backslashreplace") or _outcome(answer, "no SPF record")
    checked = [replace(_of_stranger(domain, expected, shown, found), terms=_terms(narrator.steps))]
    if found.result is spf.Result.NONE:
        return tuple(checked)
    addresses = (yield from _addresses([host]))[host] or ()
    for address in addresses:
        ours = yield from _sender_policy(domain, address, now)
        if ours.result is not spf.Result.PASS:
            state = RecordState.UNKNOWN if ours.result is spf.Result.TEMPERROR else RecordState.DOUBT
            why = "mail that this host sends for the domain does not pass SPF; add it, unless it sends none"
            wanted = f"pass for {host} ({address})"
            checked.append(Checked("SPF", domain.name, state, wanted, f"{ours.result}: {ours.reason}", why))
    return tuple(checked)


def _sender_policy(
    domain: Domain, address: Address, now: int, narrator: spf.Narrator | None = None
) -> Inquiry[spf.Evaluation]:
    sender = f"postmaster@{domain.name}"
    request = spf.Request(address, domain.name, domain=domain.name, sender=sender, now=now, explain=False)
    return (yield from spf.check_host(request, narrator))


def _terms(steps: Sequence[spf.Step]) -> tuple[tuple[str, str, str], ...]:
    rows: list[list[str]] = []
    for step in steps:
        if step.event is spf.Event.TERM:
            rows.append([step.domain, "  " * step.depth + step.term, ""])
        elif step.event is spf.Event.COUNT and rows:
            rows[-1][2] += f", {step.text}" if rows[-1][2] else step.text
    return tuple((whose, term, count) for whose, term, count in rows)


def _of_stranger(domain: Domain, expected: str, shown: str, found: spf.Evaluation) -> Checked:
    limit = spf.Limits().dns_terms
    publish = ""
    lookups = f"{found.dns_terms} of {limit} lookups, {found.void_lookups} void"
    match found.result:
        case spf.Result.TEMPERROR:
            state, why = RecordState.UNKNOWN, found.reason
        case spf.Result.PERMERROR:
            state, why = RecordState.BAD, f"{found.reason}; {lookups}"
        case spf.Result.NONE:
            state, why = RecordState.BAD, "anyone can send in its name; name all hosts that send"
            publish = f'{domain.name}. {_TTL} IN TXT "v=spf1 mx -all"'
        case spf.Result.PASS:
            state, why = RecordState.BAD, f"it permits a stranger: {found.mechanism}; {lookups}"
        case spf.Result.NEUTRAL:
            state, why = (
                RecordState.DOUBT,
                f"a stranger gets neutral, which says nothing; end it in -all; {lookups}",
            )
        case _ if found.dns_terms > limit - _FEW_TERMS_LEFT:
            state, why = RecordState.DOUBT, f"{lookups}: a domain that it includes may add a term, and then it fails"
        case _:
            state, why = RecordState.GOOD, f"a stranger gets {found.result}; {lookups}"
    return Checked("SPF", domain.name, state, expected, shown, why, publish)


def signing_keys(domain: Domain, keys: Sequence[OurKey]) -> Check:
    """DKIM: each key against its record, as our resolver sees it. ``assay keys check`` asks the servers of the zone."""
    if not keys:
        why = "no key of this host signs for it; if others do, all is well"
        return (Checked("DKIM", f"_domainkey.{domain.name}", RecordState.DOUBT, "a key that signs", "none here", why),)
    selectors = [Domain(key.selector) for key in keys]
    answers = yield [dkim.key_question(domain, selector) for selector in selectors]
    return tuple(
        _of_key(domain, selector, key, answer) for selector, key, answer in zip(selectors, keys, answers, strict=True)
    )


def _of_key(domain: Domain, selector: Domain, key: OurKey, answer: Answer) -> Checked:
    name = dkim.key_name(domain, selector)
    expected = f"the record of the key, which is {key.state or 'active'}"
    if key.state is KeyState.RETIRED:
        gone = answer.outcome in (Outcome.NODATA, Outcome.NXDOMAIN)
        state = (
            RecordState.UNKNOWN
            if answer.outcome is Outcome.TEMPFAIL
            else RecordState.GOOD
            if gone
            else RecordState.DOUBT
        )
        why = "" if gone else "remove it: the key is retired"
        return Checked("DKIM", name, state, "no record, because the key is retired", _texts(answer), why)
    server = ServerAnswer("our resolver", answer.outcome, answer.texts, reason=answer.reason)
    publication = compare(key.record, (server,), signs_below=key.below)
    why = "; ".join(difference.text for difference in publication.differences)
    if publication.sight is Sight.EVERYWHERE:
        state = RecordState.DOUBT if why else RecordState.GOOD
        return Checked("DKIM", name, state, expected, _texts(answer), why)
    if publication.sight is Sight.UNKNOWN:
        return Checked("DKIM", name, RecordState.UNKNOWN, expected, _texts(answer), why)
    publish = forms.write(Form.ZONE, domain, selector, key.record, _TTL)
    state = RecordState.DOUBT if key.state is KeyState.PENDING else RecordState.BAD
    return Checked("DKIM", name, state, expected, _texts(answer), why, publish)


def author_policy(domain: Domain) -> Check:
    """DMARC, and the records by which hosts elsewhere agree to take the reports (RFC 9990, 4)."""
    expected = "a policy of quarantine or reject, and an address for reports"
    name = f"_dmarc.{domain.name}"
    found = yield from dmarc.discover(domain)
    if found.result is dmarc.Result.TEMPERROR:
        return (Checked("DMARC", name, RecordState.UNKNOWN, expected, "", found.reason),)
    if found.record is None or found.policy_domain is None:
        publish = f'{name}. {_TTL} IN TXT "v=DMARC1; p=none; rua=mailto:postmaster@{domain.name}"'
        return (Checked("DMARC", name, RecordState.BAD, expected, "no usable record", found.reason, publish),)
    at = f"_dmarc.{found.policy_domain}"
    notes = [*found.notes]
    state = RecordState.GOOD
    if found.policy in (None, dmarc.DmarcPolicy.NONE):
        notes.append("p=none asks for nothing; tighten it when the reports show that all your mail passes")
        state = RecordState.DOUBT
    if found.record.testing:
        notes.append("t=y: receivers act one level below the policy")
        state = RecordState.DOUBT
    if not found.record.rua:
        notes.append("no rua=: you get no reports")
        state = RecordState.DOUBT
    checked = [Checked("DMARC", at, state, expected, found.record.text, "; ".join(notes))]
    for tag in Tag:
        checked += yield from _destinations(found.policy_domain, found.record, tag)
    return tuple(checked)


def _destinations(policy_domain: Domain, record: dmarc.DmarcRecord, tag: Tag) -> Inquiry[list[Checked]]:
    checked = []
    for each in (yield from evaluate_destinations(policy_domain, record, tag)).uris:
        name, publish = f"_dmarc.{policy_domain}", ""
        try:
            host = parse_mailto(each.uri).domain
        except UriError:
            host = None
        external = f"{policy_domain}._report._dmarc.{host}"
        if external in each.reason:
            name = external
            if each.usability is Usability.REFUSED:
                publish = f'{name}. {_TTL} IN TXT "v=DMARC1;"'
        state = _STANDINGS[each.usability]
        checked.append(Checked("reports", name, state, f"{tag} may go to {each.uri}", "", each.reason, publish))
    return checked


_STANDINGS = {
    Usability.USABLE: RecordState.GOOD,
    Usability.REFUSED: RecordState.BAD,
    Usability.UNKNOWN: RecordState.UNKNOWN,
}


def reverse_names(host: str) -> Check:
    """PTR of this host: many receivers refuse mail from an address whose name does not lead back to it."""
    addresses = (yield from _addresses([host]))[host]
    expected = "a name that has the address"
    if not addresses:
        state = RecordState.UNKNOWN if addresses is None else RecordState.DOUBT
        why = "set identity.authserv_id to the name that this host has in the DNS"
        return (Checked("PTR", host, state, expected, "no address", why),)
    checked = []
    for address in addresses:
        found = yield from iprev.evaluate(address)
        state = {
            iprev.Result.PASS: RecordState.GOOD,
            iprev.Result.TEMPERROR: RecordState.UNKNOWN,
        }.get(found.result, RecordState.BAD)
        names = ", ".join(found.names) or "no name"
        checked.append(Checked("PTR", str(address), state, expected, names, found.reason))
    return tuple(checked)


def _addresses(hosts: Sequence[str]) -> Inquiry[dict[str, tuple[Address, ...] | None]]:
    """The addresses of each host, at most `MAX_ADDRESSES`; None if the DNS does not say."""
    kinds = (RecordType.A, RecordType.AAAA)
    answers = yield [Question(host, kind) for host in hosts for kind in kinds]
    found: dict[str, tuple[Address, ...] | None] = {}
    for host, four, six in zip(hosts, answers[::2], answers[1::2], strict=True):
        both = (*four.addresses, *six.addresses)[:MAX_ADDRESSES]
        found[host] = both or (None if Outcome.TEMPFAIL in (four.outcome, six.outcome) else ())
    return found


def _silent(what: str, name: str, expected: str, answer: Answer) -> Checked:
    return Checked(what, name, RecordState.UNKNOWN, expected, "", f"no answer: {answer.reason}")


def _outcome(answer: Answer, nothing: str = "no record") -> str:
    return {
        Outcome.NXDOMAIN: "the name does not exist",
        Outcome.TEMPFAIL: f"no answer: {answer.reason}",
    }.get(answer.outcome, nothing)


def _texts(answer: Answer) -> str:
    return "\n".join(text.decode("utf-8", "backslashreplace") for text in answer.texts) or _outcome(answer)
