# SPDX-License-Identifier: GPL-3.0-or-later
"""What to do with a message: from an assessment and the operator's rules to one decision.

Every local override of the protocols' results is here and has a name. The default follows RFC 9989, 7.4 and 8: evaluate
everything, record it, and refuse nothing until the operator says so.

`vocabulary` has the names of facts, and `facts` derives them from an assessment. `outcomes` maps each method's outcome
to an action. `rules` are the operator's CEL expressions, and `rule_names` checks the names in them. `replies` has the
SMTP replies. `decide` combines them all. `standing` is whose mail a message is, and `course` walks it through the
stages. `rewriting` says which senders are rewritten when mail is forwarded, and
`sealing` what seals it.
"""

from assay.policy.course import Course
from assay.policy.decide import ForwardDecision, Policy, SignDecision, decide, decide_forwarding, decide_signing
from assay.policy.decision import ACCEPTED, NO_EDITS, Action, Decision, Edits, OnError, Reply, Stage
from assay.policy.facts import facts
from assay.policy.outcomes import MethodPolicy, Override, methods
from assay.policy.replies import ReplyTexts, check_reply, split_reply
from assay.policy.rewriting import Rewriting, Rewritten
from assay.policy.rule_names import RuleError
from assay.policy.rules import Lists, Rule, compile_rule
from assay.policy.sealing import Sealing, SealingKey
from assay.policy.standing import Direction, Standing, Trust
from assay.policy.vocabulary import Facts

__all__ = [
    "ACCEPTED",
    "NO_EDITS",
    "Action",
    "Course",
    "Decision",
    "Direction",
    "Edits",
    "Facts",
    "ForwardDecision",
    "Lists",
    "MethodPolicy",
    "OnError",
    "Override",
    "Policy",
    "Reply",
    "ReplyTexts",
    "Rewriting",
    "Rewritten",
    "Rule",
    "RuleError",
    "Sealing",
    "SealingKey",
    "SignDecision",
    "Stage",
    "Standing",
    "Trust",
    "check_reply",
    "compile_rule",
    "decide",
    "decide_forwarding",
    "decide_signing",
    "facts",
    "methods",
    "split_reply",
]
