# SPDX-License-Identifier: GPL-3.0-or-later
"""A session over a dict zone: the SMTP stages as function calls, without MTA, network and thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, Generic, TypeVar

import msgspec

import assay.session
from assay.config import Configuration
from assay.config.build import make_policy, make_settings, make_trust
from assay.inquiry import Driver, Inquiry
from assay.model.edits import Insert, Remove
from assay.model.message import HeaderField, split_message
from assay.model.network import Networks
from assay.policy import Policy, Trust
from assay.session import Delivery, Session, Settings, Verdict
from sending import BAD, GOOD, MESSAGE, OUR_ID, ROWS
from zone import Zone

NOW = 1_700_000_000
REJECT_FAILURES = {"spf": {"mailfrom": {"fail": "reject"}}, "iprev": {"fail": "reject"}, "dmarc": {"reject": "reject"}}
T = TypeVar("T")


@dataclass
class Postponed(Generic[T]):
    """An evaluation that runs only when somebody wants its result; it remembers what became of it."""

    zone: Zone
    inquiry: Inquiry[T] | None
    value: T | None = None
    cancelled: bool = False

    def result(self) -> T:
        assert not self.cancelled, "a result was wanted of what had been cancelled"
        if self.inquiry is not None:
            self.value = self.zone.solve(self.inquiry)
            self.inquiry = None
        return self.value  # type: ignore[return-value]  # it was solved

    def cancel(self) -> None:
        self.cancelled = True
        if self.inquiry is not None:
            self.inquiry.close()


@dataclass
class Postponing:
    """A driver whose evaluations are all still open; `started` has them in order."""

    zone: Zone
    started: list[Postponed[object]] = field(default_factory=list)

    def start(self, inquiry: Inquiry[T], *_: object) -> Postponed[T]:
        one = Postponed(self.zone, inquiry)
        self.started.append(one)  # type: ignore[arg-type]  # of any type
        return one


def deliver(
    sections: Mapping[str, Any],
    octets: bytes = MESSAGE,
    *,
    dns: Driver | None = None,
    client: str | None = BAD,
    past_refusals: bool = False,
    **envelope: Any,
) -> list[Verdict]:
    """Deliver a message under the sections of a configuration: the verdicts of the stages that had one.

    :param dns: what answers; `ROWS` if left out.
    :param client: its address, None for none.
    :param envelope: see `assay.session.Delivery`.
    """
    header, body = split_message(octets)
    address = None if client is None else ip_address(client)
    delivery = Delivery(address, tuple(header), body, **({"now": NOW} | envelope))
    return assay.session.deliver(configured(sections, dns or Zone(ROWS)), delivery, past_refusals=past_refusals)


def configured(sections: Mapping[str, Any], dns: Driver) -> Session:
    """A session under the sections of a configuration."""
    configuration = msgspec.convert(sections, Configuration)
    return Session(make_settings(configuration), make_trust(configuration), lambda _seconds=None: dns)


def policy_of(sections: Mapping[str, Any]) -> Policy:
    """The policy that these sections of a configuration make."""
    return make_policy(msgspec.convert(sections, Configuration))


def session(
    settings: Settings | None = None,
    *,
    rows: object = None,
    internal: tuple[str, ...] = (),
    judge_authenticated: bool = False,
    new_driver: Callable[[], Driver] | None = None,
) -> Session:
    """A session that asks `ROWS`."""
    zone = Zone(ROWS if rows is None else rows)  # type: ignore[arg-type]  # as Zone takes it
    trust = Trust(Networks.parse(internal), judge_authenticated=judge_authenticated)
    return Session(settings or Settings(), trust, new_driver or (lambda: zone))


def greet(one: Session, ip: str | None = GOOD, helo: str = "mail.example.org", mta_name: str = OUR_ID) -> None:
    one.connect(None if ip is None else ip_address(ip), "", mta_name=mta_name)
    one.helo(helo)


def talk(
    one: Session,
    octets: bytes = MESSAGE,
    *,
    path: str = "<joe@example.org>",
    authenticated: str = "",
    queue: str = "4A",
) -> Verdict:
    """One message from MAIL to its end."""
    one.mail(path, authenticated=authenticated, now=NOW)
    one.rcpt("<ann@example.net>")
    header, body = split_message(octets)
    feed(one, *header)
    one.end_of_header()
    for start in range(0, len(body), 7):
        one.body(body[start : start + 7])
    verdict = one.end_of_message(queue_id=queue, now=NOW)
    assert verdict is not None
    return verdict


def feed(one: Session, *fields: HeaderField) -> None:
    for each in fields:
        one.header(each)


def removed(verdict: Verdict) -> list[tuple[str, int]]:
    return [(edit.name, edit.occurrence) for edit in verdict.edits if isinstance(edit, Remove)]


def inserted(verdict: Verdict, name: str = "Authentication-Results") -> list[str]:
    """The values of the inserted fields of a name, each on one line."""
    return [" ".join(e.value.split()) for e in verdict.edits if isinstance(e, Insert) and e.name == name]
