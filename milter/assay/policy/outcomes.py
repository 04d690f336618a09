# SPDX-License-Identifier: GPL-3.0-or-later
"""Each method's outcome, and the operator's action for it.

A method has a set of outcomes with an action each. Its outcome is read from the facts. `assay.policy.decide` combines
several methods.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import partial

from msgspec import Struct, field

from assay.policy.addresses import Entries, at_or_below
from assay.policy.decision import Action, Stage
from assay.policy.vocabulary import Facts, SpfIdentityFacts


class Override(StrEnum):
    """Names of the local overrides of a protocol's result, as they appear in the log and in trace fields."""

    TRUSTED_SEALERS = "trusted ARC sealers"
    TRUSTED_FORWARDER = "trusted forwarder"
    MAILING_LIST = "mailing list"
    STRICTER = "stricter than published"


class MethodOutcome(Struct, frozen=True):
    """The outcome of one method: the last part of the configuration key, and the reason.

    `override` names a local override that applies. With `recorded` the outcome is recorded but not acted on.
    """

    key: str
    reason: str
    override: str = ""
    recorded: bool = False


class MethodPolicy(Struct, frozen=True):
    """A method with the operator's actions.

    :param name: the configuration section, such as ``spf.mailfrom``.
    :param stage: the first stage at which it may refuse. Other actions wait for the end of the message.
    :param actions: by outcome. An outcome that is not listed is accepted.
    :param outcome: reads the outcome from the facts; returns None if the method was not evaluated.
    """

    name: str
    stage: Stage
    actions: Mapping[str, Action]
    outcome: Callable[[Facts], MethodOutcome | None]
    dry_run: bool = False

    def treat(self, outcome: MethodOutcome) -> tuple[str, Action]:
        """The configuration key for an outcome, and its action.

        The outcomes of the ``all`` mechanism have actions of their own only if the operator sets them.
        """
        key = outcome.key if outcome.key in self.actions else outcome.key.removesuffix("_all")
        return f"{self.name}.{key}", self.actions.get(key, Action.ACCEPT)

    @property
    def acts(self) -> bool:
        """Whether any outcome has an action other than ACCEPT. Otherwise the method costs nothing."""
        return any(action is not Action.ACCEPT for action in self.actions.values())


class OutcomeSettings(Struct, frozen=True):
    """The operator's settings for outcomes, other than the actions.

    `strict_spf_domains`: senders whose softfail and neutral count as fail. `stricter_dmarc`: author domains whose
    failures are treated as if their policy were reject. `required_fields`: lower-case names that a passing DKIM
    signature must cover. `iprev_names`: which of the client's names must lie in the domain of MAIL FROM: "first",
    "any" or "" for no such check. `list_traffic`: what a DMARC rejection of mailing list mail becomes: "reject",
    "quarantine" or "accept". `trusted_forwarder` returns whether SPF and DMARC failures of a client address are
    recorded but not acted on.
    """

    strict_spf_domains: Entries = Entries()
    stricter_dmarc: Entries = Entries()
    required_fields: frozenset[str] = frozenset()
    iprev_names: str = ""
    list_traffic: str = "reject"
    trusted_forwarder: Callable[[str], bool] = field(default=lambda _: False)


def iprev_outcome(facts: Facts, _: OutcomeSettings) -> MethodOutcome | None:
    """``pass``, ``fail``, ``permerror``, ``temperror``."""
    iprev = facts.iprev
    return MethodOutcome(iprev.result, iprev.reason) if iprev.result else None


def name_outcome(facts: Facts, settings: OutcomeSettings) -> MethodOutcome | None:
    """``name_mismatch`` if a name of the client must lie in the domain of MAIL FROM and does not.

    Only names that resolve to the client's address count. The others are the client's own claims.
    """
    domain = facts.mail_from.domain
    if not settings.iprev_names or not domain or facts.iprev.result in ("", "temperror"):
        return None
    confirmed = facts.iprev.confirmed
    names = confirmed[:1] if settings.iprev_names == "first" else confirmed
    if any(at_or_below(name.lower(), frozenset((domain,))) for name in names):
        return None
    return MethodOutcome("name_mismatch", f"no confirmed name of {facts.client.address} lies in {domain}")


def spf_outcome(facts: Facts, spf: SpfIdentityFacts, settings: OutcomeSettings) -> MethodOutcome | None:
    """SPF's result words; ``fail_all`` and ``softfail_all`` if the ``all`` mechanism decided."""
    result = spf.result
    if not result:
        return None
    recorded = settings.trusted_forwarder(facts.client.address)
    override = Override.TRUSTED_FORWARDER if recorded else ""
    if result in ("softfail", "neutral") and settings.strict_spf_domains.hold(spf.domain):
        result, override = "fail", override or Override.STRICTER
    suffix = "_all" if spf.by_all and result in ("fail", "softfail") else ""
    return MethodOutcome(result + suffix, spf.reason, override, recorded)


#: From the best to the worst. A message has the best result of its signatures: one that verifies is enough
#: (RFC 6376, 6.1).
_DKIM_RANKS = ("pass", "policy", "temperror", "fail", "neutral", "permerror")


def dkim_outcome(facts: Facts, settings: OutcomeSettings) -> MethodOutcome | None:
    """The best result of all signatures, or ``none``, ``unsigned_fields`` or ``unaligned``."""
    if not facts.dmarc.result:
        return None  # before the end of the message
    # RFC 6376, 3.6.1: mail of a signer in test mode (t=y) is not treated worse than unsigned mail.
    signatures = [signature for signature in facts.dkim if signature.result == "pass" or not signature.testing]
    if not signatures:
        return MethodOutcome("none", "no DKIM signature" if not facts.dkim else "no DKIM signature but in test mode")
    best = min(signatures, key=lambda signature: _DKIM_RANKS.index(signature.result))
    if best.result != "pass":
        return MethodOutcome(best.result, best.reason)
    passing = [signature for signature in signatures if signature.result == "pass"]
    if not any(settings.required_fields.issubset(signature.fields) for signature in passing):
        return MethodOutcome("unsigned_fields", "no passing DKIM signature covers all required header fields")
    if not any(signature.aligned for signature in passing):
        return MethodOutcome("unaligned", "no passing DKIM signature is aligned with the author domain")
    return MethodOutcome("pass", best.reason)


def arc_outcome(facts: Facts, _: OutcomeSettings) -> MethodOutcome | None:
    """``none``, ``pass``, ``fail``."""
    arc = facts.arc
    return MethodOutcome(arc.result, arc.reason) if arc.result else None


def sender_id_outcome(facts: Facts, _: OutcomeSettings) -> MethodOutcome | None:
    """Sender ID's result words."""
    sender_id = facts.senderid
    return MethodOutcome(sender_id.result, sender_id.reason) if sender_id.result else None


def dmarc_outcome(facts: Facts, settings: OutcomeSettings) -> MethodOutcome | None:
    """For a failure the domain's policy: ``none``, ``quarantine``, ``reject``. Otherwise ``pass``, ``no_policy``,
    ``permerror``, ``temperror``, or ``malformed_from`` if there is no author domain."""
    dmarc = facts.dmarc
    match dmarc.result:
        case "":
            return None
        case "none":
            return MethodOutcome("no_policy", dmarc.reason)
        case "permerror" if facts.author.fault:
            return MethodOutcome("malformed_from", facts.author.fault)
        case "fail":
            return _dmarc_failure(facts, settings)
        case result:
            return MethodOutcome(result, dmarc.reason)


def _dmarc_failure(facts: Facts, settings: OutcomeSettings) -> MethodOutcome:
    reason = f"message fails the policy of {facts.dmarc.domain}"
    asked = facts.dmarc.disposition
    if facts.arc.trusted:
        return MethodOutcome(asked, reason, Override.TRUSTED_SEALERS, recorded=True)
    if settings.trusted_forwarder(facts.client.address):
        return MethodOutcome(asked, reason, Override.TRUSTED_FORWARDER, recorded=True)
    if any(map(settings.stricter_dmarc.hold, (facts.dmarc.domain, *facts.author.domains))):
        return MethodOutcome("reject", reason, "" if asked == "reject" else Override.STRICTER)
    through_list = facts.mailing_list.id or facts.arc.result == "pass"
    if asked == "reject" and settings.list_traffic != "reject" and through_list:
        # RFC 9989, 7.4: list software breaks signatures in good faith. It adds a List-Id (RFC 2919) or seals.
        # RFC 8617, 5.2: a broken chain counts as none.
        lowered = settings.list_traffic == "accept"
        return MethodOutcome("quarantine", reason, Override.MAILING_LIST, recorded=lowered)
    return MethodOutcome(asked, reason)


_Reader = Callable[[Facts, OutcomeSettings], MethodOutcome | None]
#: In the order in which their facts arrive. IPREV has two checks, and the operator may use either.
_READERS: tuple[tuple[str, _Reader], ...] = (
    ("iprev", iprev_outcome),
    ("spf.helo", lambda facts, settings: spf_outcome(facts, facts.spf.helo, settings)),
    ("iprev", name_outcome),
    ("spf.mailfrom", lambda facts, settings: spf_outcome(facts, facts.spf.mailfrom, settings)),
    ("dkim", dkim_outcome),
    ("arc", arc_outcome),
    ("senderid", sender_id_outcome),
    ("dmarc", dmarc_outcome),
)
#: The outcomes that have an action, by method.
OUTCOMES: Mapping[str, tuple[str, ...]] = {
    "iprev": ("fail", "permerror", "temperror", "name_mismatch"),
    **dict.fromkeys(
        ("spf.helo", "spf.mailfrom"),
        ("none", "neutral", "fail", "fail_all", "softfail", "softfail_all", "temperror", "permerror"),
    ),
    "dkim": ("none", "fail", "policy", "neutral", "temperror", "permerror", "unsigned_fields", "unaligned"),
    "arc": ("none", "fail"),
    "senderid": ("fail", "softfail", "neutral", "none", "temperror", "permerror"),
    "dmarc": ("none", "quarantine", "reject", "no_policy", "temperror", "permerror", "malformed_from"),
}


def methods(
    actions: Mapping[str, Mapping[str, Action]],
    stages: Mapping[str, Stage],
    dry_runs: frozenset[str],
    settings: OutcomeSettings,
) -> tuple[MethodPolicy, ...]:
    """The methods that act, in the order in which their facts arrive.

    :param actions: actions by outcome, by method.
    :param stages: the first stage at which a method may refuse; the end of the message if it is not listed.
    :param dry_runs: methods in dry run.
    """
    made = (
        MethodPolicy(
            name,
            _stage(reader, stages.get(name, Stage.EOM)),
            _actions(reader, actions.get(name, {})),
            partial(_read, reader, settings),
            name in dry_runs,
        )
        for name, reader in _READERS
    )
    return tuple(method for method in made if method.acts)


def _read(reader: _Reader, settings: OutcomeSettings, facts: Facts) -> MethodOutcome | None:
    return reader(facts, settings)


def _stage(reader: _Reader, stage: Stage) -> Stage:
    return max(stage, Stage.MAIL, key=lambda candidate: candidate.rank) if reader is name_outcome else stage


def _actions(reader: _Reader, actions: Mapping[str, Action]) -> Mapping[str, Action]:
    """The actions that a reader can lead to: IPREV has two readers."""
    if reader not in (iprev_outcome, name_outcome):
        return actions
    return {key: action for key, action in actions.items() if (key == "name_mismatch") is (reader is name_outcome)}
