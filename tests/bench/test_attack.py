# SPDX-License-Identifier: GPL-3.0-or-later
"""The soak under attack runs, and its page names bounds that exist. No figure is asserted: machines differ."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
ATTACK = TOP / "contrib" / "bench" / "attack.py"
PAGE = TOP / "docs" / "reliability.md"
NAMESPACES = ("unshare", "--user", "--map-root-user", "--mount", "--net", "--pid", "--fork", "true")
NAMES = """
import sys; sys.path.insert(0, sys.argv[1])
import attacks
for name, attack in {**attacks.ATTACKS, "mix": attacks.mix}.items():
    attempts = list(attack(3_000_000))
    assert sum(one.octets for one in attempts) >= 3_000_000
    print(name)
"""


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="the name server comes from Debian's packages")
def test_a_second_of_each_side() -> None:
    if subprocess.run(NAMESPACES, capture_output=True, check=False).returncode:
        pytest.skip("this kernel does not permit user namespaces")
    done = subprocess.run(
        [sys.executable, ATTACK, "--smoke", "--only", "abandoned,many-fields"],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [row["attack"] for row in rows] == ["abandoned", "many-fields"]
    for row in rows:
        assert row["did"]["sessions"] > 0
        assert row["attacked"]["sent"] > 0
        assert row["quiet"]["sent"] > 0
        assert row["quiet"]["faults"] == {}  # genuine mail passed, and forged mail was refused


def test_the_page_lists_every_attack() -> None:
    command = [sys.executable, "-c", NAMES, str(ATTACK.parent)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    table = PAGE.read_text().partition("| attack | what it is |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| ([a-z-]+) \|", table, re.MULTILINE) == done.stdout.split()


def test_the_page_names_bounds_that_exist() -> None:
    page = PAGE.read_text()
    constants = re.findall(r"`([a-z_.]+)\.([A-Z][A-Z_]+)`", page)
    assert constants
    for module, name in constants:
        assert hasattr(importlib.import_module(f"assay.{module}"), name), f"{module}.{name}"
    sample = (TOP / "docs" / "assay.toml.sample").read_text()
    for section, key in re.findall(r"`(?!assay\.)([a-z]+)\.(?!py`)([a-z_]+)`", page):  # assay.socket is a unit
        part = sample.partition(f"\n[{section}]\n")[2].partition("\n[")[0]
        assert re.search(rf"^#? ?{key} ", part, re.MULTILINE), f"{section}.{key}"
