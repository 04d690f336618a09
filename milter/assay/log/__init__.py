# SPDX-License-Identifier: GPL-3.0-or-later
"""The log: one line per message, to stderr, syslog or the journal, and never a reason to wait.

Levels say whose fault it is: *error* ours, *warning* a broken set-up around us, *info* the line of a message, *debug*
the life of the processes. A stranger's text is always escaped and bounded.

`text` writes values, `forms` lines, `sinks` sends them, and `outlet` keeps those that cannot be sent at once.
"""

from __future__ import annotations

import syslog
from collections.abc import Callable, Sequence
from mmap import mmap

from msgspec import Struct

from assay.log.forms import Field, Form, as_json, as_marked_pairs, as_pairs, for_journal
from assay.log.level import Level
from assay.log.outlet import LOST, Outlet
from assay.log.sinks import Journald, Sink, StandardError, Syslog
from assay.log.text import MAX_VALUE_LENGTH, pairs, quote

#: Characters of a text. With all fields, a line stays below the 208 KiB that a datagram may have by default
#: (net.core.wmem_default): one too long for syslog or the journal would never be taken, and all behind it would wait.
MAX_TEXT_LENGTH = 4096

__all__ = ["MAX_VALUE_LENGTH", "Field", "Level", "Log", "open_log", "pairs", "quote"]


class Log(Struct, frozen=True):
    """A log that drops lines less severe than `level` and passes the rest to `write`.

    Each line has a text, fields or both. The values of fields are escaped and bounded; a text is ours, but may quote a
    file of the operator's, so it is cut.

    :ivar write: takes a line in its final form, and never blocks.
    :ivar form: makes that form.
    :ivar outlet: where the lines go; None if `write` is something else.
    :ivar shared: a number that the processes forked later share, and that replaces `level` if it is not 0.
    """

    write: Callable[[Level, str], None]
    level: Level = Level.INFO
    form: Form = as_pairs
    outlet: Outlet | None = None
    shared: memoryview | None = None

    def error(self, text: str, fields: Sequence[Field] = ()) -> None:
        """Our own fault."""
        self._log(Level.ERROR, text, fields)

    def warning(self, text: str, fields: Sequence[Field] = ()) -> None:
        """A broken set-up around us."""
        self._log(Level.WARNING, text, fields)

    def info(self, text: str, fields: Sequence[Field] = ()) -> None:
        """What happened to a message, or to the daemon as a whole."""
        self._log(Level.INFO, text, fields)

    def debug(self, text: str, fields: Sequence[Field] = ()) -> None:
        """The life of the processes."""
        self._log(Level.DEBUG, text, fields)

    def flush(self, patience: float = 0.0) -> bool:
        """Send what waits, as far as it can be sent.

        :param patience: seconds to wait for a reader at most.
        :returns: whether nothing is left.
        """
        return self.outlet is None or self.outlet.flush(patience)

    def set_level(self, level: Level) -> None:
        """Drop other lines from now on, in all processes that have this log."""
        if self.shared is not None:
            self.shared[0] = level

    def replace_by(self, new: Log) -> None:
        """Send what can be sent and close it. Lines that are lost by that are reported by the new one."""
        if self.outlet is not None and (lost := self.outlet.close()):
            new.warning(LOST.format(lost))

    def _log(self, level: Level, text: str, fields: Sequence[Field]) -> None:
        if level <= (self.level if self.shared is None else self.shared[0] or self.level):
            if len(text) > MAX_TEXT_LENGTH:
                text = f"{text[:MAX_TEXT_LENGTH]}..."
            self.write(level, self.form(level, text, fields))


def open_log(to: str, facility: str, level: str, form: str = "pairs") -> Log:
    """Open the log that the configuration names.

    :param to: ``stderr``, ``syslog`` or ``journald``.
    :param facility: a syslog facility such as ``mail`` or ``local0``.
    :param level: a `Level`'s name in lower case.
    :param form: ``pairs`` or ``json``.
    :raises ValueError: an unknown facility; the message names it.
    """
    number = getattr(syslog, f"LOG_{facility.upper()}", None)
    if facility.upper() not in _FACILITIES or number is None:
        known = ", ".join(sorted(_FACILITIES)).lower()
        raise ValueError(f"log.facility: {facility!r} is not one of {known}")
    sink: Sink
    made: Form
    match to:
        case "syslog":
            sink, made = Syslog(number), as_json if form == "json" else as_pairs
        case "journald":
            sink, made = Journald(), for_journal(number, as_json if form == "json" else as_pairs)
        case _:
            sink, made = StandardError(), as_json if form == "json" else as_marked_pairs
    outlet = Outlet(sink, lambda level, text: made(level, text, ()))
    return Log(outlet.write, Level[level.upper()], made, outlet, memoryview(mmap(-1, 8)).cast("q"))


_FACILITIES = frozenset(
    ("AUTH", "AUTHPRIV", "DAEMON", "MAIL", "SYSLOG", "USER", *(f"LOCAL{number}" for number in range(8)))
)
