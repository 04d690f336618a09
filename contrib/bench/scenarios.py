# SPDX-License-Identifier: GPL-3.0-or-later
"""The scenarios: each function runs one and returns its rows.

A row is a dictionary: `scenario`, `target`, what was varied, and the figures. CPU is that of the milters' processes,
per message; the rate is of whole messages; latency is how long the SMTP client of a message waits for the milters, in
all stages together.
"""

from __future__ import annotations

import bisect
import itertools
import json
import pickle
import random
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import load
import members
from load import Leg, Load
from mail import Message
from members import Member, Running, Setting

import nameserver

Row = dict[str, Any]
Chain = Sequence[Member]

TARGETS: dict[str, Chain] = {
    "assay": (members.ASSAY,),
    "assay, nothing remembered": (members.assay_without_memory(),),
    "rspamd": (members.RSPAMD,),
    "pair: OpenDKIM, OpenDMARC with its own SPF": members.PAIR,
    "chain: pyspf-milter, OpenDKIM, OpenDMARC": members.USUAL_CHAIN,
    "dkimpy-milter": (members.DKIMPY,),
    "pymilter that does nothing, all replies": (members.IDLE_REPLIES,),
    "pymilter that does nothing, no replies": (members.IDLE,),
}
CLIENT_ROUND_TRIP = 0.02  # seconds: a client on the same continent
JUDGES = tuple(name for name in TARGETS if name.partition(":")[0] in ("assay", "rspamd", "pair", "chain"))


@dataclass(slots=True)
class World:
    """What the scenarios share. `edits` are the fields that a chain's first members put on a message, by their names
    and the message's sender: learned once, so that a cold run need not warm anything to know them."""

    directory: Path
    workers: int
    edits: dict[tuple[str, str, int], list[tuple[bytes, bytes]]] = field(default_factory=dict)


@contextmanager
def serving(
    world: World, chain: Chain, *, dns: str = nameserver.ADDRESS, inet: bool = False
) -> Iterator[list[Running]]:
    """The members of a chain, started afresh."""
    running: list[Running] = []
    try:
        for member in chain:
            running.append(Running(member, Setting(world.directory, dns, world.workers, inet)))
        yield running
    except (load.LoadError, OSError):
        for one in running:
            say(one.last_words())
        raise
    finally:
        for one in running:
            one.stop()


def legs(world: World, running: Sequence[Running], messages: Sequence[Message]) -> list[list[Leg]]:
    """The bytes for each message and member, with the fields of the members before it."""
    prepared: list[list[Leg]] = [[] for _ in messages]
    current = list(messages)
    chain = ""
    for place, one in enumerate(running):
        chain += one.member.name + "/"
        for index, message in enumerate(current):
            prepared[index].append(load.leg(one.address, one.agreement, message, one.member.expected))
        if place == len(running) - 1:
            break
        for index, message in enumerate(current):
            key = (chain, message.sender, len(message.body))
            if key not in world.edits:
                seen: list[bytes] = []
                Load([[prepared[index][-1]]], connections=1, count=1, on_edits=lambda _, e, s=seen: s.append(e)).run()
                world.edits[key] = load.insertions(seen[0])
            current[index] = message.with_fields(world.edits[key])
    return prepared


def measure(running: Sequence[Running], prepared: Sequence[Sequence[Leg]], **options: Any) -> Row:
    """One run and its results."""
    before = [one.cpu() for one in running]
    result = Load(prepared, **options).run()
    spent = [one.cpu() - cpu for one, cpu in zip(running, before, strict=True)]
    per = 1000 / result.messages
    return {
        "messages": result.messages,
        "cpu_ms": sum(spent) * per,
        "members_cpu_ms": [cpu * per for cpu in spent],
        "generator_cpu_ms": result.generator_cpu * per,
        "rate": result.rate,
        **{f"p{percent}_ms": load.percentile(result.latencies, percent) * 1000 for percent in (50, 90, 99)},
    }


def warm_up(world: World, prepared: Sequence[Sequence[Leg]]) -> None:
    """Each worker of each member must have seen each sender."""
    Load(prepared, connections=2 * world.workers, count=2 * world.workers * len(prepared)).run()


@dataclass(slots=True)
class Contestant:
    """One of several milters or chains under comparison: running, and with the bytes to send."""

    running: Sequence[Running]
    prepared: Sequence[Sequence[Leg]]
    messages_a_connection: int = 1
    turns: list[Row] = field(default_factory=list)
    fault: str = ""


def alternate(contestants: dict[str, Contestant], seconds: float, rounds: int, *, connections: int) -> Iterator[Row]:
    """Give each contestant short turns, one after another, and return one row for each. The machine is faster in one
    minute than in the next; so all of them share the same minutes."""
    for number in range(rounds):
        for name in tuple(contestants) if number % 2 else tuple(reversed(contestants)):
            one = contestants[name]
            if one.fault:
                continue
            try:
                turn = measure(
                    one.running,
                    one.prepared,
                    connections=connections,
                    seconds=seconds,
                    messages_a_connection=one.messages_a_connection,
                )
                one.turns.append(turn)
            except (load.LoadError, OSError) as error:
                one.fault = _fault(one.running, error)
    for name, one in contestants.items():
        row: Row = {"target": name}
        if one.fault:
            row["failed"] = one.fault
        else:
            row |= _together(one.turns) | {"memory": [_memory(member) for member in one.running]}
        one.turns = []
        yield row


_FIGURES = ("rate", "cpu_ms", "generator_cpu_ms", "p50_ms", "p90_ms", "p99_ms")


def _together(turns: Sequence[Row]) -> Row:
    """The median of each figure over the turns, and the figures of each turn, for their spread and for ratios."""
    row: Row = {"messages": sum(turn["messages"] for turn in turns)}
    row |= {key: statistics.median(turn[key] for turn in turns) for key in _FIGURES}
    return row | {"turns": [{key: turn[key] for key in _FIGURES} for turn in turns]}


def warm(
    world: World,
    messages: Sequence[Message],
    connections: Sequence[int],
    seconds: float,
    rounds: int,
) -> Iterator[Row]:
    """Every answer in the cache: CPU, throughput and latency by number of connections, all targets in turns."""
    with ExitStack() as stack:
        contestants: dict[str, Contestant] = {}
        for target, chain in TARGETS.items():
            say(f"warm: starting {target}")
            running = stack.enter_context(serving(world, chain))
            contestants[target] = Contestant(running, legs(world, running, messages))
        for one in contestants.values():
            try:
                warm_up(world, one.prepared)
            except (load.LoadError, OSError) as error:
                one.fault = _fault(one.running, error)
        for many in connections:
            say(f"warm: {many} connections")
            for row in alternate(contestants, seconds, rounds, connections=many):
                yield {"scenario": "warm", "connections": many} | row


def stages(messages: Sequence[Message]) -> Iterator[Row]:
    """The events of a message one by one, in a separate process: see `stages.py`."""
    say("stages")
    command = [*members.our_python(), str(Path(__file__).with_name("stages.py")), nameserver.ADDRESS]
    done = subprocess.run(command, input=pickle.dumps(list(messages)), capture_output=True, check=True)
    for event, microseconds in json.loads(done.stdout).items():
        yield {"scenario": "stages", "event": event, "microseconds": microseconds}


def sessions(world: World, messages: Sequence[Message], seconds: float, rounds: int) -> Iterator[Row]:
    """Ten messages a connection; and an inet socket. In turns."""
    with ExitStack() as stack:
        contestants: dict[str, Contestant] = {}
        for name, inet, per in (
            ("unix socket", False, 1),
            ("inet socket", True, 1),
            ("unix socket, ten messages a session", False, 10),
        ):
            say(f"sessions: starting {name}")
            running = stack.enter_context(serving(world, TARGETS["assay"], inet=inet))
            one = contestants[name] = Contestant(running, legs(world, running, messages), messages_a_connection=per)
            warm_up(world, one.prepared)
        for many in (1, 10):
            for row in alternate(contestants, seconds, rounds, connections=many):
                yield {"scenario": "sessions", "connections": many} | row


def cold(world: World, messages: Sequence[Message], delays: Sequence[float], count: int) -> Iterator[Row]:
    """No answer in the cache, and each is delayed: one connection, every message from another sender.

    Once with an SMTP client that takes no time for its turns, and once with one that takes `CLIENT_ROUND_TRIP`, while
    a milter may work.
    """
    runs = [(delay, turn) for delay in delays for turn in (0.0, CLIENT_ROUND_TRIP)]
    for target, chain in ((name, TARGETS[name]) for name in JUDGES):
        try:
            with serving(world, chain) as running:  # learns what the first members write
                legs(world, running, messages[: count * len(runs)])
            for number, (seconds, turn) in enumerate(runs):
                say(f"cold: {target}, answers after {seconds * 1000:g} ms, SMTP client after {turn * 1000:g} ms")
                yield {
                    "scenario": "cold",
                    "target": target,
                    "delay_ms": seconds * 1000,
                    "turn_ms": turn * 1000,
                } | _cold(world, chain, messages[number * count : (number + 1) * count], seconds, turn)
        except (load.LoadError, OSError) as error:
            yield {"scenario": "cold", "target": target, "failed": str(error)[:200], "delay_ms": 0.0, "turn_ms": 0.0}


def _cold(world: World, chain: Chain, messages: Sequence[Message], seconds: float, turn: float) -> Row:
    proxy = nameserver.Delay(seconds)
    try:
        with delayed(world), serving(world, chain, dns=nameserver.DELAYED) as running:
            prepared = legs(world, running, messages)
            before = proxy.questions
            row = measure(running, prepared, connections=1, count=len(messages), round_trip=turn)
            return row | {"questions": (proxy.questions - before) / len(messages)}
    finally:
        proxy.stop()


@contextmanager
def delayed(world: World) -> Iterator[None]:
    """Programs that read resolv.conf query the proxy meanwhile."""
    path = world.directory / "resolv.conf"
    usual = path.read_text()
    path.write_text(usual.replace(nameserver.ADDRESS, nameserver.DELAYED))
    try:
        yield
    finally:
        path.write_text(usual)


def large(world: World, messages: Sequence[Message], seconds: float, rounds: int) -> Iterator[Row]:
    """Large bodies: CPU for each, all targets in turns."""
    left_out = ("assay, nothing remembered", "pymilter that does nothing, all replies")
    targets = {name: chain for name, chain in TARGETS.items() if name not in left_out}
    targets["pymilter that takes SHA-256 of the body"] = (members.IDLE_HASH,)
    with ExitStack() as stack:
        contestants: dict[str, Contestant] = {}
        for target, chain in targets.items():
            say(f"large: starting {target}")
            running = stack.enter_context(serving(world, chain))
            one = contestants[target] = Contestant(running, legs(world, running, messages))
            Load(one.prepared, connections=1, count=2 * len(messages)).run()
        for row in alternate(contestants, seconds, rounds, connections=1):
            yield {"scenario": "large", "body": len(messages[0].body)} | row


def memory(world: World, small: Sequence[Message], sizes: dict[int, Message], connections: int) -> Iterator[Row]:
    """Memory of a worker with many large messages in flight at once."""
    with serving(world, TARGETS["assay"]) as running:
        Load(legs(world, running, small), connections=connections, count=10 * connections).run()
        for size, message in sizes.items():
            say(f"memory: {connections} connections, {size} octets each")
            measure(running, legs(world, running, [message]), connections=connections, count=connections)
            yield {"scenario": "memory", "target": "assay", "body": size, "connections": connections} | _memory(
                running[0]
            )


def growth(world: World, series: dict[str, dict[int, Message]], seconds: float) -> Iterator[Row]:
    """How the cost grows in one dimension at a time."""
    quiet = Member("assay", members.ASSAY.command, ("dkim=pass", "spf=pass", "dmarc=pass"))
    for what, points in series.items():
        say(f"growth: {what}")
        with serving(world, (quiet,)) as running:
            for amount, message in points.items():
                prepared = legs(world, running, [message])
                Load(prepared, connections=4, count=40).run()
                row = measure(running, prepared, connections=4, seconds=seconds)
                yield {"scenario": "growth", "target": "assay", "what": what, "amount": amount} | row


def cache(world: World, messages: Sequence[Message], sizes: Sequence[int], draws: int) -> Iterator[Row]:
    """Many sender domains, some of them frequent (Zipf's law): hit rate and memory by size of the cache."""
    weights = list(itertools.accumulate(1 / rank for rank in range(1, len(messages) + 1)))
    chance = random.Random(1)  # noqa: S311  # no secret: the same draws for each size
    order = [bisect.bisect(weights, chance.random() * weights[-1]) for _ in range(draws)]
    for size in sizes:
        say(f"cache: {size} entries")
        member = members.assay_with_cache(size)
        proxy = nameserver.Delay(0.0)
        alone = World(world.directory, 1)  # one worker, so that it is one cache
        try:
            with serving(alone, (member,), dns=nameserver.DELAYED) as running:
                prepared = legs(alone, running, messages)
                before = _memory(running[0])["worker"]
                Load(prepared, connections=10, count=len(messages)).run()
                filled = _memory(running[0])["worker"]
                asked = proxy.questions
                Load([prepared[number] for number in order], connections=10, count=draws).run()
                hit_rate = 1 - (proxy.questions - asked) / (draws * asked / len(messages))
        finally:
            proxy.stop()
        yield {
            "scenario": "cache",
            "target": "assay",
            "entries": size,
            "domains": len(messages),
            "questions": asked / len(messages),
            "hit_rate": hit_rate,
            "empty_mib": before,
            "full_mib": filled,
        }


def say(text: str) -> None:
    """Report progress."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def _memory(one: Running) -> dict[str, float]:
    usage = one.usage()
    return {"resident": usage.resident, "proportional": usage.proportional, "worker": usage.worker, "peak": usage.peak}


def _fault(running: Sequence[Running], error: Exception) -> str:
    dead = ", ".join(one.member.name for one in running if not one.alive)
    return f"{dead} died" if dead else str(error)[:200]
