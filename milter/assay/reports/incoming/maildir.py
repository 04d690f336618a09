# SPDX-License-Identifier: GPL-3.0-or-later
"""A maildir to which the MTA delivers reports. Each mail in ``new`` is taken once, and moved to ``cur``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

#: Flags of a mail in ``cur``, by what was found in it.
SEEN, FLAGGED = "S", "F"


def is_maildir(path: Path) -> bool:
    """Whether it is one."""
    return (path / "new").is_dir() and (path / "cur").is_dir()


def new_mails(maildir: Path) -> Iterator[Path]:
    """The mails that nobody has read, in the order of their names, which begin with the time of the delivery.

    :raises OSError: the maildir cannot be read.
    """
    for path in sorted((maildir / "new").iterdir()):
        # No MTA delivers a symbolic link, and one can lead to what is no mail, and not the owner's.
        if path.is_file() and not path.is_symlink() and not path.name.startswith("."):
            yield path


def mark(mail: Path, flag: str) -> None:
    """Move a mail to ``cur``, where every program sees that it was read, or that somebody should look at it.

    :raises OSError: it cannot be moved.
    """
    name = mail.name.partition(":2,")[0]
    mail.rename(mail.parent.parent / "cur" / f"{name}:2,{flag}")
