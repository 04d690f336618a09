# SPDX-License-Identifier: GPL-3.0-or-later
"""Any number of rows for the store, the same each time: days of mail of a site with several domains of its own.

::

    with contextlib.closing(open_database(path)) as database:
        fill(database, generated(100_000, days=30, end=NOW))
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect
from collections.abc import Iterable, Iterator, Sequence
from random import Random

from msgspec.structs import replace

from assay.store.database import Database
from assay.store.rows import DmarcRow, FindingRow, MessageRow, PublishedRow
from assay.store.writer import Writer

OURS = ("example.org", "example.net", "shop.example.com")
HOSTS = ("mx1.example.org", "mx2.example.org")
DAY_MILLISECONDS = 86_400_000
_BATCH = 5000
_SELECTORS = ("s1", "default", "google", "k1", "2026a")
_POLICIES = ("none", "quarantine", "reject", "reject")
_WORDS = ("Invoice", "Your order", "Re: minutes", "Newsletter", "Termin am Montag", "Delivery", "Password", "Grüße")
_LOCAL = ("ann", "bob", "carol", "newsletter", "info", "no-reply", "billing", "d.smith")
_STAGE_WAITS = (("connect", 2), ("mail", 6))


def fill(database: Database, rows: Iterable[MessageRow]) -> int:
    """Write rows in batches, as the recorder does. Returns how many."""
    writer = Writer(database)
    left = iter(rows)
    written = 0
    while batch := tuple(itertools.islice(left, _BATCH)):
        written += writer.write(batch)
    return written


def generated(
    count: int, *, days: int, end: int, ours: Sequence[str] = OURS, addresses: bool = True, seed: int = 1
) -> Iterator[MessageRow]:
    """Rows in the order of their times.

    :param days: over which they are spread, by day and by night.
    :param end: the time of the last, in Unix milliseconds.
    :param ours: our own domains.
    :param addresses: whether addresses and subjects are kept.
    """
    site = _Site(Random(seed), ours, addresses)  # noqa: S311 - the same each time
    for number in range(count):
        yield site.row(number, _time(number / max(1, count - 1), days, end))


def _time(share: float, days: int, end: int) -> int:
    """More by day than by night: a cosine over each day, integrated."""
    days_before = (1 - share) * days
    whole = math.floor(days_before)
    part = days_before - whole
    return int(end - (whole + part + 0.1 * math.sin(2 * math.pi * part)) * DAY_MILLISECONDS)


class _Site:
    def __init__(self, random: Random, ours: Sequence[str], addresses: bool) -> None:
        self.random = random
        self.ours = ours
        self.addresses = addresses
        self.domains = [f"{name}{number}.example" for number, name in enumerate(itertools.islice(_names(), 4000))]
        weights = [1 / (rank + 3) for rank in range(len(self.domains))]
        self.weights = list(itertools.accumulate(weights))
        self.kinds = (
            (0.62, self._passes),
            (0.10, self._without_policy),
            (0.05, self._through_a_list),
            (0.05, self._forges_us),
            (0.02, self._forges_others),
            (0.015, self._without_dns),
            (0.015, self._refused_early),
            (0.13, self._ours),
        )
        self.bounds = list(itertools.accumulate(share for share, _ in self.kinds))

    def row(self, number: int, time: int) -> MessageRow:
        kind = self.kinds[min(bisect(self.bounds, self.random.random() * self.bounds[-1]), len(self.kinds) - 1)][1]
        domain = self.domains[min(bisect(self.weights, self.random.random() * self.weights[-1]), len(self.domains) - 1)]
        return kind(number, time, domain)

    def _client(self, domain: str, of: str = "192.0") -> str:
        place = sum(map(ord, domain)) * 7 % 250
        return f"{of}.{place}.{self.random.randrange(1, 6)}"

    def _base(self, number: int, time: int, sender: str, author: str, client: str, /, **members: object) -> MessageRow:
        local = self.random.choice(_LOCAL)
        helo = f"mail.{sender}" if sender else "mail.elsewhere.example"
        kept: dict[str, object] = {}
        if self.addresses:
            kept = {
                "sender": f"{local}@{sender}" if sender else "",
                "author": f"{local}@{author}",
                "recipients": (f"{self.random.choice(_LOCAL)}@{self.ours[0]}",),
                "subject": f"{self.random.choice(_WORDS)} {number}",
            }
        values: dict[str, object] = {
            "id": time.to_bytes(6, "big") + (0x7000_8000_0000_0000_0000 + number).to_bytes(10, "big"),
            "time": time,
            "host": HOSTS[number % len(HOSTS)],
            "queue": f"4c{number:07X}",
            "stage": "eom",
            "direction": "inbound",
            "client": client,
            "client_name": helo,
            "helo": helo,
            "null_sender": not sender,
            "sender_domain": sender,
            "author_domain": author,
            "organizational_domain": author,
            "message_id": f"<{number}.{time}@{author}>",
            "recipient_count": 1,
            "recipient_domains": (self.ours[0],),
            "exempt": "",
            "action": "accept",
            "by": "",
            "reason": "",
            "override": "",
            "reply": "",
            "watched": (),
            "signed": "",
            "sealed": "",
            "rewritten": "",
            "milliseconds": int(self.random.expovariate(1 / 40)),
            "waits": (*_STAGE_WAITS, ("eom", 20)),
            "findings": (),
        }
        return MessageRow(**{**values, **kept, **members})  # type: ignore[arg-type]  # mypy sees objects

    def _passes(self, number: int, time: int, domain: str) -> MessageRow:
        selector = self.random.choice(_SELECTORS)
        findings = (
            FindingRow("iprev", "iprev", "pass"),
            FindingRow("spf", "spf.helo", "pass", f"mail.{domain}"),
            FindingRow("spf", "spf.mailfrom", "pass", domain, aligned=True, reason="ip4 matched"),
            FindingRow("dkim", "dkim", "pass", domain, selector, True),
            FindingRow("dmarc", "dmarc", "pass", domain),
        )
        dmarc = _dmarc(domain, _POLICIES[len(domain) % 4], "pass", True)
        row = self._base(number, time, domain, domain, self._client(domain), findings=findings, dmarc=dmarc)
        if self.random.random() > 0.04:
            return row
        watched = (("reject", "iprev.fail"),) if self.random.random() < 0.6 else (("quarantine", "rule 'bulk'"),)
        return replace(row, watched=watched)

    def _without_policy(self, number: int, time: int, domain: str) -> MessageRow:
        findings = (
            FindingRow("iprev", "iprev", "fail", reason="no PTR record"),
            FindingRow("spf", "spf.mailfrom", "none", domain, reason="no SPF record"),
            FindingRow("dkim", "dkim", "none"),
            FindingRow("dmarc", "dmarc", "none", domain, reason="no policy"),
        )
        return self._base(number, time, domain, domain, self._client(domain, "198.51"), findings=findings)

    def _through_a_list(self, number: int, time: int, domain: str) -> MessageRow:
        findings = (
            FindingRow("iprev", "iprev", "pass"),
            FindingRow("spf", "spf.mailfrom", "pass", "lists.example", reason="mx matched"),
            FindingRow("dkim", "dkim", "fail", domain, "s1", False, "the body was changed"),
            FindingRow("arc", "arc", "pass", reason="2 sets"),
            FindingRow("dmarc", "dmarc", "fail", domain, reason="nothing is aligned"),
        )
        dmarc = _dmarc(domain, "reject", "none", False, (("trusted_forwarder", "a trusted sealer passed it"),))
        return self._base(
            number, time, "lists.example", domain, "203.0.113.5", findings=findings, dmarc=dmarc,
            override="a trusted sealer passed it", reason="nothing is aligned",
        )  # fmt: skip

    def _forges_us(self, number: int, time: int, domain: str) -> MessageRow:
        ours = self.ours[number % len(self.ours)]
        client = f"203.0.{113 - number % 7}.{self.random.randrange(1, 250)}"
        findings = (
            FindingRow("iprev", "iprev", "fail", reason="no PTR record"),
            FindingRow("spf", "spf.mailfrom", "fail", ours, reason="-all matched"),
            FindingRow("dkim", "dkim", "none"),
            FindingRow("dmarc", "dmarc", "fail", ours, reason="no identifier passes"),
        )
        return self._base(
            number, time, ours, ours, client, findings=findings, dmarc=_dmarc(ours, "reject", "reject", False),
            action="reject", by="dmarc.reject", reason=f"{ours} asks for reject",
            reply=f"550 5.7.1 DMARC: {ours} does not permit this",
        )  # fmt: skip

    def _forges_others(self, number: int, time: int, domain: str) -> MessageRow:
        findings = (
            FindingRow("iprev", "iprev", "pass"),
            FindingRow("spf", "spf.mailfrom", "softfail", domain, reason="~all matched"),
            FindingRow("dkim", "dkim", "permerror", domain, "s9", False, "no key"),
            FindingRow("dmarc", "dmarc", "fail", domain, reason="no identifier passes"),
        )
        return self._base(
            number, time, domain, domain, self._client(domain, "203.0"), findings=findings,
            dmarc=_dmarc(domain, "quarantine", "quarantine", False), action="quarantine", by="dmarc.quarantine",
            reason=f"{domain} asks for quarantine",
        )  # fmt: skip

    def _without_dns(self, number: int, time: int, domain: str) -> MessageRow:
        findings = (
            FindingRow("iprev", "iprev", "temperror", reason="no answer from 192.0.2.53"),
            FindingRow("spf", "spf.mailfrom", "temperror", domain, reason="no answer for TXT"),
            FindingRow("dmarc", "dmarc", "temperror", domain, reason="no answer for the policy"),
        )
        return self._base(
            number, time, domain, domain, self._client(domain), findings=findings, action="tempfail",
            by="dmarc.temperror", reason="no answer for the policy", reply="451 4.7.5 DMARC cannot be evaluated now",
        )  # fmt: skip

    def _refused_early(self, number: int, time: int, domain: str) -> MessageRow:
        findings = (FindingRow("spf", "spf.mailfrom", "fail", domain, reason="-all matched"),)
        return self._base(
            number, time, domain, "", self._client(domain, "203.0"), stage="mail", findings=findings, message_id="",
            action="reject", by="spf.mailfrom.fail", reason="-all matched", author="", subject="", recipient_count=0,
            reply="550 5.7.23 SPF: the client may not send for this domain",
        )  # fmt: skip

    def _ours(self, number: int, time: int, domain: str) -> MessageRow:
        ours = self.ours[number % len(self.ours)]
        return self._base(
            number, time, ours, ours, "192.0.2.77", direction="outbound", exempt="authenticated",
            signed=f"{ours}/r2026", recipient_domains=(domain,), login="ann",
        )  # fmt: skip


def _dmarc(
    domain: str, policy: str, disposition: str, aligned: bool, reasons: tuple[tuple[str, str], ...] = ()
) -> DmarcRow:
    record = PublishedRow(domain, f"v=DMARC1; p={policy}; rua=mailto:dmarc@{domain}", "treewalk")
    return DmarcRow(record, policy, disposition, aligned, aligned, reasons)


def _names() -> Iterator[str]:
    yield from itertools.cycle(("shop", "mail", "news", "bank", "school", "club", "travel", "press"))
