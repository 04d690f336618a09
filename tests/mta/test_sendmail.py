# SPDX-License-Identifier: GPL-3.0-or-later
"""assay behind a real Sendmail."""

from __future__ import annotations

from mta.laws import Laws
from mta.sendmail import Sendmail


class TestSendmail(Laws):
    kind = Sendmail
    xclient = False
