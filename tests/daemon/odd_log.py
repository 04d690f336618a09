# SPDX-License-Identifier: GPL-3.0-or-later
"""``assay serve`` with a smaller buffer for the log, and with another socket of syslog and the journal.

python odd_log.py OCTETS [SOCKET] serve -c FILE
"""

from __future__ import annotations

import sys

from assay.cli.main import main
from assay.log import outlet, sinks

if __name__ == "__main__":
    outlet.MAX_WAITING_OCTETS = int(sys.argv.pop(1))
    if sys.argv[1] != "serve":
        sinks.SYSLOG = sinks.JOURNALD = sys.argv.pop(1)
    sys.exit(main())
