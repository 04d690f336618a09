# SPDX-License-Identifier: GPL-3.0-or-later
"""What Postfix changes after a message is signed: each setting that ``config check --postconf`` warns about breaks the
signature, and with the fix that it names, the signature holds and there is no warning.

One Postfix has a delivery service for each of the settings, chosen by the recipient's domain, and another one has all
the fixes.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any, NamedTuple

import msgspec
import pytest

from assay.config import Configuration
from assay.config.postconf import differences, parse
from mta.base import HOST, MTAS, UnavailableError, fields, free_port
from mta.postfix import Postfix
from running import Daemon
from signing import evaluate, pem, record, rsa_key
from zone import Zone

ROWS = {"s._domainkey.example.com": [["TXT", [record(rsa_key())]]]}
PLAIN = b"From: Alice <alice@example.com>\r\nTo: Reader <reader@%s>\r\nSubject: hello\r\nX-Test: 1\r\n\r\nHello\r\n"
SUBJECT = "regexp:{ { /^Subject: hello/ REPLACE Subject: changed } }"
BODY = "regexp:{ { /^Hello/ REPLACE Good day } }"
ADDRESS = "inline:{ alice@example.com=alice.smith@example.com }"


class Case(NamedTuple):
    broken: Mapping[str, str]  #: of a delivery service
    fixed: Mapping[str, str]  #: of main.cf
    warning: str
    message: bytes = PLAIN


CASES = {
    "generic": Case(
        {"smtp_generic_maps": ADDRESS}, {"sender_canonical_maps": ADDRESS}, "write sender_canonical_maps = inline:{"
    ),
    "header": Case({"smtp_header_checks": SUBJECT}, {"header_checks": SUBJECT}, "write header_checks = regexp:{"),
    "body": Case({"smtp_body_checks": BODY}, {"body_checks": BODY}, "write body_checks = regexp:{"),
    # A next host that offers SMTPUTF8 takes 8-bit text too, whatever else it offers.
    "eight": Case(
        {"smtp_discard_ehlo_keywords": "smtputf8, 8BITMIME"},
        {"smtp_discard_ehlo_keywords": "smtputf8, 8BITMIME", "disable_mime_output_conversion": "yes"},
        "or write disable_mime_output_conversion = yes",
        PLAIN.replace(b"\r\n\r\nHello", b"\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGr\xc3\xbc\xc3\x9fe"),
    ),
    "long": Case(
        {"smtp_line_length_limit": "100"},
        {"smtp_line_length_limit": "998"},
        "write smtp_line_length_limit = 998",
        PLAIN.replace(b"Hello", b"x" * 500),
    ),
}
#: Settings that change addresses or recipients before milters, or change no field.
HARMLESS = {
    "masquerade_domains": "example.com",
    "canonical_maps": "inline:{ bob@example.com=bob.smith@example.com }",
    "canonical_classes": "header_sender, header_recipient",
    "always_bcc": "archive@example.net",
    "undisclosed_recipients_header": "To: undisclosed-recipients:;",
    "local_header_rewrite_clients": "permit_mynetworks",
}


class Relay(Postfix):
    """A Postfix with a delivery service for each case, that sends what is for CASE.example to the port `to`."""

    def __init__(self, milter: str, to: int, extra: Mapping[str, str]) -> None:
        super().__init__(milter, extra=extra, routes={f"{name}.example": to for name in CASES})
        self._to = to

    def configure(self) -> None:
        super().configure()
        with (self.directory / "etc/master.cf").open("a") as file:
            for name, case in CASES.items():
                options = "".join(f" -o {{ {key} = {value} }}" for key, value in case.broken.items())
                file.write(f"{name} unix - - n - - smtp{options}\n")

    def printed(self, *options: str) -> str:
        """What its postconf prints."""
        command = [MTAS / "postfix/usr/sbin/postconf", "-c", self.directory / "etc", *options]
        environment = self.environment() | {"PATH": os.defpath}
        return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    try:
        Postfix.check()
    except UnavailableError as missing:
        pytest.skip(str(missing))
    folder = tmp_path_factory.mktemp("altering")
    (folder / "s.pem").touch(0o600)
    (folder / "s.pem").write_bytes(pem(rsa_key()))
    row = {"domain": "example.com", "selectors": ("s",), "key_files": (str(folder / "s.pem"),)}
    port = free_port()
    sections = {"sign": {"domain": (row,)}, "clients": {"internal": ("127.0.0.0/8",)}}
    with ExitStack() as stack:
        stack.enter_context(Daemon(folder, ROWS, socket=f"inet:{port}@{HOST}", **sections))
        last = stack.enter_context(Postfix())
        rows = " ".join(f"{{ {name}.example = {name}:[{HOST}]:{last.port} }}" for name in CASES)
        milter = f"inet:{HOST}:{port}"
        broken = stack.enter_context(Relay(milter, last.port, {"transport_maps": f"inline:{{ {rows} }}"}))
        fixes = {key: value for case in CASES.values() for key, value in case.fixed.items()}
        fixed = stack.enter_context(Relay(milter, last.port, HARMLESS | fixes))
        settings = msgspec.convert(sections | {"milter": {"socket": f"inet:{port}@{HOST}"}}, Configuration)
        yield SimpleNamespace(last=last, broken=broken, fixed=fixed, settings=settings)


def sent(world: Any, by: Postfix, recipient: str, octets: bytes) -> bytes:
    """The message as the next host gets it."""
    by.submit(octets, sender="alice@example.com", recipients=[recipient])
    (found,) = world.last.wait_for(1, recipient)
    return bytes(found)


def verifies(octets: bytes) -> bool:
    (found,) = evaluate(octets.replace(b"\n", b"\r\n"), Zone(ROWS))
    return str(found.result) == "pass"


def warnings(world: Any, text: str) -> list[str]:
    return [said for said in differences(world.settings, parse(text)) if "signed" in said and "smtp_" in said]


@pytest.mark.parametrize("name", CASES)
def test_a_setting_that_breaks_signatures_and_its_fix(world: Any, name: str) -> None:
    case = CASES[name]
    domain = f"{name}.example"
    octets = case.message.replace(b"%s", domain.encode())
    assert not verifies(sent(world, world.broken, f"broken@{domain}", octets))
    assert verifies(sent(world, world.fixed, f"fixed@{domain}", octets))
    (said,) = [said for said in warnings(world, main_and_services(world.broken)) if said.startswith(f"{name}/unix/")]
    assert case.warning in said


def main_and_services(mta: Relay) -> str:
    return mta.printed() + mta.printed("-P")


def test_with_the_fixes_nothing_is_said(world: Any) -> None:
    assert warnings(world, world.fixed.printed()) == []
    assert len(warnings(world, main_and_services(world.broken))) == len(CASES)


def test_what_changes_addresses_before_milters_is_harmless(world: Any) -> None:
    octets = PLAIN.replace(b"%s", b"generic.example").replace(b"alice@example.com", b"alice@host.example.com")
    octets = octets.replace(b"To: Reader <reader@generic.example>\r\n", b"")
    arrived = sent(world, world.fixed, "harmless@generic.example", octets)
    assert ("From", " Alice <alice@example.com>") in fields(arrived)
    assert ("To", " undisclosed-recipients:;") in fields(arrived)
    assert verifies(arrived)
