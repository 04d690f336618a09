# SPDX-License-Identifier: GPL-3.0-or-later
"""What seals a message that leaves again (ARC), and why nothing does."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from assay.model.name import Domain
from assay.policy.addresses import Entries
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

    def choose(self, recipients: Sequence[str], *, asked: bool = False) -> tuple[SealingKey | None, str]:
        """What seals a message, or None and why nothing does.

        One that stays with a recipient of ours is not sealed: for those who read it here, the results that we write
        are enough.

        :param recipients: the forward-paths without angle brackets.
        :param asked: a rule says that it is forwarded, whoever the recipients are.
        """
        staying = next((path for path in recipients if "@" not in path or self.own.hold(path)), None)
        if staying is not None and not asked:
            return None, f"recipient {staying} is ours"
        for key in self.keys:
            if key.recipients == Entries() or all(map(key.recipients.hold, recipients)):
                return key, ""
        return None, "no arc.seal covers all recipients"
