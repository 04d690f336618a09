# SPDX-License-Identifier: GPL-3.0-or-later
"""A file system that can be full: a tmpfs in a mount namespace of its own, which daemons of a test enter.

::

    with SmallDisk(place) as disk, Daemon(tmp_path, before=disk.enter, store={"directory": str(place)}):
        disk.fill()
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Self

import pytest

_UNSHARE = ("unshare", "--user", "--map-root-user", "--mount")
_MOUNT = 'mount -t tmpfs -o "size=$1" tmpfs "$0" && echo mounted && exec sleep infinity'


def _may_mount() -> bool:
    try:
        return not subprocess.run([*_UNSHARE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True).returncode
    except FileNotFoundError:
        return False


needs_mounts = pytest.mark.skipif(not _may_mount(), reason="a user may not mount file systems here")


class SmallDisk:
    """The file system at `place`, for processes that were started with `enter` in front of their command.

    `seen` is the same directory for all others.
    """

    def __init__(self, place: Path, octets: int = 4_000_000) -> None:
        self.place = place
        self._octets = octets

    def __enter__(self) -> Self:
        self.place.mkdir(exist_ok=True)
        command = [*_UNSHARE, "sh", "-c", _MOUNT, str(self.place), str(self._octets)]
        self._holder = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"mounted\n"
        self.enter = (
            str(shutil.which("nsenter")),
            "--preserve-credentials",
            "--user",
            "--mount",
            f"--target={self._holder.pid}",
        )
        self.seen = Path(f"/proc/{self._holder.pid}/root{self.place}")
        return self

    def __exit__(self, *_: object) -> None:
        self._holder.kill()
        self._holder.communicate()

    def fill(self) -> None:
        """Leave no octet free."""
        descriptor = os.open(self.seen / "filler", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            for octets in (65536, 1):
                with contextlib.suppress(OSError):
                    while True:
                        os.write(descriptor, bytes(octets))
        finally:
            os.close(descriptor)
        assert self.full

    @property
    def full(self) -> bool:
        return os.statvfs(self.seen).f_bavail == 0

    def free(self) -> None:
        """Make room again."""
        (self.seen / "filler").unlink()
