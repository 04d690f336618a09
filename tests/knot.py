# SPDX-License-Identifier: GPL-3.0-or-later
"""A real authoritative nameserver for a test: Knot DNS, as unpacked by ``contrib/fetch.sh`` (or `ASSAY_KNOT`).

::

    with Knot(folder, {"example.org": ZONE}) as primary, Knot(other, {"example.org": ""}, of=primary) as secondary:
        ...

A primary accepts updates of its zones that are signed with `TSIG`. Its secondary listens on the same port of another
loopback address, and is told of each change.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import dns.exception
import dns.message
import dns.query
import pytest

ROOT = Path(__file__).parents[1]
KNOT = Path(os.environ.get("ASSAY_KNOT") or ROOT / ".cache" / "knot")
PROGRAM = KNOT / "usr/sbin/knotd"
SECRET = "c2VjcmV0IG9mIHRoZSB0ZXN0cyBvZiBhc3NheQ=="
#: What docs/keys.md says about DNS UPDATE: the file with the key, and what the server lets it change.
_KEY_FILE, _OF_PAGE = re.search(
    r"### Publish by DNS UPDATE\n.*?```text\n(.*?)```\n.*?```yaml\n(.*?)```\n",
    (ROOT / "docs/keys.md").read_text("utf-8"),
    re.DOTALL,
).groups()
TSIG = _KEY_FILE.replace("...", SECRET)
PATIENCE = 20.0  # seconds

needs_knot = pytest.mark.skipif(not PROGRAM.exists(), reason=f"no knotd in {KNOT}: run sh contrib/fetch.sh knot")


def zone_text(origin: str, *more: str) -> str:
    """A zone with the servers ns1 (127.0.0.1) and ns2 (127.0.0.2), and these lines."""
    lines = (
        f"$ORIGIN {origin}.",
        "$TTL 60",
        "@ SOA ns1 hostmaster 1 3600 600 86400 60",
        "@ NS ns1",
        "@ NS ns2",
        "ns1 A 127.0.0.1",
        "ns2 A 127.0.0.2",
        *more,
    )
    return "".join(f"{line}\n" for line in lines)


class Knot:
    """One server; a context manager that runs it."""

    def __init__(self, folder: Path, zones: Mapping[str, str], *, of: Knot | None = None, signed: bool = False) -> None:
        """
        :param zones: the text of each zone by its name; those of a secondary are not used.
        :param of: the primary, for a secondary.
        :param signed: sign the zones (DNSSEC).
        """
        self.folder = folder
        self.zones = zones
        self.primary = of
        self.signed = signed
        self.address = "127.0.0.1" if of is None else "127.0.0.2"
        self.port = _free_port() if of is None else of.port
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def text(self) -> str:
        """The address as a configuration writes it."""
        return f"{self.address}:{self.port}"

    def __enter__(self) -> Knot:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it, and wait until it answers for all its zones. A secondary has nothing, and transfers all of them."""
        if self.primary is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, text in self.zones.items():
            path = self.folder / f"{name}.zone"
            if self.primary is None and not path.exists():
                path.write_text(text)
        path = self.folder / "knot.conf"
        path.write_text(self._configuration())
        libraries = {str(one.parent) for one in (KNOT / "usr/lib").rglob("*.so.*")}
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [PROGRAM, "-c", path], env={"LD_LIBRARY_PATH": ":".join(libraries)}, stdout=log, stderr=log
            )
        try:
            for name in self.zones:
                self.wait_for(name, "SOA")
        except AssertionError:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop it; it can be started again."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(PATIENCE)
            self._process = None

    def wait_for(self, name: str, kind: str, *, gone: bool = False) -> None:
        """Wait until it answers with records of a type, or without any."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                response = dns.query.udp(
                    dns.message.make_query(name, kind), self.address, timeout=1, port=self.port, ignore_unexpected=True
                )
                if response.rcode() in (0, 3) and bool(response.answer) is not gone:
                    return
            except (OSError, dns.exception.DNSException):
                pass
            time.sleep(0.05)
        raise AssertionError(f"{name} {kind} did not {'go' if gone else 'come'}:\n{(self.folder / 'log').read_text()}")

    def _configuration(self) -> str:
        other = "127.0.0.2" if self.primary is None else "127.0.0.1"
        role = (
            "notify: other\n    acl: [ assay, unlimited, transfer ]"
            if self.primary is None
            else "master: other\n    acl: notify"
        )
        zones = "".join(f'  - domain: {name}\n    file: "{name}.zone"\n    {role}\n' for name in self.zones)
        return f"""\
server:
    listen: {self.address}@{self.port}
    rundir: "{self.folder}"
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
database:
    storage: "{self.folder}"
log:
  - target: stderr
    any: info
key:
  - id: assay
    algorithm: hmac-sha256
    secret: {SECRET}
  - id: unlimited
    algorithm: hmac-sha256
    secret: {SECRET}
  - id: powerless
    algorithm: hmac-sha256
    secret: {SECRET}
remote:
  - id: other
    address: {other}@{self.port}
    via: {self.address}
{_OF_PAGE}\
  - id: unlimited
    key: unlimited
    action: update
  - id: transfer
    address: 127.0.0.2
    action: transfer
  - id: notify
    address: 127.0.0.1
    action: notify
template:
  - id: default
    storage: "{self.folder}"
    zonefile-sync: 0
    dnssec-signing: {"on" if self.signed else "off"}
zone:
{zones}"""


def _free_port() -> int:
    """A port that is free for UDP and TCP on both addresses."""
    for _ in range(50):
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            port: int = one.getsockname()[1]
            try:
                for address in ("127.0.0.1", "127.0.0.2"):
                    with socket.socket(type=socket.SOCK_DGRAM) as other:
                        other.bind((address, port))
                with socket.socket() as other:
                    other.bind(("127.0.0.2", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")
