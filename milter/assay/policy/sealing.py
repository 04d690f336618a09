# SPDX-License-Identifier: GPL-3.0-or-later
"""What seals a message that leaves again (ARC), and why nothing does."""

from __future__ import annotations

from msgspec import Struct

from assay.model.name import Domain
from assay.model.smtp import Envelope
from assay.policy.addresses import Entries
from assay.policy.rewriting import why_it_stays
from assay.protocol import dkim


class SealingKey(Struct, frozen=True):
    """One domain that seals. `recipients` are those whose mail it seals; empty for all that leave."""

    domain: Domain
    key: dkim.SigningKey
    recipients: Entries = Entries()


class Sealing(Struct, frozen=True):
    """The operator's settings for sealing. `own` are our domains: mail to them does not leave."""

    keys: tuple[SealingKey, ...]
    own: Entries

    def choose(self, envelope: Envelope, *, asked: bool = False) -> tuple[SealingKey | None, str]:
        """What seals a message, or None and why nothing does.

        One that stays with a recipient of ours is not sealed: for those who read it here, the results that we write
        are enough.

        :param envelope: with all recipients.
        :param asked: a rule says that it is forwarded, whoever the recipients are.
        """
        if not asked and (staying := why_it_stays(envelope, self.own)):
            return None, staying
        for key in self.keys:
            if key.recipients == Entries() or all(map(key.recipients.hold, envelope.recipients)):
                return key, ""
        return None, "no arc.seal covers all recipients"
