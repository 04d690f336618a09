# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests with real MTAs share."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("mta.laws")
