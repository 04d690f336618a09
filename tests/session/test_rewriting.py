# SPDX-License-Identifier: GPL-3.0-or-later
"""SRS in a session: whose sender is rewritten, which recipients are turned back, and what the log says."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from assay.daemon.journal import message_fields
from assay.daemon.meter import Meter
from assay.log import pairs
from assay.metrics import Page, read
from assay.model.edits import AddRecipient, ChangeSender, RemoveRecipient
from assay.policy import Action
from assay.protocol import srs
from assay.session import Verdict
from assay.session.transaction import MAX_RECIPIENTS
from signing import DOMAIN, SELECTOR, record, rsa_key, sign_rsa
from talking import NOW, deliver
from zone import Zone

CLIENT = "192.0.2.77"
MESSAGE = b"From: ann@author.example\r\nSubject: x\r\n\r\nhello\r\n"
SCHEME = srs.Scheme("srs.example", (b"a secret for the tests",))
DNS = Zone({"_dmarc.author.example": [["TXT", ["v=DMARC1; p=reject"]]]})
DAY = 86_400


@pytest.fixture
def sections(tmp_path: Path) -> dict[str, Any]:
    path = tmp_path / "secrets"
    path.touch(0o600)
    path.write_bytes(SCHEME.secrets[0])
    return {"srs": {"domain": "srs.example", "secrets_file": str(path), "own_domains": ["ours.example"]}}


def sent(sections: dict[str, Any], *recipients: str, sender: str = "ann@author.example", **more: Any) -> Verdict:
    envelope = {
        "octets": MESSAGE,
        "dns": DNS,
        "client": CLIENT,
        "mail_from": f"<{sender}>",
        "recipients": [f"<{path}>" for path in recipients],
    }
    return deliver(sections, **(envelope | more))[-1]


def envelope_edits(verdict: Verdict) -> list[object]:
    kinds = (AddRecipient, RemoveRecipient, ChangeSender)
    return [edit for edit in verdict.edits if isinstance(edit, kinds)]


def log(verdict: Verdict) -> str:
    return pairs(message_fields(verdict, waited=0.0))


def test_a_foreign_sender_is_rewritten_if_all_recipients_leave(sections: dict[str, Any]) -> None:
    verdict = sent(sections, "bob@a.example", "eve@b.example")
    ours = srs.forward("ann@author.example", SCHEME, NOW)
    assert envelope_edits(verdict) == [ChangeSender(ours)]
    assert verdict.edits[-1] == ChangeSender(ours)
    assert f'srs="<{ours}>"' in log(verdict)


@pytest.mark.parametrize(
    ("sender", "recipients", "why"),
    [
        ("", ["bob@a.example"], "null sender"),
        ("ann@ours.example", ["bob@a.example"], "sender domain ours.example is ours"),
        ("ann@below.ours.example", ["bob@a.example"], "sender domain below.ours.example is ours"),
        ("ann@OURS.example.", ["bob@a.example"], "sender domain ours.example is ours"),
        ("SRS0=x=y=z=ann@srs.example", ["bob@a.example"], "sender is already rewritten"),
        ("ann", ["bob@a.example"], "sender is not a mailbox"),
        ('""@a.example', ["bob@a.example"], "sender has an empty local part"),
        ("\udcff@author.example", ["bob@a.example"], "sender is not UTF-8"),
        ("a" * 500 + "@author.example", ["bob@a.example"], "sender has more than 512 octets"),
        ("ann@author.example", ["bob@ours.example"], "recipient bob@ours.example is ours"),
        ("ann@author.example", ["bob@a.example", "eve@Ours.EXAMPLE"], "recipient eve@Ours.EXAMPLE is ours"),
        ("ann@author.example", ["Postmaster"], "recipient Postmaster is ours"),
        (
            "ann@author.example",
            ["@relay.example:eve@ours.example"],
            "recipient @relay.example:eve@ours.example is ours",
        ),
        ("ann@author.example", ['"a@b"@ours.example'], r"recipient \"a@b\"@ours.example is ours"),
        ("ann@author.example", ['"a@b.example"'], r"recipient \"a@b.example\" is ours"),
        ("ann@author.example", ["bob@[192.0.2.9]"], "recipient bob@[192.0.2.9] is ours"),
        ("@relay.example:ann@ours.example", ["bob@a.example"], "sender domain ours.example is ours"),
    ],
)
def test_any_other_sender_stays(sections: dict[str, Any], sender: str, recipients: list[str], why: str) -> None:
    verdict = sent(sections, *recipients, sender=sender)
    assert not envelope_edits(verdict)
    assert f'srs=none srs.why="{why}"' in log(verdict)


@pytest.mark.parametrize(
    ("condition", "holds", "fails"),
    [
        ({"networks": ["192.0.2.0/24"]}, {}, {"client": "198.51.100.1"}),
        ({"networks": ["192.0.2.0/24"]}, {}, {"client": None}),
        ({"daemon_names": ["forward"]}, {"daemon": "forward"}, {"daemon": "smtpd"}),
        ({"logins": ["ann"]}, {"authenticated": "ann"}, {"authenticated": "bob"}),
        ({"logins": ["*"]}, {"authenticated": "bob"}, {}),
        ({"sender_domains": ["author.example"]}, {}, {"mail_from": "<ann@other.example>"}),
        ({"recipient_domains": ["a.example"]}, {}, {"recipients": ["<bob@a.example>", "<eve@b.example>"]}),
        (
            {"daemon_names": ["forward"], "logins": ["*"]},
            {"daemon": "forward", "authenticated": "ann"},
            {"daemon": "forward"},
        ),
    ],
)
def test_each_condition_that_is_set_must_hold(
    sections: dict[str, Any], condition: dict[str, Any], holds: dict[str, Any], fails: dict[str, Any]
) -> None:
    sections["srs"] |= condition
    assert envelope_edits(sent(sections, "bob@a.example", **holds))
    (name,) = list(condition)[-1:]
    verdict = sent(sections, "bob@a.example", **fails)
    assert not envelope_edits(verdict)
    assert f"srs.{name}" in log(verdict)


def test_a_bounce_goes_back_to_the_sender(sections: dict[str, Any]) -> None:
    ours = srs.forward("ann@author.example", SCHEME, NOW - 5 * DAY)
    verdict = sent(sections, ours, sender="")
    assert envelope_edits(verdict) == [RemoveRecipient(ours), AddRecipient("ann@author.example")]
    assert f'turned_back="<{ours}> to <ann@author.example>"' in log(verdict)


@pytest.mark.parametrize(
    ("original", "others", "why"),
    [
        ("eve@a.example", [], ""),
        ("eve@a.example", ["bob@b.example"], ""),
        ("eve@ours.example", [], "recipient eve@ours.example is ours"),
        ("eve@a.example", ["bob@ours.example"], "recipient bob@ours.example is ours"),
    ],
)
def test_what_is_turned_back_from_a_foreign_sender_leaves_again(
    sections: dict[str, Any], original: str, others: list[str], why: str
) -> None:
    """An answer to an SRS address that does not come from the null sender is forwarded mail as any other."""
    ours = srs.forward(original, SCHEME, NOW)
    verdict = sent(sections, ours, *others)
    turned_back = [RemoveRecipient(ours), AddRecipient(original)]
    rewritten = [] if why else [ChangeSender(srs.forward("ann@author.example", SCHEME, NOW))]
    assert envelope_edits(verdict) == turned_back + rewritten
    assert (f'srs=none srs.why="{why}"' in log(verdict)) == bool(why)


def test_a_quoted_local_part_is_quoted_again(sections: dict[str, Any]) -> None:
    (edit,) = envelope_edits(sent(sections, "bob@a.example", sender='"a b"@author.example'))
    assert isinstance(edit, ChangeSender)
    assert edit.path.startswith('"SRS0=')
    back = envelope_edits(sent(sections, edit.path, sender=""))
    assert back == [RemoveRecipient(edit.path), AddRecipient('"a b"@author.example')]


def test_an_address_that_is_given_twice_is_turned_back_once(sections: dict[str, Any]) -> None:
    ours = srs.forward("ann@author.example", SCHEME, NOW)
    shouted = ours.replace("srs.example", "SRS.example")
    verdict = sent(sections, ours, ours, shouted, sender="")
    assert envelope_edits(verdict) == [
        RemoveRecipient(ours),
        RemoveRecipient(shouted),
        AddRecipient("ann@author.example"),
    ]


def test_an_address_of_ours_beyond_the_recipients_that_are_kept_comes_later(sections: dict[str, Any]) -> None:
    ours = srs.forward("ann@author.example", SCHEME, NOW)
    recipients = [*(f"<{number}@a.example>" for number in range(MAX_RECIPIENTS)), f"<{ours}>"]
    verdict, end = deliver(sections, MESSAGE, dns=DNS, client=CLIENT, mail_from="<>", recipients=recipients)
    assert verdict.action is Action.TEMPFAIL
    assert str(verdict.reply) == "452 4.5.3 Too many recipients; send the others in another message"
    assert "by=srs.recipients" in log(verdict).replace('"', "")
    assert end.action is Action.ACCEPT


@pytest.mark.parametrize("last", ["eve@ours.example", "eve@a.example"])
def test_mail_to_more_recipients_than_are_kept_is_not_forwarded(sections: dict[str, Any], last: str) -> None:
    others = [f"{number}@a.example" for number in range(MAX_RECIPIENTS - 1)]
    assert envelope_edits(sent(sections, *others, "bob@a.example"))
    verdict = sent(sections, *others, "bob@a.example", last)
    assert not envelope_edits(verdict)
    assert 'srs=none srs.why="more than 1000 recipients, and the others were not looked at"' in log(verdict)
    assert " rcpts=1001 rcpts.skipped=1 " in log(verdict)
    rule = forwarding_rule(True, 'rcpt.exists(r, r == "bob@a.example")')
    assert envelope_edits(sent(sections | rule, *others, "bob@a.example", last)), "a rule decides by those it sees"


def test_a_sender_that_only_looks_like_srs_is_rewritten(sections: dict[str, Any]) -> None:
    sender = "SRS1=x@author.example"
    assert envelope_edits(sent(sections, "bob@a.example", sender=sender)) == [
        ChangeSender(srs.forward(sender, SCHEME, NOW))
    ]


def test_case_and_final_dot_of_our_domain_do_not_matter(sections: dict[str, Any]) -> None:
    ours = srs.forward("ann@author.example", SCHEME, NOW).replace("srs.example", "SRS.Example.")
    assert envelope_edits(sent(sections, ours, sender="")) == [
        RemoveRecipient(ours),
        AddRecipient("ann@author.example"),
    ]


@pytest.mark.parametrize(
    ("address", "fault", "why"),
    [
        ("SRS0=aaaa=2W=author.example=ann@srs.example", "srs.hash", "hash is not valid for any of the secrets"),
        ("SRS0=aaaa@srs.example", "srs.form", "no date in the SRS0 address"),
        (srs.forward("ann@author.example", SCHEME, NOW - 30 * DAY), "srs.age", "30 days old"),
    ],
)
def test_a_forged_or_stale_address_is_refused(sections: dict[str, Any], address: str, fault: str, why: str) -> None:
    recipients = ["<bob@ours.example>", f"<{address}>", "<eve@ours.example>"]
    verdict, end = deliver(sections, MESSAGE, dns=DNS, client=CLIENT, recipients=recipients)
    assert end.assessment.envelope.recipients == ("bob@ours.example", "eve@ours.example")
    assert not envelope_edits(end)
    assert verdict.action is Action.REJECT
    assert str(verdict.reply).startswith("550 5.1.1 SRS address not valid: ")
    assert why in str(verdict.reply)
    assert verdict.decision.by == fault


def test_in_a_dry_run_nothing_is_refused_or_rewritten(sections: dict[str, Any]) -> None:
    sections["milter"] = {"dry_run": True}
    verdicts = deliver(
        sections,
        MESSAGE,
        dns=DNS,
        client=CLIENT,
        mail_from="<>",
        recipients=["<SRS0=aaaa=2W=author.example=ann@srs.example>", f"<{srs.forward('a@b.example', SCHEME, NOW)}>"],
    )
    assert [verdict.action for verdict in verdicts] == [Action.ACCEPT] * 2
    assert verdicts[0].decision.action is Action.REJECT
    assert not any(verdict.edits for verdict in verdicts)
    assert not sent(sections, "bob@a.example").edits


def test_other_addresses_of_the_domain_are_the_mtas_business(sections: dict[str, Any]) -> None:
    verdict = sent(sections, "postmaster@srs.example", sender="ann@author.example")
    assert verdict.action is Action.ACCEPT
    assert not envelope_edits(verdict)


def test_mail_that_another_mta_of_ours_has_handled_is_left_alone(sections: dict[str, Any]) -> None:
    sections["clients"] = {"internal": [f"{CLIENT}/32"], "trusted_results": [f"{CLIENT}/32"]}
    verdict = sent(sections, "bob@a.example", srs.forward("ann@author.example", SCHEME, NOW))
    assert not verdict.edits
    assert "srs" not in log(verdict)


WARNING = "DMARC fails at the next hop: no signature of the author domain passes"


def test_the_log_warns_of_mail_that_rewriting_does_not_help(sections: dict[str, Any]) -> None:
    assert f'srs.warning="{WARNING}"' in log(sent(sections, "bob@a.example"))
    none = Zone({"_dmarc.author.example": [["TXT", ["v=DMARC1; p=none"]]]})
    assert "srs.warning" not in log(sent(sections, "bob@a.example", dns=none))
    assert "srs.warning" not in log(sent(sections, "bob@a.example", dns=Zone({})))


def test_the_log_does_not_warn_of_mail_with_a_signature_of_the_author(sections: dict[str, Any]) -> None:
    dns = Zone(
        {
            "_dmarc.example.org": [["TXT", ["v=DMARC1; p=reject"]]],
            f"{SELECTOR}._domainkey.{DOMAIN}": [["TXT", [record(rsa_key())]]],
        }
    )
    verdict = sent(sections, "bob@a.example", octets=sign_rsa(), dns=dns)
    assert [edit for edit in verdict.edits if isinstance(edit, ChangeSender)]
    assert "srs.warning" not in log(verdict)


@pytest.mark.parametrize(("octets", "warns"), [(64, False), (65, True)])
def test_the_log_warns_of_a_local_part_that_hosts_may_refuse(
    sections: dict[str, Any], octets: int, warns: bool
) -> None:
    user = "\u00e9" * ((octets - len("SRS0=xxxx=xx=author.example=")) // 2)
    user += "a" * (octets - len("SRS0=xxxx=xx=author.example=") - len(user.encode()))
    verdict = sent(sections, "bob@a.example", sender=f"{user}@author.example", dns=Zone({}))
    assert envelope_edits(verdict)
    said = f'srs.warning="local part of {octets} octets, and some hosts refuse more than 64"'
    assert (said in log(verdict)) is warns
    assert ("srs.warning" in log(verdict)) is warns
    both = log(sent(sections, "bob@a.example", sender=f"{'a' * 60}@author.example"))
    assert f'srs.warning="{WARNING}; local part of 88 octets, and some hosts' in both


PAGE = Path(__file__).parents[2] / "docs" / "forwarding.md"


def test_the_settings_of_the_documentation(sections: dict[str, Any]) -> None:
    settings, lists, _, _, rule = (
        tomllib.loads(block) for block in re.findall(r"^ *```toml\n(.*?)^ *```", PAGE.read_text("utf-8"), re.M | re.S)
    )
    settings["srs"]["secrets_file"] = sections["srs"]["secrets_file"]
    (edit,) = envelope_edits(sent(settings, "bob@a.example"))
    assert isinstance(edit, ChangeSender)
    assert edit.path.endswith("@srs.example.org")
    refused = sent(settings | rule, "eve@example.org", "bob@a.example")
    assert refused.action is Action.REJECT
    assert sent(settings | rule, "eve@example.org").action is Action.ACCEPT
    assert envelope_edits(sent(settings | lists, "all@lists.example.org"))
    assert not envelope_edits(sent(settings | lists, "all@lists.example.org", "eve@example.org"))


def counted(*verdicts: Verdict) -> dict[str, float]:
    page = Page.private()
    for verdict in verdicts:
        Meter(page).verdict(verdict)
    return {act: value for (act,), value in read((page,)).of("forwarded").items()}


def test_what_is_done_is_counted(sections: dict[str, Any]) -> None:
    bounce = sent(sections, srs.forward("ann@author.example", SCHEME, NOW), sender="")
    rewritten = sent(sections, "bob@a.example", dns=Zone({}))
    unhelped = sent(sections, "bob@a.example")
    stays = sent(sections, "bob@ours.example")
    assert counted(bounce, rewritten, rewritten, unhelped, stays) == {"turned_back": 1, "rewritten": 2, "unhelped": 1}


def forwarding_rule(forward: bool, when: str = "true", **more: Any) -> dict[str, Any]:
    return {"rule": [{"name": "r", "when": when, "forward": forward} | more]}


def test_a_rule_forwards_whoever_the_recipients_are(sections: dict[str, Any]) -> None:
    sections["srs"]["networks"] = ["198.51.100.0/24"]
    rule = forwarding_rule(True, 'rcpt.exists(r, r.endsWith("@list.ours.example"))')
    assert envelope_edits(sent(sections | rule, "bob@list.ours.example"))
    assert not envelope_edits(sent(sections | rule, "bob@ours.example"))
    assert not envelope_edits(sent(sections | rule, "bob@list.ours.example", sender=""))
    assert not envelope_edits(sent(sections | rule, "bob@list.ours.example", sender="dan@ours.example"))


def test_a_rule_keeps_mail_from_being_forwarded(sections: dict[str, Any]) -> None:
    verdict = sent(sections | forwarding_rule(False), "bob@a.example")
    assert not envelope_edits(verdict)
    assert 'srs=none srs.why="rule r"' in log(verdict)


def test_a_rule_about_mail_of_ours_reads_its_author(sections: dict[str, Any]) -> None:
    sections["clients"] = {"internal": [f"{CLIENT}/32"]}
    rule = forwarding_rule(False, 'from.domain == "author.example" && direction == "outbound"')
    assert 'srs.why="rule r"' in log(sent(sections | rule, "bob@a.example"))
    assert envelope_edits(sent(sections | rule, "bob@a.example", octets=MESSAGE.replace(b"author", b"other")))


def test_a_rule_in_dry_run_or_that_fails_decides_nothing(sections: dict[str, Any]) -> None:
    assert envelope_edits(sent(sections | forwarding_rule(False, dry_run=True), "bob@a.example"))
    verdict = sent(
        sections | forwarding_rule(True, 'header("X-Weight") == "1" && int(header("X")) > 1'), "bob@ours.example"
    )
    assert not envelope_edits(verdict)
    dry = sent(sections | forwarding_rule(True, dry_run=True), "bob@ours.example")
    assert 'srs.why="recipient bob@ours.example is ours; rule r would decide, but is in dry run"' in log(dry)
