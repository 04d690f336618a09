# SPDX-License-Identifier: GPL-3.0-or-later
"""``[reports]``: DMARC reports to the owners of domains."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated
from urllib.parse import urlsplit

from msgspec import Meta

from assay.config.incoming import IncomingSection
from assay.config.section import Section, SettingError, parse_domain, parse_domain_entries
from assay.model.name import Domain, InvalidNameError, Mailbox, parse_mailbox

_RELAYS = {"smtp": 25, "smtps": 465}


class Tls(StrEnum):
    """Whether reports go to the relay over TLS, where the relay's URL leaves it open."""

    OFFERED = "offered"
    REQUIRED = "required"
    NEVER = "never"


class FailureSection(Section, frozen=True):
    """DMARC failure reports (RFC 9991) to domains that ask for them (ruf=): the header of a message that failed DMARC,
    some minutes after it came. They tell strangers about single messages of your users. In many countries that needs a
    legal basis, such as an agreement or consent: ask your lawyer or your data protection officer before you switch them
    on. They need [reports] and a database. See docs/reports.md."""

    enabled: Annotated[
        bool,
        Meta(
            description="Send failure reports. For the first day they are only written to files. Mind the law: they "
            "hold personal data, also when they are redacted."
        ),
    ] = False
    redact: Annotated[
        bool,
        Meta(
            description="Replace the local parts of addresses by a keyed hash, and the values of fields that may "
            "identify people (RFC 6590). Without it, the domain sees who wrote to whom."
        ),
    ] = True
    redaction_key_file: Annotated[
        str,
        Meta(
            description='A file with the secret for the hashes, such as of "openssl rand -hex 32". All hosts that '
            "share a database need the same."
        ),
    ] = ""
    max_header_octets: Annotated[
        int, Meta(ge=1024, le=32_768, description="How much of the header is in a report, in octets.")
    ] = 16_384
    max_a_day: Annotated[int, Meta(ge=1, description="How many failure reports are sent in a day.")] = 100
    max_per_destination_a_day: Annotated[
        int,
        Meta(
            ge=1,
            description="How many of these go to one organizational domain, unless it is in "
            "reports.large_destinations.",
        ),
    ] = 20
    max_per_destination_an_hour: Annotated[int, Meta(ge=1, description="Likewise in an hour.")] = 5

    def __post_init__(self) -> None:
        """Check what types cannot express."""
        if self.enabled and self.redact and not self.redaction_key_file:
            raise SettingError(
                "redaction_key_file", 'missing; name a file with a secret, such as of "openssl rand -hex 32"'
            )


class ReportsSection(Section, frozen=True):
    """DMARC aggregate reports (RFC 9990), once a day to each domain that asks for them (rua=). See docs/reports.md.

    Nothing is sent before organization and contact are set, and on the first day reports are only written to files. A
    domain gets no report if all its mail were reports or bounces, nor if all of it failed and there was little."""

    organization: Annotated[
        str, Meta(description="The name of your organization, in each report. Empty: no reports are made.")
    ] = ""
    contact: Annotated[
        str,
        Meta(
            description="Your address for questions about reports, which also is in their From. Its domain must be one "
            "that [sign] signs for: a report that does not pass DMARC is not believed."
        ),
    ] = ""
    contact_info: Annotated[str, Meta(description="A further contact, such as the URL of a web page.")] = ""
    receiver: Annotated[
        str,
        Meta(description="The domain that reports, in subjects and file names. Empty: the domain of the contact."),
    ] = ""
    bounces: Annotated[
        str,
        Meta(
            description="The envelope sender of reports, such as dmarc-bounces@example.org; each gets a sub-address of "
            "its own, as in dmarc-bounces+TOKEN@example.org. Use it for nothing else. Deliver it to "
            'reports.incoming.listen, or give its TOKEN to "assay report bounced": then the destination gets no more '
            "reports. Empty: the null reverse-path, so no bounce comes."
        ),
    ] = ""
    relay: Annotated[
        str,
        Meta(
            description="The MTA that delivers reports: smtp://HOST:PORT, or smtps:// for TLS from the beginning. "
            "The one on this host by default."
        ),
    ] = "smtp://127.0.0.1:25"
    relay_tls: Annotated[
        Tls,
        Meta(
            description="STARTTLS with an smtp:// relay: offered (if the relay offers it), required or never. The "
            "certificate must be valid if it is required."
        ),
    ] = Tls.OFFERED
    relay_user: Annotated[str, Meta(description="The login name at the relay. It needs TLS.")] = ""
    relay_password_file: Annotated[str, Meta(description="A file with its password.")] = ""

    dry_run: Annotated[
        bool,
        Meta(description="Only write reports to files, in reports/ of store.directory. The first day is always so."),
    ] = False
    suppress: Annotated[
        str,
        Meta(
            description="A file with domains and addresses, one per line, that no report is about and none goes to. "
            "example.org stands for all below it too."
        ),
    ] = ""
    older_schema: Annotated[
        tuple[str, ...],
        Meta(description="Domains of rua= addresses that want the XML of RFC 7489 instead of RFC 9990."),
    ] = ()
    min_messages: Annotated[
        int,
        Meta(
            ge=1,
            description="A domain of which no message passed DMARC in a day gets a report only if there were this "
            "many: those with fewer are mostly invented by spammers.",
        ),
    ] = 10
    max_a_day: Annotated[int, Meta(ge=1, description="How many report messages are sent in a day.")] = 1000
    max_per_destination: Annotated[
        int,
        Meta(
            ge=1,
            description="How many of these go to one organizational domain, so that an owner of many domains gets few.",
        ),
    ] = 10
    large_destinations: Annotated[
        tuple[str, ...],
        Meta(description="Domains that max_per_destination does not apply to: services that read reports for many."),
    ] = ()
    spread_hours: Annotated[
        float, Meta(ge=0, le=20, description="Over how many hours after midnight UTC sending is spread.")
    ] = 6.0
    cool_down_days: Annotated[
        int,
        Meta(
            ge=1,
            le=3650,
            description="How long a destination gets no reports after it refused one or one came back.",
        ),
    ] = 30
    failure: FailureSection = FailureSection()
    incoming: IncomingSection = IncomingSection()

    def __post_init__(self) -> None:
        """Check what types cannot express."""
        if bool(self.organization.strip()) != bool(self.contact):
            missing = "contact" if self.organization else "organization"
            raise SettingError(missing, "missing; reports need both an organization and a contact")
        for key in ("contact", "bounces"):
            if text := getattr(self, key):
                _check_address(key, text)
        if self.receiver:
            parse_domain("receiver", self.receiver)
        for key in ("older_schema", "large_destinations"):
            parse_domain_entries(key, getattr(self, key))
        if self.failure.enabled and not self.enabled:
            raise SettingError("failure.enabled", "failure reports need reports.organization and reports.contact")
        self._check_relay()

    def _check_relay(self) -> None:
        parts = urlsplit(self.relay) if _is_relay(self.relay) else None
        if parts is None:
            raise SettingError(
                "relay", f"{self.relay!r} is not the URL of a relay; write one such as smtp://127.0.0.1:25"
            )
        if parts.username is not None or parts.password is not None:
            raise SettingError("relay", "it contains a login name; use relay_user and relay_password_file")
        if bool(self.relay_user) != bool(self.relay_password_file):
            missing = "relay_password_file" if self.relay_user else "relay_user"
            raise SettingError(missing, "missing; the relay wants both a login name and a password")
        if self.relay_user and parts.scheme == "smtp" and self.relay_tls is not Tls.REQUIRED:
            raise SettingError("relay_tls", 'a password is only sent over TLS; write "required"')

    @property
    def enabled(self) -> bool:
        """Whether reports are made."""
        return bool(self.organization and self.contact)

    @property
    def sender(self) -> Mailbox:
        """The contact."""
        return parse_mailbox(self.contact)

    @property
    def receiver_domain(self) -> Domain:
        """The domain that reports."""
        return Domain.parse_host(self.receiver) if self.receiver else self.sender.domain

    @property
    def relay_endpoint(self) -> tuple[str, int, bool]:
        """Host and port of the relay, and whether it wants TLS from the beginning."""
        parts = urlsplit(self.relay)
        return parts.hostname or "", parts.port or _RELAYS[parts.scheme], parts.scheme == "smtps"


def _is_relay(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in _RELAYS and bool(parts.hostname) and parts.path in ("", "/") and parts.port != 0
    except ValueError:  # of the port
        return False


def _check_address(key: str, text: str) -> None:
    try:
        mailbox = parse_mailbox(text)
        Domain.parse_host(mailbox.domain.name)
    except InvalidNameError as error:
        raise SettingError(key, f"{text!r} is not a mail address: {error}") from error
    if not mailbox.local_part.isascii() or len(mailbox.local_part) > 30:
        raise SettingError(key, f"{text!r} is too long or not ASCII before the @; write a plain address")
