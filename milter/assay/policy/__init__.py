# SPDX-License-Identifier: GPL-3.0-or-later
"""What to do with a message: an assessment and the operator's rules in, one decision out.

Every local override of what the protocols say has its place here and a name. The default follows RFC 9989, 7.4 and 8:
evaluate everything, write it down, and refuse nothing until the operator says so.

`vocabulary` has the operator's own words, and `facts` puts an assessment into them; `outcomes` maps each method's
outcome to an action; `rules` are the operator's CEL expressions, and `names` checks what they name; `replies` word the
SMTP replies; `decide` brings them together. `standing` says whose mail a message is, and `course` walks it through the
stages.
"""

from assay.policy.course import Course
from assay.policy.decide import Policy, decide
from assay.policy.decision import ACCEPTED, NO_EDITS, Action, Decision, Edits, OnError, Reply, Stage
from assay.policy.facts import facts
from assay.policy.outcomes import MethodPolicy, Override, methods
from assay.policy.replies import ReplyTexts, check_reply, split_reply
from assay.policy.rule_names import RuleError
from assay.policy.rules import Lists, Rule, compile_rule
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
    "Lists",
    "MethodPolicy",
    "OnError",
    "Override",
    "Policy",
    "Reply",
    "ReplyTexts",
    "Rule",
    "RuleError",
    "Stage",
    "Standing",
    "Trust",
    "check_reply",
    "compile_rule",
    "decide",
    "facts",
    "methods",
    "split_reply",
]
