# SPDX-License-Identifier: GPL-3.0-or-later
"""The LMTP server alone: how long it waits for whom."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from assay.daemon import lmtp
from assay.daemon.lmtp import LmtpServer, Take
from assay.model.name import ReversePath

BEGIN = b"LHLO mta\r\nMAIL FROM:<>\r\nRCPT TO:<a@example.org>\r\nDATA\r\n"
PATIENCE = 20.0


def serve(folder: Path, take: Take, talk: Callable[..., Awaitable[None]]) -> None:
    """Serve while a client talks."""

    async def run() -> None:
        server = LmtpServer("mx.example.org", 1000, take, lambda _: None)
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(f"{folder}/lmtp.sock")
            listening.listen()
            await server.serve(listening)
            reader, writer = await asyncio.open_unix_connection(f"{folder}/lmtp.sock")
            async with asyncio.timeout(PATIENCE):
                await talk(server, reader, writer)
                await server.close(0.0)
            writer.close()

    asyncio.run(run())


async def quickly(sender: ReversePath, recipient: str, mail: bytes) -> str:
    return f"250 2.0.0 {sender.text or '<>'} {recipient} {len(mail)}"


async def until(reader: asyncio.StreamReader, start: bytes) -> bytes:
    """The first line that begins so."""
    while not (line := await reader.readline()).startswith(start):
        assert line, start
    return line


@pytest.mark.parametrize("octets", [b"", b"LHLO mta\r\n", BEGIN + b"Subject: x\r\n"])
def test_a_client_that_sends_nothing_more_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, octets: bytes
) -> None:
    monkeypatch.setattr(lmtp, "PATIENCE_SECONDS", 0.2)

    async def talk(server: LmtpServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(octets)
        await reader.read()
        while server.clients:
            await asyncio.sleep(0.01)

    serve(tmp_path, quickly, talk)


def test_a_mail_may_take_longer_than_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lmtp, "PATIENCE_SECONDS", 0.2)

    async def slowly(sender: ReversePath, recipient: str, mail: bytes) -> str:
        await asyncio.sleep(0.6)
        return await quickly(sender, recipient, mail)

    async def talk(_: LmtpServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(BEGIN + b"\r\n.\r\n")
        assert await until(reader, b"250 2.0.0 <") == b"250 2.0.0 <> a@example.org 2\r\n"

    serve(tmp_path, slowly, talk)


def test_who_takes_a_mail_is_told_its_reverse_path(tmp_path: Path) -> None:
    async def talk(_: LmtpServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(BEGIN.replace(b"<>", b"<Ann.Lee@a.example>") + b"\r\n.\r\n")
        assert await until(reader, b"250 2.0.0 Ann.Lee@a.example a@example.org 2\r\n")
        writer.write(BEGIN + b"\r\n.\r\n")
        assert await until(reader, b"250 2.0.0 <> a@example.org 2\r\n")

    serve(tmp_path, quickly, talk)


@pytest.mark.parametrize(
    ("sent", "mail"),
    [
        (b".\r\n", b""),
        (b"..\r\n.\r\n", b".\r\n"),
        (b"a\r\n..b\r\n...\r\n.\r\n", b"a\r\n.b\r\n..\r\n"),
        (b"a\n.\nb\r.\r\n.\r\n", b"a\n.\nb\r.\r\n"),
        (b"a" * 998 + b"\r\n.\r\n", b"a" * 998 + b"\r\n"),
        (b"a" * 999 + b"\r\n.\r\n", None),
        (b"a" * 50_000 + b"\r\n.\r\n", None),
    ],
    ids=["empty", "a dot", "dots", "other ends of lines", "the largest", "larger", "much larger"],
)
@pytest.mark.parametrize("at_once", [True, False])
def test_the_end_of_a_mail_is_found_wherever_it_is_cut(
    tmp_path: Path, sent: bytes, mail: bytes | None, at_once: bool
) -> None:
    taken: list[bytes] = []

    async def take(sender: ReversePath, recipient: str, octets: bytes) -> str:
        taken.append(octets)
        return "250 2.0.0 taken"

    async def talk(_: LmtpServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(BEGIN)
        await until(reader, b"354")
        for piece in [sent] if at_once else [sent[:-4], *(bytes((octet,)) for octet in sent[-4:])]:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.005)
        writer.write(b"VRFY x\r\n")
        await until(reader, b"552 5.3.4" if mail is None else b"250 2.0.0 taken")
        await until(reader, b"252 ")

    serve(tmp_path, take, talk)
    assert taken == ([] if mail is None else [mail])


def test_the_end_does_not_wait_for_a_client_for_ever(tmp_path: Path) -> None:
    async def never(sender: ReversePath, recipient: str, mail: bytes) -> str:
        await asyncio.Event().wait()
        return ""

    async def talk(server: LmtpServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(BEGIN + b"\r\n.\r\n")
        await until(reader, b"354")
        while not all(client.is_taking for client in server.clients):
            await asyncio.sleep(0.01)
        began = time.monotonic()
        await server.close(0.3)
        assert 0.3 <= time.monotonic() - began < 5

    serve(tmp_path, never, talk)


def test_a_client_that_does_not_read_loses_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lmtp, "PATIENCE_SECONDS", 0.3)

    async def talk(server: LmtpServer, _reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.setblocking(False)
            client.connect(f"{tmp_path}/lmtp.sock")
            began = asyncio.get_running_loop().time()
            while asyncio.get_running_loop().time() < began + 0.2:  # the server stops to read when nobody reads from it
                with contextlib.suppress(BlockingIOError):
                    client.send(b"NOOP\r\n" * 10_000)
                await asyncio.sleep(0)
            while server.clients:
                await asyncio.sleep(0.01)

    serve(tmp_path, quickly, talk)


def test_a_bug_makes_the_mta_come_again(tmp_path: Path) -> None:
    """Any reply of the class 5 would make it bounce the mail, and what follows is no command."""
    told: list[object] = []

    async def fail(sender: ReversePath, recipient: str, mail: bytes) -> str:
        raise KeyError(recipient)

    async def talk(_: LmtpServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(repr(context["exception"])))
        writer.write(BEGIN + b"\r\n.\r\nVRFY x\r\n")
        await until(reader, b"354")
        assert (await reader.readline()).startswith(b"421 4.3.0 ")
        assert await reader.read() == b""

    serve(tmp_path, fail, talk)
    assert told == ["KeyError('a@example.org')"]
