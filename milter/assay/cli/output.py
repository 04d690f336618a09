# SPDX-License-Identifier: GPL-3.0-or-later
"""Output of the subcommands, with a stranger's octets escaped for the terminal."""

from __future__ import annotations

import json
from collections.abc import Iterable

from assay.cli.plain import plain
from assay.model.printable import escaped


def say(lines: Iterable[str]) -> None:
    """Print lines, escaped for the terminal. Tabs stay, since they fold header fields."""
    for line in lines:
        print(escaped(line, keep="\t"))


def say_object(value: object) -> None:
    """Print a value as one JSON object, in ASCII, so that nothing in it controls a terminal."""
    print(json.dumps(plain(value), indent=2))
