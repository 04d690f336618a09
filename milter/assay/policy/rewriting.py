# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose envelope sender is rewritten when mail is forwarded, and which recipients are turned back (SRS)."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from assay.model.name import InvalidNameError, Mailbox, parse_mailbox, quote_local_part
from assay.model.network import Networks
from assay.model.smtp import Client, Envelope
from assay.policy.addresses import Entries
from assay.protocol import dmarc, srs

ANY_LOGIN = "*"


class Rewritten(Struct, frozen=True):
    """The envelope sender that a forwarded message gets; empty if it keeps its own, and `why` says why.

    `warning` is what the rewriting does not help against, and `doubt` why the next hop may refuse the sender, in one
    clause each.
    """

    sender: str = ""
    why: str = ""
    warning: str = ""
    doubt: str = ""


class Rewriting(Struct, frozen=True):
    """The operator's settings for SRS.

    `own` are our domains. A message is rewritten only if each of the other conditions that is set holds.
    """

    scheme: srs.Scheme
    own: Entries
    networks: Networks | None = None
    daemon_names: frozenset[str] = frozenset()
    logins: frozenset[str] = frozenset()
    senders: Entries = Entries()
    recipients: Entries = Entries()

    def forward(
        self, client: Client, envelope: Envelope, judged: dmarc.Evaluation | None, now: float, *, asked: bool = False
    ) -> Rewritten:
        """The sender for a message, once all recipients are known.

        :param asked: a rule says that it is forwarded, whatever the conditions and the recipients are.
        :param judged: DMARC of the message; None if it was not evaluated.
        :param now: Unix time in seconds.
        """
        mailbox = envelope.reverse_path.mailbox
        why = self._why_not(client, envelope, mailbox, asked=asked)
        if why or mailbox is None:
            return Rewritten(why=why)
        sender = written(srs.forward(_plain(mailbox), self.scheme, now))
        return Rewritten(sender, warning="" if _survives(judged) else _NO_HELP, doubt=_doubt(sender))

    def sender(self, address: str, now: float) -> str:
        """The address that a sender is rewritten to, whatever else is known of the message; empty if it is not.

        :param address: the reverse-path without angle brackets.
        :param now: Unix time in seconds.
        """
        try:
            mailbox = parse_mailbox(address)
        except InvalidNameError:
            return ""
        if self._why_not_sender(mailbox):
            return ""
        return written(srs.forward(_plain(mailbox), self.scheme, now))

    def reverse(self, recipient: str, now: float) -> str:
        """The original sender that a recipient stands for; empty if it is not of our SRS domain, or not SRS at all.

        :param recipient: the forward-path without angle brackets.
        :param now: Unix time in seconds.
        :raises srs.SrsError: the address is forged, changed or too old.
        """
        try:
            mailbox = parse_mailbox(recipient)
        except InvalidNameError:
            return ""
        if mailbox.domain.name != self.scheme.domain or not srs.is_srs(mailbox.local_part):
            return ""
        return written(srs.reverse(_plain(mailbox), self.scheme, now))

    def _why_not(self, client: Client, envelope: Envelope, sender: Mailbox | None, *, asked: bool) -> str:
        if envelope.reverse_path.is_null:
            return "null sender"
        if sender is None:
            return "sender is not a mailbox"
        if why := self._why_not_sender(sender):
            return why
        if asked:
            return ""
        if staying := why_it_stays(envelope, self.own):
            return staying
        return self._why_not_from(client, envelope) or self._why_not_to(envelope.recipients)

    def _why_not_sender(self, sender: Mailbox) -> str:
        if not sender.local_part:
            return "sender has an empty local part"  # "" in quotes (RFC 5321, 4.1.2)
        if not _is_utf_8(sender.local_part):
            return "sender is not UTF-8"  # RFC 6532, 3.1: no MTA could send a bounce to it
        if srs.is_too_long(_plain(sender)):
            return f"sender has more than {srs.MAX_ADDRESS_OCTETS} octets"
        if sender.domain.name == self.scheme.domain:
            return "sender is already rewritten"
        if self.own.hold(sender.domain.name):
            return f"sender domain {sender.domain} is ours"
        if self.senders != Entries() and not self.senders.hold(sender.domain.name):
            return "sender is not in srs.sender_domains"
        return ""

    def _why_not_from(self, client: Client, envelope: Envelope) -> str:
        if self.networks is not None and (client.address is None or self.networks.find(client.address) is None):
            return "client is not in srs.networks"
        if self.daemon_names and client.daemon not in self.daemon_names:
            return "service is not in srs.daemon_names"
        if self.logins and not self._has_login(envelope.authenticated):
            return "login is not in srs.logins"
        return ""

    def _has_login(self, login: str) -> bool:
        return bool(login) and (login in self.logins or ANY_LOGIN in self.logins)

    def _why_not_to(self, recipients: Iterable[str]) -> str:
        if self.recipients == Entries() or all(map(self.recipients.hold, recipients)):
            return ""
        return "a recipient is not in srs.recipient_domains"


def why_it_stays(envelope: Envelope, own: Entries) -> str:
    """Why a message does not leave us for all its recipients, in one clause; empty if it does.

    One with more recipients than are kept stays: nobody has looked at the others, which may be ours.

    :param own: our domains.
    """
    staying = next((path for path in envelope.recipients if not _has_domain(path) or own.hold(path)), "")
    if staying:
        return f"recipient {staying} is ours"
    if envelope.further_recipients:
        return f"more than {len(envelope.recipients)} recipients, and the others were not looked at"
    return ""


def _has_domain(path: str) -> bool:
    """Whether a recipient may leave us: one without a domain is local (RFC 5321, 4.1.1.3), such as ``"a@b"``, and an
    address in place of a domain may be ours (4.1.3).
    """
    _, at, domain = path.rpartition("@")
    return bool(at) and not domain.startswith("[") and not domain.endswith('"')


#: SPF then passes for our domain, which is not the author's, so only a signature can be aligned (RFC 9989, 4.4).
_NO_HELP = "DMARC fails at the next hop: no signature of the author domain passes"


#: Octets of a local part that every host accepts; RFC 5321, 4.5.3.1.1. Most accept more, and 4.5.3.1 asks them to.
MAX_LOCAL_PART = 64


def _doubt(sender: str) -> str:
    """An address holds the whole original one, so it may well be longer than that. No shorter form leads back."""
    length = len(sender.rpartition("@")[0].encode())
    if length <= MAX_LOCAL_PART:
        return ""
    return f"local part of {length} octets, and some hosts refuse more than {MAX_LOCAL_PART}"


def _survives(judged: dmarc.Evaluation | None) -> bool:
    """Whether DMARC can still pass at the next hop, or does not matter there."""
    if judged is None or judged.policy is None or judged.policy is dmarc.DmarcPolicy.NONE:
        return True
    return judged.dkim_aligned


def _is_utf_8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _plain(mailbox: Mailbox) -> str:
    """An address with its local part not quoted, as `srs` takes it."""
    return f"{mailbox.local_part}@{mailbox.domain.name}"


def written(address: str) -> str:
    """An address as it is written in the envelope: its local part quoted where it must be (RFC 5321, 4.1.2)."""
    local_part, _, domain = address.rpartition("@")
    return f"{quote_local_part(local_part)}@{domain}"
