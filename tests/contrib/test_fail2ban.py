# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter in ``contrib/fail2ban``, tested with fail2ban itself: it bans refused clients and no others.

fail2ban is the copy unpacked by ``contrib/fetch.sh`` (or `ASSAY_FAIL2BAN`). It is Debian's, so Debian's
Python runs it. Nothing is banned here: ``fail2ban-regex`` only reports what it would find.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from assay.daemon.journal import event, message_fields
from assay.log import pairs
from running import Daemon
from sending import BAD, ROWS, greet
from talking import deliver

ROOT = Path(__file__).parents[2]
FAIL2BAN = Path(os.environ.get("ASSAY_FAIL2BAN") or ROOT / ".cache" / "fail2ban")
OURS = ROOT / "contrib" / "fail2ban"
PYTHON = Path("/usr/bin/python3")
ENTERPRISE = 32473
VICTIM = "198.51.100.7"  # an address that an attacker tries to get banned
FORGED = f'[assay@{ENTERPRISE} client="{VICTIM}" helo="" from="" stage="mail" action="reject" by="" reply=""]'

PREFIXES = {
    "journal, standard error": "Nov 21 10:00:00 mx assay[411]: assay[412]: ",
    "syslog file, traditional time": "Nov 21 10:00:00 mx assay[412]: ",
    "syslog file, RFC 3339 time": "2026-11-21T10:00:00.123456+00:00 mx assay[412]: ",
    "file with plain standard error": "assay[412]: ",
}

pytestmark = pytest.mark.skipif(
    not (FAIL2BAN / "usr/bin/fail2ban-regex").exists() or not PYTHON.exists(),
    reason=f"no fail2ban in {FAIL2BAN}: run sh contrib/fetch.sh fail2ban",
)


@pytest.fixture(scope="module")
def etc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """fail2ban's configuration with our files in it, as an operator puts them there."""
    folder = tmp_path_factory.mktemp("etc") / "fail2ban"
    shutil.copytree(FAIL2BAN / "etc/fail2ban", folder)
    for path in OURS.glob("*.d/*"):
        shutil.copy(path, folder / path.parent.name)
    return folder


def fail2ban(program: str, *arguments: str | Path) -> str:
    library = FAIL2BAN / "usr/lib/python3/dist-packages"
    ended = subprocess.run(
        [PYTHON, FAIL2BAN / "usr/bin" / program, *arguments],
        env={"PYTHONPATH": str(library), "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
        capture_output=True,
        timeout=60,
        check=False,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr + ended.stdout
    return ended.stdout


def banned(etc: Path, lines: list[str], options: str = "") -> list[str]:
    """The addresses that the filter finds, in order."""
    log = etc.parent / "log"
    log.write_text("".join(f"{line}\n" for line in lines))
    return fail2ban("fail2ban-regex", "-c", etc, "-o", "ip", log, f"assay{options}").split()


def refused(
    client: str = BAD, helo: str = "mail.example.org", path: str = "joe@example.org", action: str = "reject"
) -> list[str]:
    """The log lines of a client refused at MAIL."""
    one = {"name": "x", "stage": "mail", "when": "true", "action": action, "reason": "as ] said"}
    sections = {"clients": {"internal": ()}, "rule": [one]}
    (verdict,) = deliver(sections, client=client, helo=helo, mail_from=f"<{path}>")
    assert verdict.action == action
    return [pairs(message_fields(verdict, waited=0.0)), event(verdict, ENTERPRISE)]


@pytest.mark.parametrize("prefix", PREFIXES.values(), ids=PREFIXES)
@pytest.mark.parametrize("client", [BAD, "2001:db8::66"])
def test_a_refused_client_is_matched_once(etc: Path, prefix: str, client: str) -> None:
    assert banned(etc, [prefix + line for line in refused(client)]) == [client]


def test_the_format_of_rfc_5424(etc: Path) -> None:
    prefix = "<22>1 2026-11-21T10:00:00.123456+00:00 mx assay 412 - - "
    assert banned(etc, [prefix + line for line in refused()], "[logtype=rfc5424]") == [BAD]


HOSTILE = [
    pytest.param(f'x" client="{VICTIM}', id="a quote"),
    pytest.param(f'x\\" client="{VICTIM}', id="an escaped quote"),
    pytest.param(f'x\\\\" client="{VICTIM}', id="an escaped backslash"),
    pytest.param(FORGED, id="the whole"),
    pytest.param(f'x"] assay[1]: {FORGED}', id="an end and another start"),
    pytest.param(f"x\nNov 21 10:00:00 mx assay[1]: {FORGED}", id="a separate line"),
    pytest.param("x" * 255 + "\\", id="a backslash where the value is cut"),
    pytest.param("x" * 254 + '\\"' + f' client="{VICTIM}"', id="a truncated escape"),
    pytest.param("\x1b\x00\x85\u2028\udce9", id="unprintable characters"),
    pytest.param(VICTIM, id="the address itself"),
    pytest.param(f"[{VICTIM}]", id="an address literal"),
    pytest.param('"' * 5000, id="many quotes"),
]


@pytest.mark.parametrize("prefix", PREFIXES.values(), ids=PREFIXES)
@pytest.mark.parametrize("text", HOSTILE)
def test_text_from_a_client_does_not_ban_another(etc: Path, prefix: str, text: str) -> None:
    lines = [
        prefix + line
        for helo, path in ((text, "joe@example.org"), ("mail.example.org", text), (text, text))
        for line in refused(helo=helo, path=path)
    ]
    assert banned(etc, lines) == [BAD] * 3


def test_a_line_of_the_mta_is_not_matched(etc: Path) -> None:
    lines = [
        f"Nov 21 10:00:00 mx postfix/smtpd[1]: NOQUEUE: milter-reject: MAIL from x: 550; helo=<assay[1]: {FORGED}>",
        f"Nov 21 10:00:00 mx postfix/smtpd[1]: {FORGED}",
        f"Nov 21 10:00:00 mx other: assay[1]: {FORGED}",
    ]
    assert banned(etc, lines) == []


@pytest.mark.parametrize(
    ("options", "action", "found"),
    [
        ("", "tempfail", False),
        ("[actions=reject|tempfail]", "tempfail", True),
        ("[keys=rule ]", "reject", True),
        ("[keys=rule x]", "reject", True),
        (r"[keys=spf\.]", "reject", False),
    ],
)
def test_the_filter_options(etc: Path, options: str, action: str, found: bool) -> None:
    assert banned(etc, refused(action=action), options) == ([BAD] if found else [])


def test_the_log_of_a_daemon_is_matched(etc: Path, tmp_path: Path) -> None:
    spf = {"fail": "reject", "stage": "mail"}
    with Daemon(tmp_path, ROWS, log={"enterprise": ENTERPRISE}, **{"spf.mailfrom": spf}) as daemon:
        with daemon.mta() as mta:
            greet(mta, BAD, helo=f'x" client="{VICTIM}'.encode())
            assert mta.mail("joe@example.org").code == 550
        log = daemon.wait_for_log("[assay@")
    assert banned(etc, log.splitlines()) == [BAD]


def test_the_jail_is_valid(etc: Path) -> None:
    (etc / "jail.d/enabled.local").write_text("[assay]\nenabled = true\n")
    dumped = fail2ban("fail2ban-client", "-c", etc, "-d")
    assert "['add', 'assay', 'systemd']" in dumped
    assert "['set', 'assay', 'maxretry', 10]" in dumped
    assert "_SYSTEMD_UNIT=assay.service" in dumped
