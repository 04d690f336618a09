# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows as JSON objects: what leaves, and what does not."""

from __future__ import annotations

import msgspec

from assay.store.json_form import from_json, to_json
from report_world import with_failure


def test_no_header_of_a_message_leaves() -> None:
    row = with_failure(1)
    assert row.incident is not None
    octets = to_json(row)
    assert "incident" not in msgspec.json.decode(octets)
    assert from_json(octets).incident is None
