# SPDX-License-Identifier: GPL-3.0-or-later
"""What the daemon counts: families of figures, in memory that its processes share.

`families` lists what is counted, `page` is where one process counts, and `figures` adds up the pages of all.
"""

from __future__ import annotations

from assay.metrics.families import FAMILIES, Family, Type
from assay.metrics.figures import Figures, read
from assay.metrics.page import Histogram, Page, Pages

__all__ = ["FAMILIES", "Family", "Figures", "Histogram", "Page", "Pages", "Type", "read"]
