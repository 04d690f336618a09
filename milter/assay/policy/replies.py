# SPDX-License-Identifier: GPL-3.0-or-later
"""The SMTP replies: codes by RFC 7372, texts that the operator may change.

A text is a template with named fields in braces. Text from a sender reaches a reply only as printable ASCII of bounded
length, and SPF's explanation is marked as the sender's words (RFC 7208, 6.2 and 8.4).
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence

from msgspec import Struct, field

from assay.model.printable import as_prose, marked_ascii
from assay.policy.decision import Action, Reply
from assay.policy.outcomes import OUTCOMES, MethodOutcome
from assay.policy.vocabulary import Facts, SenderIdFacts, SpfIdentityFacts

MAX_LINE_LENGTH = 400  # octets of one line; RFC 5321, 4.5.3.1.5 allows 512 with code and CRLF
MAX_LINES = 5  # our choice; libmilter takes 32

#: RFC 3463, 2: one digit, and two numbers of up to three.
_STATUS_CODE = re.compile(r"[0-9]\.[0-9]{1,3}\.[0-9]{1,3}")

#: The second and third part of the enhanced status code, by method or by method and outcome.
_STATUS = {
    "iprev": "7.25",  # RFC 7372, 3.3
    "spf.helo": "7.1",
    "spf.helo.fail": "7.23",  # RFC 7372, 3.2: for fail only
    "spf.helo.temperror": "7.24",
    "spf.helo.permerror": "7.24",
    "spf.mailfrom": "7.1",
    "spf.mailfrom.fail": "7.23",
    "spf.mailfrom.temperror": "7.24",
    "spf.mailfrom.permerror": "7.24",
    "dkim": "7.20",  # RFC 7372, 3.1: no passing signature
    "dkim.temperror": "7.5",  # RFC 6376, 6.3: key server unavailable
    "dkim.policy": "7.21",  # no acceptable signature
    "dkim.unsigned_fields": "7.21",
    "dkim.unaligned": "7.22",  # no valid signature of the author's domain
    "arc": "7.29",  # RFC 8617, 10.4
    "senderid": "7.1",  # RFC 4406, 5.3
    "senderid.temperror": "4.3",
    "dmarc": "7.1",  # RFC 9989, 7.2
    "dmarc.malformed_from": "6.0",  # RFC 3463, 3.7: content that cannot be handled
}
#: Codes other than the usual 451 (RFC 4406, 5.4).
_TEMPORARY_CODES = {"senderid.temperror": 450}
SEVERAL = "7.26"  # RFC 7372, 3.4 and 4: several methods failed; replaces the code of the first one
_GENERIC = "7.1"  # RFC 3463, 3.8: not authorised, no reason given

_TEXTS = {
    "iprev": "reverse DNS of {address}: {reason}",
    "spf.helo": "SPF of HELO {helo}: {reason}",
    "spf.mailfrom": "SPF of MAIL FROM: {reason}",
    "dkim": "DKIM: {reason}",
    "arc": "ARC: {reason}",
    "senderid": "Sender ID (PRA) {reason}",  # RFC 4406, 5.3
    "dmarc": "DMARC: {reason}",
    "rule": "Refused by local policy: {reason}",
    "generic": "Refused by local policy",
}
#: Texts of single outcomes.
_TEXTS_OF_OUTCOMES = {
    "senderid.temperror": "Sender ID check is temporarily unavailable: {reason}",  # RFC 4406, 5.4
}
#: The fields that a text may use.
FIELDS = ("address", "helo", "sender", "sender_domain", "author_domain", "reason")


class ReplyTexts(Struct, frozen=True):
    """The texts of replies.

    :param texts: templates by method, such as ``spf.mailfrom``, or by method and outcome, such as
        ``spf.mailfrom.fail``; ``rule`` for rules without a reply of their own; ``generic`` for the one text of
        `generic`. The default applies to all others.
    :param generic: give no reason: one code and text for all refusals (RFC 7372, 5).
    :param explain: add the domain's explanation to a reply for a failure of SPF or Sender ID.
    """

    texts: Mapping[str, str] = field(default_factory=dict)
    generic: bool = False
    explain: bool = True

    def of_methods(self, action: Action, deciding: Sequence[tuple[str, MethodOutcome]], facts: Facts) -> Reply:
        """The reply for the methods that decided, given as (method, outcome)."""
        if self.generic:
            return _reply(action, _GENERIC, [self._text("generic").format_map(_values(facts, ""))])
        method, outcome = deciding[0]
        several = len({name for name, _ in deciding}) > 1
        status = SEVERAL if several else _lookup(_STATUS, method, outcome.key)
        code = None if several else _TEMPORARY_CODES.get(f"{method}.{outcome.key}")
        texts, explanations = [], []
        for name, found in deciding:
            text = (
                _lookup(self.texts, name, found.key) or _TEXTS_OF_OUTCOMES.get(f"{name}.{found.key}") or _TEXTS[name]
            ).format_map(_values(facts, found.reason))
            explanation = _explanation(name, facts) if self.explain and found.key.startswith("fail") else ""
            if explanation and name == "senderid":
                text += f" - {explanation}"  # RFC 4406, 5.3: on the same line
            elif explanation:
                explanations.append(explanation)
            texts.append(text)
        return _reply(action, status, ["; ".join(texts), *explanations], code)

    def of_rule(self, action: Action, reply: str, reason: str, facts: Facts) -> Reply:
        """The reply of a rule: ``550 5.7.1 Text`` as the operator wrote it, or the default with the rule's reason."""
        code, status, text = split_reply(reply, action)
        if self.generic:
            text, reason = self._text("generic"), ""
        elif not text:
            text = self._text("rule" if reason or "rule" in self.texts else "generic")
        return Reply(code, status, _lines([text.format_map(_values(facts, reason))]))

    def _text(self, key: str) -> str:
        return self.texts.get(key) or _TEXTS[key]


def check_reply(key: str, text: str) -> None:
    """Refuse a template that is never used or can fail later.

    :param key: a method, a method and an outcome, ``rule`` or ``generic``.
    :raises ValueError: unknown method or outcome, unknown field, unbalanced brace, or more than a plain ``{field}``.
    """
    method, _, outcome = key.rpartition(".")
    if key not in _TEXTS and outcome not in OUTCOMES.get(method, ()):
        known = OUTCOMES.get(method)
        kind, words = (f"outcomes of {method}", known) if known else ("methods", tuple(_TEXTS))
        raise ValueError(f"{key!r} is not one of the {kind}: {', '.join(words)}")
    try:
        parts = list(string.Formatter().parse(text))
    except ValueError as error:
        raise ValueError(f"{text!r} has an unbalanced brace; write {{{{ or }}}} for a brace itself") from error
    for _, name, specification, conversion in parts:
        if name is not None and (name not in FIELDS or specification or conversion):
            fields = ", ".join(f"{{{field_name}}}" for field_name in FIELDS)
            raise ValueError(f"{text!r}: {{{name}}} is not one of the fields {fields}")


def split_reply(text: str, action: Action) -> tuple[int, str, str]:
    """Split ``550 5.7.1 Text``; code and enhanced status code are optional.

    :raises ValueError: a code that does not fit the action: 5yz for reject, 4yz for tempfail (libmilter ignores
        others).
    """
    first = "5" if action is Action.REJECT else "4"
    code, status = (550, "5.7.1") if action is Action.REJECT else (451, "4.7.1")
    word, _, rest = text.partition(" ")
    if len(word) == 3 and word.isascii() and word.isdigit():
        if word[0] != first:
            raise ValueError(f"{text!r} does not fit {action}; write a code that begins with {first}")
        code, text = int(word), rest
        word, _, rest = text.partition(" ")
    if _STATUS_CODE.fullmatch(word):
        if word[0] != first:
            raise ValueError(f"{text!r} does not fit {action}; write an enhanced status code that begins with {first}")
        status, text = word, rest
    return code, status, text


def _lookup(table: Mapping[str, str], method: str, outcome: str) -> str:
    return (
        table.get(f"{method}.{outcome}")
        or table.get(f"{method}.{outcome.removesuffix('_all')}")
        or table.get(method, "")
    )


def _explanation(method: str, facts: Facts) -> str:
    """The domain's explanation of a failure, or an empty string."""
    found: SpfIdentityFacts | SenderIdFacts
    match method:
        case "spf.helo":
            found = facts.spf.helo
        case "spf.mailfrom":
            found = facts.spf.mailfrom
        case "senderid":
            found = facts.senderid
        case _:
            return ""
    if not found.explanation:
        return ""
    # RFC 7208, 6.2: it must be clear that these are not the receiver's words.
    return f"{found.domain} explains: {as_prose(found.explanation)}"


def _values(facts: Facts, reason: str) -> dict[str, str]:
    """The values of the fields. MTAs log replies and programs read logs: no value can pass for a part of the line."""
    values = {
        "address": facts.client.address,
        "helo": facts.helo,
        "sender": facts.mail_from.address,
        "sender_domain": facts.mail_from.domain,
        "author_domain": facts.author.domain,
        "reason": reason,
    }
    return {name: as_prose(value) for name, value in values.items()}


def _reply(action: Action, status: str, lines: Sequence[str], temporary_code: int | None = None) -> Reply:
    code, first = (550, "5") if action is Action.REJECT else (temporary_code or 451, "4")
    return Reply(code, f"{first}.{status}", _lines(lines))


def _lines(lines: Sequence[str]) -> tuple[str, ...]:
    """Printable ASCII: an SMTP reply carries nothing else to clients without SMTPUTF8 (RFC 5321, 4.2)."""
    return tuple(marked_ascii(line[:MAX_LINE_LENGTH]) for line in lines[:MAX_LINES])
