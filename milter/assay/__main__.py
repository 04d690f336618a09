# SPDX-License-Identifier: GPL-3.0-or-later
"""The program: ``assay``, and ``python -m assay``."""

import os
import signal
import sys
import traceback


def main() -> int:
    """Run the command line.

    :returns: the exit code.
    """
    try:
        from assay.cli.main import main as run

        return run()
    except KeyboardInterrupt:
        return 128 + signal.SIGINT  # as in shells
    except Exception:  # a bug
        traceback.print_exc()
        return os.EX_SOFTWARE


if __name__ == "__main__":
    sys.exit(main())
