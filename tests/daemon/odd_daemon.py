# SPDX-License-Identifier: GPL-3.0-or-later
"""``assay serve`` with an additional kind of child, and with system resources exhausted while a file exists.

    python odd_daemon.py FAULT serve -c FILE

FAULT is a path. While that file exists, the call that it names ("fork" or "pipe") fails in the supervisor as in a
container that has reached its limit.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from pathlib import Path
from typing import Any

from assay.cli.main import main
from assay.config import Configuration
from assay.daemon import supervisor
from assay.daemon.child import Kind, Tether
from assay.daemon.listener import Listener
from assay.log import Log

TO_END_SECONDS = 0.5  # longer than a replacement takes to start

usual = supervisor.kinds


def kinds(configuration: Configuration, listener: Listener, log: Log) -> tuple[Kind, ...]:
    def toy(tether: Tether) -> int:
        tether.ready()
        log.info(f"toy {os.getpid()} serves")
        tether.wait()
        time.sleep(TO_END_SECONDS)
        log.info(f"toy {os.getpid()} ends")
        return os.EX_OK

    return (*usual(configuration, listener, log), Kind("toy", toy))


def failing(name: str, fault: Path) -> Any:
    real = getattr(os, name)

    def call() -> Any:
        if fault.exists() and fault.read_text() == name:
            number = {"fork": errno.EAGAIN, "pipe": errno.EMFILE}[name]
            raise OSError(number, os.strerror(number))
        return real()

    return call


if __name__ == "__main__":
    supervisor.kinds = kinds
    path = Path(sys.argv.pop(1))
    for one in ("fork", "pipe"):
        setattr(os, one, failing(one, path))
    sys.exit(main())
