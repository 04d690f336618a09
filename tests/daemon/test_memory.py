# SPDX-License-Identifier: GPL-3.0-or-later
"""Memory grows neither with the size nor with the number of messages."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from assay.daemon.capacity import STACK
from running import Daemon
from sending import MESSAGE, ROWS, greet, results, send
from signing import sign_rsa

BODY_OCTETS = 10_000_000
#: For a hundred messages in flight, as a session keeps the header (docs/performance.md: a third of that).
MESSAGES_MIB = 20
GROWTH_KIB = 6_000  # well below the size of the body, and far above the noise


def resident(daemon: Daemon) -> int:
    """KiB of all workers together."""
    children = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text().split()
    lines = [line for pid in children for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def test_a_large_body_is_not_kept(tmp_path: Path) -> None:
    header, _, _ = MESSAGE.partition(b"\r\n\r\n")
    large = sign_rsa(header + b"\r\n\r\n" + b"x" * 76 + (b"\r\n" + b"y " * 38) * (BODY_OCTETS // 78) + b"\r\n")
    with Daemon(tmp_path, ROWS, milter={"workers": 1}) as daemon, daemon.mta() as mta:
        greet(mta)
        send(mta, sign_rsa(MESSAGE))
        before = resident(daemon)
        for _ in range(2):
            assert "dkim=pass" in results(send(mta, large))
        assert resident(daemon) - before < GROWTH_KIB


def test_many_messages_leave_no_memory_behind(tmp_path: Path) -> None:
    signed = sign_rsa(MESSAGE)
    with Daemon(tmp_path, ROWS, milter={"workers": 1}) as daemon:
        sizes = []
        for _ in range(3):
            for _ in range(20):
                with daemon.mta() as mta:
                    greet(mta)
                    for _ in range(20):
                        assert "dkim=pass" in results(send(mta, signed))
            sizes.append(resident(daemon))
        assert sizes[2] - sizes[1] < 1_000


#: Fills all caches of a process that has loaded what a worker loads, and prints its resident KiB.
FULL = """
import resource
import assay.daemon.worker, assay.cli.serve
from test_caches import FILLS, fill

for name, puts in FILLS.items():
    fill(name, list(puts.values())[WHICH % len(puts)])
print(next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS:")))
"""
TOP = Path(__file__).parents[2]


def documented_mib() -> int:
    """The maximum memory of a worker according to the documentation."""
    found = re.search(r"at most (\d+) MiB with all caches full", " ".join((TOP / "README.md").read_text().split()))
    assert found is not None
    return int(found[1])


@pytest.mark.parametrize("which", range(3))
def test_a_worker_with_full_caches_takes_the_documented_memory(which: int) -> None:
    program = FULL.replace("WHICH", str(which))
    printed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=TOP / "tests"
    )
    assert int(printed.stdout) / 1024 + MESSAGES_MIB <= documented_mib()


def test_the_memory_limit_of_the_unit_matches_its_comment() -> None:
    unit = (TOP / "contrib/systemd/assay.service").read_text()
    (limit,) = re.findall(r"^MemoryMax=(\d+)M$", unit, re.MULTILINE)
    (workers,) = re.findall(r"# .* for (\w+) workers", unit)
    count = {"eight": 8}[workers]
    assert int(limit) >= 2 * count * documented_mib()  # during a reload old and new workers run
    assert "\nOOMPolicy=continue\n" in unit


#: Prints malloc's heaps (malloc_info(3)) after several threads have each allocated something.
HEAPS = """
import ctypes, threading
from assay.daemon.worker import share_one_arena

share_one_arena()
library = ctypes.CDLL(None)
together = threading.Barrier(5)
threads = [threading.Thread(target=lambda: (library.malloc(65_536), together.wait())) for _ in range(5)]
for one in threads:
    one.start()
for one in threads:
    one.join()
library.malloc_info(0, ctypes.c_void_p.in_dll(library, "stdout"))
library.fflush(None)
"""


#: Recursions through C in a thread with a small stack; prints how many ended with an error, and the stack's size.
RECURSIONS = """
import ctypes, re, sys, threading
from assay.daemon.worker import give_small_stacks

give_small_stacks()
ended = 0

def through_map(_):
    return list(map(through_map, "a"))

def through_sorting(_):
    return sorted("ab", key=through_sorting)

def through_a_pattern(_):
    return re.sub("a", through_a_pattern, "a")

def through_generators(_):
    def generator():
        yield from through_generators(0)
    return [one for one in generator()]

def run():
    global ended
    for recursion in (through_map, through_sorting, through_a_pattern, through_generators):
        try:
            recursion(0)
        except RecursionError:
            ended += 1

thread = threading.Thread(target=run)
thread.start()
thread.join()
attributes = ctypes.create_string_buffer(64)
octets = ctypes.c_size_t()
ctypes.CDLL(None).pthread_getattr_default_np(attributes)
ctypes.CDLL(None).pthread_attr_getstacksize(attributes, ctypes.byref(octets))
print(ended, octets.value)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's threads only")
def test_a_recursion_ends_within_the_small_stack_of_a_thread() -> None:
    printed = subprocess.run([sys.executable, "-c", RECURSIONS], capture_output=True, text=True, check=True).stdout
    assert printed.split() == ["4", str(STACK)]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's malloc only")
def test_all_threads_share_one_heap() -> None:
    printed = subprocess.run([sys.executable, "-c", HEAPS], capture_output=True, text=True, check=True).stdout
    assert printed.count("<heap nr=") == 1
