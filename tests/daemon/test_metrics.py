# SPDX-License-Identifier: GPL-3.0-or-later
"""The figures of a real daemon: all workers summed, through deaths and reloads."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from assay.daemon.http import MAX_CLIENTS
from running import PATIENCE, Activated, Daemon, until
from sending import BAD, ROWS, greet, message, send

Figures = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def daemon(tmp_path: Path, free_port: int) -> Iterator[Daemon]:
    metrics = {"listen": f"inet6:{free_port}@::1"}
    with Daemon(tmp_path, ROWS, metrics=metrics, dmarc={"reject": "reject"}, iprev={"stage": "connect"}) as one:
        until(lambda: get(one, "/healthz")[0] == 200)
        yield one


def get(daemon: Daemon, path: str) -> tuple[int, str]:
    """A response, and 0 while nothing listens."""
    port = int(daemon.sections["metrics"]["listen"].split(":")[1].partition("@")[0])
    connection = http.client.HTTPConnection("::1", port, timeout=PATIENCE)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    except (OSError, http.client.HTTPException):  # it is being replaced
        return 0, ""
    finally:
        connection.close()


def figures(daemon: Daemon) -> Figures:
    status, text = get(daemon, "/metrics")
    assert status in (0, 200)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def figure(daemon: Daemon, name: str, **labels: str) -> float:
    """The sum of all samples with these labels."""
    wanted = set(labels.items())
    return sum(value for (found, has), value in figures(daemon).items() if found == f"assay_{name}" and wanted <= has)


def children(daemon: Daemon) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text().split()]


def send_all(daemon: Daemon, times: int = 3) -> None:
    """As many good messages, and one that is refused."""
    with daemon.mta() as mta:
        greet(mta)
        for _ in range(times):
            send(mta)
    with daemon.mta() as mta:
        greet(mta, BAD)
        assert send(mta, message("a@reject.example")).code == 550


def test_messages_are_counted_as_they_end(daemon: Daemon) -> None:
    send_all(daemon)
    assert figure(daemon, "verdicts_total", stage="eom", action="accept") == 3
    assert figure(daemon, "verdicts_total", stage="eom", action="reject") == 1
    assert figure(daemon, "results_total", method="dmarc", result="pass") == 3
    assert figure(daemon, "results_total", method="dmarc", result="fail") == 1
    assert figure(daemon, "results_total", method="spf.mailfrom") == 4
    assert figure(daemon, "decisions_total", by="dmarc.reject", action="reject") == 1
    assert figure(daemon, "wait_seconds_count", stage="eom") == 4
    assert figure(daemon, "message_wait_seconds_count") == 4
    assert figure(daemon, "message_wait_seconds_bucket", le="+Inf") == 4
    assert 0 < figure(daemon, "message_wait_seconds_sum") < 40
    assert figure(daemon, "exceptions_total") == 0


def test_a_message_whose_client_nobody_names_is_no_bug(daemon: Daemon) -> None:
    with daemon.mta() as mta:
        mta.helo("mail.example.org")
        assert send(mta).code == 451
    assert figure(daemon, "exceptions_total") == 0


def test_what_the_resolver_does(daemon: Daemon) -> None:
    send_all(daemon)
    server = daemon.nameserver.text
    until(lambda: figure(daemon, "dns_questions_total", source="cache") > 0)
    assert figure(daemon, "dns_queries_total", server=server, transport="udp", outcome="found") > 0
    assert figure(daemon, "dns_query_seconds_count", server=server) == figure(daemon, "dns_queries_total")
    until(lambda: figure(daemon, "dns_nameserver_up", server=server) >= 1)  # the other worker may not have asked
    assert figure(daemon, "dns_questions_total", source="asked") > 0


def test_the_daemon_itself(daemon: Daemon) -> None:
    until(lambda: figure(daemon, "workers") == 2)  # one of them may serve before the other
    assert figure(daemon, "configuration_generation") == 1
    assert 0 <= time.time() - figure(daemon, "start_time_seconds") < 60
    assert figure(daemon, "info") == 1
    with daemon.mta() as mta:
        greet(mta)
        until(lambda: figure(daemon, "sessions") == 1)
    until(lambda: figure(daemon, "sessions") == 0)


def test_neither_a_death_nor_a_reload_resets_anything(daemon: Daemon) -> None:
    send_all(daemon)
    with daemon.mta() as mta:  # a gauge of a dead process must not stay
        greet(mta)
        until(lambda: figure(daemon, "sessions") == 1)
        for pid in children(daemon):
            if os.sched_getscheduler(pid) == os.SCHED_BATCH:  # a worker
                os.kill(pid, signal.SIGKILL)
        until(lambda: figure(daemon, "deaths_total", kind="worker") == 2)
    until(lambda: figure(daemon, "workers") == 2 and figure(daemon, "sessions") == 0)
    send_all(daemon)
    assert figure(daemon, "verdicts_total", stage="eom") == 8
    daemon.signal(signal.SIGHUP)
    daemon.wait_for_log(": reloaded")
    until(lambda: get(daemon, "/metrics")[0] == 200 and figure(daemon, "configuration_generation") == 2)
    send_all(daemon)
    assert figure(daemon, "verdicts_total", stage="eom") == 12
    daemon.configure(dmarc={"reject": "explode"})
    daemon.signal(signal.SIGHUP)
    daemon.wait_for_log("not reloaded")
    until(lambda: figure(daemon, "reloads_total", result="failed") == 1)
    assert figure(daemon, "reloads_total", result="done") == 1
    assert figure(daemon, "configuration_generation") == 2


def test_ready_and_not(daemon: Daemon) -> None:
    assert get(daemon, "/readyz") == (200, "ready\n")
    path = daemon.folder / "assay.sock"
    path.rename(path.with_suffix(".away"))
    status, text = get(daemon, "/readyz")
    assert (status, text) == (503, f"the socket unix:{path}: No such file or directory\n")
    path.with_suffix(".away").rename(path)
    assert get(daemon, "/readyz")[0] == 200
    assert get(daemon, "/healthz") == (200, "alive\n")
    assert get(daemon, "/other")[0] == 404


def test_it_is_ready_on_the_socket_of_the_service_manager_that_only_the_mta_may_use(
    tmp_path: Path, free_port: int
) -> None:
    """As with assay.socket: neither at the place of milter.socket, nor for the daemon's user."""
    sections = {"milter": {"socket": "unix:/nowhere/s"}, "metrics": {"listen": f"inet6:{free_port}@::1"}}
    unprivileged = [str(shutil.which("setpriv")), "--bounding-set", "-dac_override"] if os.geteuid() == 0 else []
    with Activated(tmp_path, ROWS, socket=f"unix:{tmp_path}/s", before=unprivileged, **sections) as daemon:
        until(lambda: get(daemon, "/readyz") == (200, "ready\n"))
        (tmp_path / "s").chmod(0)
        assert get(daemon, "/readyz") == (200, "ready\n")
        (tmp_path / "s").unlink()
        assert get(daemon, "/readyz")[0] == 503


def test_without_a_nameserver_it_is_not_ready(tmp_path: Path, free_port: int) -> None:
    dns = {"nameservers": ("127.0.0.1:9",), "timeout_seconds": 0.2, "budget_seconds": 1.0}
    with Daemon(tmp_path, metrics={"listen": f"inet6:{free_port}@::1"}, dns=dns) as daemon:
        with daemon.mta() as mta:
            greet(mta)
            send(mta)
        until(lambda: get(daemon, "/readyz") == (503, "no nameserver answers\n"))


def test_clients_that_say_nothing_keep_out_no_other(daemon: Daemon) -> None:
    port = int(daemon.sections["metrics"]["listen"].split(":")[1].partition("@")[0])
    silent = [socket.create_connection(("::1", port)) for _ in range(MAX_CLIENTS)]
    silent[0].sendall(b"GET /metrics HTTP/1.0\r\n")
    assert get(daemon, "/metrics")[0] == 200
    for one in silent:
        one.close()


def test_a_port_in_use_does_not_affect_mail(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"inet:{taken.getsockname()[1]}@127.0.0.1"
        with Daemon(tmp_path, ROWS, metrics={"listen": listen}) as daemon:
            daemon.wait_for_log(
                f"cannot start the endpoint: metrics.listen: {listen}: Address already in use; find the program "
            )
            with daemon.mta() as mta:
                greet(mta)
                assert send(mta).edits


def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "metrics"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))  # by a daemon that was killed
    with Daemon(tmp_path, ROWS, metrics={"listen": f"unix:{path}"}):
        until(lambda: path.exists() and path.stat().st_mode & 0o777 == 0o660)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.0 200")
    assert not path.exists()
