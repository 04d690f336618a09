# SPDX-License-Identifier: GPL-3.0-or-later
"""The course of a connection and its messages through the stages of SMTP: which decisions are made where.

The daemon walks it with facts as they arrive, ``assay policy try`` with logged facts. At each stage the caller passes a
function that returns the facts. It is called only if the policy acts at that stage, since it may have to wait.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from assay.model.smtp import Address
from assay.policy.decide import Policy, decide
from assay.policy.decision import ACCEPTED, Action, Decision, Stage
from assay.policy.standing import STRANGER, Standing, Trust
from assay.policy.vocabulary import Facts

FactsNow = Callable[[], Facts]


class Course:
    """One connection, and one message at a time. Call the methods in SMTP's order."""

    __slots__ = (
        "_accepted", "_carries_out", "_client", "_final", "_policy", "_relayed", "_spared", "_taken", "_trust",
        "message",
    )  # fmt: skip

    def __init__(self, policy: Policy, trust: Trust, *, carries_out: bool = True) -> None:
        """:param carries_out: whether refusals are carried out. In a dry run the message continues."""
        self._policy = policy
        self._trust = trust
        self._carries_out = carries_out
        self._client = STRANGER
        self._accepted: dict[Stage, Decision] = {}  # of rules that accept before MAIL
        self._begin(STRANGER)

    def _begin(self, standing: Standing) -> None:
        self.message = standing  #: the standing of the current message
        self._relayed = standing.relayed  # whether the client was unknown at the earlier stages
        self._final: Decision | None = None  # of a rule that accepts: no later stage judges this message
        self._spared = ""  # why failures are only recorded: all recipients are exempt
        self._taken = False  # whether a recipient was accepted

    def connect(
        self, address: Address | None, daemon: str, *, local: bool = True, confirmed: Collection[str] = ()
    ) -> Standing:
        """A client connected. See `Trust.of_client`."""
        self._accepted = {}
        self._client = self._trust.of_client(address, daemon, local=local, confirmed=confirmed)
        return self._client

    def greeted(self) -> None:
        """A new HELO replaces the former one, and voids the decision about it."""
        self._accepted.pop(Stage.HELO, None)

    def at_connection(self, stage: Stage, facts: FactsNow) -> Decision:
        """Decide at CONNECT or HELO."""
        if self._client.exempt or self._client.relayed or Stage.CONNECT in self._accepted:
            return ACCEPTED
        decision = self._at(stage, facts)
        if decision.final:
            self._accepted[stage] = decision
        return decision

    def mail(self, sender: str, authenticated: str) -> Standing:
        """A message begins. See `Trust.of_message`."""
        self._begin(self._trust.of_message(self._client, sender, authenticated))
        self._final = self._accepted.get(Stage.CONNECT) or self._accepted.get(Stage.HELO)
        return self.message

    def at_mail(self, facts: FactsNow) -> Decision:
        """Decide at MAIL."""
        if self._goes_on:
            return ACCEPTED
        decision = self._spare(self._at(Stage.MAIL, facts), self.message.spared)
        if decision.final:
            self._final = decision
        return decision

    def at_rcpt(self, recipient: str, facts: FactsNow) -> Decision:
        """Decide about one recipient. A message has one outcome for all recipients, so it is spared only if each of
        them is. Otherwise a stranger could add an exempt recipient to a message for somebody else.

        :param recipient: the forward-path without angle brackets.
        """
        decision = ACCEPTED
        spared = self._trust.spares_recipient(recipient)
        if not spared and not self._goes_on:
            decision = self._spare(self._at(Stage.RCPT, facts), self.message.spared)
            spared = decision.by if decision.final else ""
        if not (decision.action.refuses and self._carries_out):
            self._spared = spared if self._spared or not self._taken else ""
            self._taken = True
        return decision

    def may_be_relay(self, names: Iterable[str]) -> bool:
        """Whether one of these names, which anybody may claim, is that of a relay."""
        return any(map(self._trust.names_relay, names))

    def relayed(self, address: Address | None, confirmed: Collection[str] = ()) -> bool:
        """A Received field names the client of one of our relays. See `Trust.of_relayed`.

        :returns: whether this is the client to judge.
        """
        self.message = self._trust.of_relayed(self.message, address, confirmed)
        return not self.message.relayed

    def end(self, facts: Facts | None) -> Decision:
        """Decide at the end of the message.

        :param facts: may be None if the policy does not act at the end.
        """
        if self.message.exempt:
            return ACCEPTED
        if self._final is not None:
            return self._final
        if facts is None:
            return ACCEPTED
        decision = decide(facts, self._policy, Stage.EOM, late=self._relayed)
        return self._spare(decision, self.message.spared or self._spared)

    @property
    def _goes_on(self) -> bool:
        """Whether no decision is made about this message before its end."""
        return bool(self.message.exempt) or self.message.relayed or self._final is not None

    def _at(self, stage: Stage, facts: FactsNow) -> Decision:
        return decide(facts(), self._policy, stage) if self._policy.acts_at(stage) else ACCEPTED

    @staticmethod
    def _spare(decision: Decision, why: str) -> Decision:
        return decision.spared(why) if why and decision.action is not Action.ACCEPT else decision
