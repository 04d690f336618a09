# SPDX-License-Identifier: GPL-3.0-or-later
"""The DNS of the benchmark: NSD with every sender's records, unbound in front of it, and a proxy that delays answers.

The milters query unbound, a caching resolver as on a mail host; it asks NSD what it does not know. The proxy stands for
a resolver that has to query distant servers: it delays each answer and counts the questions.
"""

from __future__ import annotations

import ctypes
import heapq
import multiprocessing
import select
import socket
import struct
import subprocess
import time
from pathlib import Path

ADDRESS = "127.0.0.1"  #: unbound
DELAYED = "127.0.0.2"  #: the proxy
AUTHORITY = "127.0.0.3"  #: NSD
_PATIENCE = 60.0
_SO_TIMESTAMPNS = 35  # <asm-generic/socket.h>; Python has no name for it
_PR_SET_TIMERSLACK = 29  # <linux/prctl.h>

_NSD = """
server:
    ip-address: {address}@53
    server-count: 1
    username: ""
    chroot: ""
    database: ""
    zonesdir: "{directory}"
    logfile: "{directory}/nsd.log"
    pidfile: "{directory}/nsd.pid"
    xfrdfile: "{directory}/xfrd.state"
    xfrdir: "{directory}"
    zonelistfile: "{directory}/zone.list"
    rrl-ratelimit: 0
    verbosity: 1
remote-control:
    control-enable: no
zone:
    name: "."
    zonefile: "{directory}/root.zone"
"""

_UNBOUND = """
server:
    interface: {address}
    access-control: 127.0.0.0/8 allow
    do-daemonize: no
    use-syslog: no
    logfile: "{directory}/unbound.log"
    pidfile: "{directory}/unbound.pid"
    directory: "{directory}"
    username: ""
    chroot: ""
    num-threads: 1
    module-config: "iterator"
    do-not-query-localhost: no
    unblock-lan-zones: yes
remote-control:
    control-enable: no
stub-zone:
    name: "."
    stub-addr: {authority}
"""


class NameServer:
    """NSD and unbound, in the foreground, until `stop`."""

    def __init__(self, directory: Path, zone: str) -> None:
        self._directory = directory
        self._processes: list[subprocess.Popen[bytes]] = []
        (directory / "root.zone").write_text(zone)
        self._start("nsd", _NSD.format(address=AUTHORITY, directory=directory), AUTHORITY)
        self._start("unbound", _UNBOUND.format(address=ADDRESS, authority=AUTHORITY, directory=directory), ADDRESS)

    def _start(self, name: str, text: str, address: str) -> None:
        configuration = self._directory / f"{name}.conf"
        configuration.write_text(text)
        process = subprocess.Popen([f"/usr/sbin/{name}", "-d", "-c", str(configuration)])
        self._processes.append(process)
        deadline = time.monotonic() + _PATIENCE
        while not answers(address):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"bench: {name} does not answer; see {self._directory}/{name}.log")
            time.sleep(0.05)

    def stop(self) -> None:
        """End them."""
        for process in self._processes:
            process.terminate()
            process.wait()


class Delay:
    """The proxy, a separate process. `questions` counts."""

    def __init__(self, seconds: float) -> None:
        self._count = multiprocessing.Value(ctypes.c_long, 0)
        self._process = multiprocessing.Process(target=_forward, args=(seconds, self._count), daemon=True)
        self._process.start()
        deadline = time.monotonic() + _PATIENCE
        while not answers(DELAYED):
            if not self._process.is_alive() or time.monotonic() > deadline:
                raise SystemExit("bench: the delaying proxy does not answer")
        self._count.value = 0

    @property
    def questions(self) -> int:
        """How many questions have been received so far."""
        return int(self._count.value)

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.join()


def _forward(seconds: float, count: object) -> None:
    """Query NSD at once and return the answer when it is due: the given time after the question arrived, not earlier.

    The time of receipt is the kernel's: the proxy may read the question late, while the client still uses its core.
    """
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)  # wake up on time and not up to 50 us later
    clients = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    clients.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    clients.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    clients.bind((DELAYED, 53))
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    server.connect((AUTHORITY, 53))
    asked: dict[bytes, tuple[bytes, tuple[str, int], float]] = {}
    waiting: list[tuple[float, bytes, tuple[str, int]]] = []  # a heap
    number = 0
    while True:
        timeout = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        ready, _, _ = select.select([clients, server], [], [], timeout)
        if clients in ready:
            query, ancillary, _, address = clients.recvmsg(65535, 64)
            number = (number + 1) & 0xFFFF
            identifier = number.to_bytes(2, "big")
            asked[identifier] = (query[:2], address, time.monotonic() - _age(ancillary) + seconds)
            server.send(identifier + query[2:])
            count.value += 1  # type: ignore[attr-defined]  # multiprocessing's Value has no public type
        if server in ready:
            answer = server.recv(65535)
            original, address, due = asked.pop(answer[:2])
            heapq.heappush(waiting, (due, original + answer[2:], address))
        while waiting and waiting[0][0] <= time.monotonic():
            _, answer, address = heapq.heappop(waiting)
            clients.sendto(answer, address)


def _age(ancillary: list[tuple[int, int, bytes]]) -> float:
    """How many seconds a datagram has waited to be read, by the kernel's timestamp (socket(7))."""
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS):
            seconds, nanoseconds = struct.unpack("@ll", data)
            return max(0.0, (time.time_ns() - seconds * 10**9 - nanoseconds) / 1e9)
    return 0.0


def answers(address: str) -> bool:
    """Whether a DNS server answers there."""
    query = bytes.fromhex("abcd01000001000000000000") + b"\x02ns\x07example\0\0\x01\0\x01"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.5)
        try:
            sock.connect((address, 53))
            sock.send(query)
            return sock.recv(512)[:2] == query[:2]
        except OSError:
            return False
