# SPDX-License-Identifier: GPL-3.0-or-later
"""A real Postfix for the tests: private directory, own port, every message stored in a maildir.

The lines that name the milter are those of ``contrib/postfix/main.cf.assay``, so the tests verify the documented
configuration. Needs root: Postfix runs its processes as different users.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Sequence
from typing import ClassVar, Final

from mta.auth import AuthServer, Dovecot
from mta.base import HOST, HOSTNAME, MTA, MTAS, PROJECT, UnavailableError, library_path, make_certificate

SNIPPET: Final = PROJECT / "contrib" / "postfix" / "main.cf.assay"

#: Users and a group that every Debian has. Postfix requires two different users other than root.
OWNER: Final = "daemon"
STORER: Final = "nobody"
GROUP: Final = "mail"

_QUEUES: Final = (
    *("active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "maildrop", "saved", "trace"),
    "private",
)

#: Service, type, private, unprivileged, chroot, wakeup, process limit, command. Never in a chroot.
_SERVICES: Final = """\
{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
virtual unix - n n - - virtual
smtp unix - - n - - smtp
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"""


class Postfix(MTA):
    """See `mta.base.MTA`. `extra` is a mapping of main.cf parameters."""

    name: ClassVar[str] = "postfix"
    services: ClassVar[str] = ""  #: further lines of master.cf

    @classmethod
    def check(cls) -> None:
        if not (MTAS / "postfix").is_dir():
            raise UnavailableError(f"no Postfix in {MTAS}: run sh contrib/fetch.sh mta")
        if os.geteuid() != 0:
            raise UnavailableError("Postfix runs its processes as different users: run the tests as root")

    def prepare(self) -> None:
        owner, storer = pwd.getpwnam(OWNER), pwd.getpwnam(STORER)
        for folder in ("etc", "queue", "queue/pid"):
            (self.directory / folder).mkdir(mode=0o755)
        for folder in ("data", "queue/public", *(f"queue/{name}" for name in _QUEUES)):
            (self.directory / folder).mkdir(mode=0o710 if folder == "queue/public" else 0o700)
            os.chown(self.directory / folder, owner.pw_uid, owner.pw_gid)
        self.store.mkdir(mode=0o700)
        os.chown(self.store, storer.pw_uid, storer.pw_gid)
        make_certificate(self.directory / "etc/tls.pem")
        self._ending.enter_context(AuthServer(self.directory / "auth", Dovecot))

    def configure(self) -> None:
        parameters = self._parameters() | self._milter_parameters() | self._route_parameters() | dict(self.extra or {})
        main = "".join(f"{name} = {value}\n" for name, value in parameters.items())
        file = self.directory / "etc/main.cf"
        file.write_text(main)
        os.utime(file, (0, 0))  # master(8) waits two seconds if main.cf was just written
        (self.directory / "etc/master.cf").write_text(_SERVICES.format(port=f"{HOST}:{self.port}") + self.services)

    def command(self) -> Sequence[str]:
        # Not "postfix start", a script which inspects and repairs an installation. -d keeps it in our process group.
        return [str(MTAS / "postfix/usr/lib/postfix/sbin/master"), "-c", str(self.directory / "etc"), "-d"]

    def environment(self) -> dict[str, str]:
        return {"LD_LIBRARY_PATH": library_path(), "MAIL_CONFIG": str(self.directory / "etc"), "PATH": os.defpath}

    def deliveries(self) -> list[tuple[str, str, bytes]]:
        """Without the three lines that virtual(8) prepends to every message: only the output of cleanup(8) matters."""
        messages = []
        for file in sorted((self.store / "new").glob("*"), key=lambda file: file.stat().st_mtime_ns):
            envelope, message = _split(file.read_bytes())
            messages.append((envelope["Return-Path"], envelope["Delivered-To"], message))
        return messages

    def held(self) -> list[str]:
        return [file.name for file in (self.directory / "queue/hold").rglob("*") if file.is_file()]

    def _parameters(self) -> dict[str, str]:
        return {
            "compatibility_level": "3.6",
            # Directories and programs.
            "queue_directory": str(self.directory / "queue"),
            "data_directory": str(self.directory / "data"),
            "command_directory": str(MTAS / "postfix/usr/sbin"),
            "daemon_directory": str(MTAS / "postfix/usr/lib/postfix/sbin"),
            "shlib_directory": str(MTAS / "postfix/usr/lib/postfix"),
            "meta_directory": str(self.directory / "etc"),
            "import_environment": "MAIL_CONFIG TZ LANG=C LD_LIBRARY_PATH",
            "maillog_file": str(self.directory / "maillog"),
            "maillog_file_prefixes": str(self.directory),
            "mail_owner": OWNER,
            "default_privs": STORER,
            "setgid_group": GROUP,
            # Its host name, and no DNS.
            "myhostname": HOSTNAME,
            "mydomain": HOSTNAME.partition(".")[2],
            "mydestination": "",
            "inet_interfaces": "127.0.0.1",
            "inet_protocols": "all",
            "mynetworks": "127.0.0.0/8",
            "smtpd_banner": f"$myhostname ESMTP {self._token}",
            "smtpd_peername_lookup": "no",
            "smtp_host_lookup": "native",
            "disable_dns_lookups": "yes",
            # Every recipient is local, and all are stored in one maildir.
            "alias_maps": "",
            "alias_database": "",
            "local_recipient_maps": "",
            "virtual_mailbox_domains": "static:all",
            "virtual_mailbox_maps": "static:store/",
            "virtual_mailbox_base": str(self.directory),
            "virtual_uid_maps": f"static:{pwd.getpwnam(STORER).pw_uid}",
            "virtual_gid_maps": f"static:{pwd.getpwnam(STORER).pw_gid}",
            "virtual_mailbox_limit": "0",
            "message_size_limit": "52428800",
            "smtpd_relay_restrictions": "reject_unauth_destination",
            "smtpd_authorized_xclient_hosts": "127.0.0.0/8",
            "smtpd_client_connection_count_limit": "0",
            "smtpd_client_connection_rate_limit": "0",
            "smtputf8_enable": "yes",
            # Add no fields: a client on the loopback stands for a stranger.
            "local_header_rewrite_clients": "",
            # No delays, which are polite on the Internet but slow the tests.
            "smtpd_error_sleep_time": "0",
            "in_flow_delay": "0",
            # SMTP AUTH and STARTTLS.
            "smtpd_sasl_auth_enable": "yes",
            "smtpd_sasl_type": "dovecot",
            "smtpd_sasl_path": str(self.directory / "auth"),
            "smtpd_tls_security_level": "may",
            "smtpd_tls_chain_files": str(self.directory / "etc/tls.pem"),
        }

    def _milter_parameters(self) -> dict[str, str]:
        if self.milter is None:
            return {}
        lines = [line for line in SNIPPET.read_text().splitlines() if line and not line.startswith("#")]
        found = {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in lines)}
        return found | {"smtpd_milters": self.milter}

    def _route_parameters(self) -> dict[str, str]:
        if not self.routes:
            return {}
        rows = " ".join(f"{{ {domain} = smtp:[{HOST}]:{port} }}" for domain, port in self.routes.items())
        return {"transport_maps": f"inline:{{ {rows} }}", "smtp_bind_address": self.source}


def _split(stored: bytes) -> tuple[dict[str, str], bytes]:
    """The lines that virtual(8) prepended (Return-Path, X-Original-To, Delivered-To), and the message after them."""
    envelope = {}
    for _ in range(3):
        line, _, stored = stored.partition(b"\n")
        name, _, value = line.decode("utf-8", "surrogateescape").partition(": ")
        envelope[name] = value
    return envelope, stored
