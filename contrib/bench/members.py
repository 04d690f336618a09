# SPDX-License-Identifier: GPL-3.0-or-later
"""The measured milters: how each is configured, started and stopped, and what it must write.

Each runs in the foreground on its own socket, with the configuration that its documentation recommends, and logs one
line for each message to syslog. Chains are lists of members.
"""

from __future__ import annotations

import os
import site
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import load
import processes

import assay

AUTHSERV = "mta.bench.example"
_PATIENCE = 120.0  # seconds; rspamd compiles its patterns when it starts for the first time
_HERE = Path(__file__).parent
#: Debian's, for all milters in Python: it is what they would run with there, and 5 to 10 % faster than a Python that
#: was built without profile-guided optimization.
_PYTHON = "/usr/bin/python3"


@dataclass(frozen=True, slots=True)
class Setting:
    """Where and how a member is to run."""

    directory: Path
    nameserver: str
    workers: int
    inet: bool = False


#: Writes configuration files and returns the command.
Command = Callable[[Setting, str], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Member:
    """One milter. `expected` must stand in what it inserts into a good message."""

    name: str
    command: Command
    expected: tuple[str, ...]


class Running:
    """A member that serves."""

    def __init__(self, member: Member, setting: Setting, environment: dict[str, str] | None = None) -> None:
        """Start it and wait until it answers.

        :raises load.LoadError: it does not start.
        """
        self.member = member
        # A new folder for each start: two of the peers refuse to start where their old pid file is.
        folder = Path(tempfile.mkdtemp(prefix=member.name.replace(" ", "-") + "-", dir=setting.directory))
        path = folder / "socket"
        self.address: str | tuple[str, int] = ("127.0.0.1", 8890) if setting.inet else str(path)
        socket_text = "inet:8890@127.0.0.1" if setting.inet else f"local:{path}"
        inner = Setting(folder, setting.nameserver, setting.workers, setting.inet)
        command = member.command(inner, socket_text)
        self._log = (folder / "log").open("ab")
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            env=os.environ | (environment or {}),
        )
        self.agreement = self._wait()

    def _wait(self) -> load.Agreement:
        deadline = time.monotonic() + _PATIENCE
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                return load.negotiate(self.address)
            except (OSError, load.LoadError):
                time.sleep(0.05)
        self.stop()
        raise load.LoadError(f"{self.member.name} does not answer:\n{self.last_words()}")

    def last_words(self) -> str:
        """The last lines of its log."""
        return Path(self._log.name).read_text("utf-8", "replace")[-2000:]

    def forget_log(self, octets: int) -> None:
        """Truncate its log if it has more octets: it is kept in memory, which a long run under attack would fill."""
        if os.path.getsize(self._log.name) > octets:
            os.truncate(self._log.name, 0)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def cpu(self) -> float:
        """Seconds of CPU so far."""
        return processes.cpu(self.pid)

    def usage(self) -> processes.Usage:
        """CPU and memory so far."""
        return processes.usage(self.pid)

    def stop(self) -> None:
        """Stop it and its children."""
        family = processes.tree(self.pid)
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for child in family:
            try:
                os.kill(child, 9)
            except ProcessLookupError:
                continue
        self._log.close()


@lru_cache
def our_python() -> tuple[str, ...]:
    """Debian's Python with the packages of this environment, or this one where the two do not fit together."""
    paths = os.pathsep.join((*site.getsitepackages(), str(Path(assay.__file__).parents[1])))
    command = ("/usr/bin/env", f"PYTHONPATH={paths}", _PYTHON)
    works = subprocess.run([*command, "-c", "import Milter, assay.cli.main"], capture_output=True, check=False)
    return command if works.returncode == 0 else (sys.executable,)


def python_version() -> str:
    """Of the Python that runs assay."""
    code = "import platform; print(platform.python_version())"
    return subprocess.run([*our_python(), "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def _assay(setting: Setting, socket: str, more: str = "") -> Sequence[str]:
    configuration = setting.directory / "assay.toml"
    configuration.write_text(f"""
[milter]
socket = "{socket.replace("local:", "unix:")}"
workers = {setting.workers}
drain_seconds = 1.0
[identity]
authserv_id = "{AUTHSERV}"
[log]
to = "syslog"
[dns]
nameservers = ["{setting.nameserver}"]
{more}
""")
    return [*our_python(), "-m", "assay", "serve", "-c", str(configuration)]


def _opendkim(setting: Setting, socket: str) -> Sequence[str]:
    configuration = setting.directory / "opendkim.conf"
    configuration.write_text(f"""
Mode v
Socket {socket}
Background no
UMask 000
Syslog yes
SyslogSuccess yes
AuthservID {AUTHSERV}
AlwaysAddARHeader yes
Nameservers {setting.nameserver}
""")
    return ["/usr/sbin/opendkim", "-f", "-x", str(configuration)]


def _opendmarc(own_spf: bool) -> Command:
    def command(setting: Setting, socket: str) -> Sequence[str]:
        configuration = setting.directory / "opendmarc.conf"
        configuration.write_text(f"""
Socket {socket}
Syslog true
UMask 000
AuthservID {AUTHSERV}
TrustedAuthservIDs {AUTHSERV}
PublicSuffixList /usr/share/publicsuffix/public_suffix_list.dat
SPFSelfValidate {"true" if own_spf else "false"}
SPFIgnoreResults {"true" if own_spf else "false"}
""")
        return ["/usr/sbin/opendmarc", "-f", "-c", str(configuration)]

    return command


def _pyspf(setting: Setting, socket: str) -> Sequence[str]:
    configuration = setting.directory / "pyspf-milter.conf"
    configuration.write_text(f"""
debugLevel = 1
TestOnly = 1
HELO_reject = Fail
Mail_From_reject = Fail
PermError_reject = False
TempError_Defer = False
Header_Type = AR
Authserv_Id = {AUTHSERV}
skip_addresses = 127.0.0.0/8,::ffff:127.0.0.0/104,::1
Socket = {socket}
PidFile = {setting.directory}/pid
UserID = root
InternalHosts = 127.0.0.1
""")
    return _debian_python("from spf_engine.milter_spf import main", configuration)


def _debian_python(load_main: str, configuration: Path) -> Sequence[str]:
    """Start a Debian Python milter; its ``setgroups([])`` at the start is forbidden to root of a user namespace."""
    code = f"import os; os.setgroups = lambda groups: None; {load_main}; main()"
    return [_PYTHON, "-c", code, str(configuration)]


def _dkimpy(setting: Setting, socket: str) -> Sequence[str]:
    configuration = setting.directory / "dkimpy-milter.conf"
    configuration.write_text(f"""
Mode v
Socket {socket}
PidFile {setting.directory}/pid
UserID root
AuthservID {AUTHSERV}
Syslog yes
SyslogSuccess yes
UMask 000
InternalHosts 127.0.0.1
""")
    return _debian_python("from dkimpy_milter import main", configuration)


def _rspamd(setting: Setting, socket: str) -> Sequence[str]:
    """The modules that do our job and no others, in processes that scan what they get themselves."""
    configuration = setting.directory / "rspamd.conf"
    where = f"{socket.removeprefix('local:')} mode=0666" if socket.startswith("local:") else "127.0.0.1:8890"
    configuration.write_text(f"""
options {{
  pidfile = "{setting.directory}/pid"; filters = "dkim"; cache_file = "{setting.directory}/symbols.cache";
  control_socket = "{setting.directory}/control.sock mode=0600"; stats_file = "{setting.directory}/stats.ucl";
  hs_cache_dir = "{setting.directory.parent}/"; tempdir = "{setting.directory}"; local_addrs = ["127.0.0.0/8"];
  url_tld = "/usr/share/rspamd/effective_tld_names.dat";
  dns {{ nameserver = ["{setting.nameserver}:53:1"]; timeout = 1s; sockets = 16; retransmits = 5; }}
  dns_max_requests = 64; allow_raw_input = true; task_timeout = 60s; max_message = 100Mb;
}}
logging {{ type = "syslog"; facility = "mail"; level = "info"; }}
worker "rspamd_proxy" {{
  bind_socket = "{where}"; milter = yes; timeout = 120s; count = {setting.workers}; max_retries = 5;
  upstream "local" {{ default = yes; self_scan = yes; }}
}}
metric "default" {{ actions {{ reject = 150; add_header = 60; greylist = null; }} }}
modules {{ path = "/usr/share/rspamd/plugins/"; }}
spf {{ spf_cache_size = 2000; spf_cache_expire = 1d; }}
dkim {{ dkim_cache_size = 2000; dkim_cache_expire = 1d; trusted_only = false; skip_multi = false; }}
dmarc {{ }}
arc {{ sign_inbound = false; sign_local = false; sign_authenticated = false; }}
milter_headers {{ use = ["authentication-results"]; skip_local = false; routines {{ authentication-results {{ }} }} }}
""")
    return ["/usr/bin/rspamd", "--insecure", "--no-fork", "-c", str(configuration)]


def _idle(kind: str) -> Command:
    def command(_setting: Setting, socket: str) -> Sequence[str]:
        return [*our_python(), str(_HERE / "idle.py"), socket.removeprefix("local:"), kind]

    return command


ASSAY = Member("assay", _assay, ("iprev=pass", "dkim=pass", "spf=pass", "dmarc=pass", "Received-SPF"))
OPENDKIM = Member("OpenDKIM", _opendkim, ("dkim=pass",))
OPENDMARC = Member("OpenDMARC", _opendmarc(own_spf=False), ("dmarc=pass",))
OPENDMARC_SPF = Member("OpenDMARC+SPF", _opendmarc(own_spf=True), ("dmarc=pass", "spf=pass"))
PYSPF = Member("pyspf-milter", _pyspf, ("spf=pass",))
DKIMPY = Member("dkimpy-milter", _dkimpy, ("dkim=pass",))
RSPAMD = Member("rspamd", _rspamd, ("dkim=pass", "spf=pass", "dmarc=pass"))
IDLE_REPLIES = Member("pymilter idle, replies", _idle("replies"), ("X-Idle",))
IDLE = Member("pymilter idle", _idle("none"), ("X-Idle",))
IDLE_HASH = Member("pymilter SHA-256", _idle("hash"), ("X-Idle",))


#: Starts assay with a memory of one evaluation, which the next one replaces.
_FORGETFUL = "import assay.memory as m; m.Memory.__init__.__defaults__ = (1,); from assay.cli.main import main; main()"


def assay_without_memory() -> Member:
    """assay that has to evaluate everything, as for hosts never seen before."""

    def command(setting: Setting, socket: str) -> Sequence[str]:
        usual = _assay(setting, socket)
        at = usual.index("-m")
        return [*usual[:at], "-c", _FORGETFUL, *usual[at + 2 :]]

    return Member("assay, nothing remembered", command, ASSAY.expected)


def assay_with_cache(entries: int) -> Member:
    """assay with a cache of another size; signatures need not verify."""
    return Member(
        "assay",
        lambda setting, socket: _assay(setting, socket, f"cache_entries = {entries}"),
        ("spf=pass", "dkim=", "dmarc=pass"),
    )


def assay_that_rejects() -> Member:
    """assay that refuses messages as the author's domain requests."""
    return Member(
        "assay", lambda setting, socket: _assay(setting, socket, more='[dmarc]\nreject = "reject"'), ASSAY.expected
    )


PAIR = (OPENDKIM, OPENDMARC_SPF)
USUAL_CHAIN = (PYSPF, OPENDKIM, OPENDMARC)
