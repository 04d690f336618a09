# SPDX-License-Identifier: GPL-3.0-or-later
"""Exceptions granted to some must not become available to all: recipients, sealers, lists and aligned domains."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from assay.assessment import Assessment
from assay.model.message import Header, HeaderField
from assay.model.name import Domain, ReversePath
from assay.model.smtp import Client, Envelope
from assay.policy import Action, facts
from assay.protocol import arc, dkim, dmarc
from talking import deliver, policy_of

AUTHOR, LIST = Domain("author.example"), Domain("list.example")


def rcpts(*names: str, **sections: Any) -> Action:
    """The decision about a forged message to these recipients."""
    one = {"clients": {"internal": (), "exempt_recipients": ("abuse@example.net", "lab.example")}} | sections
    paths = tuple(f"<{name}>" for name in names)
    verdicts = deliver({"dmarc": {"reject": "reject"}} | one, b"From: ceo@reject.example\r\n\r\n", recipients=paths)
    return verdicts[-1].action


@pytest.mark.parametrize(
    ("names", "action"),
    [
        (("abuse@example.net",), "accept"),
        (("Abuse@Example.NET", "x@lab.example", "x@a.lab.example"), "accept"),
        (("ann@example.net",), "reject"),
        (("abuse@example.net", "ann@example.net"), "reject"),
        (("ann@example.net", "abuse@example.net"), "reject"),
        (("abuse@example.net", "ann@example.net", "abuse@example.net"), "reject"),
        (("<abuse@example.net", "ann@example.net>abuse@example.net"), "reject"),
        (("abuse@example.net@example.net",), "reject"),
        (("abuse@example.net.evil.example",), "reject"),
        ((), "reject"),
    ],
)
def test_an_exempt_recipient_does_not_exempt_a_message_to_others(names: tuple[str, ...], action: str) -> None:
    assert rcpts(*names) == action


def test_a_recipient_accepted_by_a_rule_does_not_exempt_a_message_to_others() -> None:
    rule = {"name": "ours", "stage": "rcpt", "when": 'rcpt.exists(r, r.startsWith("abuse@"))', "action": "accept"}
    more = {"rule": [rule], "clients": {"internal": ()}}
    assert rcpts("abuse@example.net", **more) == "accept"
    assert rcpts("abuse@example.net", "ann@example.net", **more) == "reject"
    assert rcpts("ann@example.net", "abuse@example.net", **more) == "reject"


def judged(**evaluations: Any) -> Assessment:
    return replace(Assessment(Client(), Envelope(ReversePath(""))), **evaluations)


@pytest.mark.parametrize(
    ("results", "trusted"),
    [
        ("dmarc=pass header.from=author.example", True),
        ("spf=fail smtp.mailfrom=x.example; dmarc=pass (p=reject) header.from=author.example", True),
        ("dmarc=fail header.from=author.example; dmarc=pass header.from=author.example", False),
        ("dmarc=pass header.from=author.example; dmarc=fail header.from=author.example", False),
        ("spf=pass smtp.mailfrom=x;dmarc=pass header.from=author.example; dmarc=fail header.from=a.example", False),
        ("dmarc=pass header.from=author.example.evil.example", False),
        ("dmarc=pass header.d=author.example", False),
        ("dkim=pass header.from=author.example", False),
        ("dmarc=fail (dmarc=pass) header.from=author.example", False),
        ('dmarc=fail reason="; dmarc=pass header.from=author.example"', False),
    ],
)
def test_a_sealers_record_counts_only_if_unambiguous(results: str, trusted: bool) -> None:
    sealer = arc.Sealer(1, LIST, "s", arc.Result.NONE, f"mx.list.example; {results}")
    chain = arc.Evaluation(arc.Result.PASS, "", 1, 0, (sealer,))
    found = facts(judged(arc=chain, author=dmarc.Author(AUTHOR)), trusted_sealers=(LIST,))
    assert found.arc.trusted is trusted


@pytest.mark.parametrize("result", [arc.Result.FAIL, arc.Result.PASS])
def test_only_a_valid_chain_makes_a_message_list_traffic(result: arc.Result) -> None:
    # RFC 8617, 5.2.1: a broken chain counts as no chain; anyone can write one.
    sealer = arc.Sealer(1, LIST, "s", arc.Result.NONE, "")
    found = facts(
        judged(
            arc=arc.Evaluation(result, "", 1, None, (sealer,)),
            author=dmarc.Author(AUTHOR),
            dmarc=dmarc.Evaluation(
                dmarc.Result.FAIL, "", AUTHOR, policy=dmarc.DmarcPolicy.REJECT, disposition=dmarc.DmarcPolicy.REJECT
            ),
        )
    )
    (method,) = policy_of({"dmarc": {"reject": "reject", "list_traffic": "quarantine"}}).methods
    outcome = method.outcome(found)
    assert outcome is not None
    assert outcome.key == ("quarantine" if result is arc.Result.PASS else "reject")


def test_alignment_for_spf_does_not_imply_alignment_for_dkim() -> None:
    # aspf=r and adkim=s: the subdomain counts for SPF and not for DKIM (RFC 9989, 4.4).
    sub = Domain("mail.author.example")
    signature = dkim.Evaluation(dkim.Result.PASS, "", HeaderField(b"DKIM-Signature", b""), domain=sub)
    identifier = dmarc.Identifier(sub, "pass")
    verdict = dmarc.Evaluation(dmarc.Result.PASS, "", AUTHOR, spf_aligned=True, aligned=(identifier,))
    (found,) = facts(judged(dkim=(signature,), dmarc=verdict, header=Header())).dkim
    assert found.aligned is False
