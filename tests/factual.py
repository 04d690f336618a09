# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts for tests of the policy, written as the few that a test is about."""

from __future__ import annotations

from typing import Any

import msgspec

from assay.policy import Facts


def facts_of(**given: Any) -> Facts:
    """Facts of which all are empty but those given: ``facts_of(helo="x", spf={"mailfrom": {"result": "fail"}})``.

    The names are those of rules and of the log. In a list of trees each tree may leave out what is empty in it.
    """
    found = msgspec.convert(given, Facts)
    _require_known(given, msgspec.to_builtins(found))
    return found


def _require_known(given: Any, known: Any) -> None:
    if isinstance(given, dict):
        unknown = set(given) - set(known)
        assert not unknown, f"no such facts: {unknown}"
        for name, value in given.items():
            _require_known(value, known[name])
    elif isinstance(given, list):
        for one, other in zip(given, known, strict=True):
            _require_known(one, other)
