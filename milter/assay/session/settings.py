# SPDX-License-Identifier: GPL-3.0-or-later
"""The operator's settings for how a message is evaluated."""

from __future__ import annotations

from msgspec import Struct, field

from assay import policy
from assay.keys import Signing
from assay.model.edits import AddRecipient, Change, ChangeSender, Edit, Insert, Remove, RemoveRecipient
from assay.policy import Action, Stage
from assay.protocol import dkim, dmarc, senderid, spf
from assay.trace import Wanted


class Settings(Struct, frozen=True):
    """The operator's settings for evaluation. With an empty `authserv_id`, the MTA's own name is used."""

    authserv_id: str = ""
    fallback_authserv_id: str = "localhost"  #: used if the MTA does not report its name
    further_authserv_ids: tuple[str, ...] = ()
    trace: Wanted = Wanted()  #: what is written into trace fields
    iprev: bool = True
    spf_limits: spf.Limits = field(default_factory=spf.Limits)
    spf_seconds: float | None = None  #: the time one check of SPF may take; None for a message's budget
    spf_best_guess: bytes = b""  #: a record for domains that have none; empty for no guess
    spf_explanations: bool = True  #: whether the explanations of domains are looked up
    dkim: dkim.SignatureRules = field(default_factory=dkim.SignatureRules)
    arc: bool = True
    arc_max_sets: int = 7  #: longer ARC chains fail
    sender_id: senderid.Spf1 | None = None  #: what v=spf1 records count for; None: Sender ID is not checked
    public_suffix: dmarc.PublicSuffix | None = None  #: how older receivers find organizational domains
    legacy_pct: dmarc.LegacyPct = dmarc.LegacyPct.IGNORE
    signing: Signing | None = None  #: what signs mail of ours; None if nothing does
    sealing: policy.Sealing | None = None  #: what seals mail that leaves again; None if nothing does
    rewriting: policy.Rewriting | None = None  #: what rewrites senders of forwarded mail; None if nothing does
    policy: policy.Policy = field(default_factory=policy.Policy)
    dry_run: bool = False
    dry_run_headers: bool = False  #: trace fields are written even in a dry run

    @property
    def possible_edits(self) -> frozenset[type[Edit]]:
        """The kinds of edits that a message may get."""
        if self.dry_run and not self.dry_run_headers:
            return frozenset()
        kinds: set[type[Edit]] = {Insert, Remove}  # trace fields, and forged ones
        if not self.dry_run:
            asked = self.policy.possible_edits
            kinds |= ({Change} if asked.subject_tag else set()) | ({AddRecipient} if asked.recipients else set())
            if self.rewriting is not None:
                kinds |= {ChangeSender, AddRecipient, RemoveRecipient}
        return frozenset(kinds)

    def may_act_at(self, stage: Stage) -> bool:
        """Whether a stage may have a reply other than 250: that of the policy, or that to an SRS address."""
        return self.policy.acts_at(stage) or (stage is Stage.RCPT and self.rewriting is not None)

    @property
    def may_quarantine(self) -> bool:
        """Whether a message may be quarantined."""
        return not self.dry_run and self.policy.may(Action.QUARANTINE)
