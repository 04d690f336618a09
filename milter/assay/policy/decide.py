# SPDX-License-Identifier: GPL-3.0-or-later
"""Combine rules and methods into one decision for a message, or for a stage of it.

Rules come first, in the operator's order. The first that matches decides, and ``accept`` ends judgement. Then comes the
outcome of each method, and the hardest action wins.

Before the end of the message only a refusal can be carried out. Gentler actions wait for the end, where all facts of
the earlier stages are still known.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct, field
from msgspec.structs import force_setattr, replace

from assay.assessment import Assessment
from assay.model.name import Domain
from assay.policy import facts as assessed
from assay.policy.decision import ACCEPTED, NO_EDITS, Action, Decision, Edits, Stage
from assay.policy.outcomes import MethodOutcome, MethodPolicy
from assay.policy.replies import ReplyTexts
from assay.policy.rule_names import RuleError, View, merge
from assay.policy.rules import Lists, Reading, Rule
from assay.policy.standing import Direction
from assay.policy.vocabulary import Facts


class Policy(Struct, frozen=True):
    """All decisions of the operator. `tag` holds the edits of the action TAG."""

    rules: tuple[Rule, ...] = ()
    methods: tuple[MethodPolicy, ...] = ()
    replies: ReplyTexts = field(default_factory=ReplyTexts)
    lists: Lists = field(default_factory=dict)
    tag: Edits = NO_EDITS
    trusted_sealers: frozenset[Domain] = frozenset()
    exact_local_parts: bool = False  #: local parts of addresses differ by case
    logs_facts: bool = False  #: the facts are needed even if nothing acts on them
    sign_rules: tuple[Rule, ...] = ()  #: those of `rules` that say whether to sign; derived from them
    forward_rules: tuple[Rule, ...] = ()  #: those that say whether a message is forwarded; likewise
    view: View = {}  #: the facts that rules read; always derived from `rules`
    header_names: frozenset[str] = frozenset()  #: the header fields that rules ask for; likewise
    stages: frozenset[Stage] = frozenset()  #: at which something is decided; derived from `rules` and `methods`

    def __post_init__(self) -> None:
        force_setattr(self, "sign_rules", tuple(rule for rule in self.rules if rule.sign is not None))
        force_setattr(self, "forward_rules", tuple(rule for rule in self.rules if rule.forward is not None))
        stages = {rule.stage for rule in self.rules if rule.acts} | {method.stage for method in self.methods}
        force_setattr(self, "stages", frozenset(stages | {Stage.EOM} if stages else ()))
        force_setattr(self, "view", merge([rule.view for rule in self.rules]))
        force_setattr(self, "header_names", frozenset().union(*(rule.header_names for rule in self.rules)))

    def acts_at(self, stage: Stage) -> bool:
        """Whether anything is decided at this stage. If not, it costs nothing and needs no reply."""
        return stage in self.stages

    def may(self, action: Action) -> bool:
        """Whether any rule or method, dry runs excepted, can lead to this action."""
        return any(rule.action is action for rule in self.rules if not rule.dry_run) or any(
            action in method.actions.values() for method in self.methods if not method.dry_run
        )

    @property
    def possible_edits(self) -> Edits:
        """All edits that decisions can lead to."""
        edits = self.tag if self.may(Action.TAG) else NO_EDITS
        for rule in self.rules:
            if not rule.dry_run:
                edits |= rule.edits
        return edits

    @property
    def signs_inbound(self) -> bool:
        """Whether a rule may sign mail from outside. Only rules that name the direction apply to it, so that a rule for
        mail of ours never signs a stranger's by accident."""
        return any(rule.sign and "direction" in rule.view for rule in self.sign_rules)

    def facts(self, assessment: Assessment) -> Facts:
        """The facts of a message as rules and methods see them."""
        return assessed.facts(
            assessment,
            header_names=self.header_names,
            trusted_sealers=self.trusted_sealers,
            exact=self.exact_local_parts,
        )


def decide(facts: Facts, policy: Policy, stage: Stage, *, late: bool = False) -> Decision:
    """Apply the policy at one stage.

    :param late: the client was unknown at the earlier stages, as behind a relay of ours. Apply their rules too.
    """
    watched: list[Decision] = []
    edits = NO_EDITS
    rules = [rule for rule in policy.rules if rule.acts and (rule.stage is stage or late)]
    for rule in _matching(facts, policy, rules, watched):
        if rule.dry_run:
            watched.append(_of_rule(facts, policy, rule))
        elif rule.action is None:
            edits |= rule.edits
        else:
            decision = _of_rule(facts, policy, rule)
            return replace(decision, edits=edits | decision.edits, kept=edits, watched=tuple(watched))
    decision = _of_all_methods(facts, policy, stage, watched)
    if watched or edits is not NO_EDITS:
        return replace(decision, edits=edits | decision.edits, kept=edits, watched=tuple(watched))
    return decision


class SignDecision(Struct, frozen=True):
    """What the rules say about signing one message.

    `sign` is whether to sign, the domain to sign as, or None if no rule says anything. `by` is the rule. `faults` are
    the errors of rules that could not be evaluated, and did not match.
    """

    sign: bool | Domain | None = None
    by: str = ""
    faults: tuple[str, ...] = ()


def decide_signing(facts: Facts, policy: Policy) -> SignDecision:
    """Apply the rules about signing: the first that matches decides."""
    inbound = facts.direction == Direction.INBOUND
    rules = [rule for rule in policy.sign_rules if not inbound or "direction" in rule.view]
    rule, faults = _first(facts, policy, rules)
    return SignDecision(faults=faults) if rule is None else SignDecision(rule.sign, f"rule {rule.name}", faults)


class ForwardDecision(Struct, frozen=True):
    """What the rules say about forwarding one message.

    `forward` is whether to treat it as forwarded, None if no rule says anything. `by` and `faults` are as those of
    `SignDecision`.
    """

    forward: bool | None = None
    by: str = ""
    faults: tuple[str, ...] = ()


def decide_forwarding(facts: Facts, policy: Policy) -> ForwardDecision:
    """Apply the rules about forwarding: the first that matches decides."""
    rule, faults = _first(facts, policy, policy.forward_rules)
    return (
        ForwardDecision(faults=faults) if rule is None else ForwardDecision(rule.forward, f"rule {rule.name}", faults)
    )


def _first(facts: Facts, policy: Policy, rules: Sequence[Rule]) -> tuple[Rule | None, tuple[str, ...]]:
    """The first rule that matches and is not in dry run, and what is to be said of those before it."""
    faults: list[str] = []
    reading = Reading(facts, policy.lists, policy.view)
    for rule in rules:
        try:
            if reading.matches(rule):
                if not rule.dry_run:
                    return rule, tuple(faults)
                faults.append(f"rule {rule.name} would decide, but is in dry run")
        except RuleError as error:
            faults.append(str(error))
    return None, tuple(faults)


def _matching(facts: Facts, policy: Policy, rules: list[Rule], watched: list[Decision]) -> Iterator[Rule]:
    """The rules that match, in order. A rule that cannot be evaluated does not match, and is reported in `watched`."""
    if not rules:
        return
    reading = Reading(facts, policy.lists, policy.view)
    for rule in rules:
        try:
            if reading.matches(rule):
                yield rule
        except RuleError as error:
            watched.append(Decision(reason=str(error), by=f"rule {rule.name}"))


def _of_rule(facts: Facts, policy: Policy, rule: Rule) -> Decision:
    action = rule.action or Action.ACCEPT
    return Decision(
        action,
        policy.replies.of_rule(action, rule.reply, rule.reason, facts) if action.refuses else None,
        rule.reason,
        f"rule {rule.name}",
        override=f"rule {rule.name}: {rule.reason}" if rule.reason else f"rule {rule.name}",
        edits=rule.edits | policy.tag if action is Action.TAG else rule.edits,
        final=rule.action is Action.ACCEPT,
    )


def _of_all_methods(facts: Facts, policy: Policy, stage: Stage, watched: list[Decision]) -> Decision:
    """The decision of all methods. Decisions of methods in dry run go to `watched`."""
    acting = []
    for method in policy.methods:
        if method.stage is not stage and stage is not Stage.EOM:
            continue
        outcome = method.outcome(facts)
        if outcome is None:
            continue
        if not method.dry_run:
            acting.append((method, outcome))
        elif (would := _by_methods(facts, policy, [(method, outcome)], stage)).action is not Action.ACCEPT:
            watched.append(would)
    return _by_methods(facts, policy, acting, stage)


def _by_methods(
    facts: Facts, policy: Policy, found: list[tuple[MethodPolicy, MethodOutcome]], stage: Stage
) -> Decision:
    """The hardest action of any method. Overridden outcomes are recorded but not acted on."""
    asked = [(method, outcome, *method.treat(outcome)) for method, outcome in found]
    wanted = [row for row in asked if row[3] is not Action.ACCEPT and (row[3].refuses or stage is Stage.EOM)]
    acting = [row for row in wanted if not row[1].recorded]
    override = "; ".join(dict.fromkeys(outcome.override for _, outcome, _, _ in wanted if outcome.override))
    if not acting:
        keys = ", ".join(key for _, _, key, _ in wanted)
        return Decision(reason=f"{keys} not acted on: {override}", override=override) if wanted else ACCEPTED
    action = max((asks for _, _, _, asks in acting), key=lambda asks: asks.rank)
    deciding = [row for row in acting if row[3] is action]
    outcomes = [(method.name, outcome) for method, outcome, _, _ in deciding]
    return Decision(
        action,
        policy.replies.of_methods(action, outcomes, facts) if action.refuses else None,
        "; ".join(outcome.reason for _, outcome in outcomes),
        ", ".join(key for _, _, key, _ in deciding),
        override=override,
        edits=policy.tag if action is Action.TAG else NO_EDITS,
    )
