# SPDX-License-Identifier: GPL-3.0-or-later
"""One message over three hosts, each an MTA with a daemon, and its bounce back: the test submits once, and looks.

The author's host signs. Ours expands an alias, rewrites the sender, seals, and sends the message on. The last one
judges it, and its MTA bounces it. Each host sends from its own loopback address, which is what SPF looks at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mta.base import HOST, MTA, UnavailableError, fields, free_port
from mta.laws import results
from mta.postfix import Postfix
from mta.sendmail import Sendmail
from running import Daemon
from signing import pem, record, rsa_key

AUTHOR, OURS, LAST = "127.0.0.2", "127.0.0.3", "127.0.0.4"
ROWS = {
    "s._domainkey.author.example": [["TXT", [record(rsa_key())]]],
    "s._domainkey.ours.example": [["TXT", [record(rsa_key())]]],
    "author.example": [["TXT", [f"v=spf1 ip4:{AUTHOR} -all"]]],
    "_dmarc.author.example": [["TXT", ["v=DMARC1; p=reject"]]],
    "srs.example": [["TXT", [f"v=spf1 ip4:{OURS} -all"]]],
}
MESSAGE = b"From: Ann <ann@author.example>\r\nTo: bob@ours.example\r\nSubject: hello\r\n\r\nHello\r\n"
RULE = {"name": "forwarded", "when": 'rcpt.all(r, r == "bob@ours.example")', "forward": True}

#: How each MTA expands an alias of ours.
ALIAS: dict[type[MTA], Any] = {
    Postfix: {"virtual_alias_maps": "inline:{ { bob@ours.example = bob@last.example } }"},
    Sendmail: "LOCAL_RULE_0\nRbob < @ ours.example . >\t$: bob < @ last.example . >\n",
}


def secret(path: Path, content: bytes) -> str:
    path.touch(0o600)
    path.write_bytes(content)
    return str(path)


@pytest.fixture(params=[Postfix, Sendmail], ids=lambda kind: kind.name)
def hosts(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    try:
        Postfix.check()
        request.param.check()
    except UnavailableError as missing:
        pytest.skip(str(missing))
    key = secret(tmp_path / "s.pem", pem(rsa_key()))
    sections: dict[str, dict[str, Any]] = {
        "author": {
            "clients": {"internal": (f"{HOST}/32",)},
            "sign": {"domain": ({"domain": "author.example", "selectors": ("s",), "key_files": (key,)},)},
        },
        "ours": {
            "srs": {
                "domain": "srs.example",
                "secrets_file": secret(tmp_path / "secrets", b"a secret for the tests"),
                "own_domains": ("ours.example",),
            },
            "arc": {
                "own_domains": ("ours.example",),
                "seal": ({"domain": "ours.example", "selector": "s", "key_file": key},),
            },
            "rule": [RULE],
        },
        "last": {"dmarc": {"reject": "reject"}},
    }
    with ExitStack() as stack:
        daemons, sockets = {}, {}
        for name, settings in sections.items():
            (tmp_path / name).mkdir()
            sockets[name] = f"inet:{HOST}:{(port := free_port())}"
            daemons[name] = stack.enter_context(Daemon(tmp_path / name, ROWS, socket=f"inet:{port}@{HOST}", **settings))
        at = {name: free_port() for name in sections}
        # It believes that all recipients of the last domain exist, and finds out at delivery.
        gone = {
            "smtpd_reject_unlisted_recipient": "no",
            "transport_maps": f"inline:{{ {{ last.example = error:5.1.1 no such user }} "
            f"{{ srs.example = smtp:[{HOST}]:{at['ours']} }} }}",
        }
        author = Postfix(sockets["author"], routes={"ours.example": at["ours"]}, source=AUTHOR, port=at["author"])
        ours = request.param(
            sockets["ours"],
            routes={"last.example": at["last"], "author.example": at["author"]},
            source=OURS,
            port=at["ours"],
            extra=ALIAS[request.param],
        )
        last = Postfix(sockets["last"], routes={"srs.example": at["ours"]}, source=LAST, port=at["last"], extra=gone)
        mtas = {"author": author, "ours": ours, "last": last}
        for mta in mtas.values():
            stack.enter_context(mta)
        yield SimpleNamespace(mtas=mtas, daemons=daemons)


def test_a_message_passes_at_the_third_host_and_its_bounce_comes_home(hosts: Any) -> None:
    author: MTA = hosts.mtas["author"]
    author.submit(MESSAGE, sender="ann@author.example", recipients=["bob@ours.example"])
    try:
        (bounce,) = author.wait_for(1, "ann@author.example")
    except AssertionError:
        for name, mta in hosts.mtas.items():
            print(name, mta.log(), hosts.daemons[name].log(), sep="\n")
        raise
    ((sender, _, _),) = author.deliveries()
    assert not sender.strip("<>")
    assert b"bob@last.example" in bounce
    assert b"no such user" in bounce
    # What the last host found, in the copy of the message that it returns.
    returned = bounce.partition(b"Content-Type: message/rfc822")[2].partition(b"\n\n")[2]
    path, _, returned = returned.partition(b"\n")
    assert re.fullmatch(b"Return-Path: <SRS0=[^@]+=author.example=ann@srs.example>", path)
    passed = [method for method, result in results(returned) if result == "pass"]
    assert {"spf", "dkim", "dmarc", "arc"} <= {*passed}
    assert re.search(r"spf=pass[^;]*smtp\.mailfrom=[^;]*srs\.example", fields(returned)[0][1], re.DOTALL)
    assert [name for name, _ in fields(returned)].count("ARC-Seal") == 1
    log = hosts.daemons["last"].wait_for_log("dmarc=pass")
    assert f"client={OURS}" in log
    assert "@srs.example" in log
    hosts.daemons["author"].wait_for_log("sign=author.example/s")
    log = hosts.daemons["ours"].wait_for_log("turned_back=")
    assert "seal=ours.example/s" in log
    assert f"client={AUTHOR}" in log
    assert f"client={LAST}" in log
