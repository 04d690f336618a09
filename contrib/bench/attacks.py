# SPDX-License-Identifier: GPL-3.0-or-later
"""The attacks: each generates an attacker's sessions, up to a total number of octets.

They are possible with a line of 10 Mbit/s and a few domains, for which `hostile` answers. Names contain a serial
number, so that no two messages are the same, except where repetition is the attack.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from hostile import ZONES

BESIDE, BELOW = ZONES  # beside honest domains; below the suffix that honest domains have too
#: Octets of a session beside its messages: greeting and EHLO, and the headers of some ten packets.
SESSION_OCTETS = 500
ENVELOPE_OCTETS = 120  #: MAIL, RCPT, DATA and what they are answered with, without names
MESSAGES_A_SESSION = 100  #: of those that abort: more make Postfix slow down (smtpd_junk_command_limit)
MAX_SETS = 50  # RFC 8617, 5.2
VICTIMS = 300  #: honest domains below ``co.example``, by number
_MEBIBYTE = 1024 * 1024
_numbers = itertools.count()

Field = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Attempt:
    """A session: the same message from each of the senders.

    `until` is the last command, in the milter protocol's letters: where it is not ``E``, a message is given up there.
    `forged`: whether the message claims to be a victim's, so that it is a fault to accept it.
    """

    senders: tuple[str, ...] = ("",)
    helo: str = "client.invalid"
    fields: tuple[Field, ...] = ()
    body: bytes = b""
    until: bytes = b"E"
    forged: bool = False

    @property
    def octets(self) -> int:
        """Its size on the line in octets."""
        content = sum(len(name) + len(value) + 3 for name, value in self.fields) + len(self.body)
        if self.until in b"CH":
            return SESSION_OCTETS
        return SESSION_OCTETS + sum(ENVELOPE_OCTETS + len(sender) + content for sender in self.senders)


Attack = Callable[[int], Iterator[Attempt]]


def _spending(make: Callable[[], Attempt]) -> Attack:
    """An attack that makes one attempt after another until the octets are spent."""

    def attack(octets: int) -> Iterator[Attempt]:
        while octets > 0:
            one = make()
            octets -= one.octets
            yield one

    return attack


def slow_names() -> Attempt:
    """Aborted after the header: 50 ARC sets and 10 signatures, all under names that are not answered in time."""
    number = next(_numbers)
    zone = BELOW if number % 2 else BESIDE
    domain = f"n{number:x}.{'slow' if number % 4 < 2 else 'silent'}.{zone}"
    fields = [_author(domain), *_sets(domain), *(_signature(domain, f"k{n}") for n in range(10))]
    return Attempt((f"a@{domain}",), f"h.{domain}", tuple(fields), until=b"N")


def victims_names() -> Attempt:
    """The same, with half of the names below the domains of honest senders, as selectors that do not exist."""
    number = next(_numbers)
    victim, domain = _victim(number), f"n{number:x}.silent.{BELOW}"
    fields = [_author(domain), *_sets(domain), *(_signature(victim, f"j{number:x}-{n}") for n in range(10))]
    return Attempt((f"a@{domain}",), f"h.{domain}", tuple(fields), until=b"N")


def slow_envelopes() -> Attempt:
    """Only MAIL, repeatedly: SPF whose includes are never answered, and a HELO of the same kind."""
    number = next(_numbers)
    senders = tuple(f"a@n{number:x}-{n}.includes.{BELOW}" for n in range(MESSAGES_A_SESSION))
    return Attempt(senders, f"h{number:x}.silent.{BELOW}", until=b"M")


def aliases() -> Attempt:
    """Ten keys, each an answer of 64 KiB: nine aliases and thousands of texts."""
    number = next(_numbers)
    signatures = (_signature(f"n{number:x}-{n}.aliases.{BELOW}", "s") for n in range(10))
    return _whole(number, *signatures)


def dotted_labels() -> Attempt:
    """SPF that looks up ten answers of 64 KiB, with dots in the labels of their names."""
    return Attempt((f"a@n{next(_numbers):x}.exchangers.{BELOW}",), until=b"R")


def large_spf() -> Attempt:
    """Eleven SPF records of 62 KB, always the same, at each MAIL."""
    return Attempt((f"a@m.large.{BESIDE}",) * MESSAGES_A_SESSION, until=b"M")


def wide_keys() -> Attempt:
    """Ten keys, each with 1,296 names in h=."""
    number = next(_numbers)
    return _whole(number, *(_signature(f"n{number:x}-{n}.wide.{BELOW}", "s") for n in range(10)))


def digits() -> Attempt:
    """A megabyte of signatures whose domains are 253 digits that are not ASCII."""
    domain = "\u0664" * 253
    field = (b"DKIM-Signature", _tags(f"v=1; a=ed25519-sha256; d={domain}; s=s; h=from; bh=QUJD; b=QUJD"))
    return _whole(next(_numbers), *[field] * (_MEBIBYTE // 600))


def signatures() -> Attempt:
    """A megabyte of signatures, each of another domain."""
    number = next(_numbers)
    return _whole(number, *(_signature(f"n{number:x}-{n}.{BELOW}", "s") for n in range(_MEBIBYTE // 130)))


def many_fields() -> Attempt:
    """A forged From below 10,001 fields, or below twenty of 60 KB."""
    number = next(_numbers)
    above = [(b"X", b" ")] * 10_001 if number % 2 else [(b"X", b" x" * 30_000)] * 20
    return Attempt(fields=(*above, _author(_victim(number))), body=b"Pay.\r\n", forged=True)


def abandoned() -> Attempt:
    """A session that is given up, each at another stage, in the names of others."""
    number = next(_numbers)
    stages = b"CHMRTLNB"
    domain = f"n{number:x}.{BELOW}"
    fields = (_author(domain), _signature(domain, "s"))
    until = stages[number % len(stages) :][:1]
    return Attempt((f"a@{domain}",), f"h.{domain}", fields, b"Text.\r\n" * 100, until=until)


ATTACKS: dict[str, Attack] = {
    one.__name__.replace("_", "-"): _spending(one)
    for one in (
        slow_names,
        victims_names,
        slow_envelopes,
        aliases,
        dotted_labels,
        large_spf,
        wide_keys,
        digits,
        signatures,
        many_fields,
        abandoned,
    )
}


def mix(octets: int) -> Iterator[Attempt]:
    """All of them, each with the same part of the octets."""
    running = {name: attack(octets) for name, attack in ATTACKS.items()}
    spent = dict.fromkeys(running, 0)
    while sum(spent.values()) < octets:
        name = min(spent, key=lambda name: spent[name])
        one = next(running[name])
        spent[name] += one.octets
        yield one


def _whole(number: int, *fields: Field) -> Attempt:
    """A message that is sent completely."""
    return Attempt(fields=(*fields, _author(f"n{number:x}.{BELOW}")), body=b"Text.\r\n")


def _victim(number: int) -> str:
    """The domain of an honest sender."""
    return f"sender{number % VICTIMS + 1}.co.example"


def _author(domain: str) -> Field:
    return b"From", f" a@{domain}".encode()


def _signature(domain: str, selector: str) -> Field:
    return b"DKIM-Signature", _tags(f"v=1; a=rsa-sha256; d={domain}; s={selector}; h=from; bh=QUJD; b=QUJD")


def _sets(domain: str) -> Iterator[Field]:
    """An ARC chain as long as may be, two keys a set."""
    for n in range(1, MAX_SETS + 1):
        who = f"i={n}; a=rsa-sha256; d={domain}"
        yield b"ARC-Seal", _tags(f"{who}; s=s{n}; cv={'none' if n == 1 else 'pass'}; b=QUJD")
        yield b"ARC-Message-Signature", _tags(f"{who}; s=m{n}; h=from; bh=QUJD; b=QUJD")
        yield b"ARC-Authentication-Results", _tags(f"i={n}; a.example; none")


def _tags(text: str) -> bytes:
    return b" " + text.encode()
