# SPDX-License-Identifier: GPL-3.0-or-later
"""The program: ``assay``, and ``python -m assay``."""

import signal
import sys


def main() -> int:
    """Run the command line.

    :returns: the exit code.
    """
    try:
        from assay.cli.main import main as run

        return run()
    except KeyboardInterrupt:
        return 128 + signal.SIGINT  # as in shells


if __name__ == "__main__":
    sys.exit(main())
