# SPDX-License-Identifier: GPL-3.0-or-later
"""The log: one line per message, key=value, to stderr or syslog.

Levels say whose fault it is: *error* ours, *warning* a broken set-up around us, *info* the line of a message, *debug*
the life of the processes. A stranger's text is always escaped and bounded.
"""

from __future__ import annotations

import contextlib
import os
import re
import syslog
from collections.abc import Callable, Iterable
from enum import IntEnum

from msgspec import Struct

from assay.model.printable import escape, escaped, without_claims

MAX_VALUE_LENGTH = 256  # characters of one value; a longer one is cut and marked
_PLAIN = re.compile(r"[a-zA-Z0-9@._:/+\-<>\[\]%,~!#$&*?^{}|]+")


class Level(IntEnum):
    """Severities, with syslog's numbers (RFC 5424, 6.2.1)."""

    ERROR = syslog.LOG_ERR
    WARNING = syslog.LOG_WARNING
    INFO = syslog.LOG_INFO
    DEBUG = syslog.LOG_DEBUG


class Log(Struct, frozen=True):
    """A log that drops lines less severe than `level` and passes the rest to `write`."""

    write: Callable[[Level, str], None]
    level: Level = Level.INFO

    def error(self, text: str) -> None:
        """Our own fault."""
        self._log(Level.ERROR, text)

    def warning(self, text: str) -> None:
        """A broken set-up around us."""
        self._log(Level.WARNING, text)

    def info(self, text: str) -> None:
        """What happened to a message, or to the daemon as a whole."""
        self._log(Level.INFO, text)

    def debug(self, text: str) -> None:
        """The life of the processes."""
        self._log(Level.DEBUG, text)

    def _log(self, level: Level, text: str) -> None:
        if level <= self.level:
            self.write(level, text)


def open_log(to: str, facility: str, level: str) -> Log:
    """Open the log that the configuration names.

    :param to: ``stderr`` or ``syslog``.
    :param facility: a syslog facility such as ``mail`` or ``local0``.
    :param level: a `Level`'s name in lower case.
    :raises ValueError: an unknown facility; the message names it.
    """
    number = getattr(syslog, f"LOG_{facility.upper()}", None)
    if facility.upper() not in _FACILITIES or number is None:
        known = ", ".join(sorted(_FACILITIES)).lower()
        raise ValueError(f"log.facility: {facility!r} is not one of {known}")
    if to == "stderr":
        return Log(_to_stderr, Level[level.upper()])
    syslog.openlog("assay", syslog.LOG_PID, number)
    return Log(syslog.syslog, Level[level.upper()])


_FACILITIES = frozenset(
    ("AUTH", "AUTHPRIV", "DAEMON", "MAIL", "SYSLOG", "USER", *(f"LOCAL{number}" for number in range(8)))
)


def _to_stderr(level: Level, text: str) -> None:
    """Write one whole line at once, so that lines of several threads and processes do not mix."""
    line = f"assay[{os.getpid()}]: {text}" if level == Level.INFO else f"assay[{os.getpid()}]: {level.name}: {text}"
    with contextlib.suppress(OSError):  # a full disk or a closed pipe: mail matters more than its log
        os.write(2, line.encode("utf-8", "backslashreplace") + b"\n")


def pairs(items: Iterable[tuple[str, object]]) -> str:
    """Write key=value pairs on one line; a value that is not plain is quoted and escaped. None is omitted."""
    return " ".join([f"{key}={quote(str(value))}" for key, value in items if value is not None])


def quote(value: str) -> str:
    """One value for the log: bounded, printable, and in double quotes unless it is plain.

    Backslash and quote are escaped with a backslash. Unprintable characters are escaped as in `assay.model.printable`,
    and so is the ``=`` of text that reads as a word of the line: a search for ``dmarc=pass`` finds no stranger's HELO.
    """
    if len(value) > MAX_VALUE_LENGTH:
        value = value[:MAX_VALUE_LENGTH] + "..."
    if _PLAIN.fullmatch(value):
        return value
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{without_claims(escaped(quoted), escape("="))}"'
