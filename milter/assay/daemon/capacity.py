# SPDX-License-Identifier: GPL-3.0-or-later
"""How many sessions a worker serves at a time: as many as its descriptors, threads and memory allow.

libmilter has no bound. Without a thread for a session it never answers it, and without a descriptor it asks the kernel
for the next connection again and again. So we stay below what the system grants, and the MTA waits
(`assay.daemon.gate`).
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

from msgspec import Struct

from assay.model.wording import counted
from assay.resolver.datagrams import MAX_SOCKETS
from assay.resolver.turns import STREAMS

MOST = 4000  # by default: more than MTAs have SMTP sessions (Postfix: 100, Sendmail: no limit), and quick to poll
FEW = 100  # Postfix's default_process_limit: an MTA with usual settings never waits above it
DNS_DESCRIPTORS = MAX_SOCKETS + STREAMS + 16  # kept for the DNS, and for files that are opened again
_BURST = 48  # sessions that libmilter may accept beyond the bound, with descriptors that others do not use yet
_OWN_DESCRIPTORS = 32 + _BURST  # of a worker without sessions; it has about twenty
_OWN_THREADS = 10 + _BURST  # of a worker without sessions: libmilter's, the DNS, control, gate, log
_WORKER_OCTETS = 96 << 20  # of a worker with full caches and `FEW` messages in flight (README.md)
_SESSION_OCTETS = 128 << 10  # of each more: a piece of the body, the stack that a thread has used, our objects
#: The stack of a thread, in octets. With many sessions, libmilter starts and ends a thread for about each message.
#: glibc keeps 40 MiB of the stacks of ended threads for new ones: with the usual 8 MiB for each that is five of them,
#: and all others are mapped and faulted in again.
STACK = 2 * 1024 * 1024
FREE = 4 * STACK  #: octets that a worker must be able to map, or it is replaced (`assay.daemon.fitness`)
_CGROUPS = Path("/sys/fs/cgroup")
_MAX_FILE = 1 << 48  # cgroup v1 writes "no limit" as a number beyond all memory


class Grant(Struct, frozen=True):
    """What the system grants this daemon; None where there is no limit.

    :ivar descriptors: of one process.
    :ivar threads: of all its processes together, those of other programs subtracted.
    :ivar memory: octets, of all its processes together.
    :ivar addresses: octets that one process may map beyond those of the supervisor.
    """

    descriptors: int | None = None
    threads: int | None = None
    memory: int | None = None
    addresses: int | None = None


class Capacity(Struct, frozen=True):
    """The bound of one worker.

    :ivar sessions: how many it serves at a time.
    :ivar by: what limits them, as an operator knows it.
    """

    sessions: int
    by: str


def capacity(configured: int, workers: int, grant: Grant) -> Capacity:
    """The bound of one worker. A reload runs twice as many workers for a while, so each gets half its share.

    :param configured: ``milter.max_sessions``, 0 for as many as the grant allows.
    """
    most = Capacity(configured, "milter.max_sessions") if configured else Capacity(MOST, "the default")
    found = [most]
    if grant.descriptors is not None:
        room = grant.descriptors - kept_descriptors(grant.descriptors) - _OWN_DESCRIPTORS
        found.append(Capacity(room, "the limit of open files (LimitNOFILE=, ulimit -n)"))
    if grant.threads is not None:
        room = grant.threads // (2 * workers) - _OWN_THREADS
        found.append(Capacity(room, "the limit of processes (TasksMax=, ulimit -u)"))
    if grant.memory is not None:
        room = FEW + max(0, grant.memory // (2 * workers) - _WORKER_OCTETS) // _SESSION_OCTETS
        found.append(Capacity(room, "the limit of memory (MemoryMax=)"))
    if grant.addresses is not None:
        # Each thread maps its stack, used or not.
        room = (grant.addresses - _WORKER_OCTETS - FREE) // (STACK + _SESSION_OCTETS) - _OWN_THREADS
        found.append(Capacity(room, "the limit of address space (LimitAS=, LimitDATA=, ulimit -v, ulimit -d)"))
    least = min(found, key=lambda capacity: capacity.sessions)
    return Capacity(max(1, least.sessions), least.by)


def warning(configured: int, found: Capacity) -> str:
    """What to warn of at the start; empty for nothing."""
    wanted = configured or FEW
    if found.sessions >= wanted or found.by == "milter.max_sessions":
        return ""
    return (
        f"a worker serves {counted(found.sessions, 'session')} at a time, not {wanted}, because of {found.by}; raise it"
    )


def kept_descriptors(limit: int) -> int:
    """How many descriptors sessions leave to the DNS: what it can use, but no more than half."""
    return min(DNS_DESCRIPTORS, limit // 2)


@cache
def granted() -> Grant:
    """What the system grants, as it was when first asked: in the supervisor, before its first child."""
    threads = [number for number in (_pids(), _processes()) if number is not None]
    memory = list(_cgroup_values("memory", ("memory.max", "memory.limit_in_bytes")))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Grant(
        None if soft == resource.RLIM_INFINITY else soft,
        min(threads, default=None),
        min(memory, default=None),
        min(_addresses(), default=None),
    )


def _addresses() -> Iterator[int]:
    """What this process may still map, by each limit that it has. A stack counts for both."""
    used = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    for limit, name in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
        soft, _ = resource.getrlimit(limit)
        if soft != resource.RLIM_INFINITY:
            yield max(0, soft - int(used[name].split()[0]) * 1024)


def _pids() -> int | None:
    """Processes and threads that the control groups allow, less those of other programs in ours."""
    limit = min(_cgroup_values("pids", ("pids.max",)), default=None)
    used = next(_cgroup_values("pids", ("pids.current",)), 1)
    return None if limit is None else max(0, limit - used)


def _processes() -> int | None:
    """Processes and threads that this user may still have; root may have any number (setrlimit(2))."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if limit == resource.RLIM_INFINITY or os.geteuid() == 0:
        return None
    used = 0
    for folder in Path("/proc").iterdir():
        with suppress(OSError):  # it has ended
            if folder.name.isdigit() and folder.stat().st_uid == os.getuid():
                used += (folder / "task").stat().st_nlink - 2
    return max(0, limit - used)


def _cgroup_values(controller: str, names: tuple[str, ...]) -> Iterator[int]:
    """The values of a file in our control group and those above it, version 2 or 1, innermost first."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            roots = [_CGROUPS, _CGROUPS / "unified"]
        elif controller in controllers.split(","):
            roots = [_CGROUPS / controller]
        else:
            continue
        inner = Path(path.lstrip("/"))
        for root in roots:
            for folder in (inner, *inner.parents):
                for name in names:
                    with suppress(OSError, ValueError):  # no such file, or "max"
                        value = int((root / folder / name).read_text())
                        if value < _MAX_FILE:
                            yield value
