# SPDX-License-Identifier: GPL-3.0-or-later
"""The systemd unit: what systemd-analyze says of it, and the daemon under its filter of system calls.

systemd itself cannot run here. The filter is the one that systemd would install: its sets of calls are read from
``systemd-analyze syscall-filter``, and libseccomp loads them, with the error that the unit demands.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import smtplib
import socket
import sqlite3
import ssl
import subprocess
import sys
import time
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network
from pathlib import Path
from typing import Any

import pytest

from assay.config import show
from assay.reports.planning import PLAN_SECONDS
from assay.store import outbox
from assay.store.outbox import DAY_SECONDS
from mta.base import make_certificate
from nameserver import NameServer
from receiving import Receiver
from report_world import ROWS as REPORT_ROWS
from report_world import Reporting, seen
from reports.incoming import shapes
from running import PATIENCE, Daemon
from sending import ROWS, greet, send

UNITS = Path(__file__).parents[2] / "contrib" / "systemd"
UNIT = UNITS / "assay.service"
MOST = 1.1  #: the exposure that systemd-analyze computes; OpenDKIM's own unit has 1.1
MOST_LOCAL = 1.0  #: with assay.service.d/local.conf

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
    """systemd-analyze also reads the directory ``assay.service.d`` beside a unit."""
    unit = tmp_path / UNIT.name
    shutil.copy(UNIT, unit)
    assert exposure(unit) <= MOST
    shutil.copytree(UNITS / f"{UNIT.name}.d", tmp_path / f"{UNIT.name}.d")
    assert exposure(unit) <= MOST_LOCAL


def allowed_networks(*units: Path) -> list[IPv4Network | IPv6Network]:
    """What IPAddressAllow= says after these files: an empty value removes what was before."""
    allowed: list[IPv4Network | IPv6Network] = []
    for unit in units:
        for value in re.findall(r"^IPAddressAllow=(.*)$", unit.read_text(), re.MULTILINE):
            words = value.replace("localhost", "127.0.0.0/8 ::1").split()
            allowed = [*allowed, *map(ip_network, words)] if words else []
    return allowed


def test_every_unicast_address_is_reached_and_no_other() -> None:
    assert values("IPAddressDeny") == ["any"]
    allowed = allowed_networks(UNIT)
    for all_addresses, excluded in (("0.0.0.0/0", "224.0.0.0/3"), ("::/0", "ff00::/8")):
        whole: Any = ip_network(all_addresses)
        found: Any = [network for network in allowed if network.version == whole.version]
        assert sorted(collapse_addresses(found)) == sorted(whole.address_exclude(ip_network(excluded)))


def test_the_drop_in_leaves_only_this_host() -> None:
    assert allowed_networks(UNIT, UNITS / "assay.service.d" / "local.conf") == [
        ip_network("127.0.0.0/8"),
        ip_network("::1/128"),
    ]


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


def wait_for_row(database: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(sqlite3.OperationalError), contextlib.closing(sqlite3.connect(database)) as connection:
            if connection.execute("SELECT count(*) FROM messages").fetchone()[0]:
                return
        assert time.monotonic() < deadline, "no row came into the database"
        time.sleep(0.05)


class Filtered(Daemon):
    """The daemon under the filter."""

    def start(self, *before: str, **options: object) -> None:
        names = ",".join(sorted(allowed_calls()))
        super().start(*before, sys.executable, "-c", LOADER, names, **options)
        for child in self.workers():
            assert "Seccomp:\t2" in Path(f"/proc/{child}/status").read_text()


def test_the_filter() -> None:
    assert values("MemoryDenyWriteExecute") == ["yes"]
    assert values("SystemCallErrorNumber") == ["EPERM"]
    names = allowed_calls()
    assert {"read", "sched_setaffinity"} <= names
    assert not names & {"mount", "setuid", "ptrace", "bpf", "init_module"}


def test_mail_is_judged_kept_and_shown_under_the_filter_of_system_calls(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.touch(0o600)
    token.write_text("t" * 64)
    (tmp_path / "store").mkdir()
    sections: dict[str, Any] = {
        "log": {"level": "debug", "facts": str(tmp_path / "facts")},
        "store": {"directory": str(tmp_path / "store")},
        "web": {"listen": f"unix:{tmp_path}/page.sock", "token_file": str(token)},
    }
    with Filtered(tmp_path, ROWS, **sections) as daemon:
        with daemon.mta() as mta:
            greet(mta)
            send(mta)
        wait_for_row(tmp_path / "store" / "store.sqlite")
        with socket.socket(socket.AF_UNIX) as page:
            page.settimeout(PATIENCE)
            page.connect(f"{tmp_path}/page.sock")
            page.sendall(b"GET /login HTTP/1.1\r\nHost: page.example\r\n\r\n")
            assert page.recv(65_536).startswith(b"HTTP/1.1 200")
        assert "threads are not kept to one core" not in daemon.log()
        os.kill(daemon.pid, 1)
        daemon.wait_for_log("reloaded")
        assert "Operation not permitted" not in daemon.log()


def test_reports_are_planned_and_sent_under_the_filter_of_system_calls(tmp_path: Path) -> None:
    """Of yesterday, with the file lock of SQLite, over TLS, signed."""
    make_certificate(tmp_path / "tls.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "tls.pem")
    with NameServer(REPORT_ROWS) as nameserver, Receiver(starttls=context) as receiver:
        world = Reporting(tmp_path, nameserver, receiver)
        now = int(time.time())
        yesterday = (now - PLAN_SECONDS) // DAY_SECONDS - 1
        world.see(seen(1, time=yesterday * DAY_SECONDS * 1000))
        with world.database.writing() as connection:
            outbox.plan(connection, yesterday - 1, [], now=now, dry_run=False)
        world.database.close()
        text = show(world.configuration).replace("spread_hours = 6.0", "spread_hours = 0.0")
        with Filtered(tmp_path, {}) as daemon:
            daemon.configuration.write_text(text.replace("unix:/run/assay/assay.sock", daemon.socket))
            daemon.signal(signal.SIGHUP)
            deadline = time.monotonic() + PATIENCE
            while not receiver.taken:
                assert time.monotonic() < deadline, daemon.log()
                time.sleep(0.05)
        ((_, recipient, octets),) = receiver.taken
        assert (recipient, receiver.encrypted) == ("d@example.com", [True])
        assert octets.startswith(b"DKIM-Signature:")


def test_a_report_is_taken_under_the_filter_of_system_calls(tmp_path: Path) -> None:
    """Its process has the bounds of memory and CPU, or it could not say that it came in."""
    (tmp_path / "store").mkdir()
    path = f"{tmp_path}/lmtp.sock"
    incoming = {"domains": ("example.org",), "listen": f"unix:{path}", "keep_unreadable": f"{tmp_path}/unreadable"}
    store = {"directory": str(tmp_path / "store")}
    with Filtered(tmp_path, {}, store=store, reports={"incoming": incoming}) as daemon:
        deadline = time.monotonic() + PATIENCE
        while not os.path.exists(path):
            assert time.monotonic() < deadline, daemon.log()
            time.sleep(0.05)
        with contextlib.closing(smtplib.LMTP(path)) as client:
            client.sendmail("", ["dmarc@example.org"], shapes.mail(shapes.gzipped(shapes.GOOGLE.encode())))
            client.sendmail("", ["dmarc@example.org"], b"Subject: lunch?\r\n\r\nAt noon.\r\n")
        assert "report came in: new: aggregate report" in daemon.log()
        assert "report came in: unreadable: there is no report in it" in daemon.log()
        assert len(list((tmp_path / "unreadable").iterdir())) == 1
        assert "Operation not permitted" not in daemon.log()
