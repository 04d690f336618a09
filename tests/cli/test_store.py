# SPDX-License-Identifier: GPL-3.0-or-later
"""``assay store``: the tables, and a consumer that fills them from a real broker."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import rabbitmq
from assay.cli.main import main
from assay.config import load
from assay.config.database import SETTLED_SECONDS
from assay.store import condition
from assay.store.broker import RowPublisher
from assay.store.database import open_database
from assay.store.writer import Writer
from rabbitmq import declare
from store_rows import row


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    path = tmp_path / "assay.toml"
    path.write_text(f"[store]\ndirectory = '{tmp_path}'\n")
    return path


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    capsys.readouterr()
    assert main(["store", *arguments]) == code
    output = capsys.readouterr()
    return output.out + output.err


def test_migrate(configuration: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "(was empty)" in said(capsys, "migrate", "-c", str(configuration))
    assert "(nothing to do)" in said(capsys, "migrate", "-c", str(configuration))


def test_check(
    configuration: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "there is no database yet" in said(capsys, "check", "-c", str(configuration), code=69)
    database = open_database(f"{tmp_path}/store.sqlite")
    Writer(database).write([row(number) for number in range(10)])
    database.close()
    text = said(capsys, "check", "-c", str(configuration))
    octets = (tmp_path / "store.sqlite").stat().st_size
    assert f"10 messages, {octets} octets" in text
    assert "the oldest message is of 2023-11-15 12:00 UTC, the newest of 2023-11-15 12:00 UTC" in text
    assert "counts of 2023-11-15 to 2023-11-15" in text
    monkeypatch.setattr(condition, "MOST_COUNTED", 9)
    assert "more than 9 messages" in said(capsys, "check", "-c", str(configuration))


def test_a_file_of_the_spool_that_is_removed_meanwhile(configuration: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["store", "migrate", "-c", str(configuration)]) == 0
    spool = Path(load(configuration).store.directory) / "spool" / "0"
    spool.mkdir(parents=True)
    (spool / "1.rows").symlink_to("removed")
    (spool / "2.rows").write_bytes(b"12345")
    assert main(["store", "check", "-c", str(configuration)]) == 0
    assert "spool: 5 octets" in capsys.readouterr().out


def test_without_a_store(capsys: pytest.CaptureFixture[str]) -> None:
    assert "so there is no database; name one with -c FILE" in said(capsys, "check", code=78)


def test_without_a_broker(configuration: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "store.broker: not set" in said(capsys, "consume", "-c", str(configuration), code=78)


@pytest.mark.parametrize("queue", ["", "a[1]", "\u00e4", "a" * 256])
def test_a_queue_that_no_broker_can_have(configuration: Path, capsys: pytest.CaptureFixture[str], queue: str) -> None:
    with pytest.raises(SystemExit):
        main(["store", "consume", "-c", str(configuration), "--queue", queue])
    assert "is not a name of a queue; write one such as assay.store" in capsys.readouterr().err


@contextlib.contextmanager
def consumer(configuration: Path, queue: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "assay", "store", "consume", "-c", str(configuration), "--queue", queue]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def stored(folder: Path) -> int:
    question = "SELECT sum(count) FROM counts WHERE kind = 'host'"
    with contextlib.closing(sqlite3.connect(folder / "store.sqlite")) as connection:
        try:
            return int(connection.execute(question).fetchone()[0] or 0)
        except sqlite3.OperationalError:  # no tables yet
            return 0


def wait_for(folder: Path, count: int) -> None:
    deadline = time.monotonic() + 30
    while stored(folder) < count:
        assert time.monotonic() < deadline, f"{stored(folder)} of {count}"
        time.sleep(0.05)


@pytest.mark.skipif(rabbitmq.SCRIPTS.name != "sbin", reason=rabbitmq.MISSING)
def test_a_consumer_that_is_killed_and_a_broker_too(
    configuration: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with rabbitmq.RabbitMq(tmp_path_factory.mktemp("rabbitmq")) as broker:
        password = tmp_path / "password"
        password.touch(0o600)
        password.write_text(broker.password)
        configuration.write_text(
            f"[store]\ndirectory = '{tmp_path}'\nbroker = '{broker.url}'\nbroker_password_file = '{password}'\n"
            "counts_days = 3650\nmessages_days = 30\n"  # the rows are of 2023
        )
        declare(broker, "assay")
        publisher = RowPublisher(broker.url, broker.password, "assay")
        publisher.write([row(number) for number in range(700)])
        with consumer(configuration, "assay") as process:
            wait_for(tmp_path, 500)
            os.kill(process.pid, signal.SIGKILL)
        publisher.write([row(number) for number in range(600, 1000)])  # some again
        publisher.close()
        with consumer(configuration, "assay") as process:
            wait_for(tmp_path, 1000)
            broker.kill()
            broker.start()
            again = RowPublisher(broker.url, broker.password, "assay")
            again.write([row(1000)])
            again.close()
            wait_for(tmp_path, 1001)
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
            assert process.stderr is not None
            assert "consuming again in" in process.stderr.read()
    assert stored(tmp_path) == 1001
    with contextlib.closing(sqlite3.connect(tmp_path / "store.sqlite")) as connection:
        (kept,) = connection.execute("SELECT count(*) FROM messages").fetchone()
    # The second consumer has removed what the first had written, unless the machine has only just started.
    assert (1 <= kept <= 501) is (time.monotonic() >= SETTLED_SECONDS)


@pytest.mark.parametrize(
    ("rest", "key"),
    [("", "directory"), ("[store]\ndirectory = '/x'\ndatabase = ''\nbroker = 'amqp://127.0.0.1/'\n", "database")],
)
def test_the_missing_key_is_named(rest: str, key: str, configuration: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configuration.write_text(rest)
    told = said(capsys, "check", "-c", str(configuration), code=78)
    assert f"{configuration}: there is no database; set store.{key}" in told
