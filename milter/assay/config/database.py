# SPDX-License-Identifier: GPL-3.0-or-later
"""Open what ``[store]`` names. The libraries are loaded here, in the processes that need them, and in no other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from assay import secrets
from assay.config.store import StoreSection
from assay.store.destination import UnavailableError

if TYPE_CHECKING:
    from assay.store.database import Database


def open_store(section: StoreSection, *, may_write: bool = True) -> Database:
    """Open the database, whose tables are those of this version.

    :raises UnavailableError: it cannot be used now; the message says why, and what to do.
    """
    from assay.store.database import open_database

    return open_database(section.location, read_password(section.password_file), may_write=may_write)


def read_password(name: str) -> str:
    """The first line of a file; empty without a file.

    :raises UnavailableError: it cannot be used now; the message says why, and what to do.
    """
    if not name:
        return ""
    try:
        return secrets.read(Path(name)).decode().strip().splitlines()[0]
    except secrets.SecretError as error:
        raise UnavailableError(str(error)) from error
    except UnicodeDecodeError as error:
        raise UnavailableError(f"{name}: not UTF-8 text (octet {error.start})") from error
