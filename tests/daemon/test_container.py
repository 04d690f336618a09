# SPDX-License-Identifier: GPL-3.0-or-later
"""The daemon as the first process of a container that has no root: docs/container.md.

The container is made of what container programs use: namespaces for users, mounts, processes and the network, a root
that is read only, a tmpfs for ``/run``, a user without a name and without any capability, and ``no_new_privs``.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from running import PATIENCE, Daemon
from sending import ROWS, greet, results, send

TESTS = Path(__file__).parents[1]
USER = 12345
_UNSHARE = ("unshare", "--user", "--map-root-user", "--mount", "--pid", "--net", "--fork", "--kill-child")

#: Runs in the new namespaces as process 1, whose place the daemon takes. The nameserver becomes a child of the daemon,
#: and one that it does not know.
_SETUP = """\
import ctypes, fcntl, os, socket, struct, subprocess, sys

user, rows, *command = sys.argv[1:]
with socket.socket() as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16s24s", b"lo", struct.pack("H", 0x41)))  # SIOCSIFFLAGS: up
library = ctypes.CDLL(None, use_errno=True)

def checked(result):
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

def mount(kind, place, options=b""):
    checked(library.mount(kind, place, kind, 0, options))

attributes = struct.pack("QQQQ", 1, 0, 0, 0)  # MOUNT_ATTR_RDONLY
checked(library.syscall(442, -100, b"/", 0x8000, attributes, len(attributes)))  # mount_setattr, recursive
mount(b"tmpfs", b"/run", b"mode=0755")
mount(b"proc", b"/proc")
os.mkdir("/run/assay")
nameserver = subprocess.Popen([sys.executable, "-c", '''
import json, sys, threading
from nameserver import NameServer
server = NameServer(json.loads(sys.argv[1]))
server.address = ("127.0.0.1", 53)
with server:
    print("ready", flush=True)
    threading.Event().wait()
''', rows], stdout=subprocess.PIPE)
assert nameserver.stdout.readline() == b"ready\\n"
os.execvp("unshare", [
    "unshare", "--user", f"--map-user={user}", f"--map-group={user}", "setpriv", "--no-new-privs", *command
])
"""


class Contained(Daemon):
    """The daemon in a container, at a socket below its own ``/run``."""

    def __init__(self, folder: Path, **sections: Any) -> None:
        super().__init__(folder, socket="unix:/run/assay/assay.sock", dns={"nameservers": ("127.0.0.1",)}, **sections)

    def start(self, *before: str, **options: Any) -> None:
        setup = (sys.executable, "-c", _SETUP, str(USER), json.dumps(ROWS))
        environment = os.environ | {"PYTHONPATH": str(TESTS), "PYTHONDONTWRITEBYTECODE": "1"}
        super().start(*before, *_UNSHARE, *setup, env=environment, **options)
        self.socket = f"unix:/proc/{self.pid}/root/run/assay/assay.sock"

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError, ValueError):  # it has ended
            self.signal(signal.SIGTERM)  # the program that made the namespaces passes none on
        super().__exit__(*_)

    @property
    def pid(self) -> int:
        """The process that is the first one of the container, as it is numbered outside."""
        (pid,) = children(super().pid)
        return pid


def children(pid: int) -> set[int]:
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def status(pid: int, field: str) -> list[str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split()[1:] for line in lines if line.startswith(f"{field}:"))


def nameserver(daemon: Contained) -> int:
    """The child that the daemon did not start."""
    (pid,) = (pid for pid in daemon.workers() if b"NameServer" in Path(f"/proc/{pid}/cmdline").read_bytes())
    return pid


def wait_until_gone(pid: int) -> None:
    """Wait until it has ended, and its parent has noticed: a zombie is still there."""
    deadline = time.monotonic() + PATIENCE
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline, "nobody waits for it"
        time.sleep(0.02)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Contained]:
    if subprocess.run([*_UNSHARE, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no user namespaces here: run the tests as root, or permit them")
    with Contained(tmp_path, milter={"drain_seconds": 15.0}) as one:
        yield one


def judged(daemon: Contained) -> None:
    with daemon.mta() as mta:
        greet(mta)
        assert "dmarc=pass" in results(send(mta))


def test_it_serves_reloads_and_reaps_as_the_first_process_without_any_right(daemon: Contained) -> None:
    assert status(daemon.pid, "NSpid")[-1] == "1"
    assert status(daemon.pid, "CapEff") == ["0" * 16]
    assert status(daemon.pid, "NoNewPrivs") == ["1"]
    mounts = Path(f"/proc/{daemon.pid}/mountinfo").read_text().splitlines()
    writable = {line.split()[4] for line in mounts if "ro" not in line.split()[5].split(",")}
    assert writable == {"/run", "/proc"}
    judged(daemon)

    daemon.signal(signal.SIGHUP)
    daemon.wait_for_log(": reloaded")
    judged(daemon)

    (killed, *_) = daemon.workers() - {nameserver(daemon)}
    os.kill(killed, signal.SIGKILL)
    wait_until_gone(killed)
    judged(daemon)

    stranger = nameserver(daemon)
    os.kill(stranger, signal.SIGKILL)
    wait_until_gone(stranger)
    assert f"worker {stranger}" not in daemon.log()
    assert "runs as root" not in daemon.log()
    assert "bug=" not in daemon.log()


def test_it_ends_after_its_sessions(daemon: Contained) -> None:
    """The others end with the first process, so it waits for the workers."""
    with daemon.mta() as mta:
        greet(mta)
        daemon.signal(signal.SIGTERM)
        daemon.wait_for_log("ending")
        assert "dmarc=pass" in results(send(mta))
    assert daemon.wait() == 0


def test_a_second_signal_ends_it_at_once(daemon: Contained) -> None:
    with daemon.mta() as mta, contextlib.suppress(Exception):
        greet(mta)
        daemon.signal(signal.SIGTERM)
        daemon.wait_for_log("ending")
        daemon.signal(signal.SIGTERM)
        assert daemon.wait() == 0
