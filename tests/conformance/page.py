# SPDX-License-Identifier: GPL-3.0-or-later
"""``docs/conformance.md``: what assay answers to the published cases, in figures and, where one is disputed, in full.

Nothing in it is written by hand but the reasons, which come from the ``disputed-*.toml`` files: a case counts as passed
if the very test of its kind passes, and the answers are computed. Write it anew with ``contrib/write-conformance.py``.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from conformance import (
    answer_ar,
    answer_arc,
    answer_dkim,
    answer_dmarc,
    answer_iprev,
    answer_spf,
    answer_srs,
    test_ar,
    test_arc,
    test_arc_sign,
    test_attack,
    test_dkim,
    test_dmarc,
    test_e2e,
    test_iprev,
    test_senderid,
    test_spf,
    test_srs,
)
from conformance.answer_whole import Filter
from conformance.cases import Case, load

PAGE = Path(__file__).resolve().parents[2] / "docs" / "conformance.md"

#: What each kind of case is about, in the order of the page.
KINDS = {
    "spf": "SPF",
    "senderid": "Sender ID",
    "dkim": "DKIM",
    "arc": "ARC, validation",
    "arc-sign": "ARC, sealing",
    "dmarc": "DMARC",
    "iprev": "IPREV",
    "ar": "Authentication-Results, reading",
    "srs": "SRS",
    "e2e": "the whole filter",
    "attack": "the whole filter, attacks",
}

_HEAD = """\
# Conformance

`contrib/write-conformance.py` generates this page from a run of the published suites; the tests fail if
it is out of date.

Every message of the whole-filter suites is sent over the milter protocol to a running daemon, and the resulting
Authentication-Results counts. The other suites call the evaluators directly.

A case is *disputed* if its stated outcome is not what today's RFCs say, or if they leave it to the receiver. It does
not count as passed or failed. The second table gives assay's answer to each of them, and the reason.

## The suites

| suite | about | cases | disputed | passed of the others |
|---|---|---:|---:|---:|
"""

_DISPUTED = """
## The disputed cases

| case | the suite says | assay answers | why |
|---|---|---|---|
"""


def render(whole_filter: Filter) -> str:
    """The page, from a run of everything; a few seconds."""
    kinds = list(KINDS)
    cases = sorted(load(*kinds), key=lambda case: kinds.index(case["kind"]))
    return _HEAD + "".join(_suites(cases, whole_filter)) + _DISPUTED + "".join(_disputed(cases, whole_filter))


def reasons() -> dict[str, str]:
    """Why, for each disputed case, by its id."""
    files = sorted(Path(__file__).parent.glob("disputed-*.toml"))
    return {name: entry["why"] for file in files for name, entry in tomllib.loads(file.read_text()).items()}


@dataclass(frozen=True)
class _Runner:
    """How a kind of case is answered, and how it is checked: by the test of its kind."""

    answer: Callable[[Case], tuple[str, str]]
    check: Callable[[Case], None]

    def passes(self, case: Case) -> bool:
        """Whether the case's test passes."""
        try:
            self.check(case)
        except AssertionError:
            return False
        return True


def _runners(whole_filter: Filter) -> dict[str, _Runner]:
    return {
        "spf": _Runner(answer_spf.answer, test_spf.test_published_case),
        "senderid": _Runner(answer_spf.answer, test_senderid.test_published_case),
        "dkim": _Runner(answer_dkim.answer, test_dkim.test_dkim),
        "arc": _Runner(answer_arc.answer, test_arc.test_arc),
        "arc-sign": _Runner(answer_arc.answer, test_arc_sign.test_arc_sign),
        "dmarc": _Runner(answer_dmarc.answer, test_dmarc.test_case),
        "iprev": _Runner(answer_iprev.answer, test_iprev.test_case),
        "ar": _Runner(answer_ar.answer, test_ar.test_published_case),
        "srs": _Runner(answer_srs.answer, test_srs.test_case),
        "e2e": _Runner(whole_filter.words, lambda case: test_e2e.test_published_case(case, whole_filter)),
        "attack": _Runner(whole_filter.words, lambda case: test_attack.test_published_case(case, whole_filter)),
    }


def _suites(cases: list[Case], whole_filter: Filter) -> Iterator[str]:
    runners = _runners(whole_filter)
    total: Counter[str] = Counter()
    for suite, kind in dict.fromkeys((case["suite"], case["kind"]) for case in cases):
        of = [case for case in cases if (case["suite"], case["kind"]) == (suite, kind)]
        counted = [case for case in of if not case.get("disputed")]
        if kind not in runners:
            yield _row(suite, KINDS[kind], len(of), len(of) - len(counted), "not run")
            continue
        passed = sum(runners[kind].passes(case) for case in counted)
        yield _row(suite, KINDS[kind], len(of), len(of) - len(counted), f"{passed} of {len(counted)}")
        total.update(cases=len(of), disputed=len(of) - len(counted), passed=passed, counted=len(counted))
    yield _row(
        "**all that were run**", "", total["cases"], total["disputed"], f"{total['passed']} of {total['counted']}"
    )


def _disputed(cases: list[Case], whole_filter: Filter) -> Iterator[str]:
    runners = _runners(whole_filter)
    why = reasons()
    for case in cases:
        if case.get("disputed"):
            yield _row(f"`{case['id']}`", _expected(case), runners[case["kind"]].answer(case)[0], why[case["id"]])


def _expected(case: Case) -> str:
    """What the suite says, in the words of our answers."""
    expect = case["expect"]
    match case["kind"]:
        case "ar":
            return "valid" if expect["valid"] else "invalid"
        case "e2e" | "attack":
            return " ".join(f"{key}={_either(value)}" for key, value in expect.items())
        case _:
            return _either(expect["result"])


def _either(value: str | list[str]) -> str:
    return value if isinstance(value, str) else " or ".join(value)


def _row(*cells: object) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |\n"
