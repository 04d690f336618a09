# SPDX-License-Identifier: GPL-3.0-or-later
"""``docs/rfcs.md``, the citations in the code and the texts of the RFCs agree.

The texts are read where they lie: ``../shared/reference/rfc`` beside the project, or ``$ASSAY_RFCS``, a folder of files
such as ``rfc7208.txt`` (Debian has them in the packages ``doc-rfc-*``). A text that is not there is skipped.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "rfcs.md"
PACKAGE = ROOT / "milter" / "assay"
STATES = ("yes", "choice", "library", "part", "no")

TEXTS = Path(os.environ.get("ASSAY_RFCS", ROOT.parent / "shared" / "reference" / "rfc"))
#: The last drafts, with the section numbers of the RFC that they became, serve where there is no RFC.
DRAFTS = {
    9989: "draft-ietf-dmarc-dmarcbis-41.txt",
    9990: "draft-ietf-dmarc-aggregate-reporting-32.md",
    9991: "draft-ietf-dmarc-failure-reporting-24.md",
}

SECTION = r"(?:(?:[A-Z]\.)?\d+(?:\.\d+)*(?!\w)|(?<=appendix )[A-Z]\b(?!\.\d))"
#: ``RFC 7208, 4.3 to 4.5`` and its like; what is neither a section nor joins two of them ends it.
CITATION = re.compile(rf"RFC (\d+)((?:(?:,| and| to| or)(?: appendix)? {SECTION})*)")
#: Citations wrap at the end of a line, also in comments.
WRAP = re.compile(r"[ \t]*\n[ \t]*(?:#:?[ \t]*)?")
Section = tuple[int, str]


@dataclass(frozen=True)
class Row:
    """One row of the page. `sections` of RFC `rfc` have the section "" where the whole RFC is meant."""

    rfc: int
    sections: tuple[str, ...]
    modules: tuple[str, ...]
    state: str


def cited(text: str) -> set[Section]:
    """The sections that a text cites; the whole RFC is the section ""."""
    found = set()
    for number, sections in CITATION.findall(WRAP.sub(" ", text)):
        found |= {(int(number), section) for section in re.findall(SECTION, sections) or [""]}
    return found


def rows() -> Iterator[Row]:
    """The rows of all tables that have a section in their first cell."""
    rfc = 0
    for line in PAGE.read_text().splitlines():
        if line.startswith("#"):
            heading = re.search(r"RFC (\d+)", line)
            rfc = int(heading[1]) if heading else 0
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|") or len(cells) != 4 or cells[0] in ("section", "---"):
            continue
        own = re.match(r"RFC (\d+)(?:, )?", cells[0])
        number, sections = (int(own[1]), cells[0][own.end() :]) if own else (rfc, cells[0])
        yield Row(
            number, tuple(re.findall(SECTION, sections)) or ("",), tuple(re.findall(r"`([^`]+)`", cells[2])), cells[3]
        )


CITED = {path: cited(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}
ROWS = tuple(rows())
LISTED = {(row.rfc, section) for row in ROWS for section in row.sections}
NAMED = {row.rfc for row in ROWS} | {int(number) for number in re.findall(r"RFC (\d+)", PAGE.read_text())}


#: Everything that is cited anywhere: a test or a page misleads as a comment does.
EVERYWHERE = sorted(
    {
        one
        for folder, pattern in (("milter", "*.py"), ("tests", "*.py"), ("contrib", "*.py"), ("docs", "*.md"))
        for path in (ROOT / folder).rglob(pattern)
        if path not in (PAGE, Path(__file__).resolve())
        for one in cited(path.read_text("utf-8"))
        if one[1]
    }
    | {one for one in LISTED if one[1]}
)


@functools.cache
def headings(rfc: int) -> dict[str, str]:
    """The sections of an RFC's text, with their titles."""
    for name in (f"rfc{rfc}.txt", DRAFTS.get(rfc, "")):
        path = TEXTS / name
        if name and path.is_file():
            text = path.read_text("utf-8", "replace")
            return _numbered(text) if path.suffix == ".md" else _printed(text)
    pytest.skip(f"the text of RFC {rfc} is not there")


def _printed(text: str) -> dict[str, str]:
    """Of the printed form: headings begin in the first column, unlike those of the table of contents."""
    return dict(re.findall(r"^(?:Appendix )?((?:[A-Z]|\d+)(?:\.\d+)*)\.?[ ]+(\S.*)$", text, re.MULTILINE))


def _numbered(text: str) -> dict[str, str]:
    """Of the Markdown that the printed form is made of, where headings have no numbers yet."""
    found: dict[str, str] = {}
    numbers: list[int] = []
    for marks, title in re.findall(r"^(#+) (.+)$", text, re.MULTILINE):
        numbers = [*numbers, *[0] * len(marks)][: len(marks)]
        numbers[-1] += 1
        found[".".join(map(str, numbers))] = title
    return found


@pytest.mark.parametrize(("rfc", "section"), EVERYWHERE, ids=lambda part: str(part))
def test_a_cited_section_exists(rfc: int, section: str) -> None:
    assert section in headings(rfc), f"RFC {rfc} has no section {section}"


@pytest.mark.parametrize(
    ("rfc", "section", "title"),
    [
        (7208, "4.6.4", "DNS Lookup Limits"),
        (5321, "C", "Source Routes"),
        (8601, "B.7", "Comment-Heavy Example"),
        (9989, "4.10.1", "DMARC Policy Discovery"),
        (9990, "3.1.1.5", 'Contents of the "policy_published" element {#xml-policy-published}'),
    ],
)
def test_headings_are_read(rfc: int, section: str, title: str) -> None:
    assert headings(rfc)[section] == title
    assert "99.1" not in headings(rfc)


@pytest.mark.parametrize("path", CITED, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_cited_section_has_a_row(path: Path) -> None:
    missing = {one for one in CITED[path] if one not in LISTED and (one[1] or one[0] not in NAMED)}
    assert not missing, f"give docs/rfcs.md rows for {sorted(missing)}"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.rfc}-{'+'.join(row.sections)}")
def test_a_row_names_modules_that_cite_its_rfc(row: Row) -> None:
    for module in row.modules:
        citations = CITED.get(PACKAGE / module)
        assert citations is not None, f"there is no module {module}"
        assert row.rfc in {rfc for rfc, _ in citations}, f"{module} does not cite RFC {row.rfc}"
    assert re.split(r"\W", row.state)[0] in STATES
    assert row.modules or row.state.startswith(("no", "part")), "done, but nowhere"


def test_no_section_has_two_rows() -> None:
    sections = [(row.rfc, section) for row in ROWS for section in row.sections]
    assert sorted(sections) == sorted(set(sections))


@pytest.mark.parametrize(
    ("text", "sections"),
    [
        ("(RFC 7208, 4.6 and 5.6)", {(7208, "4.6"), (7208, "5.6")}),
        ("(RFC 7208,\n    # 4.6.4): ten", {(7208, "4.6.4")}),
        ("RFC 8617, 5.2, steps 1 to 3", {(8617, "5.2")}),
        ("RFC 8601, appendix B.7", {(8601, "B.7")}),
        ("RFC 5321, 4.1.2 and appendix C: a route", {(5321, "4.1.2"), (5321, "C")}),
        ("RFC 5321, 4.1.2. A host", {(5321, "4.1.2")}),
        ("RFC 2047, 5 (3)", {(2047, "5")}),
        ("RFC 6376 and RFC 8301, 3.1: 2 keys", {(6376, ""), (8301, "3.1")}),
    ],
)
def test_citations_are_read(text: str, sections: set[Section]) -> None:
    assert cited(text) == sections
