# SPDX-License-Identifier: GPL-3.0-or-later
"""A relay that answers anything, or nothing, at any step: no message is sent twice, and no answer is a traceback."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from assay.config.reports import Tls
from assay.reports import relay as relaying
from assay.reports.relay import Relay, RelayError, RelayOutcome

STEPS = ("greeting", "EHLO", "MAIL", "RCPT", "DATA", "end")
USUAL = {
    "greeting": b"220 relay\r\n",
    "EHLO": b"250-relay\r\n250 SIZE 1000000\r\n",
    "MAIL": b"250 ok\r\n",
    "RCPT": b"250 ok\r\n",
    "DATA": b"354 go\r\n",
    "end": b"250 taken\r\n",
}
SILENCE = b""
ANSWERS = {
    "closes": None,
    "says nothing": SILENCE,
    "stops in the line": b"25",
    "stops in the lines": b"250-more\r\n",
    "421": b"421 4.3.2 going down\r\n",
    "450": b"450 4.2.0 later\r\n",
    "550": b"550 5.1.1 no\r\n",
    "552": b"552 5.3.4 too big\r\n",
    "100": b"100 what\r\n",
    "250": b"250 fine\r\n",
    "354": b"354 go\r\n",
    "999": b"999 what\r\n",
    "no code": b"hello there\r\n",
    "an empty line": b"\r\n",
    "a code alone": b"550\r\n",
    "octets": b"550 \xff\xfe\x00\x1b[31m\r\n",
    "a long line": b"550 " + b"x" * 20_000 + b"\r\n",
    "two replies": b"250 ok\r\n250 ok\r\n",
}


class OddRelay:
    """It answers as usual but for one step. The first message is 1.

    :ivar ends: how many messages it got to their end.
    """

    def __init__(self, step: str, answer: bytes | None) -> None:
        self._step, self._answer = step, answer
        self.ends = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._clients: list[socket.socket] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self._serve)
        thread.start()
        try:
            yield
        finally:
            self._listening.shutdown(socket.SHUT_RDWR)
            for client in self._clients:
                with client:
                    pass
            thread.join()
            self._listening.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            self._clients.append(client)
            threading.Thread(target=self._talk, args=(client,), daemon=True).start()

    def _talk(self, client: socket.socket) -> None:
        try:
            with client.makefile("rb") as lines:
                if not self._say(client, "greeting"):
                    return
                in_message = False
                while line := lines.readline():
                    if in_message:
                        if line != b".\r\n":
                            continue
                        step, in_message = "end", False
                        self.ends += 1
                    else:
                        step = line[:4].decode().strip().upper()
                        in_message = step == "DATA"
                    if not self._say(client, step):
                        return
        except OSError:
            return

    def _say(self, client: socket.socket, step: str) -> bool:
        answer = self._answer if step == self._step else USUAL.get(step, b"250 ok\r\n")
        if answer is None:
            client.shutdown(socket.SHUT_RDWR)
            return False
        client.sendall(answer)
        return True


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
@pytest.mark.parametrize("step", STEPS)
def test_an_odd_answer(step: str, answer: bytes | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relaying, "TIMEOUT_SECONDS", 0.3)
    monkeypatch.setattr(relaying, "LAST_REPLY_SECONDS", 0.3)
    odd = OddRelay(step, answer)
    handed_over: list[bool] = []
    with (
        odd.running(),
        Relay("127.0.0.1", odd.port, implicit_tls=False, tls=Tls.OFFERED, name="mx.example") as made,
    ):
        try:
            reply = made.send("", "d@example.com", [b"Subject: x\r\n\r\n"], lambda: handed_over.append(True))
        except RelayError as error:
            outcome, said = "unusable", str(error)
        else:
            outcome, said = str(reply.outcome), reply.text
    assert said.isprintable()
    assert len(said) <= relaying.MAX_REPLY + 20
    if odd.ends:
        assert handed_over
        is_refused = step == "end" and answer is not None and answer[:1] in (b"4", b"5") and answer.endswith(b"\r\n")
        if not is_refused:
            assert outcome in (RelayOutcome.TAKEN, RelayOutcome.UNANSWERED)
    else:
        assert outcome not in (RelayOutcome.TAKEN, RelayOutcome.UNANSWERED)
