# SPDX-License-Identifier: GPL-3.0-or-later
"""A real Sendmail for the tests: private directory, own port, every message stored in a file.

Its sendmail.cf is built from a .mc file with Debian's sendmail-cf, and the line that names the milter is that of
``contrib/sendmail/assay.mc``, so the tests verify the documented configuration. Runs as root, or as any user for whom
the kernel permits user namespaces.

Sendmail has no XCLIENT: a test that needs another client address connects from one of 127.0.0.0/8.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pwd
import re
import socket
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final

from mta.auth import AuthServer, Saslauthd
from mta.base import HOST, HOSTNAME, MTA, MTAS, PROJECT, UnavailableError, library_path, make_certificate

SNIPPET: Final = PROJECT / "contrib" / "sendmail" / "assay.mc"
_MACROS: Final = MTAS / "sendmail/usr/share/sendmail/cf"

#: m4 quotes `like this'. Names and files here contain neither character.
_CONFIGURATION: Final = """\
divert(0)dnl
VERSIONID(`assay tests')
OSTYPE(`linux')dnl
define(`confDOMAIN_NAME', `{hostname}')dnl
define(`confSMTP_LOGIN_MSG', `$j Sendmail {token}')dnl
define(`confPID_FILE', `{directory}/pid')dnl
define(`QUEUE_DIR', `{directory}/queue')dnl
define(`STATUS_FILE', `{directory}/statistics')dnl
define(`ALIAS_FILE', `')dnl
define(`confTRUSTED_USER', `{user}')dnl
define(`confRUN_AS_USER', `{user}')dnl
dnl The private directory is in /tmp, which everybody may write to.
define(`confDONT_BLAME_SENDMAIL', `TrustStickyBit')dnl
dnl Ask no DNS and no ident server, keep no message waiting because the machine is busy.
define(`confSERVICE_SWITCH_FILE', `{directory}/service.switch')dnl
define(`confDONT_PROBE_INTERFACES', `True')dnl
dnl No X-Authentication-Warning, which an unprivileged Sendmail writes otherwise.
define(`confPRIVACY_FLAGS', `novrfy')dnl
define(`confTO_IDENT', `0')dnl
define(`confQUEUE_LA', `1000')dnl
define(`confREFUSE_LA', `1000')dnl
define(`confBAD_RCPT_THROTTLE', `0')dnl
FEATURE(`nocanonify')dnl
FEATURE(`accept_unresolvable_domains')dnl
FEATURE(`accept_unqualified_senders')dnl
FEATURE(`promiscuous_relay')dnl
FEATURE(`no_default_msa')dnl
DAEMON_OPTIONS(`Name=MTA, Family=inet, Address={host}, Port={port}')dnl
define(`confAUTH_MECHANISMS', `PLAIN')dnl
TRUST_AUTH_MECH(`PLAIN')dnl
define(`confSERVER_CERT', `{directory}/tls.pem')dnl
define(`confSERVER_KEY', `{directory}/tls.pem')dnl
define(`confCACERT', `{directory}/tls.pem')dnl
define(`confCACERT_PATH', `{directory}')dnl
define(`confTLS_SRV_OPTIONS', `V')dnl
{milter}
CLIENT_OPTIONS(`Family=inet, Address={source}')dnl
MAILER(`local')dnl
MAILER(`smtp')dnl
{extra}
LOCAL_CONFIG
ESASL_CONF_PATH={directory}/sasl
ESASL_PATH={modules}
LOCAL_RULE_0
{routes}
R$+ < @ $+ >	$#store $@ $2 $: $1 < @ $2 >	every recipient, of whatever domain
R$+	$#store $@ $j $: $1
MAILER_DEFINITIONS
Mstore,	P={directory}/store.sh, F=lDFMn8S, S=0, R=0, T=X-Unix/X-Unix/X-Unix,
	A=store.sh $u $g
{mailers}
"""

#: A mailer as MAILER(`smtp') defines esmtp, but for a port. k: the next host may have the same name as this one.
_MAILER: Final = """\
Mto{port},	P=[IPC], F=CONCAT(`mDFMuXak', ifdef(`SMTP_MAILER_FLAGS', `SMTP_MAILER_FLAGS')),
	S=EnvFromSMTP/HdrFromSMTP, R=EnvToSMTP, E=\\r\\n, L=990, T=DNS/RFC822/SMTP,
	A=TCP $h {port}
"""

#: Written aside and renamed, so that the tests never see half a message. $1 is the recipient, $2 the sender.
_STORE: Final = """\
#!/bin/sh
umask 022
file={store}/$(date +%s%N).$$
printf '%s\\n%s\\n' "$1" "$2" >"$file.part" && cat >>"$file.part" && mv "$file.part" "$file"
"""


#: Runs in separate namespaces: $0 is the private directory, the arguments are the program. Before it reads any
#: configuration, Sendmail looks up its host name in the DNS, and sleeps a minute if the name is not fully qualified.
#: Its log goes to /dev/log whatever its configuration says.
_IN_NAMESPACE: Final = f"""\
set -e
hostname {HOSTNAME}
for file in hosts nsswitch.conf; do mount --bind "$0/$file" "/etc/$file"; done
mount -t tmpfs -o mode=755 tmpfs "$0/dev"
for device in null random urandom; do
    : >"$0/dev/$device"
    mount --bind "/dev/$device" "$0/dev/$device"
done
ln -s "$0/log" "$0/dev/log"
mount --rbind "$0/dev" /dev
exec "$@"
"""


class Sendmail(MTA):
    """See `mta.base.MTA`. `extra` is lines of a .mc file."""

    name: ClassVar[str] = "sendmail"

    @classmethod
    def check(cls) -> None:
        if not (MTAS / "sendmail").is_dir():
            raise UnavailableError(f"no Sendmail in {MTAS}: run sh contrib/fetch.sh mta")
        if not _apart():
            raise UnavailableError(
                "no namespaces for Sendmail, which would query the DNS and sleep a minute: run the tests as root"
            )

    def prepare(self) -> None:
        for folder in (self.directory / "queue", self.directory / "sasl", self.directory / "dev", self.store):
            folder.mkdir(mode=0o700)
        make_certificate(self.directory / "tls.pem")
        (self.directory / "hosts").write_text(f"127.0.0.1 {HOSTNAME} localhost\n")
        (self.directory / "nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files\n")
        (self.directory / "service.switch").write_text("hosts files\naliases files\n")
        (self.directory / "sasl/Sendmail.conf").write_text(
            f"pwcheck_method: saslauthd\nsaslauthd_path: {self.directory}/auth\nmech_list: PLAIN\n"
        )
        (self.directory / "store.sh").write_text(_STORE.format(store=self.store))
        (self.directory / "store.sh").chmod(0o755)
        self._ending.enter_context(_Syslog(self.directory / "log", self.directory / "maillog"))
        self._ending.enter_context(AuthServer(self.directory / "auth", Saslauthd))

    def configure(self) -> None:
        source = _CONFIGURATION.format(
            hostname=HOSTNAME,
            token=self._token,
            directory=self.directory,
            user=pwd.getpwuid(os.geteuid()).pw_name,
            host=HOST,
            port=self.port,
            milter=self._milter_line(),
            extra=self.extra or "",
            source=self.source,
            routes="\n".join(
                f"R$+ < @ {domain} $* >\t$#to{port} $@ [{HOST}] $: $1 < @ {domain} >"
                for domain, port in self.routes.items()
            ),
            mailers="".join(_MAILER.format(port=port) for port in sorted({*self.routes.values()})),
            modules=":".join(sorted({str(file.parent) for file in (MTAS / "lib").rglob("libplain.so*")})),
        )
        (self.directory / "sendmail.mc").write_text(source)
        done = subprocess.run(
            [str(MTAS / "lib/usr/bin/m4"), f"-D_CF_DIR_={_MACROS}/", f"{_MACROS}/m4/cf.m4", "sendmail.mc"],
            cwd=self.directory,
            env={"LD_LIBRARY_PATH": library_path(), "PATH": os.defpath},
            capture_output=True,
            check=True,
        )
        (self.directory / "sendmail.cf").write_bytes(done.stdout)

    def command(self) -> Sequence[str]:
        program = str(MTAS / "sendmail/usr/libexec/sendmail/sendmail")
        plain = [program, "-bD", "-C", str(self.directory / "sendmail.cf")]
        # A user who became root of a user namespace to mount files changes back: that root must not set groups.
        again = [] if os.geteuid() == 0 else ["unshare", f"--map-user={os.geteuid()}", f"--map-group={os.getegid()}"]
        return [*_apart(), "sh", "-c", _IN_NAMESPACE, str(self.directory), *again, *plain]

    def environment(self) -> dict[str, str]:
        return {"LD_LIBRARY_PATH": library_path(), "PATH": os.defpath}

    def deliveries(self) -> list[tuple[str, str, bytes]]:
        messages = []
        for file in sorted(file for file in self.store.iterdir() if file.suffix != ".part"):
            recipient, sender, message = file.read_bytes().split(b"\n", 2)
            messages.append((sender.decode(), recipient.decode(), message))
        return messages

    def held(self) -> list[str]:
        """Sendmail renames a quarantined message's qf file to hf."""
        return [file.name[2:] for file in (self.directory / "queue").glob("hf*")]

    def _milter_line(self) -> str:
        if self.milter is None:
            return ""
        kind, _, place = self.milter.partition(":")
        if kind == "inet":
            host, _, port = place.rpartition(":")
            place = f"{port}@{host}"
        line = next(line for line in SNIPPET.read_text().splitlines() if line.startswith("INPUT_MAIL_FILTER"))
        return re.sub(r"S=[^,]*", f"S={kind}:{place}", line, count=1)


@functools.cache
def _apart() -> list[str]:
    """The command that runs a program in new mount and UTS namespaces; empty where forbidden."""
    for user in ([], ["--user", "--map-root-user"]):
        command = ["unshare", *user, "--mount", "--uts"]
        with contextlib.suppress(FileNotFoundError):
            if subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0:
                return command
    return []


class _Syslog:
    """Act as syslogd: write each datagram received at the socket `path` as a line to `file`."""

    def __init__(self, path: Path, file: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._path = path
        self._file = file
        self._thread = threading.Thread(target=self._copy, daemon=True)

    def __enter__(self) -> _Syslog:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"", str(self._path))
        self._thread.join()
        self._socket.close()

    def _copy(self) -> None:
        with self._file.open("ab", buffering=0) as file:
            while line := self._socket.recv(65536):
                file.write(line.rstrip(b"\0\n") + b"\n")
