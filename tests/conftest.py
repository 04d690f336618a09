# SPDX-License-Identifier: GPL-3.0-or-later
"""What all tests share: asserts in modules of laws explain themselves."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("mta.laws")
