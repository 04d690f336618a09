# SPDX-License-Identifier: GPL-3.0-or-later
"""``docs/keys.md`` is correct: each command prints what the page says.

Below each ``###`` heading are a TOML block and console blocks, which share a world. In a console block, ``$`` begins a
command, ``#`` something that happens outside (see `World.happen`), and ``...`` stands for any text.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from assay.cli.main import main
from assay.config import Configuration
from assay.config.toml import toml
from assay.inquiry import Outcome
from assay.keyring import directories
from assay.keys.published import ServerAnswer
from assay.keys.rotation import KeyState
from assay.protocol import dkim
from assay.resolver.authority import Authority
from signing import pem, rsa_key

PAGE = Path(__file__).parents[2] / "docs" / "keys.md"
NOW = 1_790_000_000
DAY = 86_400
HOME = "/var/lib/assay/keys"
#: A program that publishes: its last arguments are "add", the name, the TTL and the record.
PUBLISH = """#!/bin/sh
while [ $# -gt 4 ]; do shift; done
[ "$1" = add ] && printf '%s\\t%s\\n' "$2" "$4" >> '{}'
"""


@dataclass
class Recipe:
    name: str
    toml: str = ""
    console: list[str] = field(default_factory=list)


def recipes() -> Iterator[Recipe]:
    for section in re.split(r"^###? ", PAGE.read_text("utf-8"), flags=re.MULTILINE)[1:]:
        recipe = Recipe(section.partition("\n")[0])
        for kind, block in re.findall(r"^```(\w+)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL):
            if kind == "toml":
                recipe.toml = recipe.toml or block
            elif kind == "console":  # tests/knot.py has the others
                recipe.console += block.splitlines()
        if recipe.console:
            yield recipe


class World:
    """What the commands of a recipe find."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self.folder = folder
        self.now = NOW
        self.published: dict[str, str] = {}
        (folder / "keys").mkdir(mode=0o750)
        (folder / "mail.private").touch(0o600)
        (folder / "mail.private").write_bytes(pem(rsa_key()))
        self.places = {
            HOME: str(folder / "keys"),
            "/etc/dkimkeys/mail.private": str(folder / "mail.private"),
            "/usr/local/bin/publish": str(folder / "publish"),
        }
        (folder / "publish").write_text(PUBLISH.format(folder / "published"))
        (folder / "publish").chmod(0o755)
        self.configuration = folder / "assay.toml"
        self.configuration.write_text(self.here(recipe.toml) + '[dns]\nnameservers = "none"\n')

    def here(self, text: str) -> str:
        for there, here in self.places.items():
            text = text.replace(there, here)
        return text

    def there(self, text: str) -> str:
        for there, here in self.places.items():
            text = text.replace(here, there)
        return text

    def texts(self, name: str) -> tuple[ServerAnswer, ...]:
        by_program = self.folder / "published"
        if by_program.exists():
            self.published |= dict(line.split("\t") for line in by_program.read_text().splitlines())
            by_program.unlink()
        text = self.published.get(name)
        return tuple(
            ServerAnswer(server, Outcome.NXDOMAIN)
            if text is None
            else ServerAnswer(server, Outcome.FOUND, (text.encode(),))
            for server in ("ns1", "ns2")
        )

    def happen(self, what: str) -> None:
        if days := re.fullmatch(r"(\d+) days later", what):
            self.now += int(days[1]) * DAY
        elif what == "the record is published":
            for directory in directories(self.folder / "keys"):
                ring = directory.load()
                for key in ring.keys:
                    if key.state is KeyState.PENDING:
                        self.published[f"{key.selector}._domainkey.{ring.domain}"] = key.record
        elif what.endswith(" is removed"):
            del self.published[what.removesuffix(" is removed")]
        elif changed := re.fullmatch(r"(\S+) is published as (.+)", what):
            self.published[changed[1]] = changed[2]
        else:
            name = what.removesuffix(" is published for /etc/dkimkeys/mail.private")
            assert name != what
            self.published[name] = dkim.record_of(rsa_key())


@pytest.mark.parametrize("recipe", list(recipes()), ids=lambda recipe: recipe.name)
def test_a_recipe_prints_what_the_page_says(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tmp_path.chmod(0o755)
    world = World(tmp_path, recipe)
    monkeypatch.setattr("assay.cli.key_command.time", SimpleNamespace(time=lambda: world.now))
    monkeypatch.setattr(Authority, "texts", lambda _, name: world.texts(name))
    lines = iter([*recipe.console, "$"])
    expected: list[str] = []
    printed = ""
    for line in lines:
        if not line.startswith(("$", "# ")):
            expected.append(line)
            continue
        pattern = "".join(f"{re.escape(one)}\n" for one in expected)
        pattern = pattern.replace(re.escape("...") + "\n", "(?:.*\n)*").replace(re.escape("..."), ".*")
        assert re.fullmatch(pattern, world.there(printed)), f"printed:\n{world.there(printed)}\nexpected:\n{pattern}"
        expected, printed = [], ""
        if line.startswith("# "):
            world.happen(line[2:])
        elif line != "$":
            program, verb, *arguments = shlex.split(world.here(line[2:]))
            assert (program, verb) == ("assay", "keys")
            main(["keys", *arguments, "-c", str(world.configuration)])
            printed = "".join(capsys.readouterr())


def test_every_configuration_on_the_page_is_valid() -> None:
    blocks = re.findall(r"^```toml\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) > 5
    for block in blocks:
        msgspec.convert(tomllib.loads(block), Configuration)


def test_the_defaults_on_the_page_are_those() -> None:
    keys = Configuration().keys
    assert f"`keys.overlap_days`, by default {keys.overlap_days} |" in PAGE.read_text("utf-8")
    assert toml(keys.directory) == f'"{HOME}"'
