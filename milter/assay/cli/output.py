# SPDX-License-Identifier: GPL-3.0-or-later
"""Output of the subcommands, with a stranger's octets escaped for the terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable

from assay.cli.plain import plain
from assay.model.printable import escaped


class OutputError(Exception):
    """Standard output takes no more. Not an `OSError`: that would be blamed on the file that a command works on."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(str(cause))
        self.cause = cause


def say(lines: Iterable[str]) -> None:
    """Print lines, escaped for the terminal. Tabs stay, since they fold header fields.

    :raises OutputError: they cannot be written.
    """
    for line in lines:
        _print(escaped(line, keep="\t"))


def say_object(value: object) -> None:
    """Print a value as one JSON object, in ASCII, so that nothing in it controls a terminal.

    :raises OutputError: it cannot be written.
    """
    _print(json.dumps(plain(value), indent=2))


def complain(command: str, text: str) -> None:
    """Report on standard error what is wrong, escaped for the terminal."""
    print(f"assay {command}: {escaped(text)}", file=sys.stderr)


def _print(text: str) -> None:
    try:
        print(text)
    except OSError as error:
        raise OutputError(error) from error
