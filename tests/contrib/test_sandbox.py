# SPDX-License-Identifier: GPL-3.0-or-later
"""The systemd unit: what systemd-analyze says of it, and the daemon under its filter of system calls.

systemd itself cannot run here. The filter is the one that systemd would install: its sets of calls are read from
``systemd-analyze syscall-filter``, and libseccomp loads them, with the error that the unit demands.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from running import Daemon
from sending import ROWS, greet

UNITS = Path(__file__).parents[2] / "contrib" / "systemd"
UNIT = UNITS / "assay.service"
MOST = 1.2  #: the exposure that systemd-analyze computes; OpenDKIM's own unit has 1.1
MOST_LOCAL = 1.1  #: with assay.service.d/local.conf

pytestmark = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze on this machine")


def values(key: str) -> list[str]:
    """What the unit sets, in order."""
    return re.findall(rf"^{key}=(.*)$", UNIT.read_text(), re.MULTILINE)


def analyze(*arguments: str | Path) -> str:
    done = subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def exposure(unit: Path) -> float:
    said = analyze("security", "--offline=yes", unit)
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)
    assert found, said
    return float(found[1])


def test_the_exposure_is_as_low_as_the_documentation_says(tmp_path: Path) -> None:
    assert exposure(UNIT) <= MOST
    local = tmp_path / "assay.service"
    addition = (UNITS / "assay.service.d" / "local.conf").read_text().partition("[Service]\n")[2]
    local.write_text(UNIT.read_text().replace("[Service]\n", "[Service]\n" + addition))
    assert exposure(local) <= MOST_LOCAL


def allowed_calls() -> set[str]:
    """The names of the calls that the unit allows."""
    allowed: set[str] = set()
    for line in values("SystemCallFilter"):
        names = members(line.removeprefix("~").split())
        allowed = allowed - names if line.startswith("~") else allowed | names
    return allowed


def members(words: list[str]) -> set[str]:
    found: set[str] = set()
    for word in words:
        if word.startswith("@"):
            lines = analyze("syscall-filter", word).splitlines()[1:]
            found |= members([line.strip() for line in lines if line.startswith("    ") and "#" not in line])
        else:
            found.add(word)
    return found


#: Loads the filter, forbids memory that is writable and executable as MemoryDenyWriteExecute= does, and runs a command.
LOADER = """\
import ctypes, os, sys
names, *command = sys.argv[1:]
library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
library.seccomp_init.restype = ctypes.c_void_p
ALLOW, EPERM = 0x7FFF0000, 0x00050000 | 1
context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(EPERM)))
class Compare(ctypes.Structure):
    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]
MASKED = 7
for name in [*names.split(","), "execve"]:
    number = library.seccomp_syscall_resolve_name(name.encode())
    if number < 0:
        continue
    if name in ("mmap", "mprotect", "pkey_mprotect"):
        bits = 6 if name == "mmap" else 4
        for value in (0, 2, 4) if name == "mmap" else (0,):
            rule = Compare(2, MASKED, bits, value)
            assert library.seccomp_rule_add_array(context, ALLOW, number, 1, ctypes.byref(rule)) == 0
    else:
        assert library.seccomp_rule_add(context, ctypes.c_uint32(ALLOW), number, 0) == 0
assert library.seccomp_load(context) == 0
os.execv(command[0], command)
"""


def test_mail_is_judged_under_the_filter_of_system_calls(tmp_path: Path) -> None:
    assert values("MemoryDenyWriteExecute") == ["yes"]
    assert values("SystemCallErrorNumber") == ["EPERM"]
    names = allowed_calls()
    assert {"read", "sched_setaffinity"} <= names
    assert not names & {"mount", "setuid", "ptrace", "bpf", "init_module"}

    class Filtered(Daemon):
        def start(self, *before: str, **options: object) -> None:
            super().start(*before, sys.executable, "-c", LOADER, ",".join(sorted(names)), **options)

    with Filtered(tmp_path, ROWS, log={"level": "debug", "facts": str(tmp_path / "facts")}) as daemon:
        for worker in daemon.workers():
            assert "Seccomp:\t2" in Path(f"/proc/{worker}/status").read_text()
        with daemon.mta() as mta:
            greet(mta)
            mta.mail("joe@example.org")
        assert "threads are not kept to one core" not in daemon.log()
        os.kill(daemon.pid, 1)
        daemon.wait_for_log("reloaded")
        assert "Operation not permitted" not in daemon.log()
