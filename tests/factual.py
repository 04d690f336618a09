# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts for tests of the policy, written as the few that a test is about."""

from __future__ import annotations

from typing import Any

from assay.policy import SCHEMA


def facts_of(**given: Any) -> dict[str, Any]:
    """Facts of which all are empty but those given: ``facts_of(helo="x", spf={"mailfrom": {"result": "fail"}})``.

    In a list of trees each tree may leave out what is empty in it.
    """
    header = given.pop("header", {})
    return {**_filled(SCHEMA, given), "header": header}


def _filled(schema: Any, given: Any) -> Any:
    if isinstance(schema, dict):
        unknown = set(given) - set(schema)
        assert not unknown, f"no such facts: {unknown}"
        return {name: _filled(kind, given[name]) if name in given else _empty(kind) for name, kind in schema.items()}
    if isinstance(schema, list):
        return [_filled(schema[0], one) for one in given]
    assert isinstance(given, schema)
    return given


def _empty(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {name: _empty(kind) for name, kind in schema.items()}
    return [] if isinstance(schema, list) else schema()
