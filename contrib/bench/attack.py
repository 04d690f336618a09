# SPDX-License-Identifier: GPL-3.0-or-later
"""Attack assay during honest mail traffic, and measure the effect on the honest mail.

    python contrib/bench/attack.py --short            # about two minutes: seconds for each attack
    python contrib/bench/attack.py --long             # ten minutes for each number of addresses
    python contrib/bench/attack.py --only digits,mix  # some attacks
    python contrib/bench/attack.py --long --write     # and put the tables into docs/reliability.md

Prints a table, and writes every figure to ``.cache/bench/attack.json``. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import sandbox

_TOP = Path(__file__).resolve().parents[2]
_CACHE = _TOP / ".cache" / "bench"
_ANSWER_SECONDS = 0.02  # an honest DNS answer takes as long as from a resolver that has to query others
_KNOWN, _FORGED = 20, 100  # senders that return every few seconds, and victims of forged mail
#: TTL of answers in seconds. The resolver keeps them for ten in any case, so a sender is known if it returns within
#: ten seconds and unknown if later: most are unknown, like first-time senders.
_TTL = 1
_LOG_OCTETS = 8 * 1024 * 1024  # of a worker's log, which is kept in memory

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Extent:
    """Durations and numbers: seconds of honest mail alone, and of honest mail during an attack."""

    quiet: float
    attacked: float
    addresses: tuple[int, ...]


_SIGNED_IN_SMOKE = 60  # of the unknown senders: a signature takes 10 ms
_SMOKE = Extent(1.0, 1.0, (10,)), Extent(1.0, 1.0, (10,))
_SHORT = Extent(2.0, 4.0, (10,)), Extent(3.0, 8.0, (1, 10, 100))
_LONG = Extent(15.0, 30.0, (1, 10, 100)), Extent(60.0, 600.0, (1, 10, 100))


def main() -> int:
    parser = argparse.ArgumentParser(description="Attack assay during honest mail traffic.")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--short", action="store_true", help="about two minutes (the default)")
    size.add_argument("--long", action="store_true", help="ten minutes for each number of addresses")
    size.add_argument("--smoke", action="store_true", help="a second for each attack, for a test")
    parser.add_argument("--only", default="", help="attacks, by name, or mix; default: all")
    parser.add_argument("--write", action="store_true", help="update docs/reliability.md")
    arguments = parser.parse_args()
    with sandbox.furnished(_CACHE / "packages") as (directory, versions):
        import attacks
        import reliability
        import tables

        unknown = set(filter(None, arguments.only.split(","))) - {*attacks.ATTACKS, "mix"}
        if unknown:
            parser.error(
                f"no such attack: {', '.join(sorted(unknown))}; known are {', '.join(attacks.ATTACKS)} and mix"
            )
        report: Row = {"machine": tables.machine(), "versions": tables.versions({"nsd": versions["nsd"]}), "rows": []}
        for row in _measure(arguments, directory):
            report["rows"].append(row)
            if not arguments.smoke:  # keep what was measured, even if a later step fails
                (_CACHE / "attack.json").write_text(json.dumps(report, indent=1))
    if arguments.smoke:
        print(json.dumps(report["rows"]))
        return 0
    print(tables.text(reliability.tables_of(report)))
    if arguments.write:
        tables.fill(_TOP / "docs" / "reliability.md", reliability.tables_of(report))
    return 0


def _measure(arguments: argparse.Namespace, directory: Path) -> Iterator[Row]:
    import attacks
    import mail
    import soak
    from hostile import Hostile

    import nameserver
    import zone

    sandbox.prepare(directory, nameserver.ADDRESS)
    first = attacks.VICTIMS
    unknown = [zone.Domain(n, "co.example") for n in range(1, first + 1)]
    known = [zone.Domain(n) for n in range(first + 1, first + _KNOWN + 1)]
    victims = [zone.Domain(n, "co.example") for n in range(first + _KNOWN + 1, first + _KNOWN + _FORGED + 1)]
    signer = mail.Signer()
    server = nameserver.NameServer(directory, zone.zone_file([*unknown, *known, *victims], signer.public, [], _TTL))
    hostile = Hostile(_ANSWER_SECONDS)
    thief = zone.Stranger("100.127.0.1", "mail.thief.example")
    signed = unknown[:_SIGNED_IN_SMOKE] if arguments.smoke else unknown
    post = soak.Post(
        [signer.sign(mail.compose(domain, 4096)) for domain in known],
        [signer.sign(mail.compose(domain, 4096)) for domain in signed],
        [replace(mail.compose(domain, 4096), domain=thief) for domain in victims],
    )
    alone, mixed = _SMOKE if arguments.smoke else _LONG if arguments.long else _SHORT
    wanted = arguments.only.split(",") if arguments.only else [*attacks.ATTACKS, "mix"]
    try:
        for name in wanted:
            extent = mixed if name == "mix" else alone
            for addresses in extent.addresses:
                yield _attacked(directory, post, name, extent, addresses)
    finally:
        hostile.stop()
        server.stop()


def _attacked(directory: Path, post: Any, name: str, extent: Extent, addresses: int) -> Row:
    """One attack on a newly started milter, after some honest mail alone."""
    import attacks
    import members
    import soak
    from scenarios import say

    import nameserver

    cores = len(os.sched_getaffinity(0))
    member = members.assay_that_rejects()
    attack = attacks.mix if name == "mix" else attacks.ATTACKS[name]
    running = members.Running(member, members.Setting(directory, nameserver.DELAYED, cores))
    say(f"{name} from {addresses} addresses")
    try:
        letters = post.letters(running.agreement, member.expected)
        asyncio.run(soak.honest(running.address, running.agreement, letters, 1.0))
        quiet = _phase(running, letters, extent.quiet, cores)
        attackers = soak.Attackers(
            running.address, running.agreement, attack(int(2 * soak.LINE * extent.attacked)), addresses
        )
        try:
            attacked = _phase(running, letters, extent.attacked, cores, attackers)
        finally:
            did = attackers.stop()
    finally:
        running.stop()
    return {"attack": name, "addresses": addresses, "quiet": quiet, "attacked": attacked, "did": did}


def _phase(running: Any, letters: Iterator[Any], seconds: float, cores: int, attackers: Any = None) -> Row:
    """Honest mail for the given seconds, and what it took."""
    import load
    import processes
    import soak

    most = cpu = 0.0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, processes.worker(running.pid))
            running.forget_log(_LOG_OCTETS)
            await asyncio.sleep(1.0)

    async def after() -> None:
        nonlocal cpu
        began, spent = time.monotonic(), running.cpu()
        await asyncio.sleep(seconds)
        cpu = (running.cpu() - spent) / (time.monotonic() - began) / cores
        if attackers is not None:
            attackers.stop()

    async def everything() -> soak.Tally:
        watching, ending = asyncio.create_task(watch()), asyncio.create_task(after())
        tally = await soak.honest(running.address, running.agreement, letters, seconds)
        await ending
        watching.cancel()
        return tally

    tally = asyncio.run(everything())
    return {
        "seconds": seconds,
        "sent": tally.sent,
        "faults": dict(tally.faults),
        **{f"p{percent}_ms": load.percentile(tally.latencies, percent) * 1000 for percent in (50, 99)},
        "worker_mib": max(most, processes.worker(running.pid)),
        "cpu": cpu,
    }


if __name__ == "__main__":
    raise SystemExit(main())
