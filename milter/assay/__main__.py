# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m assay``."""

import sys

from assay.cli.main import main

sys.exit(main())
