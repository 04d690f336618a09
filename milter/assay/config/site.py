# SPDX-License-Identifier: GPL-3.0-or-later
"""The sections about the MTA, addresses, the clients and the DNS: what is around the evaluation of a message."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta

from assay import policy, resolver
from assay.config.section import Section, SettingError
from assay.config.sockets import check_endpoint, check_mode
from assay.model.name import Domain, InvalidNameError
from assay.model.network import Networks
from assay.model.smtp import parse_address

#: Both MTAs wait for five minutes by default.
MAX_BUDGET_SECONDS = 280
#: RFC 8601, 2.2: a token, UTF-8 included. The RFC also allows a quoted-string, but that is never a host name.
_AUTHSERV_ID = re.compile(r"[^\x00-\x20\x7f()<>@,;:\\\"/\[\]?=]+")


class MilterSection(Section, frozen=True):
    """The socket that the MTA connects to, and the processes that serve it."""

    socket: Annotated[
        str,
        Meta(
            description="Where the MTA connects, in the notation of Sendmail: inet:PORT@HOST, inet6:PORT@HOST or "
            "unix:PATH, with an absolute path. (Postfix writes inet:HOST:PORT, and a path from its queue directory.) "
            "A change requires a restart. If the service manager passes a socket (assay.socket), this key has no "
            "effect. The default is a unix socket, because any local user can bind a TCP port while the "
            "daemon is down, and would receive the mail. For Postfix in a chroot, put it below /var/spool/postfix."
        ),
    ] = "unix:/run/assay/assay.sock"
    socket_mode: Annotated[
        str, Meta(description="Permissions of a unix socket, in octal. The MTA must be able to read and write.")
    ] = "0660"
    socket_group: Annotated[
        str,
        Meta(description="Group of a unix socket, such as the group of the MTA. Empty: the daemon's own group."),
    ] = ""
    user: Annotated[
        str,
        Meta(
            description="The user that the daemon becomes if it is started as root, once its socket is open. It keeps "
            "its primary group and no other. What root alone can read, such as a private key, is read at the start and "
            "not by a reload: give such files to that group. Empty: the user does not change, as with "
            "DynamicUser of systemd. A change requires a restart."
        ),
    ] = ""
    workers: Annotated[
        int,
        Meta(
            ge=0,
            le=256,
            description="Number of worker processes, each of which uses one core. 0: one per core that the "
            "daemon may use.",
        ),
    ] = 0
    max_sessions: Annotated[
        int,
        Meta(
            ge=0,
            le=50_000,
            description="How many sessions a worker serves at a time. Further connections wait until one ends, or "
            "the MTA gives up waiting. 0: as many as the limits of open files, processes and memory allow at the "
            "start, at most 4000. A lower limit of the system always applies. The MTA has one session for each "
            "of its SMTP clients.",
        ),
    ] = 0
    on_error: Annotated[
        policy.OnError,
        Meta(
            description="What to do with a message that cannot be judged because of a bug in assay. accept "
            "loses no mail, and is what an MTA does with milter_default_action=accept if no milter answers."
        ),
    ] = policy.OnError.ACCEPT
    drain_seconds: Annotated[
        float,
        Meta(
            gt=0,
            le=3600,
            description="How long a draining worker waits for its open sessions. The default is longer than "
            "Postfix's milter_content_timeout.",
        ),
    ] = 330.0
    dry_run: Annotated[
        bool,
        Meta(
            description="Judge and log every message, but change nothing and refuse nothing. FORGED RESULTS IN "
            "OUR NAME STAY in the messages: make sure that no downstream program trusts them, or also set "
            "dry_run_headers."
        ),
    ] = False
    dry_run_headers: Annotated[
        bool,
        Meta(
            description="In a dry run, still write the trace fields and remove forged ones. A message with too "
            "many forged fields or too large a header, which is otherwise refused, passes unchanged."
        ),
    ] = False

    def __post_init__(self) -> None:
        check_endpoint("socket", self.socket, "assay.sock")
        check_mode(self.socket_mode)

    @property
    def worker_count(self) -> int:
        """How many workers to keep."""
        return self.workers or len(os.sched_getaffinity(0))


class IdentitySection(Section, frozen=True):
    """The name under which results are written."""

    authserv_id: Annotated[
        str,
        Meta(
            description="The authserv-id in Authentication-Results (RFC 8601, 2.5). Empty: the MTA's own name, "
            "from its macro j. Use one name for all your border MTAs."
        ),
    ] = ""
    strip: Annotated[
        tuple[str, ...],
        Meta(
            description="Other names under which your systems write results. Fields from outside that claim "
            "one of them, or the authserv_id, are removed (RFC 8601, 5)."
        ),
    ] = ()

    def __post_init__(self) -> None:
        for key, name in (("authserv_id", self.authserv_id or "-"), *(("strip", name) for name in self.strip)):
            if not _AUTHSERV_ID.fullmatch(name):
                raise SettingError(key, f"{name!r} is not a host name; write a name such as mx.example.org")


class AddressesSection(Section, frozen=True):
    """How addresses are compared in rules, in lists, and in the exempt keys of [clients]. Different spellings of the
    same domain are equal. An entry is joe@example.org; example.org, for the domain and all domains below it;
    @example.org, for the domain alone; or *.example.org, for the domains below it."""

    exact_local_parts: Annotated[
        bool,
        Meta(
            description="Treat joe@ and Joe@ as two mailboxes. Only their own host knows (RFC 5321, 2.4), and "
            "almost no host distinguishes them. Set this if yours does."
        ),
    ] = False
    subaddress_delimiters: Annotated[
        str,
        Meta(
            description='Characters that begin a sub-address, such as "+" (Postfix: recipient_delimiter). The '
            "entry joe@example.org then also matches joe+news@example.org. Empty: none, because on other hosts "
            "a plus sign may be part of a name."
        ),
    ] = ""


class ClientsSection(Section, frozen=True):
    """Whose mail is not judged, or is judged without consequence. This is decided at each MAIL, because AUTH may come
    between two messages. Networks may be IPv4-mapped, and one string may list several, separated by commas."""

    internal: Annotated[
        tuple[str, ...],
        Meta(
            description="Networks of your own hosts. Their mail is not judged, but fields that claim our name "
            "are still removed from it. Mail from the MTA's own command line also counts as internal."
        ),
    ] = ("127.0.0.0/8", "::1")
    trusted_results: Annotated[
        tuple[str, ...],
        Meta(
            description="Networks of MTAs that write results in our name before they pass mail to this one, "
            "such as border MTAs in front of it, or 127.0.0.1 for a content filter that returns mail to a port "
            "with milters. Fields that claim our name stay in all mail from them, so no user or stranger may "
            "be able to reach this MTA from such an address. By default no network is trusted, because "
            "downstream programs would believe a user's forgery as readily as a stranger's (RFC 8601, 5)."
        ),
    ] = ()
    daemon_names: Annotated[
        tuple[str, ...],
        Meta(
            description="Names of MTA services whose mail counts as internal, such as a submission port "
            "(Postfix: milter_macro_daemon_name in master.cf; Sendmail: the Name in DaemonPortOptions)."
        ),
    ] = ()
    judge_authenticated: Annotated[
        bool,
        Meta(
            description="Also judge mail from authenticated users. By default it is not judged, since they "
            "send from anywhere, but fields that claim our name are still removed from it."
        ),
    ] = False
    trusted_forwarders: Annotated[
        tuple[str, ...],
        Meta(
            description="Networks of hosts that forward mail to you on behalf of your users. Their SPF and "
            "DMARC failures are recorded and not acted on."
        ),
    ] = ()
    relays: Annotated[
        tuple[str, ...],
        Meta(
            description="Networks of your own relays in front of this MTA, such as a secondary MX. The client's "
            "address and HELO are taken from the topmost Received field, which the relay wrote; see docs/relays.md."
        ),
    ] = ()
    relay_names: Annotated[
        tuple[str, ...],
        Meta(
            description="Names of such relays, for those whose address changes. Whole names of hosts; names below one "
            "do not match. The MTA must report the name, and the name must have the client's address in the DNS "
            "(RFC 8601, 3), because anyone can publish any name for their own address. Until the DNS confirms it, the "
            "host is not treated as a relay, so prefer networks."
        ),
    ] = ()
    exempt_senders: Annotated[
        tuple[str, ...],
        Meta(
            description="Addresses and domains in MAIL FROM whose failures are recorded and not acted on. "
            "Anyone can forge them, so a network is safer."
        ),
    ] = ()
    exempt_recipients: Annotated[
        tuple[str, ...],
        Meta(
            description="Addresses and domains of recipients who accept any mail, such as abuse@example.org. "
            "If a message has only such recipients, its failures are recorded and not acted on. If it has "
            "others too, its failures count, because one decision applies to the whole message: otherwise "
            "anyone could add such a recipient to get mail through to another."
        ),
    ] = ()

    def __post_init__(self) -> None:
        for key in ("internal", "trusted_results", "trusted_forwarders", "relays"):
            try:
                Networks.parse(getattr(self, key))
            except ValueError as error:
                raise SettingError(key, str(error)) from error
        for name in self.relay_names:
            try:
                whole = "." in Domain.parse_host(name).name and parse_address(name) is None
            except InvalidNameError:
                whole = False
            if not whole:
                raise SettingError("relay_names", f"{name!r} is not a host's whole name, such as mx2.example.org")


class DnsSection(Section, frozen=True):
    """Where answers come from, and how long they may take."""

    nameservers: Annotated[
        str | tuple[str, ...],
        Meta(
            description='"system": those in /etc/resolv.conf, also when it changes. A list such as ["192.0.2.53", '
            '"[2001:db8::53]:5353"]: these, in this order. "none": only the zone below; names that are not in it do '
            "not exist. A resolver on the same host is fastest. Encrypted: tls://ADDRESS#NAME or "
            "https://ADDRESS/PATH#NAME; see docs/dns.md."
        ),
    ] = "system"
    budget_seconds: Annotated[
        float,
        Meta(
            gt=0,
            le=MAX_BUDGET_SECONDS,
            description="How long the MTA may wait for the DNS for one message, all SMTP stages together. At most "
            "half of it is spent before the end of the message, and a quarter is kept for DMARC, which comes last. "
            "What is not known then is a temperror. It must be below the milter timeout of the MTA (Postfix: "
            "milter_content_timeout, 300 s; Sendmail: E:5m), and assay config check --postconf compares them.",
        ),
    ] = 40.0
    timeout_seconds: Annotated[
        float, Meta(gt=0, le=60, description="How long one nameserver may take to answer before the next is asked.")
    ] = 3.0
    cache_entries: Annotated[
        int,
        Meta(
            ge=0,
            le=10_000_000,
            description="How many answers of typical size each worker caches; each takes 640 octets, and "
            "larger ones count as several. The least recently used ones are dropped first.",
        ),
    ] = 7_000
    stale_seconds: Annotated[
        float,
        Meta(
            ge=0,
            le=604_800,
            description="How long after its end an answer may still be used when no nameserver gives a new one in "
            "time (RFC 8767), so that mail from known senders keeps its results while the DNS fails. It is asked for "
            "again every 30 seconds, and as soon as a nameserver is back. A record that was withdrawn meanwhile, such "
            "as a key, counts for as long. RFC 8767 recommends one to three days (86400 to 259200). 0: never.",
        ),
    ] = 0.0
    trust_ad: Annotated[
        bool,
        Meta(
            description="Trust the nameservers' statement that an answer is DNSSEC-secure (the AD bit). Only "
            "for validating resolvers reached over a trusted path, such as on the same host or encrypted."
        ),
    ] = False
    random_case: Annotated[
        bool,
        Meta(
            description="Ask for names in random case over UDP, and check that answers repeat it: one more thing for a "
            "forger to guess. For plain nameservers across a network. A server that does not repeat the case is asked "
            "again over TCP, which is slow, so it is off by default."
        ),
    ] = False
    ca_file: Annotated[
        str,
        Meta(
            description="The certificates (PEM) of the authorities that vouch for encrypted nameservers. Empty: those "
            "of the system."
        ),
    ] = ""
    zone: Annotated[
        str,
        Meta(
            description="A local zone file (RFC 1035, 5) that is used before the DNS, for tests or to replace "
            "a broken record of another domain. Empty: none."
        ),
    ] = ""

    def __post_init__(self) -> None:
        try:
            resolver.configured(self.nameserver_texts)
        except resolver.NameserverError as error:
            raise SettingError("nameservers", str(error)) from error

    @property
    def nameserver_texts(self) -> tuple[str, ...]:
        """The nameservers as a list. It may consist of one word, such as ``system``."""
        return (self.nameservers,) if isinstance(self.nameservers, str) else self.nameservers

    def contexts(self, nameservers: Sequence[resolver.Nameserver]) -> resolver.Contexts:
        """How connections to the encrypted ones of these nameservers are made.

        :raises SettingError: certificates or a library are missing.
        """
        try:
            return resolver.contexts(nameservers, self.ca_file)
        except (resolver.CertificatesError, resolver.NameserverError) as error:
            key = "dns.ca_file" if isinstance(error, resolver.CertificatesError) else "dns.nameservers"
            raise SettingError(key, str(error)) from error
