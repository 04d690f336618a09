# SPDX-License-Identifier: GPL-3.0-or-later
"""``docs/store.md`` is correct: each recipe keeps a message, and each command runs.

PostgreSQL and RabbitMQ are real. Below each heading, a TOML block is the configuration of a daemon, and lines of a
block without a language are commands.
"""

from __future__ import annotations

import configparser
import contextlib
import os
import re
import shlex
import stat
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rabbitmq
from assay.cli.main import main
from assay.config.database import open_store
from assay.config.store import StoreSection
from assay.store.database import connect
from assay.store.feeding import UnavailableError
from assay.store.forgetting import Whom, forget
from assay.store.retention import Retention, prune
from assay.store.schema import metadata
from assay.store.search import Criteria, find
from assay.store.writer import Writer
from postgresql import Postgresql
from rabbitmq import RabbitMq
from running import PATIENCE, Daemon
from sending import greet, send
from store_rows import row

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "store.md").read_text("utf-8")
SECTIONS = {text.partition("\n")[0]: text for text in re.split(r"^##? ", PAGE, flags=re.MULTILINE)[1:]}
CONFIGURATION, CONSUMER = "/etc/assay.toml", "/etc/assay-consumer.toml"
DATABASE, BROKER = "postgresql://assay@db.example.org/assay", "amqps://assay@mq.example.org/"
#: Our name in the recipes, for a user of the database; the tests have one with this name.
NAME, OWNER = "recipe", "recipe_owner"


class World:
    """A machine on which a recipe is followed."""

    def __init__(self, folder: Path, section: str) -> None:
        self.folder = folder
        self.server: Postgresql | None = None
        self.places = {
            path: str(folder / path.strip("/").replace("/", "-"))
            for path in (
                CONFIGURATION,
                CONSUMER,
                "/var/lib/assay",
                "/etc/assay/database-password",
                "/etc/assay/broker-password",
            )
        }
        blocks = re.findall(r"^```(\w*)\n(.*?)^```$", SECTIONS[section], re.MULTILINE | re.DOTALL)
        self.toml, self.sql = ("".join(block for of, block in blocks if of == kind) for kind in ("toml", "sql"))
        self.commands = [line for language, block in blocks if not language for line in block.splitlines()]
        assert self.commands

    def use(self, server: Postgresql) -> None:
        """Have this PostgreSQL."""
        self.server = server
        server.execute(f"DROP DATABASE IF EXISTS {NAME}")
        for role in (NAME, OWNER):
            server.execute(f"DROP ROLE IF EXISTS {role}")
        self.places[DATABASE] = f"postgresql://{NAME}@/{NAME}?host={server.folder}&port={server.port}"
        self.secret("/etc/assay/database-password", "unused")

    def secret(self, path: str, text: str) -> None:
        file = Path(self.places[path])
        file.touch(0o600)
        file.write_text(text)

    def here(self, text: str) -> str:
        for there in sorted(self.places, key=len, reverse=True):
            text = text.replace(there, self.places[there])
        return text

    @property
    def section(self) -> dict[str, Any]:
        """``[store]`` of the recipe."""
        found: dict[str, Any] = tomllib.loads(self.here(self.toml))["store"]
        return found

    def write(self, path: str, **members: str) -> None:
        """A file with the configuration."""
        lines = (f"{key} = '{value}'\n" for key, value in (self.section | members).items())
        Path(self.places[path]).write_text(f"[store]\n{''.join(lines)}")

    def follow(self) -> None:
        """Run the commands."""
        for line in self.commands:
            words = shlex.split(self.here(line))
            match words:
                case ["/opt/assay/bin/pip", "install", what]:
                    extras = re.fullmatch(r"\.\[(.+)\]", what)
                    assert extras
                    setup = configparser.ConfigParser()
                    setup.read(ROOT / "setup.cfg")
                    assert set(extras[1].split(",")) <= set(setup["options.extras_require"])
                case ["install", "-d", "-o", "assay", "-g", "assay", *rest]:
                    subprocess.run(["install", "-d", *rest], check=True)
                    assert stat.S_IMODE(Path(rest[-1]).stat().st_mode) == 0o750
                case ["createuser" | "createdb" as program, *rest]:
                    assert self.server is not None
                    names = [NAME if word == "assay" else word for word in rest]
                    self.server._run(
                        [
                            self.server._program(program),
                            *("-h", str(self.server.folder), "-p", str(self.server.port), "-U", "postgres"),
                            *names,
                        ]
                    )
                case ["assay", "store", "consume", *_]:
                    pass  # a process of its own
                case ["assay", *arguments]:
                    assert main(arguments) == os.EX_OK, line
                case _:
                    raise AssertionError(f"a command that nobody tries: {line}")

    def keep(self) -> None:
        """A message comes to a daemon with the configuration."""
        with Daemon(self.folder, store=self.section) as daemon, daemon.mta() as mta:
            greet(mta)
            send(mta, queue="4QRECIPE")

    def queues(self, **members: str) -> list[str]:
        """The queue ids in the database."""
        section = StoreSection(**(self.section | members))
        with contextlib.closing(open_store(section, may_write=False)) as database:
            return [found.queue for found in find(database, Criteria()).messages]


@pytest.fixture
def world(tmp_path: Path, request: pytest.FixtureRequest) -> World:
    return World(tmp_path, request.param)


@pytest.mark.parametrize("world", ["The store"], indirect=True)
def test_sqlite(world: World) -> None:
    world.follow()
    world.keep()
    assert world.queues() == ["4QRECIPE"]


@pytest.mark.parametrize("world", ["SQLite or PostgreSQL"], indirect=True)
def test_postgresql(world: World, postgresql: Postgresql, capsys: pytest.CaptureFixture[str]) -> None:
    world.use(postgresql)
    Path(world.places["/var/lib/assay"]).mkdir()
    world.write(CONFIGURATION)
    world.follow()
    assert "(was empty)" in capsys.readouterr().out
    world.keep()
    assert world.queues() == ["4QRECIPE"]


@pytest.mark.parametrize("world", ["SQLite or PostgreSQL"], indirect=True)
def test_a_user_with_no_more_rights_than_it_needs(world: World, postgresql: Postgresql) -> None:
    world.use(postgresql)
    Path(world.places["/var/lib/assay"]).mkdir()
    for role in (NAME, OWNER):
        postgresql.execute(f"CREATE ROLE {role} LOGIN")
    postgresql.execute(f"CREATE DATABASE {NAME} OWNER {OWNER}")
    section = StoreSection(**world.section)
    with contextlib.closing(connect(section.location.replace(f"{NAME}@", f"{OWNER}@"))) as database:
        database.migrate()
    with pytest.raises(UnavailableError, match="permission denied"):
        open_store(section)
    postgresql.execute(world.sql.replace("TO assay;", f"TO {NAME};"), NAME)
    world.keep()
    assert world.queues() == ["4QRECIPE"]
    with contextlib.closing(open_store(section)) as database:
        retention = Retention(1, 2, 1)
        assert prune(database, retention, time.time() + 30 * 86_400)
        assert all(database.can_change(table) for table in metadata.sorted_tables)
        assert forget(database, Whom(domain="example.org"))


@pytest.fixture
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMq]:
    if rabbitmq.SCRIPTS.name != "sbin":
        pytest.skip(rabbitmq.MISSING)
    with RabbitMq(tmp_path_factory.mktemp("rabbitmq")) as running:
        yield running


@pytest.mark.parametrize("world", ["Through a broker"], indirect=True)
def test_a_broker_and_a_consumer(world: World, broker: RabbitMq, postgresql: Postgresql) -> None:
    world.use(postgresql)
    world.places[BROKER] = broker.url
    world.secret("/etc/assay/broker-password", broker.password)
    Path(world.places["/var/lib/assay"]).mkdir()
    world.commands[:0] = ["createuser assay", "createdb --owner assay assay"]
    world.follow()
    both = {"database": world.places[DATABASE]}
    world.write(CONSUMER, **both)
    assert main(["store", "migrate", "-c", world.places[CONSUMER]]) == os.EX_OK
    (consume,) = [line for line in world.commands if "consume" in line]
    command = [sys.executable, "-m", *shlex.split(world.here(consume))]
    with subprocess.Popen(command) as consumer:
        try:
            world.keep()
            deadline = time.monotonic() + PATIENCE
            while world.queues(**both) != ["4QRECIPE"]:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        finally:
            consumer.terminate()


@pytest.mark.parametrize("world", ["To remove what is kept about a person"], indirect=True)
def test_to_forget_somebody(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    Path(world.places["/var/lib/assay"]).mkdir()
    world.toml = '[store]\ndirectory = "/var/lib/assay"\n'
    world.write(CONFIGURATION)
    with contextlib.closing(open_store(StoreSection(**world.section))) as database:
        Writer(database).write([row(1), row(2, sender="<ann@example.org>")])
    world.follow()
    first, _, second = capsys.readouterr().out.partition("to remove it, add --yes")
    assert "would be removed: messages: 1" in first
    assert "removed: messages: 1" in second
    assert world.queues() == [row(1).queue]


def test_the_commands_of_the_page_exist(capsys: pytest.CaptureFixture[str]) -> None:
    named = set(re.findall(r"^\| `assay store (\w+)` \|", SECTIONS["Commands"], re.MULTILINE))
    with pytest.raises(SystemExit):
        main(["store", "--help"])
    listed = set(re.findall(r"^    (\w+) ", capsys.readouterr().out, re.MULTILINE))
    assert named == listed
