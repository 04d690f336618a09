# SPDX-License-Identifier: GPL-3.0-or-later
"""One message in the words of ``assay check --explain``, with each answer at what asked for it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from asking import Browser
from assay.config.store import StoreSection
from assay.store.database import open_database
from assay.store.rows import AnswerRow, MessageRow
from assay.store.writer import Writer
from web.judged import CLIENT, ROWS, judged
from web.pages import serving

END = 1_790_000_000_000
KEY = "sel._domainkey.orders.example"


def explained(folder: Path, row: MessageRow) -> list[dict[str, Any]]:
    """The rows of the table on the page of a message."""
    store = StoreSection(directory=str(folder), addresses=bool(row.sender))
    with contextlib.closing(open_database(store.location)) as database:
        Writer(database).write([row])
    with serving(folder, store) as app:
        browser = Browser(app)
        browser.log_in()
        found = browser.get(f"/messages/{row.id.hex()}.json?table=explanation")
    assert found.status == 200
    rows: list[dict[str, Any]] = json.loads(found.body)
    return rows


def lines(rows: list[dict[str, Any]]) -> list[str]:
    return ["  " * row["level"] + row["text"] for row in rows]


def test_each_answer_is_where_it_was_asked_for(tmp_path: Path) -> None:
    rows = explained(tmp_path, judged(END))
    key = ROWS[KEY][0][1][0]
    assert (
        lines(rows)
        == f"""\
iprev pass: out7.provider.example has the address {CLIENT}
  PTR 7.100.51.198.in-addr.arpa: out7.provider.example
  A out7.provider.example: {CLIENT}
spf pass (helo out7.provider.example): out7.provider.example permits {CLIENT}, by a
  TXT out7.provider.example: 1 record
    v=spf1 a -all
    a [DNS term 1 of 10]
      A out7.provider.example: {CLIENT} (as above)
      client {CLIENT} is {CLIENT}
      -> match: pass
  => out7.provider.example: pass: out7.provider.example permits {CLIENT}, by a
spf pass (mailfrom orders.example): orders.example permits {CLIENT}, by include:_spf.provider.example
  TXT orders.example: 1 record
    v=spf1 mx include:_spf.provider.example ~all
    mx [DNS term 1 of 10]
      MX orders.example: 10 in.orders.example
      A in.orders.example: 192.0.2.40
      client {CLIENT} is not 192.0.2.40
      -> no match
    include:_spf.provider.example [DNS term 2 of 10]
      TXT _spf.provider.example: 1 record
        v=spf1 ip4:198.51.100.0/24 -all
        ip4:198.51.100.0/24
          client {CLIENT} in 198.51.100.0/24
          -> match: pass
      => _spf.provider.example: pass: _spf.provider.example permits {CLIENT}, by ip4:198.51.100.0/24
      -> match: pass
  => orders.example: pass: orders.example permits {CLIENT}, by include:_spf.provider.example
dkim pass (orders.example/sel): verified with an RSA key of 2048 bits
  TXT {KEY}: "{key}"
arc none: no ARC set
dmarc pass (orders.example): orders.example passed SPF and is aligned
  TXT _dmarc.orders.example: "{ROWS["_dmarc.orders.example"][0][1][0]}"
  TXT _dmarc.example: the name does not exist
decision accept""".splitlines()
    )
    (asked,) = (row for row in rows if row["name"] == "_spf.provider.example")
    assert {name: asked[name] for name in ("method", "type", "outcome", "answer", "ttl", "marks", "milliseconds")} == {
        "method": "spf.mailfrom", "type": "TXT", "outcome": "found", "answer": ["v=spf1 ip4:198.51.100.0/24 -all"],
        "ttl": 300, "marks": "", "milliseconds": 4,
    }  # fmt: skip


def without(name: str) -> Callable[[MessageRow], MessageRow]:
    return lambda row: replace(row, answers=tuple(each for each in row.answers if each.name != name))


@pytest.mark.parametrize(
    "change",
    [
        without("_spf.provider.example"),
        lambda row: replace(row, answers=tuple(replace(each, records=()) for each in row.answers)),
        lambda row: replace(row, findings=tuple(replace(each, reason="another") for each in row.findings)),
    ],
    ids=["an answer is missing", "records are missing", "it came to something else"],
)
def test_steps_that_would_not_be_true_are_not_told(tmp_path: Path, change: Callable[[MessageRow], MessageRow]) -> None:
    rows = explained(tmp_path, change(judged(END)))
    assert not [row for row in rows if row["text"].startswith("=> orders.example")]
    (asked,) = (row for row in rows if (row["name"], row["type"]) == ("orders.example", "TXT"))
    assert (asked["method"], asked["level"]) == ("spf.mailfrom", 1)


def test_what_no_finding_asked_for_comes_last_and_words_of_others_are_left_out(tmp_path: Path) -> None:
    further = (AnswerRow("x.example", "A", "nodata"), AnswerRow("y", "LOC", "found"), AnswerRow("y", "A", "odd"))
    row = judged(END)
    rows = explained(tmp_path, replace(row, answers=(*further, *row.answers)))
    assert lines(rows)[-3:] == [
        "asked in advance, or for what has no finding",
        "  A x.example: no A record",
        "decision accept",
    ]
    assert "y" not in [row["name"] for row in rows]


def test_each_answer_that_was_kept_is_there(tmp_path: Path) -> None:
    """Also where addresses are not kept, and the record has the local part in a name."""
    zone = dict(ROWS) | {
        "orders.example": [["TXT", ["v=spf1 exists:%{l}.x.example include:_spf.provider.example -all"]]]
    }
    row = judged(END, addresses=False, rows=zone)
    assert row.further_answers == 1
    shown = {(each["name"], each["type"]) for each in explained(tmp_path, row) if each["name"]}
    assert shown == {(each.name, each.type) for each in row.answers}
