# SPDX-License-Identifier: GPL-3.0-or-later
"""The words of policy: stages, actions, replies and decisions."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct


class Stage(StrEnum):
    """The SMTP stages at which decisions are possible, in order. `rank` is the place in the order."""

    rank: int

    CONNECT = "connect"
    HELO = "helo"
    MAIL = "mail"
    RCPT = "rcpt"
    EOM = "eom"

    def __new__(cls, word: str) -> Stage:
        """A member, with its place."""
        member = str.__new__(cls, word)
        member._value_ = word
        member.rank = len(cls.__members__)
        return member


class Action(StrEnum):
    """The actions, from the gentlest to the hardest."""

    ACCEPT = "accept"
    TAG = "tag"  #: accept, with the configured header field and Subject tag
    QUARANTINE = "quarantine"  #: Postfix: the hold queue. Sendmail: a quarantined queue item.
    TEMPFAIL = "tempfail"
    DISCARD = "discard"  #: reply 250 and delete it; the sender never learns of it (RFC 9989, 7.2)
    REJECT = "reject"

    @property
    def rank(self) -> int:
        """The place in the order."""
        return _HARDNESS[self]

    @property
    def refuses(self) -> bool:
        """Whether the client gets a reply other than 250."""
        return self in (Action.TEMPFAIL, Action.REJECT)


_HARDNESS = {action: rank for rank, action in enumerate(Action)}


class OnError(StrEnum):
    """What to do with a message that we cannot judge because of a bug in assay. Harder actions would not be safe."""

    ACCEPT = "accept"
    TEMPFAIL = "tempfail"


class Reply(Struct, frozen=True):
    """An SMTP reply (RFC 5321, 4.2): code, enhanced status code (RFC 3463), and lines of printable ASCII."""

    code: int
    status: str
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.code} {self.status} {' '.join(self.lines)}"


class Edits(Struct, frozen=True):
    """The edits of a decision to an accepted message, in addition to the trace fields.

    `add` are (name, value) of new fields, `remove` are names of fields to remove, all of them; `subject_tag` goes in
    front of the Subject; `recipients` are added to the envelope.
    """

    add: tuple[tuple[str, str], ...] = ()
    remove: tuple[str, ...] = ()
    subject_tag: str = ""
    recipients: tuple[str, ...] = ()

    def __or__(self, other: Edits) -> Edits:
        return Edits(
            self.add + other.add,
            self.remove + other.remove,
            self.subject_tag or other.subject_tag,
            self.recipients + other.recipients,
        )


NO_EDITS = Edits()


class Decision(Struct, frozen=True):
    """What to do, and why.

    `reply` is set if the action refuses. `reason` is one clause for the log, the MTA's quarantine and
    Authentication-Results; `by` is the configuration key or the name of the rule that decided. Both are empty for a
    plain ACCEPT. `final` means that a rule accepted the message, and no later stage judges it. `override` names a local
    deviation from a protocol's result, for trace fields and reports. `kept` are the `edits` of rules without an action:
    they apply whatever the outcome. `watched` are the decisions of keys and rules in dry run.
    """

    action: Action = Action.ACCEPT
    reply: Reply | None = None
    reason: str = ""
    by: str = ""
    override: str = ""
    edits: Edits = NO_EDITS
    kept: Edits = NO_EDITS
    final: bool = False
    watched: tuple[Decision, ...] = ()

    def spared(self, why: str) -> Decision:
        """The decision for a message whose failures are recorded but not acted on."""
        return Decision(
            reason=f"not acted on: {why}",
            override=why,
            edits=self.kept,
            kept=self.kept,
            watched=(*self.watched, self),
        )


ACCEPTED = Decision()
