# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure assay and the milters that it replaces, in one run on this machine.

    python contrib/bench/run.py --short              # eight minutes
    python contrib/bench/run.py --long               # half an hour: longer turns, larger bodies
    python contrib/bench/run.py --only warm,cold     # some scenarios
    python contrib/bench/run.py --short --write      # and put table and plots into docs/performance.md

Prints a table, and writes every figure to ``.cache/bench/results.json``. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import sandbox

_TOP = Path(__file__).resolve().parents[2]
_CACHE = _TOP / ".cache" / "bench"
_SCENARIOS = ("warm", "stages", "sessions", "cold", "large", "memory", "growth", "cache", "sign")
_KIB, _MIB = 1024, 1024 * 1024


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure assay and the milters that it replaces.")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--short", action="store_true", help="about eight minutes (the default)")
    size.add_argument("--long", action="store_true", help="about half an hour")
    parser.add_argument("--smoke", action="store_true", help="one second against assay alone, for a test")
    parser.add_argument("--only", default=",".join(_SCENARIOS), help=f"scenarios, of {','.join(_SCENARIOS)}")
    parser.add_argument(
        "--targets",
        default="",
        help="measure only targets whose names begin with one of these, separated by commas; in warm, cold and large",
    )
    parser.add_argument("--write", action="store_true", help="update docs/performance.md and its plots")
    arguments = parser.parse_args()
    with sandbox.furnished(_CACHE / "packages") as (directory, versions):
        import tables

        report: dict[str, Any] = {"machine": tables.machine(), "versions": tables.versions(versions), "rows": []}
        for row in _measure(arguments, directory):
            report["rows"].append(row)
            if not arguments.smoke:  # keep what was measured, even if a later step fails
                (_CACHE / "results.json").write_text(json.dumps(report, indent=1))
    if arguments.smoke:
        print(json.dumps(report["rows"]))
        return 0
    import report as reports

    print(reports.text(report))
    if arguments.write:
        reports.write(report, _TOP / "docs")
    return 0


def _measure(arguments: argparse.Namespace, directory: Path) -> Iterator[dict[str, Any]]:
    import logreader
    import mail
    import scenarios
    from scenarios import say

    import nameserver
    import signing
    import zone

    sandbox.prepare(directory, nameserver.ADDRESS)
    for name in tuple(scenarios.TARGETS):
        if not name.startswith(tuple(arguments.targets.split(","))):
            del scenarios.TARGETS[name]
    scenarios.JUDGES = tuple(name for name in scenarios.JUDGES if name in scenarios.TARGETS)
    wanted = ("warm",) if arguments.smoke else tuple(arguments.only.split(","))
    long = arguments.long
    signer = mail.Signer()
    count = 10_000 if "cache" in wanted else 10 if arguments.smoke else 200
    domains = [zone.Domain(number) for number in range(1, count + 1)]
    terms = dict(zone.many_terms(amount) for amount in (1, 10, 50, 100, 200))
    server = nameserver.NameServer(
        directory, zone.zone_file(domains, signer.public, [record for more in terms.values() for record in more])
    )
    log = logreader.Syslog()
    say(f"signing the messages of {min(count, 200)} senders")
    messages = [signer.sign(mail.compose(domain, 4 * _KIB)) for domain in domains[:200]]
    world = scenarios.World(directory, len(os.sched_getaffinity(0)))
    seconds, rounds = (1.0, 12) if long else (0.5, 6)
    try:
        if arguments.smoke:
            scenarios.TARGETS = {"assay": scenarios.TARGETS["assay"]}
            yield from scenarios.warm(world, messages, (1,), 1.0, 1)
            yield from scenarios.stages(messages)
            return
        if "warm" in wanted:
            yield from scenarios.warm(world, messages, (1, 10, 100), seconds, rounds)
        if "stages" in wanted:
            yield from scenarios.stages(messages)
        if "sessions" in wanted:
            yield from scenarios.sessions(world, messages, seconds, rounds)
        if "cold" in wanted:
            yield from scenarios.cold(world, messages, (0.02, 0.05), 50 if long else 8)
        if "large" in wanted:
            big = [signer.sign(mail.compose(domain, 5 * _MIB)) for domain in domains[:2]]
            yield from scenarios.large(world, big, seconds, rounds)
        if "sign" in wanted:
            ours = [mail.compose(domain, 4 * _KIB) for domain in domains[:50]]
            yield from signing.sign(world, ours, seconds, rounds)
            yield from signing.sign(world, [mail.compose(domains[0], 5 * _MIB)], 2 * seconds, rounds)
            yield from signing.judge(world, messages, seconds, 2 * rounds)
        if "memory" in wanted:
            sizes = {
                size: signer.sign(mail.compose(domains[0], size))
                for size in (4 * _KIB, _MIB, *((10 * _MIB, 50 * _MIB) if long else (10 * _MIB,)))
            }
            yield from scenarios.memory(world, messages, sizes, 100)
        if "growth" in wanted:
            yield from scenarios.growth(world, _series(signer, domains[0], list(terms)), 2 * seconds)
        if "cache" in wanted:
            # A signature costs 10 ms: that of the first sender is put on everybody's messages, with their names in
            # it. It does not verify, but everything is asked.
            model = messages[0]
            own = domains[0].name.encode()
            many = [_as_if_of(model, domain, own) for domain in domains]
            sizes = (2_000, 20_000, 100_000, 200_000) if long else (20_000, 200_000)
            yield from scenarios.cache(world, many, sizes, 20_000 if long else 3_000)
    finally:
        log.stop()
        server.stop()


def _as_if_of(model: Any, domain: Any, own: bytes) -> Any:
    other = domain.name.encode()
    fields = tuple((name, value.replace(own, other)) for name, value in model.fields)
    return replace(model, domain=domain, fields=fields, sender=f"bounce@{domain.name}")


def _series(signer: Any, domain: Any, terms: list[str]) -> dict[str, dict[int, Any]]:
    """Messages that grow in one dimension at a time."""
    import mail

    simple = mail.compose(domain, 4 * _KIB)
    return {
        "header fields": {n: signer.sign(mail.compose(domain, 4 * _KIB, headers=n)) for n in (12, 100, 250, 500, 1000)},
        "recipients": {n: signer.sign(mail.compose(domain, 4 * _KIB, recipients=n)) for n in (1, 100, 250, 500, 1000)},
        "signatures": {n: signer.sign(simple, n) for n in (1, 2, 4, 7, 10)},
        "SPF terms": {
            int(name.removeprefix("terms").partition(".")[0]): signer.sign(
                mail.compose(domain, 4 * _KIB, sender=f"bounce@{name}")
            )
            for name in terms
        },
        "MiB of body": {n: signer.sign(mail.compose(domain, n * _MIB)) for n in (1, 2, 4, 8, 16)},
    }


if __name__ == "__main__":
    raise SystemExit(main())
