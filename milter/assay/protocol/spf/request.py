# SPDX-License-Identifier: GPL-3.0-or-later
"""The request for an SPF check (RFC 7208, 4.1): which client, which identity, and how to check it.

A receiver makes one request for a client and derives from it those for the two identities of a transaction (RFC 7208,
2.3 and 2.4): which domain and which sender an identity stands for, and when there is nothing to check.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from assay.model.name import Domain, InvalidNameError, ReversePath
from assay.model.smtp import Address
from assay.protocol.spf.record import SpfRecord, select
from assay.protocol.spf.result import Identity, Limits

#: Chooses a domain's policy among its TXT records: None for no record. Sender ID does it differently (RFC 4406, 4.4).
Selector = Callable[[Sequence[bytes]], SpfRecord | None]

_DEFAULT_LIMITS = Limits()


class Request(Struct, frozen=True):
    """One check: the arguments of check_host() (RFC 7208, 4.1), and the receiver's settings.

    Made with `address` and `helo` alone it names no identity yet; `of_helo` and `of_mail_from` complete it.
    """

    address: Address
    helo: str
    """The argument of HELO or EHLO as sent."""

    domain: str = ""
    """``<domain>``; any name the DNS can carry, even one that cannot be a mail domain."""

    sender: str = ""
    """``<sender>``, the local part not quoted. Without a local part it is the postmaster's (RFC 7208, 4.3)."""

    identity: Identity = Identity.MAILFROM
    fault: str = ""
    """Why the identity has no domain to check; the result is ``none`` then."""

    receiver: str = "unknown"
    """Our own host name, for ``%{r}``."""

    now: int = 0
    """Unix time in seconds, for ``%{t}``."""

    limits: Limits = _DEFAULT_LIMITS
    best_guess: bytes = b""
    """A record for a domain that exists and publishes none, version included; empty for no guess. RFC 7208 has no
    such guess, so the evaluation is marked as `Evaluation.guessed`."""

    record: bytes | None = None
    """A policy to use in place of the domain's own, version included."""

    explain: bool = True
    """Whether to look up the domain's explanation of a fail (RFC 7208, 6.2)."""

    default_explanation: str = ""
    """Our own explain-string, for a domain that fails without one (RFC 7208, 6.2). One that is not a
    valid explain-string is not used."""

    selector: Selector = select
    """What chooses the policy among the TXT records of the domain and of all that it includes."""

    def of_helo(self) -> Request:
        """The check of the HELO identity (RFC 7208, 2.3). Nothing is guessed for it."""
        domain, fault = _helo_domain(self.helo)
        sender = f"postmaster@{self.helo if domain is None else domain}"
        name = "" if domain is None else domain.name
        return replace(self, identity=Identity.HELO, domain=name, sender=sender, fault=fault, best_guess=b"")

    def of_mail_from(self, path: ReversePath) -> Request:
        """The check of the MAIL FROM identity (RFC 7208, 2.4).

        The null reverse-path stands for postmaster at the HELO name, and the evaluation then reports that domain.
        """
        local_part, domain, fault = _mail_from(self.helo, path)
        if domain is None:
            sender = path.text or f"postmaster@{self.helo}"
            return replace(self, identity=Identity.MAILFROM, domain="", sender=sender, fault=fault)
        sender = f"{local_part or 'postmaster'}@{domain}"  # RFC 7208, 4.3
        return replace(self, identity=Identity.MAILFROM, domain=domain.name, sender=sender, fault="")


def is_multi_label(name: str) -> bool:
    """Whether this has at least two labels and is not an address (RFC 7208, 4.3). The DNS decides about the rest."""
    _, dot, toplabel = name.rpartition(".")
    return bool(dot) and not toplabel.isdigit() and not name.startswith("[")


def _helo_domain(helo: str) -> tuple[Domain | None, str]:
    """The domain that a HELO argument names, or why it does not name one (RFC 7208, 2.3)."""
    if not helo:
        return None, "no HELO name"
    if not helo.isascii():  # RFC 8616, 4: HELO has A-labels
        return None, "HELO name is not ASCII"
    try:
        domain = Domain.parse(helo)
    except InvalidNameError as error:
        return None, f"HELO is not a domain name: {error}"
    if not is_multi_label(domain.name):  # RFC 7208, 2.3 and 4.3
        return None, "HELO is not a fully qualified domain name"
    return domain, ""


def _mail_from(helo: str, reverse_path: ReversePath) -> tuple[str, Domain | None, str]:
    """The local part and the domain that a reverse-path stands for, or why there is none (RFC 7208, 2.4)."""
    if reverse_path.is_null:  # RFC 7208, 2.4
        domain, fault = _helo_domain(helo)
        return "postmaster", domain, fault
    if reverse_path.mailbox is not None:
        local_part, domain = reverse_path.mailbox.local_part, reverse_path.mailbox.domain
    else:
        # Not a mailbox, but often there is still a domain, and only that decides (RFC 7208, 4.3).
        local_part, _, text = reverse_path.text.rpartition("@")
        try:
            domain = Domain.parse(text)
        except InvalidNameError as error:
            return "", None, f"MAIL FROM has no usable domain: {error}"
    if not is_multi_label(domain.name):
        return "", None, "MAIL FROM has no fully qualified domain name"
    return local_part, domain, ""
