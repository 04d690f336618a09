# SPDX-License-Identifier: GPL-3.0-or-later
"""A process that writes rows, as a host does: ``python store_writing.py DATABASE FIRST LAST [USER]``.

It writes batches until each is taken. As another user, it tries once. In the end it prints what went wrong last.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time

from sqlalchemy import create_engine

from assay.store.database import open_database
from assay.store.feeding import UnavailableError
from assay.store.writer import Writer
from postgresql import PASSWORD
from store_rows import row

BATCH = 50
PATIENCE = 60.0  # seconds


def main(where: str, first: int, last: int, user: int = -1) -> None:
    """Write."""
    fault = ""
    if user >= 0:
        create_engine("sqlite://").connect().close()  # what is loaded only now may be closed to the user
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    deadline = time.monotonic() + PATIENCE
    for start in range(first, last, BATCH):
        batch = [row(number, client=f"192.0.2.{number % 7}") for number in range(start, start + BATCH)]
        while True:
            try:
                with contextlib.closing(open_database(where, PASSWORD)) as database:
                    Writer(database, 0.5).write(batch)
                break
            except UnavailableError as error:
                fault = str(error)
                if user >= 0 or time.monotonic() > deadline:
                    break
                time.sleep(0.05)
    print(fault)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
