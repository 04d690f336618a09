# SPDX-License-Identifier: GPL-3.0-or-later
"""What signs a message of ours: the tables, in the operator's order of addresses, and why nothing does."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from enum import StrEnum

from msgspec import Struct

from assay.keys.table import Signatory, Table
from assay.model.message import Header
from assay.model.name import Domain, InvalidNameError, Mailbox, parse_mailbox
from assay.model.smtp import Envelope
from assay.protocol import dmarc

#: Our choice: beyond this many domains, looking for the one with the most similar name takes milliseconds.
MAX_COMPARED = 1000


class OnSignError(StrEnum):
    """What to do with a message that should be signed and cannot be."""

    ACCEPT = "accept"
    TEMPFAIL = "tempfail"


class Unpublished(StrEnum):
    """What to do about keys that the DNS does not publish."""

    SIGN = "sign"  #: sign with them all the same
    FALL_BACK = "fall back"  #: sign with other keys of the domain, if one of them is published
    TEMPFAIL = "tempfail"  #: defer mail for which no published key is left


class Chosen(Struct, frozen=True):
    """The signatories of one message. Without any, `why` is the reason in one clause."""

    signatories: tuple[Signatory, ...] = ()
    why: str = ""


class Signing(Struct, frozen=True):
    """The operator's settings for signing. Without tables nothing is signed."""

    tables: tuple[Table, ...] = ()
    on_error: OnSignError = OnSignError.TEMPFAIL
    unpublished: Unpublished = Unpublished.SIGN

    def choose(self, header: Header, envelope: Envelope) -> Chosen:
        """Choose what signs a message of ours.

        :param envelope: with the reverse-path.
        """
        author = dmarc.author(header.fields)
        if author.domain is None:
            return Chosen(why=author.fault)
        found = tuple(self._find(_mailbox(author.mailbox, author.domain)))
        if found:
            return Chosen(found)
        return Chosen(why=self._why_none(author.domain))

    def _find(self, address: Mailbox) -> Iterator[Signatory]:
        for table in self.tables:
            for signatory in table.find(address):
                yield signatory
                return

    def _why_none(self, domain: Domain) -> str:
        near = self._nearest(domain)
        return f"author domain {domain} is in no table" + (f"; nearest: {near}" if near else "")

    def _nearest(self, domain: Domain) -> str:
        """The domain of a table that the operator or the author may have meant; empty for none."""
        known = frozenset().union(*(table.domains for table in self.tables))
        above = domain.name.partition(".")[2]
        while above:
            if above in known:
                return above
            above = above.partition(".")[2]
        if len(known) > MAX_COMPARED:
            return ""
        return next(iter(difflib.get_close_matches(domain.name, sorted(known), n=1, cutoff=0.5)), "")


def _mailbox(text: str, domain: Domain) -> Mailbox:
    try:
        return parse_mailbox(text)
    except InvalidNameError:  # its local part is not clear
        return Mailbox("", domain)
