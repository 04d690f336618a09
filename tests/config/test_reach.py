# SPDX-License-Identifier: GPL-3.0-or-later
"""Why nobody answers at a milter socket: for each error of the system, what to do."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from assay.config.endpoint import Endpoint
from assay.config.reach import refusal


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory with a short name, which every user may enter."""
    with tempfile.TemporaryDirectory(prefix="assay-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def said(address: str, timeout: float = 5.0) -> str:
    """What is said of an address where nobody answers."""
    endpoint = Endpoint.parse(address)
    with pytest.raises(OSError) as caught:  # noqa: PT011 - any
        endpoint.connect(timeout).close()
    return refusal(endpoint, caught.value)


def left_behind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))


PATHS: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "ENOENT of the socket": ("s", lambda _: None, "No such file or directory; there is no such socket: start the dae"),
    "ENOENT of its directory": ("x/s", lambda _: None, "No such file or directory; there is no directory {}/x: write"),
    "ENOTDIR": ("f/s", lambda path: path.parent.touch(), "Not a directory; what should be a directory is a file"),
    "ECONNREFUSED by a socket": ("s", left_behind, "Connection refused; the socket is there, but no daemon: start it"),
    "ECONNREFUSED by a file": ("s", Path.touch, "Connection refused; it is a file, not a socket: write the path"),
    "too long": ("s" * 200, lambda _: None, "AF_UNIX path too long; write the path that milter.socket has"),
}


@pytest.mark.parametrize(("name", "make", "text"), PATHS.values(), ids=PATHS)
def test_a_path(folder: Path, name: str, make: Callable[[Path], None], text: str) -> None:
    make(folder / name)
    assert said(f"unix:{folder}/{name}").startswith(text.format(folder))


def test_a_socket_for_datagrams(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"{folder}/s")
        assert said(f"unix:{folder}/s").startswith("Protocol wrong type for socket; it is a socket for datagrams, such")


def test_a_daemon_that_takes_no_connection(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening, contextlib.ExitStack() as waiting:
        listening.bind(f"{folder}/s")
        listening.listen(0)
        waiting.enter_context(Endpoint.parse(f"unix:{folder}/s").connect(1))
        assert "it accepts no connection: look for 'new sessions wait' in the log" in said(f"unix:{folder}/s", 0.1)


@pytest.mark.skipif(os.geteuid() != 0, reason="another user's permissions: run the tests as root")
@pytest.mark.parametrize(
    ("directory", "mode", "text"),
    [
        (0o755, 0o660, 'daemon may not write to it (root:root 0660); set milter.socket_group = "daemon"'),
        (0o700, 0o666, "daemon may not enter {}/d (root:root 0700); run: chgrp daemon {}/d; chmod g+x {}/d"),
    ],
)
def test_no_permission(folder: Path, directory: int, mode: int, text: str) -> None:
    (folder / "d").mkdir()
    left_behind(folder / "d" / "s")
    (folder / "d" / "s").chmod(mode)
    (folder / "d").chmod(directory)
    program = (
        "import os, pwd, sys; from assay.config import reach; from assay.config.endpoint import Endpoint\n"
        "daemon = pwd.getpwnam('daemon'); os.setgroups([]); os.setgid(daemon.pw_gid); os.setuid(daemon.pw_uid)\n"
        "endpoint = Endpoint.parse(sys.argv[1])\n"
        "try: endpoint.connect(5)\n"
        "except OSError as error: print(reach.refusal(endpoint, error))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, f"unix:{folder}/d/s"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(f"Permission denied; {text.replace('{}', str(folder))}")


def test_a_user_without_a_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container."""
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000_000)
    endpoint = Endpoint.parse(f"unix:{folder}/s")
    refused = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    assert refusal(endpoint, refused) == "Permission denied; run this as root"


def test_a_port(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one:
        port = one.getsockname()[1]
    assert said(f"inet:{port}@127.0.0.1").startswith(
        "Connection refused; nothing listens there: start the daemon, or write the port that milter.socket has (ss"
    )
    assert "the host has no address: write the one" in said("inet:9@no-such-host.invalid")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (TimeoutError("timed out"), "timed out; it accepts no connection: look for 'new sessions wait' in the log"),
        (OSError(errno.EHOSTUNREACH, "No route to host"), "No route to host; this host does not reach that address"),
        (OSError(errno.EPERM, "Operation not permitted"), "Operation not permitted; a firewall of this host"),
    ],
)
def test_another_host(error: OSError, text: str) -> None:
    assert refusal(Endpoint.parse("inet:9@192.0.2.1"), error).startswith(text)
