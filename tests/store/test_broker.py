# SPDX-License-Identifier: GPL-3.0-or-later
"""Results through a real RabbitMQ: what is confirmed is there, and what is not is sent again."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import uuid
from collections.abc import Iterator

import pytest

import rabbitmq
from assay.store import broker as module
from assay.store.broker import RowPublisher, open_consumer
from assay.store.feeding import UnavailableError
from rabbitmq import declare, received
from store_rows import row

pytestmark = pytest.mark.skipif(rabbitmq.SCRIPTS.name != "sbin", reason=rabbitmq.MISSING)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[rabbitmq.RabbitMq]:
    with rabbitmq.RabbitMq(tmp_path_factory.mktemp("rabbitmq")) as running:
        yield running


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """Of an exchange and a queue of the test's own."""
    return f"assay.{request.node.name}".translate(dict.fromkeys(b"[]", "."))


@pytest.fixture
def publisher(broker: rabbitmq.RabbitMq, name: str) -> Iterator[RowPublisher]:
    declare(broker, name)
    opened = RowPublisher(broker.url, broker.password, name)
    yield opened
    opened.close()


def test_rows_arrive_as_they_were(broker: rabbitmq.RabbitMq, publisher: RowPublisher, name: str) -> None:
    rows = [row(number) for number in range(300)]
    publisher.write(rows)
    assert sorted(received(broker, name, 300), key=lambda found: found.id) == sorted(rows, key=lambda sent: sent.id)


def test_a_message_says_what_it_is(broker: rabbitmq.RabbitMq, publisher: RowPublisher, name: str) -> None:
    sent = row(1)
    publisher.write([sent])

    async def first() -> tuple[str, str, str, dict[str, object]]:
        consumer = await open_consumer(broker.url, broker.password, name, name, 1)
        async for (message,) in consumer.batches(1, 0.1):
            await message.ack()
            await consumer.close()
            found = message.message_id, message.routing_key, message.content_type
            return *map(str, found), json.loads(message.body)  # type: ignore[return-value]  # three texts
        raise AssertionError

    message_id, key, kind, body = asyncio.run(first())
    assert message_id == body["id"] == str(uuid.UUID(bytes=sent.id))
    assert key == f"{sent.direction}.{sent.action}"
    assert kind == "application/json"
    assert body["findings"] == [
        {member: getattr(finding, member) for member in finding.__struct_fields__} for finding in sent.findings
    ]


def test_what_is_not_acknowledged_comes_again(broker: rabbitmq.RabbitMq, publisher: RowPublisher, name: str) -> None:
    publisher.write([row(1)])
    assert received(broker, name, 1, acknowledge=False) == received(broker, name, 1) == [row(1)]


@pytest.mark.parametrize("what", ["queue", "channel"])
def test_a_consumer_notices_that_nothing_is_delivered_any_more(
    broker: rabbitmq.RabbitMq, publisher: RowPublisher, name: str, what: str
) -> None:
    """The connection stays. An operator deletes a queue; a broker ends a channel on which it waits too long for the
    acknowledgement."""

    async def end() -> None:
        consumer = await open_consumer(broker.url, broker.password, name, name, 10)
        try:
            async with asyncio.timeout(30):
                async for (message,) in consumer.batches(1, 0.1):
                    if what == "channel":
                        await message.channel.basic_ack(1_000_000)  # an unknown message is an error of the channel
                    else:
                        await message.channel.queue_delete(name)
        finally:
            await consumer.close()

    publisher.write([row(1)])
    with pytest.raises(UnavailableError, match=rf"{what}\b"):
        asyncio.run(end())


def test_a_consumer_that_cannot_begin_leaves_no_connection(broker: rabbitmq.RabbitMq, name: str) -> None:
    """It is tried again, for as long as it takes."""

    async def begin() -> set[asyncio.Task[object]]:
        with pytest.raises(UnavailableError, match="direct"):
            await open_consumer(broker.url, broker.password, "amq.direct", name, 1)
        return asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[arg-type]  # there is one

    assert not asyncio.run(begin())


def test_without_a_queue_nothing_counts_as_taken(broker: rabbitmq.RabbitMq, name: str) -> None:
    publisher = RowPublisher(broker.url, broker.password, name)
    with pytest.raises(UnavailableError, match=r"no queue takes it.*assay store consume"):
        publisher.write([row(1)])
    declare(broker, name)
    publisher.write([row(1)])
    publisher.close()
    assert received(broker, name, 1) == [row(1)]


def test_a_killed_broker_keeps_what_it_confirmed(broker: rabbitmq.RabbitMq, publisher: RowPublisher, name: str) -> None:
    publisher.write([row(number) for number in range(100)])
    broker.kill()
    try:
        with pytest.raises(UnavailableError):
            publisher.write([row(100)])
        with pytest.raises(UnavailableError):
            RowPublisher(broker.url, broker.password, name)
    finally:
        broker.start()
    again = RowPublisher(broker.url, broker.password, name)
    again.write([row(100)])
    again.close()
    assert {found.id for found in received(broker, name, 101)} == {row(number).id for number in range(101)}


def test_a_broker_that_confirms_late_loses_nothing(
    broker: rabbitmq.RabbitMq, publisher: RowPublisher, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows what it has taken: all of the batch is published again. Whoever writes it knows what came twice."""
    monkeypatch.setattr(module, "CONFIRM_SECONDS", 0.5)
    monkeypatch.setattr(module, "CONNECT_SECONDS", 0.5)
    rows = [row(number) for number in range(50)]
    publisher.write(rows[:1])
    with broker.stopped():
        with pytest.raises(UnavailableError, match=r"^it does not answer in time$"):
            publisher.write(rows[1:])
        with pytest.raises(UnavailableError, match=r"^it does not answer in time$"):
            RowPublisher(broker.url, broker.password, name)
    monkeypatch.undo()
    again = RowPublisher(broker.url, broker.password, name)
    again.write([*rows[1:], row(50)])
    again.close()
    found: set[bytes] = set()
    while row(50).id not in found:
        found |= {each.id for each in received(broker, name, 1)}
    assert found == {each.id for each in (*rows, row(50))}


@pytest.mark.parametrize("password", ["wrong", ""])
def test_a_wrong_password_is_an_error_without_it(broker: rabbitmq.RabbitMq, password: str) -> None:
    with pytest.raises(UnavailableError) as raised:
        RowPublisher(broker.url, password, "assay")
    assert "ACCESS_REFUSED" in str(raised.value) or "refused" in str(raised.value).lower()
    assert not password or password not in str(raised.value)


def test_an_exchange_of_another_kind_is_an_error(broker: rabbitmq.RabbitMq) -> None:
    with pytest.raises(UnavailableError, match="direct"):
        RowPublisher(broker.url, broker.password, "amq.direct")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_broker_that_is_away_is_reported_by_nobody_else(host: str) -> None:
    """The libraries have a log of their own, which would go to standard error. In a process that keeps no log."""
    text = (
        "from assay.store.broker import RowPublisher\n"
        "from assay.store.feeding import UnavailableError\n"
        "try:\n"
        f"    RowPublisher('amqp://u@{host}:1/', 'hidden', 'assay')\n"
        "except UnavailableError as error:\n"
        "    assert '127.0.0.1' in str(error)\n"
        "    assert 'Errno' not in str(error)\n"
        "else:\n"
        "    raise AssertionError\n"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
