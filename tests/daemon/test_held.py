# SPDX-License-Identifier: GPL-3.0-or-later
"""The sockets of helpers outlive the helpers: no client of the map server is refused while it is replaced."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from assay.config.endpoint import Endpoint
from assay.daemon.child import Kind, SocketSetting
from assay.daemon.held import HeldSockets, listen
from running import PATIENCE, Daemon, until

RELOADS = 6
QUESTION = b"21:forward ann@a.example,"
ANSWER = b"41:OK SRS0="


def free_endpoint() -> Endpoint:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return Endpoint.parse(f"inet:{probe.getsockname()[1]}@127.0.0.1")


def srs(folder: Path, **places: Endpoint) -> dict[str, str]:
    secrets = folder / "secrets"
    secrets.touch(0o600)
    secrets.write_text("a secret for the tests\n")
    return {"domain": "srs.example", "secrets_file": str(secrets)} | {key: str(place) for key, place in places.items()}


def serving(folder: Path, **places: Endpoint) -> Daemon:
    return Daemon(folder, milter={"workers": 1}, log={"level": "debug"}, srs=srs(folder, **places))


def answer(place: Endpoint) -> bytes:
    """What a client that connects gets. As Postfix, it asks once more if its connection ends without an answer."""
    for _ in range(2):
        with place.connect(PATIENCE) as client:  # never refused
            try:
                client.sendall(QUESTION)
                if found := client.recv(200):
                    return found
            except OSError:
                continue
    return b""


def is_refused(place: Endpoint) -> bool:
    try:
        place.connect(PATIENCE).close()
    except (ConnectionRefusedError, ConnectionResetError, FileNotFoundError):  # a reset: it was closed meanwhile
        return True
    return False


def serves(daemon: Daemon, place: Endpoint) -> None:
    until(lambda: not is_refused(place), "the map server has no socket")
    assert answer(place).startswith(ANSWER), daemon.log()


def reload(daemon: Daemon, times: int = 1, **places: Endpoint) -> None:
    if places:
        daemon.configure(srs=srs(daemon.folder, **places))
    daemon.signal(signal.SIGHUP)
    daemon.wait_for_log(": reloaded", times)


def kill_map_server(daemon: Daemon) -> None:
    (*_, pid) = re.findall(r"map server (\d+) started", daemon.log())
    os.kill(int(pid), signal.SIGKILL)
    daemon.wait_for_log(f"map server {pid} died (signal 9)")


@pytest.fixture(params=["unix", "inet"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Endpoint:
    return free_endpoint() if request.param == "inet" else Endpoint.parse(f"unix:{tmp_path}/map.sock")


@pytest.fixture
def daemon(tmp_path: Path, place: Endpoint) -> Iterator[Daemon]:
    with serving(tmp_path, socketmap=place) as started:
        serves(started, place)
        yield started


def test_while_it_is_reloaded_every_lookup_is_answered(daemon: Daemon, place: Endpoint) -> None:
    ended = threading.Event()
    answers: list[bytes] = []
    faults: list[OSError] = []

    def ask() -> None:
        while not ended.is_set():
            try:
                answers.append(answer(place))
            except OSError as error:
                faults.append(error)

    clients = [threading.Thread(target=ask) for _ in range(3)]
    for client in clients:
        client.start()
    try:
        for times in range(1, RELOADS + 1):
            reload(daemon, times)
            daemon.wait_for_log("map server", times)
    finally:
        ended.set()
        for client in clients:
            client.join()
    assert faults == []
    assert len(answers) > RELOADS
    assert {found[: len(ANSWER)] for found in answers} == {ANSWER}


def test_a_killed_one_lets_clients_wait(daemon: Daemon, place: Endpoint) -> None:
    kill_map_server(daemon)
    assert answer(place).startswith(ANSWER)


def test_an_address_that_changes(daemon: Daemon, place: Endpoint, tmp_path: Path) -> None:
    other = free_endpoint() if place.port else Endpoint.parse(f"unix:{tmp_path}/other.sock")
    with daemon.mta() as mta:  # the old worker still drains
        mta.helo("mx.example")
        reload(daemon, socketmap=other)
        serves(daemon, other)
        assert is_refused(place)
        assert not (place.path and Path(place.path).exists())


def test_an_address_that_is_no_longer_configured(daemon: Daemon, place: Endpoint) -> None:
    with daemon.mta() as mta:  # the old worker still drains
        mta.helo("mx.example")
        reload(daemon, forward_table=free_endpoint())
        until(lambda: is_refused(place), "the old address stays open")
        assert not (place.path and Path(place.path).exists())


def test_at_the_end_clients_are_served_as_long_as_mail(daemon: Daemon, place: Endpoint) -> None:
    with daemon.mta() as mta:
        mta.helo("mx.example")
        daemon.signal(signal.SIGTERM)
        daemon.wait_for_log("ending: ")
        assert answer(place).startswith(ANSWER)
        kill_map_server(daemon)  # now there is no successor
        until(lambda: is_refused(place), "clients wait in vain")
    assert daemon.wait() == 0
    assert not (place.path and Path(place.path).exists())


def test_a_path_that_somebody_removed_is_opened_again(tmp_path: Path) -> None:
    place = Endpoint.parse(f"unix:{tmp_path}/map.sock")
    with serving(tmp_path, socketmap=place) as daemon:
        serves(daemon, place)
        os.unlink(place.path)
        reload(daemon)
        serves(daemon, place)


def test_one_that_cannot_be_opened_is_named_and_tried_again(tmp_path: Path) -> None:
    good = free_endpoint()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bad = Endpoint.parse(f"inet:{taken.getsockname()[1]}@127.0.0.1")
        with serving(tmp_path, socketmap=good, reverse_table=bad) as daemon:
            daemon.wait_for_log(
                f"cannot start the map server: srs.reverse_table: {bad}: Address already in use; find the program that "
                f"has the port with: ss -ltnp 'sport = :{bad.port}'; trying again in "
            )
            assert is_refused(good)  # nobody would answer
            with daemon.mta() as mta:  # mail is served
                mta.helo("mx.example")
            taken.close()
            serves(daemon, good)


class TestHeldSockets:
    @pytest.fixture
    def held(self) -> Iterator[HeldSockets]:
        held = HeldSockets()
        yield held
        held.keep(())

    @staticmethod
    def kind(*texts: str, **options: Any) -> Kind:
        settings = (SocketSetting(f"key.{number}", Endpoint.parse(text)) for number, text in enumerate(texts))
        return Kind("toy", lambda _: 0, sockets=tuple(settings), **options)

    @pytest.mark.parametrize(
        "text", ["inet:9@\u00ff" + "\u00ff" * 80, "inet:9@a..b", "unix:/tmp/\0", "unix:" + "/a" * 99]
    )
    def test_what_cannot_be_encoded_is_named(self, held: HeldSockets, text: str) -> None:
        with pytest.raises(OSError, match=r"key\.0: ") as caught:
            held.opened(self.kind(text))
        assert caught.value.strerror

    def test_the_same_address_twice_is_an_error(self, held: HeldSockets, tmp_path: Path) -> None:
        with pytest.raises(OSError, match=r"key\.1: unix:.*: another daemon serves on it; stop it"):
            held.opened(self.kind(f"unix:{tmp_path}/a", f"unix:{tmp_path}/a"))
        assert list(tmp_path.iterdir()) == []

    def test_a_stale_socket_is_replaced(self, held: HeldSockets, tmp_path: Path) -> None:
        place = Endpoint.parse(f"unix:{tmp_path}/a")
        listen(place, 0o600, 1).close()
        assert is_refused(place)
        held.opened(self.kind(str(place)))
        assert not is_refused(place)
        assert Path(place.path).stat().st_mode & 0o777 == 0o660

    def test_a_file_that_is_no_socket_stays(self, held: HeldSockets, tmp_path: Path) -> None:
        path = tmp_path / "a"
        path.write_text("of the operator")
        with pytest.raises(OSError, match="Address already in use"):
            held.opened(self.kind(f"unix:{path}"))
        assert path.read_text() == "of the operator"

    def test_the_socket_of_another_daemon_stays(self, held: HeldSockets, tmp_path: Path) -> None:
        place = Endpoint.parse(f"unix:{tmp_path}/a")
        kind = self.kind(str(place))
        held.opened(kind)
        os.unlink(place.path)
        with listen(place, 0o600, 1):
            with pytest.raises(OSError, match="another daemon serves on it"):
                held.opened(kind)
            assert not is_refused(place)

    def test_many_clients_wait(self, held: HeldSockets, tmp_path: Path) -> None:
        place = Endpoint.parse(f"unix:{tmp_path}/a")
        held.opened(self.kind(str(place)))
        with ExitStack() as waiting:
            for _ in range(100):
                waiting.enter_context(place.connect(0.1))
