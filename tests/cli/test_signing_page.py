# SPDX-License-Identifier: GPL-3.0-or-later
"""``docs/signing.md`` is correct: each recipe loads, and logs what the table beside it says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from assay.config import load, make_settings
from assay.daemon.journal import message_fields
from assay.log import pairs
from signing import ed25519_key, pem, rsa_key
from talking import deliver

PAGE = Path(__file__).parents[2] / "docs" / "signing.md"
OUTSIDE = "192.0.2.1"  # a user who has logged in may be anywhere


class Recipe(msgspec.Struct):
    """One section of the page: its configuration, its files, and (message, log) of its table."""

    name: str
    toml: str
    files: dict[str, str]
    rows: list[tuple[str, str]]


def recipes() -> Iterator[Recipe]:
    for section in re.split(r"^## ", PAGE.read_text("utf-8"), flags=re.MULTILINE)[1:]:
        found = re.search(r"^```toml\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
        if found is None:
            continue
        files = dict(re.findall(r"^```text\n# (/\S+)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL))
        rows = re.findall(r"^\| (from `.*?) \| `(.*)` \|$", section, re.MULTILINE)
        yield Recipe(section.partition("\n")[0], found[1], files, rows)


RECIPES = list(recipes())


def placed(recipe: Recipe, folder: Path) -> Path:
    """The recipe's configuration, with its files and keys below `folder`."""
    keys = folder / "etc/assay/keys"
    (keys / "example.net").mkdir(parents=True)
    (folder / "etc/opendkim").mkdir()
    for name, key in (
        ("r2026", rsa_key()),
        ("e2026", ed25519_key()),
        ("n2026", rsa_key()),
        ("example.net/n2026", rsa_key()),
    ):
        path = keys / f"{name}.pem"
        path.touch(0o600)
        path.write_bytes(pem(key))
    for name, text in recipe.files.items():
        (folder / name[1:]).write_text(text.replace("/etc/", f"{folder}/etc/"))
    path = folder / "assay.toml"
    path.write_text(recipe.toml.replace("/etc/", f"{folder}/etc/"))
    return path


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_a_recipe(recipe: Recipe, tmp_path: Path) -> None:
    configuration = load(placed(recipe, tmp_path))
    make_settings(configuration)
    sections = msgspec.to_builtins(configuration)
    if not recipe.rows:
        return
    sections["clients"]["internal"] = ["10.0.0.0/8"]
    for message, log in recipe.rows:
        author, login, client = re.fullmatch(r"from `(\S+)`(?:, login `(\S+)`)?(?:, client `(\S+)`)?", message).groups()  # type: ignore[union-attr]  # a row that does not match fails here
        verdict = deliver(
            sections,
            f"From: {author}\r\nTo: ann@example.net\r\n\r\nhello\r\n".encode(),
            client=client or (OUTSIDE if login else "10.0.0.1"),
            authenticated=login or "",
        )[-1]
        assert f" {log} action=accept" in pairs(message_fields(verdict, waited=0)), message


def test_the_page_has_recipes() -> None:
    assert sum(len(recipe.rows) for recipe in RECIPES) > 15
