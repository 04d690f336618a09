# SPDX-License-Identifier: GPL-3.0-or-later
"""The header of one message as it arrives: kept once for both strands, bounded, and checked for forged fields."""

from __future__ import annotations

from assay import policy, trace
from assay.model.message import Header, HeaderField
from assay.policy import Action, Decision

#: Our choice: twenty fields as long as Postfix allows (header_size_limit, 102,400). Sendmail allows 32 KiB in all. It
#: bounds what the signatures of a message can make us hash.
MAX_HEADER_OCTETS = 20 * 102_400
#: Our choice: an honest message has a few hundred at most, and the shortest field takes a hundred octets of memory.
MAX_HEADER_FIELDS = 10_000
#: Our choice, for each name: an honest message has a few for each of its hops. Further ones are removed unread, because
#: a field that is made to be ambiguous costs milliseconds to read, and a message has room for ten thousand.
MAX_TRACE_FIELDS = 100

#: Our choice, for both names together. An MTA searches from the top for each field to remove (Postfix: in the queue
#: file), so ten thousand of them, which take 150 KB, keep it busy for minutes.
MAX_FORGED = 1000

#: Fields by which mail of ours finds its signatory: they are kept beyond the bounds, the first two of each name, since
#: two already say that the author is not clear.
_OF_SIGNATORIES = frozenset((b"from", b"sender"))
_MAX_OF_SIGNATORIES = 2

#: Fields that only we may write in our own name.
_OURS = frozenset((b"authentication-results", b"received-spf"))


def _flood(by: str, fault: str) -> Decision:
    """Refuse a message that exceeds a bound of the header, whatever the policy says.

    It can only be an attack, and the fields beyond the bound are unknown: the message can be neither judged nor
    cleaned. It must not count as malformed, because operators may accept malformed messages.
    """
    return Decision(Action.REJECT, policy.Reply(550, "5.6.0", (fault,)), fault, by)  # RFC 3463, 3.7


_FLOOD_OF_HEADER = _flood(
    "header flood", f"header longer than {MAX_HEADER_OCTETS} octets or {MAX_HEADER_FIELDS} fields"
)
_FLOOD_OF_FORGERIES = _flood("forged trace fields", f"more than {MAX_FORGED} trace fields claim to be ours")


class Fields:
    """Collects the fields of one header.

    `forged` are (name, occurrence) of the fields that claim to be ours, from the top. `flood` is why a judged
    message is refused and one of ours not signed, and `flood_of_forgeries` why any message is refused. After either,
    only what names the author of mail of ours is kept.
    """

    __slots__ = ("_fields", "_forgeries", "_occurrences", "_octets", "flood", "flood_of_forgeries", "forged")

    def __init__(self, forgeries: trace.Forgeries | None) -> None:
        """:param forgeries: recognises forged fields; None if fields that claim our name are not removed."""
        self.forged: list[tuple[str, int]] = []
        self.flood: Decision | None = None
        self.flood_of_forgeries: Decision | None = None
        self._forgeries = forgeries
        self._occurrences: dict[bytes, int] = {}
        self._fields: list[HeaderField] = []
        self._octets = 0

    def add(self, field: HeaderField) -> bool:
        """Take the next field, and return whether it was kept."""
        if field.key in _OURS and self._forgeries is not None and self.flood_of_forgeries is None:
            self._note_forged(field, self._forgeries)
        if self.flood is not None:
            self._keep_author(field)
            return False
        self._octets += len(field.name) + len(field.value) + 3
        if self._octets > MAX_HEADER_OCTETS or len(self._fields) >= MAX_HEADER_FIELDS:
            self.flood = _FLOOD_OF_HEADER
            kept, self._fields = self._fields, []
            for each in (*kept, field):
                self._keep_author(each)
            return False
        self._fields.append(field)
        return True

    def _keep_author(self, field: HeaderField) -> None:
        """Of a header beyond its bounds, keep the field only if it names the author."""
        if field.key in _OF_SIGNATORIES and sum(each.key == field.key for each in self._fields) < _MAX_OF_SIGNATORIES:
            self._fields.append(field)

    def _note_forged(self, field: HeaderField, forgeries: trace.Forgeries) -> None:
        """Note a field that claims to be ours, by its position among the fields of its name."""
        occurrence = self._occurrences[field.key] = self._occurrences.get(field.key, 0) + 1
        if occurrence > MAX_TRACE_FIELDS or forgeries.claims(field):
            # Without the white space before the colon, which is not part of the name for any MTA.
            self.forged.append((field.name.rstrip(b" \t").decode("ascii", "replace"), occurrence))
            if len(self.forged) > MAX_FORGED:
                self.flood = self.flood_of_forgeries = _FLOOD_OF_FORGERIES
                self._fields = []

    def complete(self) -> Header:
        """All fields that were kept; if there were too many, those that name the author."""
        header = Header(tuple(self._fields))
        self._fields = []
        return header
