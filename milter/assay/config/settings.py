# SPDX-License-Identifier: GPL-3.0-or-later
"""Every key of the configuration file, with its default and the reason for it.

The sample file is generated from these structs, so a description here is what an operator reads. A struct checks what
its types cannot: a ``ValueError`` in ``__post_init__`` becomes a message that names the section.
"""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from assay import policy, resolver, session, transaction
from assay.config.endpoint import Endpoint
from assay.model.network import Networks
from assay.protocol import dkim, spf

#: RFC 8601, 2.2: a token, in UTF-8 too. The quoted-string that it might be as well is no host's name.
_AUTHSERV_ID = re.compile(r"[^\x00-\x20\x7f()<>@,;:\\\"/\[\]?=]+")


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One ``[section]`` of the file."""


class Milter(Section, frozen=True):
    """The socket that the MTA connects to, and the processes that serve it."""

    socket: Annotated[
        str,
        Meta(
            description="Where the MTA finds us, as in its own milter settings: inet:PORT@HOST, inet6:PORT@HOST or "
            "unix:PATH. Changing it needs a restart."
        ),
    ] = "inet:8890@localhost"
    socket_mode: Annotated[
        str, Meta(description="Permissions of a unix socket, in octal. The MTA needs to read and write.")
    ] = "0660"
    socket_group: Annotated[
        str,
        Meta(description="Group of a unix socket, such as the one the MTA runs with. Empty: the daemon's own group."),
    ] = ""
    workers: Annotated[
        int, Meta(ge=0, le=256, description="Worker processes. 0: one for each core the daemon may use.")
    ] = 0
    on_error: Annotated[
        policy.OnError,
        Meta(
            description="What to do with a message that a fault of our own keeps us from judging. "
            "Accepting loses no mail and is what an MTA does when no milter answers (milter_default_action=accept)."
        ),
    ] = policy.OnError.ACCEPT
    drain_seconds: Annotated[
        float,
        Meta(
            gt=0,
            le=3600,
            description="How long a worker that is to end waits for the sessions it still has. The default outlasts "
            "Postfix's milter_content_timeout.",
        ),
    ] = 330.0
    dry_run: Annotated[
        bool, Meta(description="Judge and log every message, but change nothing and refuse nothing.")
    ] = False

    def __post_init__(self) -> None:
        try:
            mode_fits = 0 <= int(self.socket_mode, 8) <= 0o777
        except ValueError:
            mode_fits = False
        Endpoint.parse(self.socket)
        if not mode_fits:
            raise ValueError(f"socket_mode = {self.socket_mode!r}: write octal digits, such as '0660'")

    @property
    def worker_count(self) -> int:
        """How many workers to keep."""
        return self.workers or len(os.sched_getaffinity(0))


class Identity(Section, frozen=True):
    """The name under which results are written."""

    authserv_id: Annotated[
        str,
        Meta(
            description="The authserv-id in Authentication-Results (RFC 8601, 2.5). Empty: the MTA's own name, "
            "which it tells us in the macro j. Set one name for all your border MTAs."
        ),
    ] = ""
    strip: Annotated[
        tuple[str, ...],
        Meta(
            description="Further names under which your systems write results. Fields that come from outside and "
            "claim one of them, or the authserv_id, are removed (RFC 8601, 5)."
        ),
    ] = ()

    def __post_init__(self) -> None:
        for key, name in (("authserv_id", self.authserv_id or "-"), *(("strip", name) for name in self.strip)):
            if not _AUTHSERV_ID.fullmatch(name):
                raise ValueError(f"{key} = {name!r}: write a name such as mx.example.org")


class Clients(Section, frozen=True):
    """Whose mail is not judged. It is decided at each MAIL, for AUTH may come between two messages."""

    internal: Annotated[
        tuple[str, ...],
        Meta(
            description="Networks of your own hosts. Their mail is neither judged nor changed. Mail from the MTA's "
            "own command line counts as internal too."
        ),
    ] = ("127.0.0.0/8", "::1")
    judge_authenticated: Annotated[
        bool,
        Meta(
            description="Judge mail of authenticated users too. By default it is not judged, since they send from "
            "anywhere; fields that claim our name are removed from it all the same."
        ),
    ] = False

    def __post_init__(self) -> None:
        Networks.parse(self.internal)


class Dns(Section, frozen=True):
    """Where answers come from, and how long they may take."""

    nameservers: Annotated[
        str | tuple[str, ...],
        Meta(
            description='"system": those of /etc/resolv.conf. A list such as ["192.0.2.53", "[2001:db8::53]:5353"]: '
            'these. "none": only the zone below, and what it lacks does not exist. A resolver on the same host is '
            "fastest."
        ),
    ] = "system"
    budget_seconds: Annotated[
        float,
        Meta(
            gt=0,
            le=250,
            description="How long the end of a message may wait for the DNS in all. What is still open then is a "
            "temperror. Keep it below the MTA's milter timeouts (Postfix: milter_content_timeout, 300 s).",
        ),
    ] = 20.0
    timeout_seconds: Annotated[
        float, Meta(gt=0, le=60, description="How long one nameserver may take to answer before the next is asked.")
    ] = 3.0
    cache_entries: Annotated[
        int, Meta(ge=0, le=10_000_000, description="Answers each worker keeps, about 1 KiB each. The oldest go first.")
    ] = 20_000
    trust_ad: Annotated[
        bool,
        Meta(
            description="Believe the nameservers' word that an answer is DNSSEC-secure (the AD bit). Only for "
            "validating resolvers that are reached over a trusted path, such as the same host."
        ),
    ] = False
    zone: Annotated[
        str,
        Meta(
            description="A zone file (RFC 1035, 5) of your own that answers before the DNS, for tests or to replace "
            "somebody's broken record. Empty: none."
        ),
    ] = ""

    def __post_init__(self) -> None:
        resolver.configured(self.nameserver_texts)

    @property
    def nameserver_texts(self) -> tuple[str, ...]:
        """The nameservers as a list, of which one may be a word."""
        return (self.nameservers,) if isinstance(self.nameservers, str) else self.nameservers


class Iprev(Section, frozen=True):
    """Does the client's address have a name that has that address (RFC 8601, 3)?"""

    enabled: Annotated[bool, Meta(description="Check it.")] = True
    fail: Annotated[
        policy.Action,
        Meta(
            description="Action at end of message when the names do not have the address. Many honest small servers "
            "fail this."
        ),
    ] = policy.Action.ACCEPT


class Spf(Section, frozen=True):
    """May the client send for the domains of HELO and MAIL FROM (RFC 7208)?"""

    fail: Annotated[
        policy.Action,
        Meta(
            description="Action at end of message when the domain of MAIL FROM says that it does not send from there. "
            "Rejecting hides forwarded mail with a good DKIM signature from DMARC (RFC 9989, 7.1)."
        ),
    ] = policy.Action.ACCEPT
    dns_terms: Annotated[
        int, Meta(ge=1, le=100, description="Terms of a record that may ask the DNS before it is a permerror (4.6.4).")
    ] = 10
    void_lookups: Annotated[
        int, Meta(ge=0, le=100, description="Lookups that may find nothing before it is a permerror (4.6.4).")
    ] = 2


class Dkim(Section, frozen=True):
    """Do the message's signatures verify (RFC 6376)?"""

    min_rsa_bits: Annotated[
        int,
        Meta(ge=512, le=4096, description="RSA keys below this are a permerror. RFC 8301, 3.2 asks for 1024 at least."),
    ] = 1024
    max_signatures: Annotated[
        int,
        Meta(
            ge=1,
            le=100,
            description="Signatures verified in one message, the author domain's first. Bounds what a stranger can "
            "make us compute.",
        ),
    ] = 10


class Dmarc(Section, frozen=True):
    """Does the author's domain vouch for the message (RFC 9989)? Actions at end of message when it does not."""

    none: Annotated[policy.Action, Meta(description="Action when the domain asks for nothing (p=none).")] = (
        policy.Action.ACCEPT
    )
    quarantine: Annotated[policy.Action, Meta(description="Action when the domain asks for quarantine.")] = (
        policy.Action.ACCEPT
    )
    reject: Annotated[
        policy.Action,
        Meta(
            description="Action when the domain asks for rejection. Mailing lists break DMARC, so RFC 9989, 7.4 warns "
            "of rejecting for this alone; most large receivers do it."
        ),
    ] = policy.Action.ACCEPT


class Headers(Section, frozen=True):
    """Which trace fields are written besides Authentication-Results."""

    received_spf: Annotated[
        bool, Meta(description="Write Received-SPF for each SPF identity that was checked (RFC 7208, 9.1).")
    ] = True


class Log(Section, frozen=True):
    """One line a message."""

    to: Annotated[str, Meta(description='"stderr", which suits systemd and containers, or "syslog".')] = "stderr"
    facility: Annotated[str, Meta(description="The syslog facility.")] = "mail"
    level: Annotated[
        str,
        Meta(
            description='"error": our faults. "warning": also broken set-ups around us. "info": also each message. '
            '"debug": also the processes\' life.'
        ),
    ] = "info"

    def __post_init__(self) -> None:
        if self.to not in ("stderr", "syslog"):
            raise ValueError(f'to = {self.to!r}: write "stderr" or "syslog"')
        if self.level not in ("error", "warning", "info", "debug"):
            raise ValueError(f'level = {self.level!r}: write "error", "warning", "info" or "debug"')


class Configuration(Section, frozen=True):
    """The whole file. Every section may be left out."""

    milter: Milter = Milter()
    identity: Identity = Identity()
    clients: Clients = Clients()
    dns: Dns = Dns()
    iprev: Iprev = Iprev()
    spf: Spf = Spf()
    dkim: Dkim = Dkim()
    dmarc: Dmarc = Dmarc()
    headers: Headers = Headers()
    log: Log = Log()

    def make_resolver(self) -> resolver.Resolver:
        """A resolver, with its zone read. Close it when done.

        :raises ValueError: the zone file cannot be read or is wrong; the message names file and line.
        """
        nameservers = resolver.configured(self.dns.nameserver_texts)
        zone = None
        if self.dns.zone:
            zone = resolver.LocalZone.load(Path(self.dns.zone), authoritative=not nameservers)
        return resolver.Resolver(
            nameservers,
            zone=zone,
            cache=resolver.Cache(self.dns.cache_entries),
            patience=self.dns.timeout_seconds,
            trust_ad=self.dns.trust_ad,
        )

    def clients_settings(self) -> session.Clients:
        """Whose mail is not judged, as the session wants it."""
        return session.Clients(Networks.parse(self.clients.internal), self.clients.judge_authenticated)

    def evaluation_settings(self) -> transaction.Settings:
        """What the evaluation of a message wants to know."""
        return transaction.Settings(
            authserv_id=self.identity.authserv_id,
            fallback_authserv_id=socket.gethostname(),
            further_authserv_ids=self.identity.strip,
            received_spf=self.headers.received_spf,
            iprev=self.iprev.enabled,
            spf_limits=spf.Limits(dns_terms=self.spf.dns_terms, void_lookups=self.spf.void_lookups),
            dkim=dkim.Settings(min_rsa_bits=self.dkim.min_rsa_bits, max_signatures=self.dkim.max_signatures),
            rules=policy.Rules(
                iprev_fail=self.iprev.fail,
                spf_fail=self.spf.fail,
                dmarc_none=self.dmarc.none,
                dmarc_quarantine=self.dmarc.quarantine,
                dmarc_reject=self.dmarc.reject,
            ),
            dry_run=self.milter.dry_run,
        )
