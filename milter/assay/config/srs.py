# SPDX-License-Identifier: GPL-3.0-or-later
"""The section for rewriting envelope senders of mail that is forwarded."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from assay.config.section import Section, SettingError, parse_domain, parse_domain_entries
from assay.config.sockets import check_endpoint
from assay.model.network import Networks
from assay.protocol import srs


class SrsSection(Section, frozen=True):
    """The Sender Rewriting Scheme: a forwarded message gets an envelope sender of yours, so that it passes SPF at the
    next hop, and a bounce to that address goes back to the original sender. See docs/forwarding.md.

    The sender is rewritten if it is not of own_domains, no recipient is of own_domains, and each condition below that
    is set holds. The null sender is never rewritten."""

    domain: Annotated[
        str,
        Meta(
            description="The domain of the rewritten addresses. Empty: no address is rewritten. The MTA must accept "
            "mail to it, and it needs an SPF record that names this host."
        ),
    ] = ""
    secrets_file: Annotated[
        str,
        Meta(
            description="A file with one secret per line: the first signs addresses, all verify them. To replace a "
            "secret, write the new one above it, and remove the old one after max_age_days. Hosts that forward for one "
            "domain share the file. Only its owner and group may have access to it."
        ),
    ] = ""
    own_domains: Annotated[
        tuple[str, ...],
        Meta(
            description="The domains that this site receives mail for, each with all domains below it. Their senders "
            "are not rewritten, and mail to them is not forwarded mail. The domain above is one of them."
        ),
    ] = ()
    networks: Annotated[
        tuple[str, ...], Meta(description="If set: only mail from clients in these networks is rewritten.")
    ] = ()
    daemon_names: Annotated[
        tuple[str, ...],
        Meta(
            description="If set: only mail that these services of the MTA have accepted is rewritten (the macro "
            "{daemon_name})."
        ),
    ] = ()
    logins: Annotated[
        tuple[str, ...],
        Meta(
            description='If set: only mail of these login names is rewritten; "*" stands for all authenticated users.'
        ),
    ] = ()
    sender_domains: Annotated[
        tuple[str, ...],
        Meta(description="If set: only senders of these domains are rewritten, each with all domains below it."),
    ] = ()
    recipient_domains: Annotated[
        tuple[str, ...],
        Meta(
            description="If set: only mail whose recipients are all in these domains is rewritten. Each "
            "includes all domains below it."
        ),
    ] = ()
    separator: Annotated[
        str,
        Meta(
            description='The character after SRS0 and SRS1: "=", "+" or "-". With "+" or "-", an MTA that uses it '
            "as the delimiter of address extensions delivers all such addresses to the users SRS0 and SRS1."
        ),
    ] = "="
    hash_length: Annotated[
        int,
        Meta(
            ge=4,
            le=srs.MAX_HASH_LENGTH,
            description="Characters of the hash in new addresses. Each is worth five to six bits; anyone who guesses "
            "a hash can send mail to one address through this host.",
        ),
    ] = 4
    min_hash_length: Annotated[
        int,
        Meta(
            ge=4,
            le=srs.MAX_HASH_LENGTH,
            description="Characters of the shortest hash that is accepted. Raise it only max_age_days after "
            "hash_length.",
        ),
    ] = 4
    max_age_days: Annotated[
        int,
        Meta(
            ge=1,
            le=srs.MAX_AGE_DAYS,
            description="How long an address is valid. MTAs give up after five days (RFC 5321, 4.5.4.1), but some "
            "bounces come later.",
        ),
    ] = 21

    socketmap: Annotated[
        str,
        Meta(
            description="Where the MTA asks for addresses by the socketmap protocol, such as "
            "inet:8892@127.0.0.1 or unix:/run/assay/daemon/srs.sock: the map forward has the new address of a "
            "sender, and reverse the sender of an SRS address. Empty: nowhere."
        ),
    ] = ""
    forward_table: Annotated[
        str, Meta(description="Where Postfix asks for the new address of a sender as a tcp_table(5). Empty: nowhere.")
    ] = ""
    reverse_table: Annotated[
        str, Meta(description="Where Postfix asks for the sender of an SRS address as a tcp_table(5). Empty: nowhere.")
    ] = ""

    def __post_init__(self) -> None:
        """Check what types cannot express."""
        for key in ("socketmap", "forward_table", "reverse_table"):
            if text := getattr(self, key):
                check_endpoint(key, text, "daemon/srs.sock")
                if not self.domain:
                    raise SettingError("domain", f"missing; srs.{key} requires it")
        for key in ("own_domains", "sender_domains", "recipient_domains"):
            parse_domain_entries(key, getattr(self, key))
        if not self.domain:
            return
        parse_domain("domain", self.domain)
        if not self.secrets_file:
            raise SettingError("secrets_file", "missing; name a file with one secret per line")
        if self.separator not in srs.SEPARATORS:
            raise SettingError("separator", f'{self.separator!r} is not a separator; write "=", "+" or "-"')
        if self.min_hash_length > self.hash_length:
            raise SettingError(
                "min_hash_length",
                f"{self.min_hash_length} is more than hash_length, so no new address would be accepted; "
                f"write at most {self.hash_length}",
            )
        try:
            Networks.parse(self.networks)
        except ValueError as error:
            raise SettingError("networks", str(error)) from error
