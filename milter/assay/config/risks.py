# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings that are valid, but open a hole that the operator may not see, or violate a standard."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from itertools import chain

from assay import resolver
from assay.config.configuration import Configuration
from assay.config.database import read_password
from assay.config.endpoint import Endpoint
from assay.config.forwarding import make_rewriting
from assay.config.methods import DmarcSection
from assay.config.signing import make_signing
from assay.config.site import DnsSection
from assay.config.store import StoreSection
from assay.keys.rotation import KeyType
from assay.model.smtp import parse_address
from assay.policy import Action
from assay.protocol import dkim, spf
from assay.store.feeding import UnavailableError

ADVISED_RSA_BITS = 2048  # RFC 8301, 3.2
#: Octets of an SRS secret, our choice: anyone with one address of ours can try secrets at home, and eight octets as
#: people choose them are found in a day.
ADVISED_SRS_SECRET = 12
RETRY_DAYS = 5  # RFC 5321, 4.5.4.1: at least four to five


def risks(configuration: Configuration) -> Iterator[str]:
    """Describe each risk in one sentence: the key, what may happen, and what to write instead."""
    milter = configuration.milter
    if Endpoint.parse(milter.socket).family != socket.AF_UNIX:
        yield (
            f"milter.socket = {milter.socket!r}: while the daemon is down or drains, any user of this host may bind "
            "the port, and the MTA hands it the mail; write unix:PATH unless this host has no other users"
        )
    if configuration.metrics.listen and not _on_loopback(Endpoint.parse(configuration.metrics.listen)):
        yield (
            f"metrics.listen = {configuration.metrics.listen!r}: anyone who reaches the port can read the figures, "
            "with the names of rules and nameservers; write 127.0.0.1 or ::1 unless only the monitoring reaches it"
        )
    if configuration.web.listen and not _on_loopback(Endpoint.parse(configuration.web.listen)):
        yield (
            f"web.listen = {configuration.web.listen!r}: the token and all that the page shows cross the network "
            "unencrypted; write 127.0.0.1 or ::1, and put a reverse proxy with TLS in front"
        )
    if milter.dry_run and not milter.dry_run_headers:
        yield (
            "milter.dry_run: forged Authentication-Results and Received-SPF fields stay in the messages; "
            "set milter.dry_run_headers, or make sure that no later program trusts them"
        )
    yield from _risks_of_dns(configuration.dns)
    yield from _risks_of_spf(configuration)
    yield from _risks_of_signing(configuration)
    yield from _risks_of_srs(configuration)
    if configuration.dkim.min_rsa_bits < dkim.STANDARD_MIN_RSA_BITS:
        yield (
            f"dkim.min_rsa_bits = {configuration.dkim.min_rsa_bits}: such keys can be broken, and RFC 8301, 3.2 "
            f"forbids accepting them; write {dkim.STANDARD_MIN_RSA_BITS} or more"
        )
    yield from _risks_of_keys(configuration)
    yield from _risks_of_store(configuration.store)
    for key, action in _temporary(configuration):
        if action in (Action.REJECT, Action.DISCARD):
            yield f"{key} = '{action}': mail is lost when the DNS does not answer; write tempfail or accept"
    yield from _ways_past(configuration.dmarc)
    lists = configuration.dmarc.list_traffic
    if configuration.dmarc.stricter_domains and lists is not Action.REJECT:
        yield (
            f"dmarc.list_traffic = '{lists}': mail of dmarc.stricter_domains is refused even if it comes through "
            "a list; remove one of the two"
        )


def _risks_of_signing(configuration: Configuration) -> Iterator[str]:
    try:
        signing = make_signing(configuration)
    except ValueError:  # an error and not a risk, and reported as such
        return
    for signatory in () if signing is None else chain.from_iterable(table.signatories for table in signing.tables):
        for key in signatory.keys:
            if key.rsa_bits and key.rsa_bits < ADVISED_RSA_BITS:
                yield (
                    f"{signatory.place}: the key {key.selector} of {signatory.domain} has {key.rsa_bits} bits, and "
                    f"RFC 8301, 3.2 advises {ADVISED_RSA_BITS}; make a new one with assay keys"
                )


def _risks_of_srs(configuration: Configuration) -> Iterator[str]:
    try:
        rewriting = make_rewriting(configuration.srs)
    except ValueError:  # an error and not a risk, and reported as such
        return
    place = f"srs.secrets_file: {configuration.srs.secrets_file}"
    for number, secret in enumerate(() if rewriting is None else rewriting.scheme.secrets, 1):
        if secret.startswith(b"#"):
            yield f"{place}: secret {number} begins with #, and comments count as secrets too; remove the line"
        elif len(secret) < ADVISED_SRS_SECRET:
            yield (
                f"{place}: secret {number} has {len(secret)} octets, and anyone who guesses it can send mail through "
                "this host; write a longer one above it, such as: openssl rand -base64 18"
            )


def _on_loopback(endpoint: Endpoint) -> bool:
    """Whether only this host reaches it. Without a host it is localhost."""
    address = parse_address(endpoint.host)
    return endpoint.host in ("", "localhost") if address is None else address.is_loopback


def _risks_of_store(section: StoreSection) -> Iterator[str]:
    """A start does not depend on these files: mail is judged while the store is away."""
    for key in ("password_file", "broker_password_file"):
        try:
            read_password(getattr(section, key) if section.directory else "")
        except UnavailableError as error:
            yield f"store.{key}: {error}; until that is mended, results wait in the spool"


def _risks_of_dns(section: DnsSection) -> Iterator[str]:
    nameservers = resolver.configured(section.nameserver_texts) if section.trust_ad else ()
    for server in nameservers:
        address = parse_address(server.address)
        if not server.scheme and not (address and address.is_loopback):
            yield (
                f"dns.trust_ad: anyone on the path to the nameserver {server} can forge answers that count as secure; "
                "list a resolver on this host, or an encrypted one (tls:// or https://)"
            )


def _risks_of_spf(configuration: Configuration) -> Iterator[str]:
    section, standard = configuration.spf, spf.Limits()
    for key in ("dns_terms", "void_lookups"):
        value, limit = getattr(section, key), getattr(standard, key)
        if value > limit:
            yield f"spf.{key} = {value}: records can cause more DNS lookups than RFC 7208, 4.6.4 allows; write {limit}"
    for identity in ("helo", "mailfrom"):
        actions = getattr(section, identity)
        if actions.neutral is not actions.none:
            yield (
                f"spf.{identity}.neutral = '{actions.neutral}': RFC 7208, 8.2 requires the same treatment as none; "
                f"write '{actions.none}', the value of spf.{identity}.none"
            )


def _ways_past(dmarc: DmarcSection) -> Iterator[str]:
    """The actions that let a forger choose to be accepted where the others keep a message back."""
    followed, strictest = dmarc.strictest
    if strictest.rank < Action.QUARANTINE.rank:
        return
    for key, how in (
        ("temperror", "a forger uses a name below the domain whose nameservers fail"),
        ("malformed_from", "a forger writes a From field that has no author domain but is displayed as one"),
    ):
        action = getattr(dmarc, key)
        if action is not None and action.rank < Action.QUARANTINE.rank:
            yield (
                f"dmarc.{key} = '{action}': this is a way past dmarc.{followed} = '{strictest}', because {how}; "
                "remove the key"
            )


def _risks_of_keys(configuration: Configuration) -> Iterator[str]:
    keys = configuration.keys
    if keys.rsa_bits < ADVISED_RSA_BITS:
        yield (
            f"keys.rsa_bits = {keys.rsa_bits}: RFC 8301, 3.2 advises {ADVISED_RSA_BITS}, because shorter keys can be "
            f"broken; write {ADVISED_RSA_BITS}"
        )
    if keys.overlap_days < RETRY_DAYS:
        yield (
            f"keys.overlap_days = {keys.overlap_days}: MTAs try for {RETRY_DAYS} days to deliver a message "
            f"(RFC 5321, 4.5.4.1), and it then fails DKIM; write {RETRY_DAYS} or more"
        )
    if KeyType.RSA not in keys.types:
        yield (
            "keys.types has no 'rsa': many verifiers do not know Ed25519, and mail is unsigned for them "
            '(RFC 8463, 6); write ["rsa", "ed25519"]'
        )


def _temporary(configuration: Configuration) -> Iterator[tuple[str, Action | None]]:
    """The actions for a temporary error, by key."""
    for key in ("iprev", "dkim", "senderid", "dmarc"):
        yield f"{key}.temperror", getattr(configuration, key).temperror
    yield "spf.helo.temperror", configuration.spf.helo.temperror
    yield "spf.mailfrom.temperror", configuration.spf.mailfrom.temperror
