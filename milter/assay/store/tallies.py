# SPDX-License-Identifier: GPL-3.0-or-later
"""What a batch of rows adds to the counts and to the groups of aggregate reports, summed up before it is written.

Everything is in a sorted order: hosts that write to one database lock its rows in the same order, and never wait for
each other in a circle.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

import msgspec

from assay.policy import Direction
from assay.store.rows import MessageRow, PublishedRow

DAY_MILLISECONDS = 86_400_000
_INBOUND = Direction.INBOUND.value
_FAIL = "fail"

Values = tuple[Any, ...]

NO_SUPPLEMENTS: Mapping[int, int] = {}


class Tallies:
    """The sums of a batch. Each member is a list of rows for the table of its name."""

    def __init__(self, rows: Sequence[MessageRow], supplements: Mapping[int, int] = NO_SUPPLEMENTS) -> None:
        """
        :param supplements: to which report its messages belong, of days whose report is closed.
        :raises UnicodeError: a text that cannot be stored.
        """
        self._supplements = supplements
        self.counts = _counts(rows)
        #: The id of each record of the batch.
        self.identities: dict[PublishedRow, int] = {}
        published: dict[int, tuple[PublishedRow, int, int]] = {}
        groups: Counter[Values] = Counter()
        self._group_of: dict[bytes, Values] = {}
        for row in rows:
            if row.dmarc is None:
                continue
            record = row.dmarc.published
            if (identity := self.identities.get(record)) is None:
                identity = self.identities[record] = published_id(record)
            # By id: whoever finds two records with one must not make a statement that names it twice.
            record, first, last = published.get(identity) or (record, row.time, row.time)
            published[identity] = (record, min(first, row.time), max(last, row.time))
            if row.dmarc.disposition:
                group = self._group_of[row.id] = _group(row, identity)
                groups[group] += 1
        self.published = [
            (identity, record.domain, record.record, record.method, first, last)
            for identity, (record, first, last) in sorted(published.items(), key=_key)
        ]
        self._group_ids: dict[Values, int] = {}
        self.report_groups = self._sum_up(groups)

    def group_of(self, row: MessageRow) -> int | None:
        """The id of the group of a message; None if it is in no report."""
        group = self._group_of.get(row.id)
        return None if group is None else self._group_ids[group]

    def _sum_up(self, groups: Counter[Values]) -> list[Values]:
        found: dict[Values, Values] = {}
        for group, count in groups.items():
            day, published, *parts, reasons, signatures, spf, report_mail = group
            values: Values = (*parts, as_json(reasons), as_json(signatures), as_json(spf))
            supplement = self._supplements.get(day, 0)
            of = (*values, supplement) if supplement else values
            identity = self._group_ids[group] = _digest(msgspec.json.encode(of))
            key = (day, published, identity)
            _, before, reports, _ = found.get(key) or ((), 0, 0, 0)
            found[key] = (values, before + count, reports + count * report_mail, supplement)
        return [(*key, *values, *sums) for key, (values, *sums) in sorted(found.items(), key=_key)]


def published_id(record: PublishedRow) -> int:
    """The id of a DMARC record in the table `published`."""
    return _digest(msgspec.json.encode(record))


def as_json(values: Sequence[object]) -> str:
    """Values of a column with JSON; none is the empty text."""
    return msgspec.json.encode(values).decode() if values else ""


def result_of(row: MessageRow, key: str) -> str:
    """The result of the first finding with this key; empty without one."""
    for finding in row.findings:
        if finding.key == key:
            return finding.result
    return ""


def _key(item: tuple[Any, Any]) -> Any:
    return item[0]


def _digest(octets: bytes) -> int:
    """64 bits, as the databases' integers have them. To make two of one domain collide harms only who does it."""
    return int.from_bytes(blake2b(octets, digest_size=8).digest(), "big", signed=True)


def _counts(rows: Sequence[MessageRow]) -> list[Values]:
    """Words that come together are counted together first: most messages have the findings and decisions of others."""
    results: Counter[Values] = Counter()
    decisions: Counter[Values] = Counter()
    names: Counter[Values] = Counter()
    for row in rows:
        day = row.time // DAY_MILLISECONDS
        results[day, tuple([(finding.key, finding.result) for finding in row.findings])] += 1
        decisions[day, row.host, row.direction, row.by, row.action, row.watched] += 1
        if row.direction == _INBOUND:
            disposition = row.dmarc.disposition if row.dmarc is not None else ""
            names[day, row.author_domain, row.client, result_of(row, "dmarc"), disposition] += 1
    found: Counter[Values] = Counter()
    for (day, pairs), count in results.items():
        for key, result in set(pairs):
            found[day, "result", key, "", result] += count
    for (day, host, direction, by, action, watched), count in decisions.items():
        found[day, "action", by, "", action] += count
        found[day, "host", host, "", direction] += count
        for would, key in watched:
            found[day, "watched", key, "", would] += count
    for (day, author_domain, client, result, disposition), count in names.items():
        word = result or "none"
        if author_domain:
            found[day, "domain", author_domain, "", word] += count
        if client:
            found[day, "source", client, "", word] += count
        if result == _FAIL:
            found[day, "failing", author_domain, client, disposition] += count
    return [(*key, count) for key, count in sorted(found.items(), key=_key)]


def _group(row: MessageRow, published: int) -> Values:
    dmarc = row.dmarc
    assert dmarc is not None  # noqa: S101  # as the caller has seen
    signatures: list[Values] = []
    spf: Values = ()
    for finding in row.findings:
        if finding.method == "dkim":
            signatures.append((finding.domain, finding.selector, finding.result, finding.reason, finding.aligned))
        elif finding.key == "spf.mailfrom":
            spf = (finding.domain, finding.result, finding.reason)
    return (
        row.time // DAY_MILLISECONDS,
        published,
        row.client,
        row.author_domain,
        row.null_sender,
        row.sender_domain,
        dmarc.policy,
        dmarc.disposition,
        dmarc.dkim_aligned,
        dmarc.spf_aligned,
        dmarc.reasons,
        tuple(signatures),
        spf,
        row.report_mail,
    )
