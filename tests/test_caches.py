# SPDX-License-Identifier: GPL-3.0-or-later
"""Caches take no more than they are allowed, whatever strangers fill them with."""

from __future__ import annotations

import gc
import re
import subprocess
import sys
import tracemalloc
from base64 import b64encode
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import assay
from assay import caches
from assay.caches import BOUNDS
from assay.inquiry import MX, Answer, Inquiry, Outcome, Record
from assay.memory import Memory
from assay.model.name import Domain, ReversePath
from assay.policy import addresses, rules
from assay.protocol import dkim, dmarc, iprev, spf
from assay.protocol.authres import forged
from assay.protocol.dmarc import tree
from assay.resolver import AnswerCache
from assay.session.publications import Publications
from signing import ed25519_key
from zone import Rows, Zone

#: What the interpreter itself takes meanwhile, and what an entry takes while it is made.
NOISE = 500_000
MOST_ENTRIES = 200_000

Put = Callable[[int], object]


def _name(number: int, length: int = 253) -> str:
    """A name of a length, another one for each number."""
    return (f"n{number}." + "abcdefghi." * 30)[: length - 2] + ".x"


def _key(number: int, bits: int = 1024) -> str:
    """A key that nobody has made."""
    public = RSAPublicNumbers(65537, 1 << bits - 1 | number << 8 | 1).public_key()
    return b64encode(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()


def _answers(fresh: Callable[[int], tuple[Record, ...]], outcome: Outcome = Outcome.FOUND) -> Put:
    cache = AnswerCache()
    return lambda number: cache.put(f"{_name(number, 60)}/TXT", Answer(outcome, fresh(number), ttl=300))


def _evaluations(check: Callable[[int], tuple[Rows, Inquiry[Any]]]) -> Put:
    memory = Memory()

    def put(number: int) -> None:
        rows, inquiry = check(number)
        Zone(rows).solve(memory.again(number, lambda: inquiry))

    return put


def _check(record: str) -> Callable[[int], tuple[Rows, Inquiry[Any]]]:
    def check(number: int) -> tuple[Rows, Inquiry[Any]]:
        domain = _name(number, 100)
        rows: Rows = {
            domain: [["TXT", [record]], ["MX", [10, _name(number)]], ["A", "192.0.2.7"]],
            "b.example": [["TXT", ["v=spf1 ?all"]]],
        }
        request = spf.Request(IPv4Address("192.0.2.1"), "h.example")
        return rows, spf.check(request.of_mail_from(ReversePath.parse(f"ann@{domain}")))

    return check


def _iprev(number: int) -> tuple[Rows, Inquiry[Any]]:
    address = IPv4Address(number)
    names = [_name(10 * number + at) for at in range(10)]
    pointers = ".".join(reversed(str(address).split("."))) + ".in-addr.arpa"
    rows: Rows = {pointers: [["PTR", name] for name in names], **{name: [["A", "192.0.2.1"]] for name in names}}
    return rows, iprev.evaluate(address)


def _discovery(number: int) -> tuple[Rows, Inquiry[Any]]:
    domain = Domain(_name(number, 240))
    parents = [f"_dmarc.{domain.name.split('.', at)[at]}" for at in range(8)]
    return {name: [["TXT", ["v=DMARC1; p=none"]]] for name in parents}, dmarc.discover(domain)


#: What takes most, and what is usual, by the cache that keeps it.
PUBLICATIONS = Publications(lambda _=None: Zone({}))

FILLS: dict[str, dict[str, Put]] = {
    "DNS answers": {
        "usual texts": _answers(lambda number: (b"v=spf1 include:_spf.example.org ip4:192.0.2.0/24 -all %d" % number,)),
        "long texts": _answers(lambda number: (b"%08d" % number * 4_000,)),
        "short texts": _answers(lambda number: tuple(b"%d %d" % (number, at) for at in range(256))),
        "addresses": _answers(lambda number: tuple(IPv4Address(number << 8 | at) for at in range(256))),
        "IPv6 addresses": _answers(lambda number: tuple(IPv6Address(1 << 100 | number << 8 | at) for at in range(99))),
        "names": _answers(lambda number: tuple(_name(number << 8 | at) for at in range(256))),
        "short names": _answers(lambda number: tuple(f"{number}.{at}" for at in range(256))),
        "exchangers": _answers(lambda number: tuple(MX(at, _name(number << 8 | at)) for at in range(256))),
        "nothing": _answers(lambda _: (), Outcome.NXDOMAIN),
    },
    "evaluations": {
        "usual SPF": _evaluations(_check("v=spf1 include:b.example a mx ip4:192.0.2.0/24 -all")),
        "SPF of a long record": _evaluations(_check("v=spf1 " + "ip4:192.0.2.2 " * 250 + "-all")),
        "IPREV of long names": _evaluations(_iprev),
        "a deep tree walk": _evaluations(_discovery),
    },
    "SPF records": {
        "usual": lambda number: spf.parse(b"v=spf1 include:_spf%d.a.example ip4:192.0.2.0/24 mx ~all" % number),
        "letters": lambda number: spf.parse(b"v=spf1 a:%d.x " % number + b"a " * 2000),
        "different terms": lambda number: spf.parse(
            b"v=spf1 " + b" ".join(b"x%d=%d" % (at, number) for at in range(300))
        ),
        "macros": lambda number: spf.parse(
            b"v=spf1 " + b"".join(b"x=%%{s%d}%d " % (at, number) for at in range(1, 320))
        ),
        "networks": lambda number: spf.parse(
            b"v=spf1 " + b"".join(b"ip6:%x:%x::/64 " % (number & 0xFFFF, at) for at in range(220))
        ),
        "faults": lambda number: spf.parse(b"v=spf1 " + b"".join(b"%d!%d " % (number, at) for at in range(300))),
    },
    "DKIM keys": {
        "usual": lambda number: dkim.parse_key(f"v=DKIM1; k=rsa; p={_key(number)}".encode()),
        "words in h=": lambda number: dkim.parse_key(f"p={_key(number)}; h={'a:' * 1296}sha256".encode()),
        "notes": lambda number: dkim.parse_key(f"p={_key(number)}; n={'n' * 3500}".encode()),
        "faults": lambda number: dkim.parse_key(f"n={number}".encode()),
    },
    "DMARC records": {
        "usual": lambda number: dmarc.parse(b"v=DMARC1; p=none; rua=mailto:a%d@a.example" % number),
        "long": lambda number: dmarc.parse(b"v=DMARC1; p=none; rf=%d" % number + b"x" * 4000),
        "addresses": lambda number: dmarc.parse(
            b"v=DMARC1; p=none; rua=" + b",".join(b"a:%d%d" % (number, at) for at in range(20))
        ),
        "faults": lambda number: dmarc.parse(b"v=DMARC1; p=%d;" % number + b"x;" * 60),
    },
    "tree walks": {
        "usual": lambda number: tree.targets(Domain(f"a{number}.example")),
        "deep": lambda number: tree.targets(Domain(_name(number))),
        "long labels": lambda number: tree.targets(Domain(f"n{number}.{'x' * 60}.{'y' * 60}.{'z' * 60}.a.b.c.d.e")),
    },
    "networks": {
        "one": lambda number: rules.inside("192.0.2.1", str(IPv4Address(number))),
        "many": lambda number: rules.inside(
            "192.0.2.1", ",".join(str(IPv4Address(number << 8 | at)) for at in range(100))
        ),
    },
    "addresses": {
        "usual": lambda number: addresses.normal_address(f"user{number}@a.example"),
        "long": lambda number: addresses.normal_address(f"{number}{'X' * 900}@{_name(number, 90)}"),
        "no mailboxes": lambda number: addresses.normal_address(f"{number}" + "\u00c5" * 900),
    },
    "own names": {
        "domains": lambda number: forged._configured(_name(number)),
        "other": lambda number: forged._configured(f"{number}" + "\u00c5" * 500),
    },
    "own keys": {
        "long names": lambda number: PUBLICATIONS.missing(
            Domain(_name(number, 200)), dkim.SigningKey(Domain("s"), ed25519_key()), 0
        ),
        "short names": lambda number: PUBLICATIONS.missing(
            Domain(f"a{number}"), dkim.SigningKey(Domain("s"), ed25519_key()), 0
        ),
    },
}


def fill(name: str, put: Put) -> caches.Cache[Any, Any]:
    """Put into a cache more than twice what it keeps."""
    for cache in caches.living:
        if cache.name == name:
            cache.clear()
    put(0)
    (cache,) = [cache for cache in caches.living if cache.name == name and len(cache)]
    number, weight = 0, 0
    while weight < 2 * BOUNDS[name]:
        number += 1
        assert number < MOST_ENTRIES
        put(number)
        weight += next(reversed(cache._entries.values())).weight
        assert cache._weight <= BOUNDS[name]
    assert cache._weight == sum(entry.weight for entry in cache._entries.values())
    return cache


@pytest.mark.parametrize(
    ("name", "put"),
    [pytest.param(name, put, id=f"{name}-{what}") for name, puts in FILLS.items() for what, put in puts.items()],
)
def test_a_full_cache_takes_no_more_than_its_bound(name: str, put: Put) -> None:
    def put_alone(number: int) -> None:
        put(number)
        for other in caches.living:
            if other.name != name:
                other.clear()

    caches.clear()
    gc.collect()
    tracemalloc.start()
    try:
        fill(name, put_alone)
        _, used = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        caches.clear()
    assert used <= BOUNDS[name] + NOISE


def test_every_cache_is_in_the_table() -> None:
    assert FILLS.keys() == BOUNDS.keys()
    for path in Path(assay.__file__).parent.rglob("*.py"):
        assert not re.search(r"\blru_cache\b", path.read_text()), path


def test_the_documentation_has_the_bounds() -> None:
    page = (Path(__file__).parents[1] / "docs/performance.md").read_text()
    section = page.partition("## The caches")[2].partition("<!--")[0]
    documented = dict(re.findall(r"^\| ([A-Za-z ]+) \| ([\d,]+) \| [^|]*\|$", section, re.MULTILINE))
    assert documented == {name: f"{octets / 1024:,.0f}" for name, octets in BOUNDS.items()}


#: Fills the cache of keys, verifies with each, and tells how many octets the process has grown.
KEYS = """
from test_caches import _key
from assay.protocol import dkim

def resident():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS:")) * 1024

records = [f"p={_key(number, bits)}".encode() for bits in (1024, 2048, 4096) for number in range(1500)]
dkim.parse_key(records[0])
before = resident()
for record in records:
    key = dkim.parse_key(bytes(bytearray(record)))
    key.verify(dkim.Algorithm.RSA_SHA256, bytes(key.bits // 8 - 1) + b"x", bytes(32))
print(resident() - before)
"""


def test_keys_take_no_more_than_their_bound_beyond_what_python_sees() -> None:
    here = Path(__file__).parent
    told = subprocess.run([sys.executable, "-c", KEYS], capture_output=True, text=True, check=True, cwd=here).stdout
    assert int(told) <= BOUNDS["DKIM keys"] + 3 * NOISE


def test_all_caches_can_be_emptied() -> None:
    for puts in FILLS.values():
        for put in puts.values():
            put(1)
    assert {cache.name for cache in caches.living if len(cache)} == BOUNDS.keys()
    caches.clear()
    assert not any(len(cache) for cache in caches.living)


def test_what_would_take_half_of_all_is_not_kept() -> None:
    cache: caches.Cache[int, str] = caches.Cache("networks", 1000)
    cache.keep(1, caches.Entry("small", 400))
    cache.keep(2, caches.Entry("large", 501))
    assert cache.find(1) is not None
    assert cache.find(2) is None


def test_the_least_recently_used_goes_first() -> None:
    cache: caches.Cache[int, int] = caches.Cache("networks", 1000)
    for number in range(1000):
        cache.keep(number, caches.Entry(number, 10))
        assert cache.find(0) is not None, number
        assert len(cache) <= 100
    assert all(cache.find(number) is not None for number in (0, *range(901, 1000)))


def test_a_cache_holds_what_it_is_made_for_even_if_all_is_read_in_turn() -> None:
    cache: caches.Cache[int, int] = caches.Cache("networks", 1000)
    for number in range(100):
        cache.keep(number, caches.Entry(number, 10))
    for _ in range(3):
        assert all(cache.find(number) is not None for number in range(100))


def test_an_entry_that_another_thread_keeps_meanwhile_is_weighed_once() -> None:
    class Interrupted(OrderedDict[int, caches.Entry[str]]):
        """Another thread runs after the first step of `Cache.keep`."""

        def pop(self, key: int, default: Any = None) -> Any:
            found = super().pop(key, default)
            if others:
                cache.keep(key, others.pop())
            return found

    others = [caches.Entry("theirs", 30)]
    cache: caches.Cache[int, str] = caches.Cache("networks", 1000)
    cache._entries = Interrupted()
    cache.keep(1, caches.Entry("ours", 20))
    assert cache._weight == sum(entry.weight for entry in cache._entries.values())
