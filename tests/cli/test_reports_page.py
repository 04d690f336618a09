# SPDX-License-Identifier: GPL-3.0-or-later
"""``docs/reports.md`` is correct: its configurations do what the page says, and each command runs.

``tests/mta/test_incoming.py`` follows what the page says about the MTAs.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from assay.cli.main import main
from assay.config import Configuration, load, show
from assay.protocol.report import Redactor
from assay.store import outbox
from assay.store.incidents import COLLECT_SECONDS
from assay.store.writer import Writer
from nameserver import NameServer
from receiving import Receiver
from report_world import EARLIER, ROWS, Reporting, seen, with_failure
from reports.incoming import shapes
from store_rows import NOON

PAGE = (Path(__file__).parents[2] / "docs" / "reports.md").read_text("utf-8")
SECTIONS = {text.partition("\n")[0]: text for text in re.split(r"^##+ ", PAGE, flags=re.MULTILINE)[1:]}
OUTGOING, FAILURE, LMTP, FILES = (
    "Reports that go out",
    "Failure reports",
    "From the MTA, by LMTP",
    "From files and maildirs",
)


def blocks(section: str, language: str = "") -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", SECTIONS[section], re.MULTILINE | re.DOTALL)
    return [block for of, block in found if of == language]


class World(Reporting):
    """A site that follows the page, with its store, a DNS and a relay."""

    def __init__(self, folder: Path, nameserver: NameServer, receiver: Receiver) -> None:
        super().__init__(folder, nameserver, receiver)
        self.around = self.configuration  # what the page takes as given
        self.places = {
            "/etc/assay.toml": str(folder / "assay.toml"),
            "/var/lib/assay": str(folder / "store"),
            "/etc/assay/keys/r2026.pem": str(folder / "key.pem"),
            "/etc/assay/redaction.key": str(folder / "redaction.key"),
            "/run/assay/daemon/lmtp.sock": str(folder / "lmtp.sock"),
            "/var/mail/dmarc/Maildir": str(folder / "Maildir"),
            "report.xml.gz": str(folder / "report.xml.gz"),
            "mail.eml": str(folder / "mail.eml"),
        }
        self.folder = folder
        self.file = folder / "assay.toml"

    def here(self, text: str) -> str:
        for there, here in self.places.items():
            text = text.replace(there, here)
        return text

    def follow(self, *sections: str) -> None:
        """Have the configuration of the page, with the DNS and the relay of this world."""
        text = self.here("".join(block for section in sections for block in blocks(section, "toml")))
        self.file.write_text(text)
        load(self.file)
        page: dict[str, Any] = tomllib.loads(text)
        page["dns"] = msgspec.to_builtins(self.around.dns)
        page["reports"]["relay"] = self.around.reports.relay
        self.configuration = msgspec.convert(page, Configuration)
        self.file.write_text(show(self.configuration))

    def run_commands(self, section: str, capsys: pytest.CaptureFixture[str], **words: str) -> list[str]:
        """What each ``assay report`` of a section prints.

        :param words: what to write for a word in it.
        """
        printed = []
        for line in [line for block in blocks(section) for line in block.splitlines() if line.startswith("assay ")]:
            program, group, verb, *rest = shlex.split(self.here(line))
            assert (program, group) == ("assay", "report")
            code = main(["report", verb, *(words.get(each.replace("-", "_"), each) for each in rest)])
            assert code == os.EX_OK, line
            printed.append(capsys.readouterr().out)
        assert printed
        return printed


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with NameServer(ROWS) as nameserver, Receiver() as receiver:
        made = World(tmp_path, nameserver, receiver)
        yield made
        made.database.close()


def test_reports_that_go_out(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.follow(OUTGOING)
    world.see(seen(1))
    world.run()
    ((path, recipient, octets),) = world.receiver.taken
    assert (path, recipient) == ("<>", "d@example.com")
    assert b'From: "Example Ltd"\r\n <dmarc-reports@example.org>\r\n' in octets
    assert re.match(rb"DKIM-Signature:[^:]*; d=example\.org;[^:]*\bs=r2026;", octets)

    identifier = world.reports()["example.com"].id
    why, _, show_, suppress, send = world.run_commands("What became of a report", capsys, REPORT_ID=identifier)
    assert "1 message: sent: d@example.com: 250" in why
    assert "d@example.com: sent, tried 1 time, last at" in show_
    assert suppress == "d@example.com for ever: by the operator\n"
    assert send == "reports dealt with: 0\n"


def test_a_bounce_address(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    (bounces,) = re.findall(r'`reports\.bounces = "(.*?)"`', PAGE)
    example, token = re.findall(r"such as\n?`(dmarc-bounces\+([0-9a-f]+)@.*?)`", PAGE)[0]
    world.follow(OUTGOING)
    section = msgspec.structs.replace(world.configuration.reports, bounces=bounces)
    world.configuration = msgspec.structs.replace(world.configuration, reports=section)
    world.see(seen(1))
    world.run()
    ((path, _, _),) = world.receiver.taken
    (delivery,) = world.deliveries().values()
    assert path == example.replace(token, delivery.token)
    assert len(token) == len(delivery.token)
    (command,) = re.findall(rf"`assay report (bounced) {token}`", PAGE)
    assert main(["report", command, "-c", str(world.file), delivery.token]) == os.EX_OK
    assert "d@example.com: gets no reports until" in capsys.readouterr().out


def test_failure_reports(world: World) -> None:
    make_folder, make_key, give_key = (line for block in blocks(FAILURE) for line in block.splitlines())
    assert make_folder == "install -d /etc/assay"
    subprocess.run(["sh", "-c", world.here(make_key)], check=True)
    assert give_key == "chown assay /etc/assay/redaction.key"
    key = world.folder / "redaction.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    world.follow(OUTGOING, FAILURE)
    with world.database.writing() as connection:
        outbox.insert_report(connection, EARLIER)
    Writer(world.database, clock=lambda: NOON / 1000).write([seen(1), with_failure(2)])
    world.turn(NOON // 1000 + COLLECT_SECONDS)
    ((_, recipient, octets),) = world.receiver.taken
    assert recipient == "f@example.com"
    assert f"<{Redactor(key.read_bytes().strip()).local_part('a')}@example.com>".encode() in octets


def test_reports_that_come_in_by_lmtp(world: World) -> None:
    world.file.write_text(world.here("".join(blocks(LMTP, "toml"))))
    section = load(world.file).reports.incoming
    assert section.listen == f"unix:{world.folder}/lmtp.sock"


def test_reports_in_files_and_maildirs(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.file.write_text(world.here("".join(blocks(FILES, "toml"))))
    (world.folder / "report.xml.gz").write_bytes(shapes.zipped(shapes.YAHOO.encode()))
    (world.folder / "mail.eml").write_bytes(shapes.mail(shapes.GOOGLE.encode()))
    for name in ("new", "cur", "tmp"):
        (world.folder / "Maildir" / name).mkdir(parents=True)
    (world.folder / "Maildir" / "new" / "1.a.host").write_bytes(shapes.failure_mail())
    files, maildir = world.run_commands(FILES, capsys)
    assert len(re.findall(": new: aggregate report ", files)) == 2
    assert "Maildir/new/1.a.host: new: failure report " in maildir


def test_each_key_that_the_page_names_exists() -> None:
    for name in set(re.findall(r"`reports\.([a-z_.]+)(?: = .*?)?`", PAGE)):
        place: Any = Configuration().reports
        for part in name.split("."):
            assert part in place.__struct_fields__, name
            place = getattr(place, part)
