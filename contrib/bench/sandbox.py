# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the benchmark isolated from the machine: in its own namespaces, which end with it.

The network is a loopback device that nothing else sees, so port 53 is free and no question leaves the machine. The
process tree is its own, so that all servers end when the benchmark does, however it ends. Files that are mounted over
``/usr``, ``/etc`` and ``/run`` are seen by the benchmark only. Needs root, or a kernel that lets users make namespaces.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import packages

_MARK = "ASSAY_BENCH_SANDBOX"
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1  # <linux/sockios.h>, <linux/if.h>


@contextmanager
def furnished(unpacked: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """Go on in the sandbox, with Debian's packages in it.

    :param unpacked: where the packages are kept.
    :returns: a directory in memory that disappears afterwards, and the packages' versions.
    """
    try:
        if not os.environ.get(_MARK):
            packages.fetch(unpacked)  # the sandbox has no network
    except packages.PackageError as error:
        raise SystemExit(f"bench: {error}") from error
    enter()
    with tempfile.TemporaryDirectory(prefix="assay-bench-") as name:
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", name], check=True)
        try:
            packages.overlay(unpacked, Path(name) / "changes")
            yield Path(name), packages.fetch(unpacked)
        finally:
            subprocess.run(["umount", "--lazy", name], check=True)


def enter() -> None:
    """Start this program again in the sandbox, unless it runs there, and end with its exit code."""
    if os.environ.get(_MARK):
        return
    unshare = shutil.which("unshare")
    if unshare is None:
        raise SystemExit("bench: no unshare(1) here (Debian: util-linux)")
    os.environ[_MARK] = "yes"
    command = [unshare, "--user", "--map-root-user", "--mount", "--net", "--pid", "--fork", "--kill-child"]
    os.execv(unshare, [*command, "--mount-proc", sys.executable, *sys.argv])  # noqa: S606  # no shell is wanted


def prepare(directory: Path, nameserver: str) -> None:
    """Bring loopback up, make `nameserver` the resolver of every program, and let /dev/log be made. Call `enter` first.

    :param directory: for changed files.
    """
    if not os.environ.get(_MARK):
        raise SystemExit("bench: this is not the sandbox, and the mounts would change the machine itself")
    _up("lo")
    _own_devices(directory / "dev")
    for name, text in {
        "resolv.conf": f"nameserver {nameserver}\noptions timeout:5\n",
        "hosts": "127.0.0.1 localhost\n::1 localhost\n",
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    }.items():
        path = directory / name
        path.write_text(text)
        target = Path("/etc") / name
        if target.is_symlink() or not target.exists():
            target.unlink(missing_ok=True)
            target.touch()
        subprocess.run(["mount", "--bind", str(path), str(target)], check=True)


def _own_devices(directory: Path) -> None:
    """Lay a directory with the usual devices over /dev: the machine's own is not to be changed."""
    directory.mkdir()
    for path in (Path("/dev") / name for name in ("null", "zero", "full", "random", "urandom", "tty", "shm", "pts")):
        if path.exists():
            place = directory / path.name
            place.mkdir() if path.is_dir() else place.touch()
            subprocess.run(["mount", "--rbind", str(path), str(place)], check=True)
    (directory / "fd").symlink_to("/proc/self/fd")
    subprocess.run(["mount", "--rbind", str(directory), "/dev"], check=True)


def _up(device: str) -> None:
    """Bring a network device up, as ``ip link set ... up`` does; a small Debian has no ip(8). See netdevice(7)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sH22x", device.encode(), 0)
        (flags,) = struct.unpack_from("H", fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request), 16)
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH22x", device.encode(), flags | _IFF_UP))
