# SPDX-License-Identifier: GPL-3.0-or-later
"""The shape of the tree. That the code cites only listed RFCs is in ``test_rfcs.py``."""

from __future__ import annotations

import ast
import configparser
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MILTER = ROOT / "milter"
SPDX = "SPDX-License-Identifier: GPL-3.0-or-later"
MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 60
#: What may stand at the top: nothing else without a reason.
TOP = {"README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml", "setup.cfg", "milter", "tests", "contrib", "docs"}


def committed(*patterns: str) -> list[Path]:
    """The files that belong to the project, as far as they are there."""
    listed = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("no git checkout")
    return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


MODULES = sorted(MILTER.rglob("*.py"))


def test_the_source_root_is_not_a_package() -> None:
    # pymilter installs a module `milter` and a package `Milter`; ours would shadow them.
    assert not (MILTER / "__init__.py").exists()
    assert [path.name for path in MILTER.iterdir() if path.suffix == ".py"] == []


def test_importing_milter_finds_pymilter() -> None:
    import milter

    assert milter.__file__ is not None
    assert not Path(milter.__file__).is_relative_to(MILTER)
    assert hasattr(milter, "opensocket")


def test_nothing_else_stands_at_the_top() -> None:
    tops = {Path(name(path)).parts[0] for path in committed()}
    assert {top for top in tops if not top.startswith(".")} <= TOP


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_module_is_short_enough_to_read(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= MAX_MODULE_LINES


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_function_is_short_enough_to_read(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    long = {
        node.name: node.end_lineno - node.lineno + 1
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > MAX_FUNCTION_LINES
    }
    assert long == {}


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_module_says_what_it_is_for(path: Path) -> None:
    lines = path.read_text("utf-8").splitlines()
    assert lines[0] == f"# {SPDX}"
    assert ast.get_docstring(ast.parse("\n".join(lines)))


def test_every_program_has_its_license() -> None:
    programs = committed("*.py", "*.sh")
    assert programs
    assert [name(path) for path in programs if SPDX not in "\n".join(path.read_text("utf-8").splitlines()[:3])] == []


def required() -> tuple[set[str], set[str]]:
    """What an installation needs, and what an extra adds that is not for the tests."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    extras = {key: value for key, value in parser["options.extras_require"].items() if key != "test"}

    def names(text: str) -> set[str]:
        return {re.split(r"[\s<>=!~;\[]", line)[0].lower() for line in text.split("\n") if line.strip(" #")}

    return names(parser["options"]["install_requires"]), set().union(*map(names, extras.values()))


def imported() -> set[str]:
    """The top-level modules that the package imports, inside functions as well, but for Python's own and ours."""
    found = set()
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                found |= {one.name.partition(".")[0] for one in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add((node.module or "").partition(".")[0])
    return found - sys.stdlib_module_names - {"assay"}


def test_every_requirement_is_imported_and_every_import_is_required() -> None:
    needed, extra = required()
    provided = {one: {name.lower() for name in by} for one, by in packages_distributions().items()}
    used = {module: provided.get(module, set()) for module in imported()}
    assert {module for module, by in used.items() if not by & (needed | extra)} == set(), "not required"
    assert {name for name in needed | extra if not any(name in by for by in used.values())} == set(), "not imported"


def test_nothing_is_left_to_do() -> None:
    pattern = re.compile(r"\b(TODO|FIXME|XXX)\b")
    found = [name(path) for path in MODULES if pattern.search(path.read_text("utf-8"))]
    assert found == []


def test_exceptions_are_caught_wholesale_only_at_the_edges() -> None:
    # Evaluators are total; a bug surfaces where a connection or a process can still be saved.
    # So does that of a foreign library, where it is asked for a second opinion, or where a thread would end by it, and
    # one that a single report meets, which must not stop the others; and the program has a code of its own for one.
    allowed = {"milter/assay/daemon", "milter/assay/reports/incoming", "milter/assay/resolver", "milter/assay/web"}
    found = {
        str(path.parent.relative_to(ROOT))
        for path in MODULES
        if path.name not in ("second.py", "feeding.py", "delivering.py", "__main__.py")
        if re.search(r"except( \(?(Base)?Exception\b|:)", path.read_text("utf-8"))
    }
    assert found <= allowed


PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "contrib").rglob("*.md")])


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_each_link_of_a_page_leads_somewhere(path: Path) -> None:
    def anchors(page: Path) -> set[str]:
        heads = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
        return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}

    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text("utf-8")):
        if "://" not in target:
            file, _, anchor = target.partition("#")
            page = path.parent / file if file else path
            assert page.exists(), target
            assert not anchor or anchor in anchors(page), target


def test_what_to_report_says_how() -> None:
    pages = {path: re.findall(r"(?i)[^.|]*\breport (?:it|the line)\b[^.|]*", path.read_text("utf-8")) for path in PAGES}
    asked = {name(path): [one.strip() for one in found if "](" not in one] for path, found in pages.items()}
    assert {page: found for page, found in asked.items() if found} == {}


def test_what_is_checked_before_a_commit_is_what_is_checked_at_all() -> None:
    checks = re.findall(r"^check ((?!pytest).+)$", (ROOT / "contrib" / "test.sh").read_text(), re.MULTILINE)
    hooks = re.findall(r"entry: \.venv/bin/(.+)$", (ROOT / ".pre-commit-config.yaml").read_text(), re.MULTILINE)
    assert hooks == checks


def test_no_two_public_classes_share_a_name() -> None:
    # `Result` and `Evaluation` are in every room of a protocol, and are always written with the room's name.
    found: dict[str, list[str]] = {}
    for path in sorted((MILTER / "assay").rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found.setdefault(node.name, []).append(str(path.relative_to(MILTER / "assay")))
    shared = {name: paths for name, paths in found.items() if len(paths) > 1}
    rooms = {name: shared.pop(name) for name in ("Result", "Evaluation")}
    assert shared == {}
    for paths in rooms.values():
        for path in paths:
            assert path.startswith("protocol/")
            assert path.endswith("/result.py") or path.count("/") == 1, "a room of several modules has a result.py"


def test_a_result_is_written_with_its_room_s_name() -> None:
    for path in sorted((MILTER / "assay").rglob("*.py")):
        room = path.relative_to(MILTER / "assay").parts[:2]
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.ImportFrom)
                and node.module is not None
                and node.module.startswith("assay.protocol.")
            ) and {name.name for name in node.names} & {"Result", "Evaluation"}:
                assert room[:2] == ("protocol", node.module.split(".")[2]), f"{path}: {node.module}"
