# SPDX-License-Identifier: GPL-3.0-or-later
"""What pages are made from: the configuration, the figures of the daemon, and what the browser asks for."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlencode

from msgspec import Struct

from assay.config import Configuration, make_resolver
from assay.daemon.status import History
from assay.keyring import Directory
from assay.keys.configured import ConfiguredKey
from assay.log import Log
from assay.metrics import Pages
from assay.web.lookups import DomainLookups, keys_in
from assay.web.parts import WebPage
from assay.web.records import OurKey
from assay.web.store import ReadStore

MAX_ROWS = 500  # of a list at once
MAX_ARGUMENT = 320  # characters of what a browser asks for: an address (RFC 5321, 4.5.3.1)


class Site(Struct, frozen=True):
    """What does not change while the process lives.

    :ivar figures: in which all processes of the daemon count.
    :ivar now: Unix time in seconds.
    """

    configuration: Configuration
    figures: Pages
    history: History
    lookups: DomainLookups
    store: ReadStore
    now: Callable[[], float]

    @property
    def host(self) -> str:
        """Whose page it is."""
        return self.configuration.identity.authserv_id or socket.gethostname()

    @property
    def domains(self) -> tuple[str, ...]:
        """Our own domains, as A-labels."""
        return self.configuration.own_domains


def open_site(
    configuration: Configuration, figures: Pages, history: History, keys: Sequence[ConfiguredKey], log: Log
) -> Site:
    """What a process makes its pages from.

    :param keys: that sign.
    """
    resolver = make_resolver(configuration, tell=log.warning)
    listed: dict[str, list[OurKey]] = {}
    for key in keys:
        found = OurKey(key.domain.name, key.selector.name, key.record, below=key.below)
        listed.setdefault(key.domain.name, []).append(found)
    rings = Path(configuration.keys.directory)
    lookups = DomainLookups(
        lambda: resolver.driver(configuration.dns.budget_seconds),
        configuration.identity.authserv_id or socket.gethostname(),
        lambda domain: keys_in(Directory(rings / domain), listed.get(domain, ())),
        log,
    )
    return Site(configuration, figures, history, lookups, ReadStore(configuration.store), time.time)


class WebQuery(Struct, frozen=True):
    """What a browser asks for.

    :ivar path: of the page.
    :ivar item: what comes after the path of a page that shows single things.
    """

    path: str
    arguments: Mapping[str, str] = {}
    item: str = ""

    def text(self, name: str) -> str:
        """An argument without NUL and white space around it, cut to a bound; empty if it is missing."""
        return self.arguments.get(name, "").replace("\0", "").strip()[:MAX_ARGUMENT]

    def number(self, name: str, usual: int, least: int, most: int) -> int:
        """A number within bounds; the usual one for all else."""
        text = self.text(name)
        value = int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else usual
        return value if least <= value <= most else usual


def rows_of(query: WebQuery, usual: int) -> int:
    """How many rows of a list a browser asks for."""
    return query.number("rows", usual, 1, MAX_ROWS)


#: Makes a page.
View = Callable[[Site, WebQuery], WebPage]


class NotFoundError(Exception):
    """There is no such page or message. The text says what."""


def address(path: str, **arguments: str | int) -> str:
    """The address of a page, without arguments that are empty."""
    given = {name: value for name, value in arguments.items() if value != ""}
    return f"{path}?{urlencode(given, errors='replace')}" if given else path
