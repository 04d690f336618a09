# SPDX-License-Identifier: GPL-3.0-or-later
"""Mail that a real Postfix and a real Sendmail send on: the next hop sees our sender, and its bounce comes home.

Three hosts: the author's signs, ours rewrites the sender, and the last one judges. Each is an MTA with a daemon.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from assay.protocol import srs
from mta.base import HOST, MTAS, PROJECT, UnavailableError, free_port
from mta.laws import fields, result_of
from mta.postfix import Postfix
from mta.sendmail import Sendmail
from running import PATIENCE, Daemon
from signing import pem, record, rsa_key

SECRET = b"a secret for the tests"
SCHEME = srs.Scheme("srs.example", (SECRET,))
DAY = 86_400
RELOADS = 5
AT_EACH_RELOAD = 100  # recipients at least
ROWS = {
    "s._domainkey.author.example": [["TXT", [record(rsa_key())]]],
    "author.example": [["TXT", ["v=spf1 ip4:192.0.2.1 -all"]]],
    "_dmarc.author.example": [["TXT", ["v=DMARC1; p=reject"]]],
    "srs.example": [["TXT", ["v=spf1 ip4:127.0.0.1 -all"]]],
}
MESSAGE = b"From: Ann <ann@author.example>\r\nTo: bob@ours.example\r\nSubject: hello\r\n\r\nHello\r\n"


@pytest.fixture(scope="module", params=[Postfix, Sendmail], ids=lambda kind: kind.name)
def hosts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The author's host, ours, and the last one."""
    try:
        request.param.check()
    except UnavailableError as missing:
        pytest.skip(str(missing))
    folder = tmp_path_factory.mktemp(request.param.name)
    for name, content in (("s.pem", pem(rsa_key())), ("secrets", SECRET)):
        (folder / name).touch(0o600)
        (folder / name).write_bytes(content)
    row = {"domain": "author.example", "selectors": ("s",), "key_directory": str(folder)}
    signs = {"sign": {"domain": (row,)}, "clients": {"internal": ("127.0.0.0/8",)}}
    forwards = {
        "srs": {
            "domain": "srs.example",
            "secrets_file": str(folder / "secrets"),
            "own_domains": ("ours.example",),
        }
    }
    with ExitStack() as stack:
        made = {}
        for name, sections in (("author", signs), ("ours", forwards), ("last", {})):
            (folder / name).mkdir()
            port = free_port()
            daemon = stack.enter_context(Daemon(folder / name, ROWS, socket=f"inet:{port}@{HOST}", **sections))
            made[name] = stack.enter_context(request.param(f"inet:{HOST}:{port}")), daemon
        yield SimpleNamespace(**{name: mta for name, (mta, _) in made.items()}, log=made["ours"][1].log)


def delivered(mta: Any, recipient: str) -> tuple[str, bytes]:
    """The sender, without angle brackets, and the message of the delivery to a recipient."""
    assert mta.wait_for(1, recipient), mta.log()
    ((sender, message),) = [(sender, found) for sender, to, found in mta.deliveries() if to == recipient]
    return sender.strip("<>"), message


def test_forwarded_mail_passes_and_its_bounce_comes_home(hosts: Any) -> None:
    hosts.author.submit(MESSAGE, sender="ann@author.example", recipients=["bob@ours.example"])
    _, signed = delivered(hosts.author, "bob@ours.example")
    # Our host has expanded an alias, and sends the message on through its milter.
    hosts.ours.submit(signed, sender="ann@author.example", recipients=["bob@last.example"])
    sender, forwarded = delivered(hosts.ours, "bob@last.example")
    assert re.fullmatch("SRS0=[^=]{4}=[A-Z2-7]{2}=author.example=ann@srs.example", sender)
    hosts.last.submit(forwarded, sender=sender, recipients=["bob@last.example"])
    _, judged = delivered(hosts.last, "bob@last.example")
    assert result_of(judged, "spf") == "pass"
    assert result_of(judged, "dmarc") == "pass"
    # The bounce: from the null sender, to the address that the last host has.
    hosts.ours.submit(b"From: MAILER-DAEMON\r\nSubject: failed\r\n\r\nx\r\n", sender="", recipients=[sender])
    sender_of_bounce, _ = delivered(hosts.ours, "ann@author.example")
    assert not sender_of_bounce


def test_a_forged_address_is_refused_alone(hosts: Any) -> None:
    with hosts.ours.connect() as session:
        session.mail("")
        code, text = session.rcpt("SRS0=aaaa=2W=author.example=ann@srs.example")
        assert code == 550
        assert text.startswith(b"5.1.1 ")
        assert b"SRS address not valid: hash is not valid" in text
        old = srs.forward("ann@author.example", SCHEME, time.time() - 30 * DAY)
        assert session.rcpt(old)[0] == 550
        assert session.rcpt("carl@ours.example")[0] == 250
        session.data(b"From: MAILER-DAEMON\r\nSubject: failed\r\n\r\nx\r\n")
    delivered(hosts.ours, "carl@ours.example")


def test_our_own_mail_keeps_its_sender(hosts: Any) -> None:
    hosts.ours.submit(MESSAGE, sender="dan@ours.example", recipients=["dan@last.example"])
    assert delivered(hosts.ours, "dan@last.example")[0] == "dan@ours.example"
    hosts.ours.submit(MESSAGE, sender="ann@author.example", recipients=["eve@ours.example", "eve@last.example"])
    assert delivered(hosts.ours, "eve@last.example")[0] == "ann@author.example"


def of_snippet(place: str) -> dict[str, str]:
    """The settings of contrib/postfix/main.cf.srs for the map server at `place`."""
    lines = (PROJECT / "contrib/postfix/main.cf.srs").read_text().splitlines()
    settings = dict(line.split(" = ", 1) for line in lines if line and not line.startswith("#"))
    return {
        name: value.replace("127.0.0.1:8892", place).replace("srs.example.org", "srs.example")
        for name, value in settings.items()
    }


@pytest.mark.parametrize("by", ["socketmap", "proxymap", "tcp_table"])
def test_postfix_asks_the_map_server(tmp_path: Path, by: str) -> None:
    """The sender is rewritten for the recipient that an alias leads to, which no milter sees."""
    try:
        Postfix.check()
    except UnavailableError as missing:
        pytest.skip(str(missing))
    ports = {name: free_port() for name in ("socketmap", "forward_table", "reverse_table")}
    section = srs_section(tmp_path, **{name: f"inet:{port}@{HOST}" for name, port in ports.items()})
    extra = of_snippet(f"{HOST}:{ports['socketmap']}")
    if by == "proxymap":
        extra = {name: value.replace("socketmap:", "proxy:socketmap:") for name, value in extra.items()}
    elif by == "tcp_table":
        extra["sender_canonical_maps"] = f"tcp:{HOST}:{ports['forward_table']}"
        extra["recipient_canonical_maps"] = f"tcp:{HOST}:{ports['reverse_table']}"
    milter = free_port()
    aliases = {"virtual_alias_maps": "inline:{ { bob@ours.example = bob@last.example } }"}
    with (
        Daemon(tmp_path, ROWS, socket=f"inet:{milter}@{HOST}", srs=section),
        Postfix(extra=extra | aliases | {"smtpd_milters": f"inet:{HOST}:{milter} inet:{HOST}:{milter}"}) as mta,
    ):
        mta.submit(MESSAGE, sender="ann@author.example", recipients=["bob@ours.example"])
        sender, _ = delivered(mta, "bob@last.example")
        assert sender.endswith("=author.example=ann@srs.example")
        mta.submit(MESSAGE, sender="carl@ours.example", recipients=["carl@last.example"])
        assert delivered(mta, "carl@last.example")[0] == "carl@ours.example"
        mta.submit(MESSAGE, sender="", recipients=[sender])
        assert delivered(mta, "ann@author.example")[0] == ""
        ask = [MTAS / "postfix/usr/sbin/postmap", "-c", mta.directory / "etc", "-q", "ann@author.example"]
        asked = subprocess.run(
            [*ask, extra["sender_canonical_maps"]], env=mta.environment(), capture_output=True, check=True, text=True
        )
        assert asked.stdout == f"{sender}\n"
        # Two milters and the map server rewrite it, and it is rewritten once.
        mta.submit(MESSAGE, sender="eve@author.example", recipients=["eve@last.example"])
        sender, _ = delivered(mta, "eve@last.example")
        assert re.fullmatch("SRS0=[^=]{4}=[A-Z2-7]{2}=author.example=eve@srs.example", sender)


def srs_section(folder: Path, **more: str) -> dict[str, Any]:
    """``[srs]`` for the domain of the tests."""
    (folder / "secrets").touch(0o600)
    (folder / "secrets").write_bytes(SECRET)
    return {
        "domain": "srs.example",
        "secrets_file": str(folder / "secrets"),
        "own_domains": ("ours.example",),
        **more,
    }


def of_page(folder: Path) -> dict[str, str]:
    """The settings of Postfix in step 4 of docs/forwarding.md, for the domain of the tests."""
    page = (PROJECT / "docs/forwarding.md").read_text().replace("srs.example.org", "srs.example")
    page = page.replace(r"srs\.example\.org", r"srs\.example")
    main, access = re.findall(r"^   ```text\n   # /etc/postfix/\S+\n(.*?)^   ```$", page, re.MULTILINE | re.DOTALL)
    (folder / "access").write_text(re.sub("^ +", "", access, flags=re.MULTILINE))
    settings = dict(line.strip().split(" = ", 1) for line in main.splitlines())
    return {name: value.replace("/etc/postfix/srs", f"{folder}/access") for name, value in settings.items()}


@contextmanager
def accepting(kind: Any, by: str, folder: Path) -> Iterator[Any]:
    """An MTA that accepts mail to the SRS domain and its own, and to nothing else."""
    try:
        kind.check()
    except UnavailableError as missing:
        pytest.skip(str(missing))
    folder.chmod(0o755)
    milter, port = free_port(), free_port()
    section = srs_section(folder, socketmap=f"inet:{port}@{HOST}")
    extra: Any
    if kind is Postfix:
        own = {
            "virtual_mailbox_domains": "ours.example author.example",
            "virtual_alias_maps": "inline:{alias.example=any, eve@alias.example=eve@author.example}",
            "mynetworks": "127.0.0.9/32",
        }
        extra = own | (of_page(folder) if by == "milter" else of_snippet(f"{HOST}:{port}"))
    else:
        settings = (PROJECT / "contrib/sendmail/srs-milter.mc").read_text().replace("srs.example.org", "srs.example")
        extra = f"undefine(`_PROMISCUOUS_RELAY_')dnl\n{settings}"
    with (
        Daemon(folder, ROWS, socket=f"inet:{milter}@{HOST}", srs=section),
        kind(f"inet:{HOST}:{milter}" if by == "milter" else None, extra=extra) as mta,
    ):
        yield mta


@pytest.mark.parametrize(("kind", "by"), [(Postfix, "milter"), (Postfix, "map server"), (Sendmail, "milter")])
def test_of_the_srs_domain_only_valid_addresses_are_accepted(kind: Any, by: str, tmp_path: Path) -> None:
    """With the documented settings nothing is accepted that the MTA could only bounce."""
    valid = srs.forward("ann@author.example", SCHEME, time.time())
    quoted = '"{}"@srs.example'.format(srs.forward("ann smith@author.example", SCHEME, time.time()).rpartition("@")[0])
    with accepting(kind, by, tmp_path) as mta:
        with mta.connect(client="127.0.0.2") as session:
            session.mail("")
            for address in ("SRS0=aaaa=2W=author.example=ann@srs.example", "joe@srs.example", "Joe@SRS.example"):
                code, text = session.rcpt(address)
                assert code == 550
                assert text.startswith(b"5.1.1 ")
            for address in (valid.replace("SRS0=", "srs0+"), quoted):
                assert session.rcpt(address)[0] == 250
            if kind is Postfix:  # the settings take no domain away
                assert session.rcpt("eve@alias.example")[0] == 250
            session.data(MESSAGE)
        for address in ("ann@author.example", '"ann smith"@author.example'):
            delivered(mta, address)


def test_postfix_defers_what_needs_a_map_server_that_is_away() -> None:
    try:
        Postfix.check()
    except UnavailableError as missing:
        pytest.skip(str(missing))
    with Postfix(extra=of_snippet(f"{HOST}:{free_port()}")) as mta:
        with mta.connect() as session:
            for sender in ("ann@author.example", ""):
                session.mail(sender)
                assert session.rcpt("bob@last.example")[0] == 451
                session.rset()
        assert not mta.stored()


def test_a_reload_defers_nothing_that_needs_the_map_server(tmp_path: Path) -> None:
    try:
        Postfix.check()
    except UnavailableError as missing:
        pytest.skip(str(missing))
    port, milter = free_port(), free_port()
    section = srs_section(tmp_path, socketmap=f"inet:{port}@{HOST}")
    asked = 0
    with (
        Daemon(tmp_path, ROWS, socket=f"inet:{milter}@{HOST}", srs=section) as daemon,
        Postfix(extra=of_snippet(f"{HOST}:{port}") | {"smtpd_junk_command_limit": "100000"}) as mta,
        mta.connect() as session,
    ):
        for times in range(1, RELOADS + 1):
            daemon.signal(signal.SIGHUP)
            deadline = time.monotonic() + PATIENCE
            while daemon.log().count(": reloaded") < times or asked < times * AT_EACH_RELOAD:
                assert time.monotonic() < deadline, daemon.log()
                asked += 1
                session.mail(f"ann{asked}@author.example")
                code, text = session.rcpt(f"bob{asked}@last.example")
                assert code == 250, text
                session.rset()


def sendmail_settings(place: str) -> str:
    """The lines of contrib/sendmail/srs.mc for the map server at `place`."""
    text = (PROJECT / "contrib/sendmail/srs.mc").read_text()
    return text.replace("unix:/run/assay/daemon/srs.sock", place).replace("srs.example.org", "srs.example")


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A Sendmail that asks the map server, and the host that it sends to."""
    try:
        Sendmail.check()
    except UnavailableError as missing:
        pytest.skip(str(missing))
    folder = tmp_path_factory.mktemp("asking")
    (folder / "aliases").write_text("bob bob@last.example\n")
    section = srs_section(folder, socketmap=f"unix:{folder}/daemon/srs.sock")
    (folder / "daemon").mkdir(mode=0o755)
    shutil.chown(folder / "daemon", "nobody")  # the unit makes it for the user of the daemon
    with Daemon(folder, ROWS, srs=section), Sendmail() as last:
        extra = f"""\
undefine(`_PROMISCUOUS_RELAY_')dnl
define(`ALIAS_FILE', `text:-k0 -v1 {folder}/aliases')dnl
{sendmail_settings(section["socketmap"])}
LOCAL_CONFIG
C{{SRSInside}}localhost
LOCAL_RULE_0
R$+ < @ ours.example . >	$#local $: $1
R$+ < @ inside.example . >	$#to{last.port} $@ localhost $: $1 < @ inside.example >
"""
        with Sendmail(extra=extra, routes={"last.example": last.port, "author.example": last.port}) as ours:
            yield SimpleNamespace(ours=ours, last=last)


@pytest.mark.parametrize("sender", ["ann@author.example", '"ann smith"@author.example'])
def test_sendmail_asks_the_map_server(asking: Any, sender: str) -> None:
    """After aliases, which no milter sees, and the bounce comes home."""
    seen = len(asking.last.messages("bob@last.example"))
    asking.ours.submit(MESSAGE, sender=sender, recipients=["bob@ours.example"])
    asking.last.wait_for(seen + 1, "bob@last.example")
    rewritten = [found for found, to, _ in asking.last.deliveries() if to == "bob@last.example"][-1]
    assert srs.reverse(rewritten.replace('"', ""), SCHEME, time.time()) == sender.replace('"', "")
    asking.ours.submit(MESSAGE, sender="", recipients=[rewritten], client="127.0.0.2")
    assert delivered(asking.last, sender) == ("", asking.last.messages(sender)[0])


def test_sendmail_rewrites_only_what_leaves(asking: Any) -> None:
    for sender, recipient, kept in (
        ("carl@ours.example", "own@last.example", True),
        ("", "null@last.example", True),
        ("ann@author.example", "dave@inside.example", True),
        (srs.forward("ann@author.example", SCHEME, time.time()), "again@last.example", True),
        ("SRS0=abcd=2W=a.example=ann@other.example", "other@last.example", False),
    ):
        asking.ours.submit(MESSAGE, sender=sender, recipients=[recipient])
        assert (delivered(asking.last, recipient)[0] == sender) is kept


def test_sendmail_refuses_an_address_that_is_not_valid(asking: Any) -> None:
    old = srs.forward("ann@author.example", SCHEME, time.time() - 30 * DAY)
    with asking.ours.connect(client="127.0.0.2") as session:
        session.mail("")
        assert b"Relaying denied" in session.rcpt("ann@author.example")[1]
        for address in (old, "SRS0=aaaa=2W=author.example=ann@srs.example", "ann@srs.example"):
            code, text = session.rcpt(address)
            assert code == 550
            assert text.startswith(b"5.1.1 ")
            assert text.endswith(b"SRS address not valid")


def test_sendmail_defers_what_needs_a_map_server_that_is_away() -> None:
    try:
        Sendmail.check()
    except UnavailableError as missing:
        pytest.skip(str(missing))
    extra = sendmail_settings(f"inet:{free_port()}@{HOST}")
    with Sendmail() as last, Sendmail(extra=extra, routes={"last.example": last.port}) as ours:
        with ours.connect() as session:
            session.mail("")
            assert session.rcpt("SRS0=aaaa=2W=author.example=ann@srs.example")[0] == 451
        ours.submit(MESSAGE, sender="ann@author.example", recipients=["bob@last.example"])
        ours.wait_until(lambda: "stat=Deferred" in ours.log())
        assert not last.stored()


@pytest.mark.parametrize("kind", [Postfix, Sendmail], ids=lambda kind: kind.name)
def test_the_third_host_validates_what_the_second_one_sealed(kind: Any, tmp_path: Path) -> None:
    try:
        kind.check()
    except UnavailableError as missing:
        pytest.skip(str(missing))
    (tmp_path / "s.pem").touch(0o600)
    (tmp_path / "s.pem").write_bytes(pem(rsa_key()))
    row = {"domain": "author.example", "selector": "s", "key_file": str(tmp_path / "s.pem")}
    seals = {"arc": {"own_domains": ("ours.example",), "seal": (row,)}}
    stored = MESSAGE.replace(b"Hello", b"Gr\xc3\xbc\xc3\x9fe \t \r\n.\r\n")
    for name, sections in (("second", seals), ("third", {})):
        (tmp_path / name).mkdir()
        port = free_port()
        with (
            Daemon(tmp_path / name, ROWS, socket=f"inet:{port}@{HOST}", **sections),
            kind(f"inet:{HOST}:{port}") as mta,
        ):
            mta.submit(stored, sender="ann@author.example", recipients=["bob@last.example"])
            _, stored = delivered(mta, "bob@last.example")
    assert [name for name, _ in fields(stored)].count("ARC-Seal") == 1
    assert result_of(stored, "arc") == "pass"
