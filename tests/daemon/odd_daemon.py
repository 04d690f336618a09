# SPDX-License-Identifier: GPL-3.0-or-later
"""``assay serve`` with an additional kind of child, and with system resources exhausted while a file exists.

    python odd_daemon.py FAULT serve -c FILE

FAULT is a path. While that file exists, the system call that it names fails in the supervisor, such as "fork" in a
container that has reached its limit, or has no memory ("memory for select").
"""

from __future__ import annotations

import errno
import os
import select
import sys
import time
from pathlib import Path
from typing import Any

from assay.cli.main import main
from assay.config import Configuration
from assay.daemon import kinds as daemon_kinds
from assay.daemon.child import Kind, Tether
from assay.daemon.listener import Listener
from assay.log import Log
from assay.store.channel import RowChannel

TO_END_SECONDS = 0.5  # longer than a replacement takes to start

usual = daemon_kinds.kinds


def kinds(configuration: Configuration, listener: Listener, channel: RowChannel, log: Log) -> tuple[Kind, ...]:
    def toy(tether: Tether) -> int:
        tether.ready()
        log.info(f"toy {os.getpid()} serves")
        tether.wait()
        time.sleep(TO_END_SECONDS)
        log.info(f"toy {os.getpid()} ends")
        return os.EX_OK

    return (*usual(configuration, listener, channel, log), Kind("toy", toy))


FAULTS = {
    "fork": (os, errno.EAGAIN),
    "pipe": (os, errno.EMFILE),
    "waitpid": (os, errno.EIO),
    "read": (os, errno.EIO),
    "select": (select, errno.ENOMEM),
}


def failing(name: str, fault: Path) -> Any:
    module, number = FAULTS[name]
    real, supervisor_pid = getattr(module, name), os.getpid()

    def call(*arguments: Any) -> Any:
        if os.getpid() == supervisor_pid and fault.exists() and fault.read_text() == name:
            raise OSError(number, os.strerror(number))
        if os.getpid() == supervisor_pid and fault.exists() and fault.read_text() == f"memory for {name}":
            raise MemoryError
        if os.getpid() == supervisor_pid and fault.exists() and fault.read_text() == f"second {name}":
            fault.write_text(name)
        return real(*arguments)

    return call


if __name__ == "__main__":
    daemon_kinds.kinds = kinds
    path = Path(sys.argv.pop(1))
    for one, (module, _) in FAULTS.items():
        setattr(module, one, failing(one, path))
    sys.exit(main())
