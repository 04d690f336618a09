# SPDX-License-Identifier: GPL-3.0-or-later
"""Words of messages that depend on a number."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """A number of things, for nouns whose plural ends in "s": "1 message", "2 messages"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
