# SPDX-License-Identifier: GPL-3.0-or-later
"""What an exception of a database means: try again later, or these rows can never be written.

When in doubt, it is later: the rows wait in the spool until the operator has done what the message says.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from sqlalchemy import exc

from assay.store.feeding import UnavailableError, UnwritableError

#: Classes of SQLSTATE that are the fault of the values: data exceptions, violated constraints.
_FAULTS_OF_VALUES = ("22", "23")
#: What an operator does about an SQLSTATE.
_POSTGRESQL_FIXES = {
    "42501": "grant the rights that docs/store.md names to this user",
    "42P01": "run: assay store migrate",
    "53100": "the disk of the server is full",
}
_MAY_WRITE = "the user who runs this must be able to write the file and its directory"
#: What an operator does about a message without one: SQLite's, and those of a connection that PostgreSQL refuses.
_FIXES_OF_MESSAGES = {
    "Connection refused": "start the server, or correct store.database",
    "authentication failed": "check the user, pg_hba.conf and store.password_file",
    "no password supplied": "check the user, pg_hba.conf and store.password_file",
    "no pg_hba.conf entry": "allow this host in the pg_hba.conf of the server",
    "does not exist": "create the role and the database as docs/store.md describes, then run: assay store migrate",
    "database or disk is full": "make room on the disk",
    "attempt to write a readonly database": _MAY_WRITE,
    "unable to open database file": _MAY_WRITE,
    "file is not a database": "move the file away; a new one is made",
    "malformed": "stop the daemon, rescue what is left with: sqlite3 FILE .recover, and move the file away",
    "no such table": "stop the daemon, and restore the file from a backup or move it away",
    "database is locked": "another program writes to it; end that",
}
#: What an operator does when the file of SQLite cannot be made or reached.
_FIXES_OF_FILES = {
    errno.ENOENT: "create the directory, writable for the daemon's user",
    errno.ENOTDIR: "write the path of a directory as store.directory",
    errno.EACCES: _MAY_WRITE,
    errno.EROFS: _MAY_WRITE,
    errno.ENOSPC: "make room on the disk",
}


@contextlib.contextmanager
def translated(name: str) -> Iterator[None]:
    """Raise the store's exceptions instead of the library's.

    :param name: the database, for messages.
    """
    try:
        yield
    except exc.DBAPIError as error:
        raise _meaning(error.orig, name) from None  # the statement with its values is not for the log
    except exc.SQLAlchemyError as error:
        raise UnavailableError(f"{name}: {_first_line(error)}") from None
    except OSError as error:
        raise _unavailable(name, error.strerror or str(error), _FIXES_OF_FILES.get(error.errno or 0, "")) from error
    except (UnicodeError, OverflowError) as error:
        raise UnwritableError(str(error)) from error


def _meaning(error: BaseException | None, name: str) -> Exception:
    """
    :param error: what the driver raised.
    """
    why = _first_line(error)
    state = str(getattr(error, "sqlstate", None) or "")
    names = {kind.__name__ for kind in type(error).__mro__}
    if state[:2] in _FAULTS_OF_VALUES or (not state and names & {"DataError", "IntegrityError"}):
        return UnwritableError(why)
    if state:
        fix = _POSTGRESQL_FIXES.get(state, "")
    else:
        fix = next((fix for part, fix in _FIXES_OF_MESSAGES.items() if part in why), "")
    return _unavailable(name, why, fix)


def _unavailable(name: str, why: str, fix: str) -> UnavailableError:
    return UnavailableError(f"{name}: {why}; {fix}" if fix else f"{name}: {why}")


def _first_line(error: object) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__
