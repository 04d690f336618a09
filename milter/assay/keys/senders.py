# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may sign as whom: a table from logins and networks to domains.

::

    # who              may sign as
    joe                example.org
    @example.net       %  *.example.net      # all logins at that domain: as it, and as the domains below
    10.1.0.0/16        example.org
    local              *

On the left is a login, ``@`` and the domain of logins, ``*`` for every login, a network, or ``local`` for mail from the
MTA's own command line. On the right are domains, ``*.`` before a domain for all below it, ``%`` for the login's own
domain, ``*`` for any. If a user has logged in, only the login counts, and not the network: otherwise a login could be
used for more from inside than it is allowed. All rows that match count.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network

from msgspec import Struct

from assay.model.name import Domain, InvalidNameError
from assay.model.network import Networks
from assay.model.smtp import Address

LOCAL, ANY, OWN = "local", "*", "%"


class SendersError(ValueError):
    """A table that cannot be used. The message begins with the line's number."""


class Senders(Struct, frozen=True):
    """The table. `logins` are in lower case, ``@`` and a domain and ``*`` included."""

    logins: Mapping[str, frozenset[str]] = {}
    networks: tuple[tuple[IPv4Network | IPv6Network, frozenset[str]], ...] = ()
    local: frozenset[str] = frozenset()

    def allow(self, domain: Domain, login: str, address: Address | None) -> bool:
        """Whether somebody may sign for a domain.

        :param login: empty if nobody has logged in.
        :param address: of the client; None for none.
        """
        own = login.rpartition("@")[2] if "@" in login else ""
        return any(_covers(entry, domain, own) for allowed in self._of(login, address) for entry in allowed)

    def _of(self, login: str, address: Address | None) -> Iterator[frozenset[str]]:
        if login:
            key = login.lower()
            at = f"@{key.rpartition('@')[2]}" if "@" in key else ""
            yield from (self.logins[login] for login in (key, at, ANY) if login in self.logins)
        elif address is None:
            yield self.local
        else:
            for network, allowed in self.networks:
                if address.version == network.version and address in network:
                    yield allowed


def _covers(entry: str, domain: Domain, own: str) -> bool:
    if entry == OWN:
        try:
            return bool(own) and Domain.parse(own) == domain
        except InvalidNameError:
            return False
    if entry.startswith("*."):
        return domain.name.endswith(entry[1:])
    return entry in (ANY, domain.name)


def parse_senders(text: str) -> Senders:
    """Read a table.

    :raises SendersError: a row without domains, or with something that is not a domain, or is there twice.
    """
    logins: dict[str, frozenset[str]] = {}
    networks: list[tuple[IPv4Network | IPv6Network, frozenset[str]]] = []
    local: frozenset[str] = frozenset()
    seen: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        who, *domains = line.partition("#")[0].split() or ("",)
        if not who:
            continue
        if not domains:
            raise SendersError(f"{number}: {who!r} has no domain; write one after it, or * for any")
        who = who.lower()
        if who in seen:
            raise SendersError(f"{number}: {who!r} is already in line {seen[who]}; write its domains there")
        seen[who] = number
        allowed = frozenset(_allowed(number, domain, who) for domain in domains)
        network = _network(who)
        if who == LOCAL:
            local = allowed
        elif network is not None:
            networks.append((network, allowed))
        else:
            logins[_login(number, who)] = allowed
    return Senders(logins, tuple(networks), local)


def _network(who: str) -> IPv4Network | IPv6Network | None:
    try:
        return Networks.parse((who,)).members[0]
    except (ValueError, IndexError):
        return None


def _login(number: int, who: str) -> str:
    if not who.startswith("@"):
        return who
    try:
        return f"@{Domain.parse(who[1:]).name}"
    except InvalidNameError as error:
        raise SendersError(f"{number}: {who!r} is not @ and a domain: {error}") from error


def _allowed(number: int, text: str, who: str) -> str:
    if text == OWN and (_network(who) is not None or who == LOCAL):
        raise SendersError(f"{number}: % is the domain of a login, and {who!r} is not a login; write a domain")
    if text in (ANY, OWN):
        return text
    prefix = "*." if text.startswith("*.") else ""
    try:
        return prefix + Domain.parse_host(text.removeprefix("*.")).name
    except InvalidNameError as error:
        raise SendersError(f"{number}: {text!r} is not a domain: {error}") from error
