# SPDX-License-Identifier: GPL-3.0-or-later
"""assay behind a real Postfix."""

from __future__ import annotations

from mta.laws import Laws
from mta.postfix import Postfix


class TestPostfix(Laws):
    kind = Postfix
    xclient = True
