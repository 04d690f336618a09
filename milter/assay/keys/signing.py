# SPDX-License-Identifier: GPL-3.0-or-later
"""What signs a message of ours: whose addresses count, what the tables have for them, and why nothing does."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from enum import StrEnum

from msgspec import Struct, field
from msgspec.structs import force_setattr

from assay.keys.senders import Senders
from assay.keys.table import Signatory, Table
from assay.model.message import Header
from assay.model.name import Domain, InvalidNameError, Mailbox, parse_mailbox
from assay.model.smtp import Client, Envelope
from assay.protocol import dkim, dmarc
from assay.protocol.syntax.address import AddressList, parse_addresses

#: Our choice: beyond this many domains, looking for the one with the most similar name takes more than a signature.
MAX_COMPARED = 200


class OnSignError(StrEnum):
    """What to do with a message that should be signed and cannot be."""

    ACCEPT = "accept"
    TEMPFAIL = "tempfail"


class Unpublished(StrEnum):
    """What to do about keys that the DNS does not publish."""

    SIGN = "sign"  #: sign with them anyway
    FALL_BACK = "fall back"  #: sign with other keys of the domain, if one of them is published
    TEMPFAIL = "tempfail"  #: defer mail for which no published key is left


class Identities(Struct, frozen=True):
    """Whose domains sign besides the author's: that of the Sender field if the author's is in no table, and that of
    MAIL FROM in addition."""

    sender: bool = False
    mail_from: bool = False


class Chosen(Struct, frozen=True):
    """The signatories of one message. Without any, `why` is the reason in one clause.

    `steps` are what was looked at, for people, one line each.
    """

    signatories: tuple[Signatory, ...] = ()
    why: str = ""
    steps: tuple[str, ...] = ()


class Signing(Struct, frozen=True):
    """The operator's settings for signing.

    `senders` is None if everybody whose mail is ours may sign as any domain. `domains` are all that the tables name;
    always made from `tables`.
    """

    tables: tuple[Table, ...] = ()
    identities: Identities = field(default_factory=Identities)
    senders: Senders | None = None
    on_error: OnSignError = OnSignError.TEMPFAIL
    unpublished: Unpublished = Unpublished.SIGN
    domains: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        force_setattr(self, "domains", frozenset().union(*(table.domains for table in self.tables)))

    @property
    def body_hash_specs(self) -> frozenset[dkim.BodyHashSpec]:
        """All body hashes that any signature may need."""
        return frozenset(rules.body_hash_spec for table in self.tables for rules in table.rules)

    def choose(
        self,
        header: Header,
        client: Client,
        envelope: Envelope,
        *,
        domain: Domain | None = None,
        explained: bool = False,
    ) -> Chosen:
        """Choose what signs a message.

        :param envelope: with the reverse-path and the login name.
        :param domain: sign as this domain whatever the message says, as a rule may want.
        :param explained: say in `Chosen.steps` which rows match, and which would but for one thing.
        """
        return _Choice(self, header, client, envelope, explained=explained).chosen(domain)

    def signs_as(self, domain: Domain) -> bool:
        """Whether anything signs for a domain."""
        return any(True for table in self.tables for _ in table.find(Mailbox("", domain)))

    def nearest(self, domain: Domain) -> str:
        """The domain of a table that the operator or the author may have meant; empty for none."""
        known = self.domains
        above = domain.name.partition(".")[2]
        while above:
            if above in known:
                return above
            above = above.partition(".")[2]
        if len(known) > MAX_COMPARED:
            return ""
        return next(iter(difflib.get_close_matches(domain.name, sorted(known), n=1, cutoff=0.6)), "")


class _Choice:
    """The choice for one message, with the reasons."""

    def __init__(
        self, signing: Signing, header: Header, client: Client, envelope: Envelope, *, explained: bool
    ) -> None:
        self._signing = signing
        self._header = header
        self._client = client
        self._envelope = envelope
        self._explained = explained
        self._found: dict[str, Signatory] = {}  # by domain
        self._reasons: list[str] = []
        self._steps: list[str] = []

    def chosen(self, domain: Domain | None) -> Chosen:
        if domain is not None:
            self._try("domain of the rule", Mailbox("", domain), allowed=True)
        else:
            self._by_identities()
        why = "" if self._found else self._reasons[0]
        return Chosen(tuple(self._found.values()), why, tuple(self._steps))

    def _by_identities(self) -> None:
        wanted = self._signing.identities
        author = dmarc.author(self._header.fields)
        if author.domain is None:
            self._note(author.fault)
        else:
            self._try("author domain", _mailbox(author.mailbox, author.domain))
        if wanted.sender and not self._found:
            self._try_sender()
        if wanted.mail_from:
            path = self._envelope.reverse_path
            if path.mailbox is None:
                self._steps.append("MAIL FROM has no domain")
            elif path.mailbox.domain.name not in self._found:
                self._try("domain of MAIL FROM", path.mailbox)

    def _try_sender(self) -> None:
        fields = self._header.all("Sender")
        read = parse_addresses(fields[0].value) if len(fields) == 1 else None
        if not isinstance(read, AddressList) or len(read.mailboxes) != 1:
            self._steps.append("no Sender field with one address")
            return
        try:
            domain = Domain.parse_host(read.mailboxes[0].domain)
        except InvalidNameError:
            self._steps.append("the Sender field has no domain name")
            return
        self._try("domain of Sender", Mailbox(read.mailboxes[0].local_part, domain))

    def _try(self, what: str, address: Mailbox, *, allowed: bool = False) -> None:
        """Look for what signs for an address.

        :param allowed: whoever sent the message may sign for it.
        """
        found = tuple(self._find(address))
        if not found:
            if address.domain.name in self._signing.domains:
                self._note(f"no row for {what} {address.domain} matches {address}")
            else:
                near = self._signing.nearest(address.domain)
                self._note(f"{what} {address.domain} is in no table" + (f"; nearest: {near}" if near else ""))
            for table in self._signing.tables if self._explained else ():
                self._steps += table.near_misses(address)
            return
        refusal = "" if allowed else self._refusal(address.domain)
        if refusal:
            self._note(refusal)
            return
        for signatory in found:
            selectors = ", ".join(key.selector.name for key in signatory.keys)
            self._steps.append(
                f"{what} {address.domain}: {signatory.place} signs as {signatory.domain} with {selectors}"
            )
            earlier = self._found.get(signatory.domain.name)
            # Two rows of a SigningTable can name two keys of one domain, such as RSA and Ed25519.
            self._found[signatory.domain.name] = earlier.with_keys(signatory.keys) if earlier else signatory

    def _find(self, address: Mailbox) -> Iterator[Signatory]:
        for table in self._signing.tables:
            found = tuple(table.find(address))
            if found:
                yield from found
                return

    def _refusal(self, domain: Domain) -> str:
        """Why whoever sent the message may not sign for a domain; empty if they may."""
        senders, login, address = self._signing.senders, self._envelope.authenticated, self._client.address
        if senders is None or senders.allow(domain, login, address):
            return ""
        who = f"login {login}" if login else f"client {address}" if address is not None else "local mail"
        return f"{who} may not sign as {domain}"

    def _note(self, reason: str) -> None:
        self._reasons.append(reason)
        self._steps.append(reason)


def _mailbox(text: str, domain: Domain) -> Mailbox:
    try:
        return parse_mailbox(text)
    except InvalidNameError:  # its local part is not clear
        return Mailbox("", domain)
