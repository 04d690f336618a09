# SPDX-License-Identifier: GPL-3.0-or-later
"""The actions requested from the MTA are those that the configuration can lead to, and no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import Milter
import msgspec
import pytest

from assay.config import Configuration, make_settings
from assay.daemon.connection import actions
from running import Daemon
from sending import ROWS, greet, message, results, send

TRACE = Milter.ADDHDRS | Milter.CHGHDRS


def rule(**values: Any) -> dict[str, Any]:
    return {"rule": ({"name": "r", "when": "true"} | values,)}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param({}, TRACE, id="the defaults: insert trace fields, remove forged ones"),
        pytest.param({"dmarc": {"reject": "reject"}}, TRACE, id="a refusal needs nothing"),
        pytest.param({"dmarc": {"reject": "quarantine"}}, TRACE | Milter.QUARANTINE, id="a method's quarantine"),
        pytest.param({"dmarc": {"reject": "quarantine", "dry_run": True}}, TRACE, id="a quarantine in dry run"),
        pytest.param(rule(action="quarantine"), TRACE | Milter.QUARANTINE, id="a rule's quarantine"),
        pytest.param(rule(add_recipients=("a@example.net",)), TRACE | Milter.ADDRCPT, id="a recipient"),
        pytest.param(rule(add_recipients=("a@example.net",), dry_run=True), TRACE, id="a rule in dry run"),
        pytest.param(
            {"milter": {"dry_run": True}, "dmarc": {"reject": "quarantine"}} | rule(add_recipients=("a@example.net",)),
            0,
            id="a dry run without trace fields",
        ),
        pytest.param(
            {"milter": {"dry_run": True, "dry_run_headers": True}} | rule(add_recipients=("a@example.net",)),
            TRACE,
            id="a dry run with trace fields",
        ),
    ],
)
def test_only_possible_actions_are_requested(values: dict[str, Any], expected: int) -> None:
    settings = make_settings(msgspec.convert(values, Configuration))
    assert actions(settings) == expected | Milter.SETSYMLIST


def test_they_are_negotiated_with_the_mta(tmp_path: Path) -> None:
    with Daemon(tmp_path, ROWS, milter={"workers": 1}) as daemon, daemon.mta() as mta:
        assert mta.actions == TRACE | Milter.SETSYMLIST


def test_every_requested_action_is_carried_out(tmp_path: Path) -> None:
    rules = [
        {
            "name": "all",
            "when": "true",
            "add_recipients": ("b@example.net",),
            "tag_subject": "[x] ",
            "add_fields": ("X-A: b",),
        },
        {"name": "end", "when": "true", "action": "quarantine", "reason": "odd"},
    ]
    with Daemon(tmp_path, ROWS, milter={"workers": 1, "on_error": "tempfail"}, rule=rules) as daemon:
        with daemon.mta() as mta:
            greet(mta)
            outcome = send(mta, message("joe@example.org"))
        assert outcome.quarantine
        assert "dmarc=pass" in results(outcome)
        assert "bug=" not in daemon.log()
