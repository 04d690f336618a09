# SPDX-License-Identifier: GPL-3.0-or-later
"""``assay serve`` whose gate looks at the descriptors once, at its start, and not again.

python odd_gate.py serve -c FILE
"""

from __future__ import annotations

import sys

from assay.cli.main import main
from assay.daemon import gate

if __name__ == "__main__":
    gate._LOOK_SECONDS = 3600.0
    sys.exit(main())
