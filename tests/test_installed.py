# SPDX-License-Identifier: GPL-3.0-or-later
"""assay from a wheel, as others install it: what is read at run time is in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from assay.store.database import connect
from assay.store.migrations import upgrade
from assay.store.revisions import NEWEST, OLDER

ROOT = Path(__file__).parents[1]
_BUILD = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where it is installed, without what it requires: that comes from the environment of the tests."""
    source, place = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    for name in ("pyproject.toml", "setup.cfg", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "milter", source / "milter", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    built = subprocess.run(
        [sys.executable, "-c", _BUILD, source], cwd=source, capture_output=True, text=True, check=True, timeout=120
    )
    wheel = source / built.stdout.split()[-1]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile"]
    subprocess.run([*pip, "--target", place, wheel], check=True, timeout=120)
    return place


@pytest.mark.parametrize("before", ["", OLDER[0]])
def test_tables_are_migrated(installed: Path, tmp_path: Path, before: str) -> None:
    if before:
        database = connect(str(tmp_path / "store.sqlite"))
        with database.writing() as connection:
            upgrade(connection, before)
        database.close()
    configuration = tmp_path / "assay.toml"
    configuration.write_text(f'[store]\ndirectory = "{tmp_path}"\n')
    done = subprocess.run(
        [sys.executable, "-v", "-m", "assay", "store", "migrate", "-c", configuration],
        env={**os.environ, "PYTHONPATH": str(installed)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"the tables are of revision {NEWEST} ({f'was {before}' if before else 'was empty'})" in done.stdout
    assert f"{installed}/assay/store/migrations/" in done.stderr
