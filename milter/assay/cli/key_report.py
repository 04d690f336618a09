# SPDX-License-Identifier: GPL-3.0-or-later
"""What ``assay keys`` prints: keys and their states, steps taken and left, and differences from the DNS."""

from __future__ import annotations

from collections.abc import Iterator

from assay.keyring.run import Report, key_name
from assay.keys import forms
from assay.keys.forms import Form
from assay.keys.published import Publication, Sight
from assay.keys.rotation import Act, KeyRing, KeyState, RingKey, Schedule, Waiting, day, due
from assay.model.name import Domain

_SIGHT = {
    Sight.EVERYWHERE: "every authoritative server answers with it",
    Sight.PARTLY: "NOT EVERYWHERE",
    Sight.NOWHERE: "NOT PUBLISHED",
    Sight.UNKNOWN: "UNKNOWN",
}


def describe(report: Report, form: Form, ttl: int, *, routine: bool) -> Iterator[str]:
    """What a run did, what only the operator can do, and what waits.

    :param routine: also the keys with which all is as it should be.
    """
    ring = report.ring
    for step in report.taken:
        yield f"{ring.domain}: {step.act} {step.selector}: {step.why}"
    for step in report.by_hand:
        key = ring.find(step.selector)
        if step.act is Act.PUBLISH and key is not None:
            yield f"{ring.domain}: publish {step.selector} ({step.why}), then run again: assay keys rotate --due"
            yield from _record(ring, key, form, ttl)
        else:
            yield f"{ring.domain}: remove {key_name(ring, step.selector)} from the DNS: {step.why}"
    for wait in (wait for wait in report.waiting if routine or not wait.routine):
        yield f"{ring.domain}: {_waiting(wait)}"
        publication = report.publications.get(wait.selector)
        if publication is not None and publication.sight is not Sight.EVERYWHERE:
            yield from _differences(publication)


def rows(ring: KeyRing, schedule: Schedule, now: int) -> Iterator[str]:
    """One row for each key, with what it waits for as far as the DNS need not be asked."""
    yield ring.domain
    _, waiting = due(ring, schedule, {key.selector: Sight.EVERYWHERE for key in ring.keys}, now)
    until = {wait.selector: wait for wait in waiting}
    for key in ring.keys:
        gone = ", its record is gone" if key.gone else ""
        yield f"  {key.selector:<16} {key.type:<8} {key.state:<9} since {day(key.since)}{gone}"
        if key.selector in until:
            yield f"      {_waiting(until[key.selector]).partition(' ')[2]}"


def records(ring: KeyRing, form: Form, ttl: int) -> Iterator[str]:
    """The records of keys that are pending."""
    for key in ring.keys:
        if key.state is KeyState.PENDING:
            yield from _record(ring, key, form, ttl)


def publication(at: str, what: str, found: Publication) -> Iterator[str]:
    """What the servers publish for one key."""
    yield f"{at} ({what}): {_SIGHT[found.sight]}"
    yield from _differences(found)


def _differences(found: Publication) -> Iterator[str]:
    for difference in found.differences:
        yield f"    {difference.server}: {'' if difference.fatal else 'warning: '}{difference.text}"


def _record(ring: KeyRing, key: RingKey, form: Form, ttl: int) -> Iterator[str]:
    yield from forms.write(form, Domain(ring.domain), Domain(key.selector), key.record, ttl).splitlines()


def _waiting(wait: Waiting) -> str:
    return f"{wait.selector} {wait.why}" + (f" ({day(wait.until)})" if wait.until else "")
