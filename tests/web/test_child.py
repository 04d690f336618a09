# SPDX-License-Identifier: GPL-3.0-or-later
"""The page in a real daemon: a process of its own, over TCP and on a unix socket, on which mail does not depend."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import time
from collections.abc import Sequence
from pathlib import Path

from asking import TOKEN
from running import PATIENCE, Daemon, fill
from sending import ROWS, greet, results, send
from zone import Rows


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


class OverUnix(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("page.example", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(str(self._path))


def serving(
    folder: Path, listen: str, rows: Rows | None = None, program: Sequence[str] = ("-m", "assay"), **stored: object
) -> Daemon:
    token = folder / "token"
    token.touch(0o600)
    token.write_text(f"{TOKEN}\n")
    (folder / "store").mkdir()
    store = {"directory": str(folder / "store"), **stored}
    web = {"listen": listen, "token_file": str(token)}
    return Daemon(folder, rows, program=program, store=store, log={"level": "debug"}, web=web)


def status(connection: http.client.HTTPConnection) -> int:
    """The status of the login form, once the page answers."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            connection.request("GET", "/login")
            response = connection.getresponse()
            response.read()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return response.status
        finally:
            connection.close()


def page_of(daemon: Daemon, number: int) -> int:
    """The process of the page, when it has been started for the number-th time."""
    log = daemon.wait_for_log(": DEBUG: page ", number)
    return int(re.findall(r"DEBUG: page (\d+) started", log)[-1])


def test_the_page_over_tcp_dies_and_comes_back_and_mail_goes_on(tmp_path: Path) -> None:
    port = free_port()
    with serving(tmp_path, f"inet:{port}@127.0.0.1") as daemon:
        assert status(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) == 200
        os.kill(page_of(daemon, 1), signal.SIGKILL)
        with daemon.mta() as mta:
            mta.close()
        page_of(daemon, 2)
        assert status(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) == 200
        assert "Traceback" not in daemon.log()


#: `assay` with an HTTP server that fails once the file appears, and removes it.
FAILING = """\
import os, sys, uvicorn
from assay.cli.main import main
fault, *arguments = sys.argv[1:]
whole = uvicorn.Server.on_tick
async def on_tick(server, counter):
    if os.path.exists(fault):
        os.remove(fault)
        raise MemoryError
    return await whole(server, counter)
uvicorn.Server.on_tick = on_tick
sys.exit(main(arguments))
"""


def test_a_page_whose_http_server_has_ended_is_started_again(tmp_path: Path) -> None:
    fault = tmp_path / "fault"
    path = tmp_path / "page.sock"
    with serving(tmp_path, f"unix:{path}", program=("-c", FAILING, str(fault))) as daemon:
        assert status(OverUnix(path)) == 200
        first = page_of(daemon, 1)
        fault.touch()
        log = daemon.wait_for_log(f"page {first} died (exit code 70); starting another")
        assert "page: the HTTP server has ended: MemoryError()" in log
        page_of(daemon, 2)
        assert status(OverUnix(path)) == 200
        assert "Traceback" not in daemon.log()


def test_the_page_over_a_unix_socket_which_a_reload_opens_again(tmp_path: Path) -> None:
    path = tmp_path / "page.sock"
    with serving(tmp_path, f"unix:{path}") as daemon:
        assert status(OverUnix(path)) == 200
        assert path.stat().st_mode & 0o777 == 0o660
        daemon.signal(signal.SIGHUP)
        daemon.wait_for_log("reloaded")
        page_of(daemon, 2)
        assert status(OverUnix(path)) == 200
    assert not path.exists()
    assert "Traceback" not in daemon.log()


def test_a_token_that_changes_while_it_is_read_ends_no_session(tmp_path: Path) -> None:
    good, read_twice = f"{TOKEN}\n", 2  # by each start and each reload: to check it, and for the page
    token = tmp_path / "pipe"
    os.mkfifo(token, 0o600)

    writer = fill(token, *[good] * read_twice)
    web = {"listen": f"unix:{tmp_path}/page.sock", "token_file": str(token)}
    with Daemon(tmp_path, ROWS, store={"directory": str(tmp_path)}, web=web) as daemon:
        writer.join()
        writer = fill(token, good, "short\n")
        daemon.signal(signal.SIGHUP)
        daemon.wait_for_log("not reloaded, the old configuration stays: web.token_file: ")
        writer.join()
        with daemon.mta() as mta:
            greet(mta)
            assert "dmarc=pass" in results(send(mta))


def test_an_address_that_is_taken_is_named_with_the_fix(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"inet:{taken.getsockname()[1]}@127.0.0.1"
        with serving(tmp_path, listen) as daemon:
            log = daemon.wait_for_log("died (exit code 69)")
    assert f"page: web.listen: {listen}: Address already in use; find the program that has the port with: ss" in log
    assert "Traceback" not in log


def test_a_directory_that_is_missing_is_named_with_the_fix(tmp_path: Path) -> None:
    with serving(tmp_path, f"unix:{tmp_path}/none/page.sock") as daemon:
        log = daemon.wait_for_log("died (exit code 69)")
    assert f"page.sock: No such file or directory; create the directory {tmp_path}/none, writable for" in log
    assert "Traceback" not in log


def page(port: int, path: str) -> str:
    """A page of the daemon, after a login."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.request("POST", "/login", f"token={TOKEN}")
    response = connection.getresponse()
    response.read()
    connection.request("GET", path, headers={"Cookie": str(response.getheader("set-cookie")).partition(";")[0]})
    text = connection.getresponse().read().decode()
    connection.close()
    return text


def test_a_message_of_a_real_daemon_is_shown_with_what_the_dns_answered(tmp_path: Path) -> None:
    port = free_port()
    with serving(tmp_path, f"inet:{port}@127.0.0.1", ROWS, dns_answers=True) as daemon:
        assert status(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) == 200
        with daemon.mta() as mta:
            greet(mta)
            send(mta, queue="4QAAAA")
        deadline = time.monotonic() + PATIENCE
        while not (found := re.findall(r'href="(/messages/[0-9a-f]{32})"', page(port, "/messages"))):
            assert time.monotonic() < deadline, "no message on the page"
            time.sleep(0.1)
        shown = page(port, found[0])
        rows = json.loads(page(port, f"{found[0]}.json?table=explanation"))
    assert "Explained" in shown
    assert "=&gt; example.org: pass: example.org permits 192.0.2.1, by ip4:192.0.2.1" in shown
    answers = {(row["name"], row["type"]): row for row in rows if row["name"]}
    record = ROWS["_dmarc.example.org"][0][1][0]
    assert answers["_dmarc.example.org", "TXT"]["answer"] == [record]
    assert answers["_dmarc.example.org", "TXT"]["outcome"] == "found"
    assert ("1.2.0.192.in-addr.arpa", "PTR") in answers, "what the connection asked"
