# SPDX-License-Identifier: GPL-3.0-or-later
"""An assessment in the operator's own words: the vocabulary of rules, of the JSON log and of the documentation.

The facts are a tree of plain values, so that a logged tree can be judged again by another configuration
(``assay policy try``). `SCHEMA` is the same tree with types in place of values; a rule that names anything else is an
error at start.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from assay.assessment import Assessment
from assay.model.message import HeaderField
from assay.model.name import Domain, InvalidNameError
from assay.policy.decision import Stage
from assay.protocol import arc, authres, dkim, dmarc, iprev, senderid, spf

Facts = Mapping[str, Any]

MAX_FIELD_OCTETS = 998  # of one field's value that a rule sees: a line (RFC 5322, 2.1.1)
#: Our choice: how many fields of a signature's h= are told, each once. Real ones name fewer than 50; a stranger's 1,000
#: would make every line of the facts as long as he likes.
MAX_FIELD_NAMES = 100
MAX_NAME_LENGTH = 64  # our choice; a longer name in h= is left out. The registry's longest has half of that.

_SPF = {
    "result": str,
    "domain": str,
    "mechanism": str,
    "by_all": bool,
    "guessed": bool,
    "reason": str,
    "explanation": str,
}

#: Every fact with its type; a list of one tree stands for a list of such trees. Absent facts are empty or false.
SCHEMA: dict[str, Any] = {
    "client": {"address": str, "name": str, "daemon": str},
    "helo": str,
    "mail_from": {"address": str, "local_part": str, "domain": str, "authenticated": str},
    "rcpt": [str],
    "iprev": {"result": str, "name": str, "names": [str], "confirmed": [str], "reason": str},
    "spf": {"helo": _SPF, "mailfrom": _SPF},
    "from": {"domain": str, "address": str, "fault": str},
    "dkim": [
        {
            "result": str,
            "domain": str,
            "selector": str,
            "identity": str,
            "algorithm": str,
            "testing": bool,
            "aligned": bool,
            "fields": [str],
            "reason": str,
        }
    ],
    "arc": {"result": str, "sealers": [str], "trusted": bool, "reason": str},
    "senderid": {"result": str, "domain": str, "reason": str},
    "dmarc": {
        "result": str,
        "policy": str,
        "disposition": str,
        "domain": str,
        "organizational_domain": str,
        "spf_aligned": bool,
        "dkim_aligned": bool,
        "reason": str,
    },
    "list": {"id": str},
    "header": {"name": [str]},
}

#: The stage from which on each top-level fact is known; of spf, by identity.
KNOWN_FROM: dict[str, Stage] = {
    "client": Stage.CONNECT,
    "iprev": Stage.CONNECT,
    "helo": Stage.HELO,
    "spf.helo": Stage.HELO,
    "mail_from": Stage.MAIL,
    "spf.mailfrom": Stage.MAIL,
    "spf": Stage.MAIL,
    "rcpt": Stage.RCPT,
    "from": Stage.EOM,
    "dkim": Stage.EOM,
    "arc": Stage.EOM,
    "senderid": Stage.EOM,
    "dmarc": Stage.EOM,
    "list": Stage.EOM,
    "header": Stage.EOM,
}


def facts(
    assessment: Assessment, *, header_names: Collection[str] = (), trusted_sealers: Collection[Domain] = ()
) -> dict[str, Any]:
    """The facts of one message, as far as they are known at this stage.

    :param header_names: lower-case names of the fields that rules ask for.
    :param trusted_sealers: domains whose ARC seals the operator trusts.
    """
    client, envelope = assessment.client, assessment.envelope
    path = envelope.reverse_path
    return {
        "client": {"address": str(client.address or ""), "name": client.name, "daemon": client.daemon},
        "helo": client.helo,
        "mail_from": {
            "address": path.text,
            "local_part": path.mailbox.local_part if path.mailbox else "",
            "domain": str(path.mailbox.domain) if path.mailbox else "",
            "authenticated": envelope.authenticated,
        },
        "rcpt": list(envelope.recipients),
        "iprev": _iprev(assessment.iprev),
        "spf": {"helo": _spf(assessment.spf_helo), "mailfrom": _spf(assessment.spf_mail_from)},
        "from": _author(assessment.author),
        "dkim": [_dkim(one, assessment.dmarc) for one in assessment.dkim],
        "arc": _arc(assessment.arc, trusted_sealers, assessment.author),
        "senderid": _sender_id(assessment.sender_id),
        "dmarc": _dmarc(assessment.dmarc),
        "list": {"id": _text(assessment.header.all("List-Id")[:1])},
        "header": {name: [_text((one,)) for one in assessment.header.all(name)] for name in header_names},
    }


def sound(value: Any) -> Any:
    """The same facts with ``\\xNN`` for bytes that are no UTF-8: neither CEL nor JSON knows lone surrogates."""
    match value:
        case str():
            return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        case dict():
            return {key: sound(item) for key, item in value.items()}
        case list():
            return [sound(item) for item in value]
        case _:
            return value


def _text(fields: Collection[HeaderField]) -> str:
    """The value of a field on one line, bounded; empty for no field."""
    for one in fields:
        return one.unfolded[:MAX_FIELD_OCTETS].decode("utf-8", "replace")
    return ""


def _iprev(evaluation: iprev.Evaluation | None) -> dict[str, Any]:
    if evaluation is None:
        return {"result": "", "name": "", "names": [], "confirmed": [], "reason": ""}
    return {
        "result": str(evaluation.result),
        "name": evaluation.name,
        "names": list(evaluation.names),
        "confirmed": list(evaluation.confirmed),
        "reason": evaluation.reason,
    }


def _spf(evaluation: spf.Evaluation | None) -> dict[str, Any]:
    if evaluation is None:
        words = ("result", "domain", "mechanism", "reason", "explanation")
        return dict.fromkeys(words, "") | {"by_all": False, "guessed": False}
    return {
        "result": str(evaluation.result),
        "domain": str(evaluation.domain or ""),
        "mechanism": evaluation.mechanism,
        "by_all": evaluation.all_matched,
        "guessed": evaluation.guessed,
        "reason": evaluation.reason,
        "explanation": evaluation.explanation,
    }


def _author(author: dmarc.Author | None) -> dict[str, Any]:
    if author is None:
        return {"domain": "", "address": "", "fault": ""}
    return {"domain": str(author.domain or ""), "address": author.mailbox, "fault": author.fault}


def _dkim(evaluation: dkim.Evaluation, judged: dmarc.Evaluation | None) -> dict[str, Any]:
    # SPF's identifier comes first, and what is aligned by aspf= need not be by adkim=.
    identifiers = judged.aligned[judged.spf_aligned :] if judged is not None else ()
    aligned = evaluation.domain in {one.domain for one in identifiers}
    return {
        "result": str(evaluation.result),
        "domain": str(evaluation.domain or ""),
        "selector": evaluation.selector,
        "identity": evaluation.identity[:MAX_FIELD_OCTETS],
        "algorithm": evaluation.algorithm,
        "testing": evaluation.testing,
        "aligned": aligned and evaluation.result is dkim.Result.PASS,
        "fields": _field_names(evaluation.signed_fields),
        "reason": evaluation.reason,
    }


def _field_names(names: Sequence[str]) -> list[str]:
    """The names in h=, each once, without those that no real signature has."""
    return [name for name in dict.fromkeys(names) if len(name) <= MAX_NAME_LENGTH][:MAX_FIELD_NAMES]


def _arc(evaluation: arc.Evaluation | None, trusted: Collection[Domain], author: dmarc.Author | None) -> dict[str, Any]:
    if evaluation is None:
        return {"result": "", "sealers": [], "trusted": False, "reason": ""}
    return {
        "result": str(evaluation.result),
        "sealers": [str(sealer.domain) for sealer in evaluation.sealers],
        "trusted": _vouched(evaluation, trusted, author),
        "reason": evaluation.reason,
    }


def _vouched(evaluation: arc.Evaluation, trusted: Collection[Domain], author: dmarc.Author | None) -> bool:
    """Whether sealers that are all trusted vouch for the author (RFC 8617, 7.2.1).

    A whole chain says who handled the message and nothing about its author: the first sealer must have recorded that
    the message passed DMARC for the domain that still is its author's.
    """
    if evaluation.result is not arc.Result.PASS or author is None or author.domain is None:
        return False
    if not all(sealer.domain in trusted for sealer in evaluation.sealers):
        return False
    recorded = authres.parse(evaluation.sealers[0].payload.encode("utf-8", "surrogateescape"))
    if not isinstance(recorded, authres.AuthenticationResults):
        return False
    # A message has one result of DMARC. Where there are two, a stranger may have written one through a value.
    results = [one for one in recorded.results if one.method == "dmarc"]
    return len(results) == 1 and results[0].result == "pass" and _names(results[0], author.domain)


def _names(result: authres.MethodResult, author_domain: Domain) -> bool:
    """Whether a recorded DMARC result is about this author domain."""
    for one in result.properties:
        if (one.ptype, one.name) == ("header", "from"):
            try:
                return Domain.parse(one.value.rpartition("@")[2]) == author_domain
            except InvalidNameError:
                return False
    return False


def _sender_id(evaluation: senderid.Evaluation | None) -> dict[str, Any]:
    if evaluation is None:
        return {"result": "", "domain": "", "reason": ""}
    return {
        "result": str(evaluation.result),
        "domain": str(evaluation.domain or ""),
        "reason": evaluation.reason,
    }


def _dmarc(evaluation: dmarc.Evaluation | None) -> dict[str, Any]:
    if evaluation is None:
        words = ("result", "policy", "disposition", "domain", "organizational_domain", "reason")
        return dict.fromkeys(words, "") | {"spf_aligned": False, "dkim_aligned": False}
    return {
        "result": str(evaluation.result),
        "policy": str(evaluation.policy or ""),
        "disposition": str(evaluation.disposition),
        "domain": str(evaluation.author_domain or ""),
        "organizational_domain": str(evaluation.organizational_domain or ""),
        "spf_aligned": evaluation.spf_aligned,
        "dkim_aligned": evaluation.dkim_aligned,
        "reason": evaluation.reason,
    }
