# SPDX-License-Identifier: GPL-3.0-or-later
"""``docs/policy.md`` is correct: every recipe works, every fact and function is documented.

The page has one zone for all recipes. Below each ``###`` heading are a TOML block, the files that it names
(``list PATH``, ``zone PATH``), and cases. A case lists the differences from an ordinary message, an arrow, and the
outcome; see the page's "How to read the recipes".
"""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import dkim as dkimpy
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from assay import session
from assay.config import Configuration, make_settings, make_trust
from assay.inquiry import Answer, Question
from assay.model.edits import AddRecipient, Change, Insert
from assay.model.message import split_message
from assay.model.name import Domain
from assay.policy import Action, Facts, Stage
from assay.policy.rule_names import FUNCTIONS
from assay.policy.vocabulary import element, is_tree, members
from assay.protocol import arc, dkim
from assay.resolver import LocalZone
from assay.session import Delivery, Session, Verdict
from signing import pem, record, rsa_key
from talking import NOW
from zone import Zone

PAGE = Path(__file__).parents[2] / "docs" / "policy.md"
ORDINARY = {
    "client": "192.0.2.1",
    "helo": "mail.example.org",
    "mail_from": "joe@example.org",
    "from": "joe@example.org",
    "rcpt": "ann@example.net",
}
MORE = ("field", "signed", "changed", "sealed", "daemon", "auth")
END = re.compile(
    r"(?P<end>accept|tag|quarantine|discard|\d{3} \d\.\d+\.\d+)(?: at (?P<stage>\w+))?(?: for (?P<rcpt>\S+))?"
    r"(?: with (?P<field>[\w-]+: .+?))?(?: watching (?P<watched>\w+))?(?: despite (?P<override>.+))?(?: by (?P<by>.+))?"
)


@dataclass
class Recipe:
    """One recipe of the page."""

    name: str
    toml: str = ""
    files: dict[str, str] = field(default_factory=dict)
    cases: list[str] = field(default_factory=list)


@cache
def page() -> tuple[dict[str, list[list[str]]], dict[str, Recipe]]:
    """The zone that all recipes share, and the recipes by name."""
    rows: dict[str, list[list[str]]] = {}
    recipes: dict[str, Recipe] = {}
    recipe = Recipe("")
    kind, block = "", []
    for line in PAGE.read_text("utf-8").splitlines():
        if line.startswith("```") and kind:
            words = kind.split()
            if kind == "zone":
                for owner, kind_of_record, *value in map(shlex.split, block):
                    rows.setdefault(owner, []).append([kind_of_record, value if kind_of_record == "TXT" else value[0]])
            elif words[0] in ("list", "zone"):
                recipe.files[words[1]] = "\n".join(block) + "\n"
            elif kind == "toml":
                recipe.toml += "\n".join(block) + "\n"
            elif kind == "cases":
                recipe.cases += [one for one in block if one.strip()]
            kind = ""
        elif line.startswith("```"):
            kind, block = line[3:], []
        elif kind:
            block.append(line)
        elif line.startswith("### "):
            recipe = recipes.setdefault(line[4:], Recipe(line[4:]))
    return rows, recipes


def all_cases() -> Iterator[Any]:
    for recipe in page()[1].values():
        for case in recipe.cases:
            yield pytest.param(recipe, case, id=f"{recipe.name}: {case}")


class Overlaid(Zone):
    """The page's zone, after a local zone of the operator."""

    local: LocalZone | None = None

    def answer(self, question: Question) -> Answer:
        found = self.local.answer(question) if self.local is not None else question
        return found if isinstance(found, Answer) else super().answer(found)


def sections(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """The configuration, with the files that it names in `folder`."""
    text = recipe.toml
    for path, content in recipe.files.items():
        (folder / Path(path).name).write_text(content)
        assert f'"{path}"' in text
        text = text.replace(f'"{path}"', f'"{folder / Path(path).name}"')
    return {"clients": {}, "identity": {"authserv_id": "mx.example.net"}} | tomllib.loads(text)


def compose(given: dict[str, str], fields: list[str], dns: Zone) -> bytes:
    message = "".join(
        f"{one}\r\n" for one in (*fields, *([f"From: {given['from']}"] if given["from"] else []), "Subject: hello")
    )
    octets = message.encode() + b"\r\nhello\r\n"
    key: RSAPrivateKey = rsa_key()
    if domain := given.get("signed"):
        dns.rows[f"sel._domainkey.{domain}"] = [["TXT", [record(key)]]]  # type: ignore[index]  # it is a dict
        names = [b"from"] + ([b"subject"] if given.get("changed") != "subject" else [])
        octets = dkimpy.sign(octets, b"sel", domain.encode(), pem(key), include_headers=names) + octets
    if given.get("changed"):
        octets = octets.replace(b"Subject: hello", b"Subject: [list] hello")
    if domain := given.get("sealed"):
        dns.rows[f"sel._domainkey.{domain}"] = [["TXT", [record(key)]]]  # type: ignore[index]  # it is a dict
        header, body = split_message(octets)
        hashes = dkim.BodyHashes([arc.BODY_HASH_SPEC])
        hashes.update(body)
        seals = arc.seal(
            header,
            hashes,
            validation=arc.Evaluation(arc.Result.NONE, ""),
            authserv_id=domain,
            authentication_results=(f"dmarc=pass header.from={given['from'].partition('@')[2]}",),
            domain=Domain.parse(domain),
            selector=Domain.parse("sel"),
            private_key=key,
            timestamp=NOW,
        )
        octets = b"".join(one.raw for one in seals) + octets
    return octets


def deliver(recipe: Recipe, case: str, folder: Path) -> tuple[Verdict, list[str]]:
    """Send the message of a case.

    :returns: the final verdict, and the accepted recipients.
    """
    words = [word.partition("=") for word in shlex.split(case) if word != "ordinary"]
    assert {key for key, _, _ in words} <= {*ORDINARY, *MORE}, "a key that no case uses"
    given = ORDINARY | {key: value for key, _, value in words if key != "field"}
    dns = Overlaid({owner: list(rows) for owner, rows in page()[0].items()})
    octets = compose(given, [value for key, _, value in words if key == "field"], dns)
    dns = Overlaid(dns.rows)
    configuration = msgspec.convert(sections(recipe, folder), Configuration)
    dns.local = LocalZone.load(Path(configuration.dns.zone)) if configuration.dns.zone else None
    header, body = split_message(octets)
    delivery = Delivery(
        ip_address(given["client"]),
        tuple(header),
        body,
        helo=given["helo"],
        mail_from=f"<{given['mail_from']}>",
        recipients=tuple(f"<{path}>" for path in given["rcpt"].split(",")),
        mta_name="mx.example.net",
        daemon=given.get("daemon", ""),
        authenticated=given.get("auth", ""),
        queue_id="4A",
        now=NOW,
    )
    one = Session(make_settings(configuration), make_trust(configuration), lambda: dns)
    verdict = session.deliver(one, delivery)[-1]
    return verdict, [] if verdict.stage is not Stage.EOM else list(verdict.assessment.envelope.recipients)


@pytest.mark.parametrize(("recipe", "case"), list(all_cases()))
def test_a_recipe_has_the_documented_outcome(recipe: Recipe, case: str, tmp_path: Path) -> None:
    said, _, end = case.partition(" -> ")
    expected = END.fullmatch(end.strip())
    assert expected, f"{end!r} is not an outcome of a case"
    verdict, taken = deliver(recipe, said, tmp_path)
    action, reply = verdict.action, verdict.reply
    outcome = f"{reply.code} {reply.status}" if reply is not None else str(action)
    assert outcome == expected["end"], f"{verdict.decision}"
    if reply is not None:
        assert verdict.stage is Stage(expected["stage"] or "eom")
    if expected["rcpt"]:
        added = [edit.path for edit in verdict.edits if isinstance(edit, AddRecipient)]
        assert taken + added == expected["rcpt"].split(",")
    if expected["field"]:
        name, _, value = expected["field"].partition(": ")
        written = [
            " ".join((edit.value.decode() if isinstance(edit.value, bytes) else edit.value).split())
            for edit in verdict.edits
            if isinstance(edit, Insert | Change) and edit.name == name
        ]
        assert value in written
    assert verdict.decision.override == (expected["override"] or verdict.decision.override)
    if not expected["override"]:
        watched = [str(one.action) for one in verdict.decision.watched if one.by]
        assert watched == ([expected["watched"]] if expected["watched"] else [])
    if expected["by"]:
        assert verdict.decision.by == expected["by"]


@pytest.mark.parametrize("recipe", list(page()[1].values()), ids=list(page()[1]))
def test_a_recipe_has_cases_with_different_outcomes(recipe: Recipe) -> None:
    ends = {case.partition(" -> ")[2] for case in recipe.cases}
    assert recipe.toml
    assert len(ends) > 1, "a recipe with the same outcome for all messages shows nothing"


def test_without_a_policy_everything_is_accepted(tmp_path: Path) -> None:
    # Otherwise a case could pass for a reason other than its recipe.
    for recipe in page()[1].values():
        for case in recipe.cases:
            verdict, _ = deliver(Recipe("none"), case.partition(" -> ")[0], tmp_path)
            assert (verdict.action, verdict.decision.watched) == (Action.ACCEPT, ())


def names(kind: Any, name: str = "") -> Iterator[str]:
    """The names of the vocabulary as written in rules."""
    if is_tree(kind):
        for key, fact in members(kind).items():
            yield from names(fact.kind, f"{name}.{key}".lstrip("."))
    elif is_tree(element(kind)):
        yield from names(element(kind), f"{name}[]")
    elif name != "header":
        yield name


def test_the_page_lists_exactly_the_existing_facts() -> None:
    table = PAGE.read_text("utf-8").partition("## The facts")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| ((?:`[^`]+`(?:, )?)+) \|", table, re.MULTILINE)
    facts: set[str] = set()
    for cell in cells:
        first, *others = re.findall(r"`([^`]+)`", cell)
        facts |= {first, *(re.sub(r"[^.]*$", "", first) + other.lstrip(".") for other in others)}
    assert facts == set(names(Facts))


def test_the_page_lists_all_functions() -> None:
    table = PAGE.read_text("utf-8").partition("## The functions")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)\(", table, re.MULTILINE)) == set(FUNCTIONS)


def test_the_page_lists_all_actions_and_stages() -> None:
    text = PAGE.read_text("utf-8").partition("## The facts")[0]
    for word in (*Action, *Stage):
        assert re.search(rf"^\| `{word}` \|", text, re.MULTILINE), word
