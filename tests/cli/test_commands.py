# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line as users see it: a process, its output, its exit code, and never a traceback."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from assay import __main__ as program
from assay import __version__
from assay.config import sample
from running import Daemon
from sending import GOOD, MESSAGE, OUR_ID, ROWS, message

ZONE = """\
example.org. TXT "v=spf1 ip4:192.0.2.1 -all"
_dmarc.example.org. TXT "v=DMARC1; p=reject"
mail.example.org. A 192.0.2.1
mail.example.org. TXT "v=spf1 a -all"
1.2.0.192.in-addr.arpa. PTR mail.example.org.
"""
ENVELOPE = ("--ip", GOOD, "--helo", "mail.example.org", "--mail-from", "joe@example.org")
BUFFERED = {
    name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"
}  # as in a user's environment
#: A milter that wants to see everything and answers only at the end.
AGREED = b"\0\0\0\x0dO" + struct.pack("!III", 6, 0x1FF, 0xFF080)
REFUSED, USAGE, NO_INPUT, UNAVAILABLE, DEFERRED, CONFIG = 1, 64, 66, 69, 75, 78


def assay(*arguments: str | bytes, stdin: bytes = b"", **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run the program; it must not print a traceback on any input."""
    ended = subprocess.run(
        [sys.executable, "-m", "assay", *arguments],
        input=stdin,
        capture_output=True,
        timeout=60,
        check=False,
        env=BUFFERED | environment,
    )
    assert b"Traceback" not in ended.stderr, ended.stderr.decode()
    assert b"Exception ignored" not in ended.stderr, ended.stderr.decode()
    return ended


@pytest.fixture
def config(tmp_path: Path) -> str:
    """A configuration that does not use the network."""
    (tmp_path / "zone").write_text(ZONE)
    path = tmp_path / "assay.toml"
    path.write_text(f'[dns]\nnameservers = "none"\nzone = "{tmp_path}/zone"\n[identity]\nauthserv_id = "{OUR_ID}"\n')
    return str(path)


@pytest.fixture
def saved(tmp_path: Path) -> str:
    path = tmp_path / "message"
    path.write_bytes(MESSAGE)
    return str(path)


class TestCheck:
    def test_plain(self, config: str, saved: str) -> None:
        ended = assay("check", saved, *ENVELOPE, "-c", config)
        assert (ended.returncode, ended.stderr) == (0, b"")
        lines = ended.stdout.decode().splitlines()
        assert lines[0] == f"Authentication-Results: {OUR_ID};"
        assert "dmarc=pass" in ended.stdout.decode()
        assert "Received-SPF: pass" in ended.stdout.decode()

    def test_explain(self, config: str, saved: str) -> None:
        text = assay("check", saved, *ENVELOPE, "-c", config, "--explain").stdout.decode()
        assert 'TXT _dmarc.example.org: "v=DMARC1; p=reject"' in text
        assert "PTR 1.2.0.192.in-addr.arpa: mail.example.org" in text
        for line in (
            "iprev    pass: ",
            "spf      pass (mailfrom example.org)",
            "dkim     none (no signature)",
            "dmarc    pass (example",
        ):
            assert line in text
        assert "decision accept" in text

    def test_json(self, config: str, saved: str) -> None:
        ended = assay("check", saved, *ENVELOPE, "-c", config, "--json")
        found = json.loads(ended.stdout)
        assert found["action"] == "accept"
        client = {"address": "192.0.2.1", "name": "", "helo": "mail.example.org", "daemon": ""}
        assert found["assessment"]["client"] == client
        assert found["assessment"]["dmarc"]["result"] == "pass"
        assert found["assessment"]["spf_mail_from"]["result"] == "pass"
        assert {"name": "_dmarc.example.org", "type": "TXT"}.items() <= next(
            one for one in found["dns"] if one["name"] == "_dmarc.example.org"
        ).items()
        assert found["edits"][-1]["name"] == "Authentication-Results"

    def test_a_refusal_is_reported_and_is_not_a_failure_of_the_program(self, config: str, saved: str) -> None:
        with open(config, "a") as file:
            file.write('[spf.mailfrom]\nfail = "reject"\n')
        ended = assay("check", saved, "--ip", "192.0.2.66", "--mail-from", "joe@example.org", "-c", config, "--explain")
        assert ended.returncode == 0
        assert b"refused: 550 5.7.23 " in ended.stdout
        assert b"decision reject, by spf.mailfrom.fail: " in ended.stdout

    @pytest.mark.parametrize(
        "octets",
        [
            pytest.param(MESSAGE, id="CRLF"),
            pytest.param(MESSAGE.replace(b"\r\n", b"\n"), id="LF"),
            pytest.param(
                b"From joe@example.org Thu Jan  1 00:00:00 1970\n" + MESSAGE.replace(b"\r\n", b"\n"), id="mbox"
            ),
        ],
    )
    def test_standard_input_in_any_form(self, config: str, octets: bytes) -> None:
        ended = assay("check", "-", *ENVELOPE, "-c", config, stdin=octets)
        assert b"dmarc=pass" in ended.stdout

    @pytest.mark.parametrize(
        "octets", [b"", b"\n", b"\0\xff\xfe" * 100, b"From:\n", b":\n", b"From: \xff@\xfe\n\n\xff", b"x" * 100_000]
    )
    @pytest.mark.parametrize("form", [(), ("--json",), ("--explain",)])
    def test_garbage_is_judged_as_a_message(self, config: str, octets: bytes, form: tuple[str, ...]) -> None:
        ended = assay("check", "-", *ENVELOPE, "-c", config, *form, stdin=octets)
        assert ended.returncode == 0
        assert b"permerror" in ended.stdout

    @pytest.mark.parametrize("form", [(), ("--json",), ("--explain",)])
    @pytest.mark.parametrize("locale", ["C.UTF-8", "C", "POSIX"])
    def test_arguments_that_are_not_utf_8(self, config: str, saved: str, form: tuple[str, ...], locale: str) -> None:
        arguments = ("--ip", GOOD, "--helo", b"\xff\xfe", "--mail-from", b"\xff@example.org")
        ended = assay(
            "check", saved, *arguments, "-c", config, *form, LC_ALL=locale, PYTHONUTF8="0", PYTHONIOENCODING=""
        )
        assert ended.returncode == 0
        assert b"dmarc=" in ended.stdout or b'"dmarc"' in ended.stdout

    def test_ascii_output_cannot_fail(self, config: str, saved: str) -> None:
        arguments = ("--ip", GOOD, "--helo", "bücher.example", "--mail-from", "jürgen@bücher.example", "--explain")
        assert assay("check", saved, *arguments, "-c", config, PYTHONIOENCODING="ascii").returncode == 0

    @pytest.mark.parametrize(("path", "reason"), [("missing", b"No such file"), (".", b"Is a directory")])
    def test_a_missing_message(self, config: str, tmp_path: Path, path: str, reason: bytes) -> None:
        ended = assay("check", str(tmp_path / path), *ENVELOPE, "-c", config)
        assert ended.returncode == NO_INPUT
        assert reason in ended.stderr

    @pytest.mark.parametrize("command", [("check",), ("probe", "unix:none")])
    def test_an_endless_message_does_not_exhaust_memory(self, command: tuple[str, ...]) -> None:
        ended = assay(*command, "/dev/zero", "--ip", GOOD)
        assert ended.returncode == NO_INPUT
        assert ended.stderr == f"assay {command[0]}: /dev/zero: larger than 512 MiB\n".encode()

    def test_mail_that_is_not_judged_is_reported_as_such(self, config: str, saved: str) -> None:
        ended = assay("check", saved, "--ip", "::1", "-c", config)
        assert (ended.returncode, ended.stdout) == (0, b"")
        assert ended.stderr.startswith(b"assay check: not judged: internal network ")

    def test_a_broken_configuration(self, tmp_path: Path, saved: str) -> None:
        ended = assay("check", saved, *ENVELOPE, "-c", str(tmp_path / "none"))
        assert ended.returncode == CONFIG
        assert ended.stderr.startswith(b"assay: ")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    sections: dict[str, dict[str, Any]] = {
        "dmarc": {"reject": "reject", "quarantine": "tempfail", "none": "quarantine"}
    }
    with Daemon(tmp_path_factory.mktemp("daemon"), ROWS, **sections) as one:
        yield one


class TestProbe:
    @pytest.mark.parametrize(
        ("author", "code", "output"),
        [
            pytest.param("joe@example.org", 0, b"dmarc=pass", id="taken"),
            pytest.param("a@reject.example", REFUSED, b"550 5.7.1 ", id="refused"),
            pytest.param("a@quarantine.example", DEFERRED, b"451 4.7.1 ", id="deferred"),
            pytest.param("a@none.example", 0, b"dmarc=fail", id="quarantined is taken"),
        ],
    )
    def test_verdicts(self, daemon: Daemon, author: str, code: int, output: bytes) -> None:
        octets = message(author)
        ended = assay("probe", daemon.socket, "-", *ENVELOPE, "--mta-name", OUR_ID, stdin=octets)
        assert ended.returncode == code
        assert output in ended.stdout
        assert (b"quarantined: " in ended.stderr) is (author == "a@none.example")
        if code == 0:
            assert ended.stdout.startswith(b"Authentication-Results: ")
            assert ended.stdout.endswith(octets.replace(b"\r\n", b"\n"))

    def test_other_envelope_options(self, daemon: Daemon) -> None:
        rcpt = ("--rcpt", "<a@example.net>", "--rcpt", "b@example.net")
        ended = assay(
            "probe", daemon.socket, "-", *ENVELOPE, *rcpt, "--login", "joe", stdin=message("a@reject.example")
        )
        assert ended.returncode == 0
        assert b"Authentication-Results" not in ended.stdout
        assert "rcpts=2 exempt=authenticated" in daemon.wait_for_log("exempt=authenticated")

    def test_changes_of_the_envelope(self, tmp_path: Path, saved: str) -> None:
        (tmp_path / "secrets").touch(0o600)
        (tmp_path / "secrets").write_bytes(b"a secret for the tests")
        section = {"domain": "srs.example", "secrets_file": str(tmp_path / "secrets"), "own_domains": ("ours.example",)}
        with Daemon(tmp_path, ROWS, srs=section) as forwarder:
            ended = assay("probe", forwarder.socket, saved, *ENVELOPE, "--rcpt", "bob@a.example")
            assert ended.returncode == 0
            address = ended.stderr.decode().removeprefix("sender changed to: <").removesuffix(">\n")
            assert address.startswith("SRS0=")
            ended = assay("probe", forwarder.socket, saved, "--ip", GOOD, "--rcpt", address)
            assert (ended.returncode, ended.stderr.decode()) == (
                0,
                f"recipient removed: <{address}>\nrecipient added: <joe@example.org>\n",
            )

    def test_a_changed_field_takes_the_place_of_the_old_one(self, tmp_path: Path) -> None:
        rule = {"name": "tag", "when": "true", "tag_subject": "[x] ", "remove_fields": ("X-Old",)}
        with Daemon(tmp_path, ROWS, rule=[rule]) as tagging:
            octets = message("joe@example.org", "X-Old: 1", "X-Kept: 1")
            ended = assay("probe", tagging.socket, "-", *ENVELOPE, stdin=octets)
        kept = ended.stdout.partition(b"X-Kept: 1\n")[2]
        assert kept == b"From: joe@example.org\nSubject: [x] x\n\nhello\n"
        assert b"X-Old" not in ended.stdout

    def test_a_discarded_message_is_not_printed(self, tmp_path: Path, saved: str) -> None:
        rule = {"name": "all", "when": "true", "action": "discard"}
        with Daemon(tmp_path, ROWS, rule=[rule]) as discarding:
            ended = assay("probe", discarding.socket, saved, *ENVELOPE)
        assert (ended.returncode, ended.stdout) == (0, b"")
        assert ended.stderr.startswith(b"discarded: ")

    @pytest.mark.parametrize("octets", [b"", b"\xff\0\xfe", b"no header\n"])
    def test_garbage(self, daemon: Daemon, octets: bytes) -> None:
        ended = assay("probe", daemon.socket, "-", *ENVELOPE, stdin=octets)
        assert (ended.returncode, ended.stdout) == (1, b"550 5.6.0 DMARC: no From field\n")

    def test_arguments_that_are_not_utf_8(self, daemon: Daemon, saved: str) -> None:
        arguments = ("--ip", GOOD, "--helo", b"\xff", "--mail-from", b"\xff@example.org", "--rcpt", b"\xfe")
        assert assay("probe", daemon.socket, saved, *arguments).returncode == 0

    @pytest.mark.parametrize(
        ("reader", "code", "said"),
        [
            pytest.param("| true", 0, b"", id="a reader that closes the pipe"),
            pytest.param(">/dev/full", os.EX_IOERR, b"assay: output: No space left on device\n", id="a full disk"),
        ],
    )
    def test_output_that_cannot_be_written(
        self, daemon: Daemon, tmp_path: Path, reader: str, code: int, said: bytes
    ) -> None:
        (tmp_path / "long").write_bytes(MESSAGE + b"x" * 1_000_000)
        line = f"{sys.executable} -m assay probe {daemon.socket} {tmp_path}/long --ip {GOOD} {reader}"
        ended = subprocess.run(["/bin/sh", "-c", line], capture_output=True, check=False, env=BUFFERED)
        assert (ended.returncode, ended.stderr) == (code, said)

    @pytest.mark.parametrize("kind", ["unix", "inet", "inet6"])
    def test_a_refused_connection(self, tmp_path: Path, saved: str, kind: str) -> None:
        text = {"unix": f"unix:{tmp_path}/none", "inet": "inet:1@127.0.0.1", "inet6": "inet6:1@::1"}[kind]
        ended = assay("probe", text, saved, *ENVELOPE)
        assert ended.returncode == UNAVAILABLE
        assert b"start the daemon" in ended.stderr

    def test_a_server_that_is_not_a_milter(self, daemon: Daemon, saved: str, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:

            def answer() -> None:
                connection, _ = server.accept()
                with connection:
                    connection.recv(100)
                    connection.sendall(b"220 mail.example.org ESMTP\r\n" + b"x" * 100)

            thread = threading.Thread(target=answer)
            thread.start()
            ended = assay("probe", f"inet:{server.getsockname()[1]}@127.0.0.1", saved, *ENVELOPE)
            thread.join()
        assert ended.returncode == UNAVAILABLE
        assert b"not a milter" in ended.stderr

    @pytest.mark.parametrize(
        ("packets", "reason"),
        [
            pytest.param([b"HTTP/1.1 400 Bad Request\r\n"], b"not a milter: it sent b'HTTP/'", id="a web server"),
            pytest.param([b"\0\0\0\1O"], b"no answer to the negotiation", id="half a negotiation"),
            pytest.param([b"\0\0\0\xffO1234"], b"closed the connection in the middle of a packet", id="half a packet"),
            pytest.param([AGREED, b"\0\0\0\5yabc\0"], b"reply without a code: ", id="a reply without a code"),
            pytest.param([AGREED, b"\0\0\0\1i"], b"edit without a name or value: ", id="an empty edit"),
            pytest.param([AGREED, b"\0\0\0\7m\0\0\0\1ab"], b"edit without a name or value: ", id="half an edit"),
            pytest.param([AGREED, b"\0\0\0\1?"], b"unexpected answer ", id="an unknown answer"),
        ],
    )
    def test_a_milter_that_sends_nonsense(self, saved: str, packets: list[bytes], reason: bytes) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:

            def answer() -> None:
                connection, _ = server.accept()
                with connection:
                    connection.recv(100)
                    connection.sendall(b"".join(packets))
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(1000):
                        pass

            thread = threading.Thread(target=answer)
            thread.start()
            ended = assay("probe", f"inet:{server.getsockname()[1]}@127.0.0.1", saved, *ENVELOPE)
            thread.join()
        assert ended.returncode == UNAVAILABLE
        assert reason in ended.stderr
        assert ended.stderr.count(b"\n") == 1

    def test_a_port_that_says_nothing(self, saved: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            name = f"inet:{server.getsockname()[1]}@127.0.0.1"
            begun = time.monotonic()
            ended = assay("probe", name, saved, *ENVELOPE)
            assert time.monotonic() - begun < 25
        assert ended.returncode == UNAVAILABLE
        assert ended.stderr.decode().splitlines() == [
            f"assay probe: waiting for {name} to answer as a milter",
            f"assay probe: {name} does not answer as a milter: no answer within 5 s; write the value of milter.socket",
        ]

    @pytest.mark.parametrize("text", ["", "25", "inet:x@h", "tcp:25@h", "unix:"])
    def test_an_invalid_socket_address(self, saved: str, text: str) -> None:
        ended = assay("probe", text, saved, *ENVELOPE)
        assert ended.returncode == USAGE
        assert b"write inet:PORT@HOST" in ended.stderr

    def test_a_host_that_cannot_be_resolved(self, saved: str) -> None:
        assert assay("probe", "inet:25@host.invalid", saved, *ENVELOPE).returncode == UNAVAILABLE


class TestConfig:
    def test_check(self, config: str) -> None:
        ended = assay("config", "check", "-c", config)
        assert (ended.returncode, ended.stdout) == (0, f"OK: {config}\n".encode())
        assert assay("config", "check").stdout == b"OK: no configuration file, built-in defaults\n"

    @pytest.mark.parametrize("headers", [True, False])
    def test_check_warns_of_a_dry_run_that_keeps_forged_results(self, config: str, headers: bool) -> None:
        with open(config, "a") as file:
            file.write(f"[milter]\ndry_run = true\ndry_run_headers = {str(headers).lower()}\n")
        ended = assay("config", "check", "-c", config)
        assert (ended.returncode, ended.stdout) == (0, f"OK: {config}\n".encode())
        assert (b"warning: milter.dry_run: forged " in ended.stderr) is not headers

    @pytest.mark.parametrize("socket", ["inet:8890@localhost", "inet:8890@127.0.0.1", "inet6:8890@[::1]", "inet:8890"])
    def test_check_warns_of_a_port_that_any_user_can_bind(self, config: str, socket: str) -> None:
        with open(config, "a") as file:
            file.write(f'[milter]\nsocket = "{socket}"\n')
        ended = assay("config", "check", "-c", config)
        assert ended.returncode == 0
        assert f"warning: milter.socket = '{socket}': while the daemon".encode() in ended.stderr
        assert assay("config", "check").stderr == b"", "and not of the default"

    def test_check_names_what_is_done_where_an_action_is_not_set(self, config: str) -> None:
        with open(config, "a") as file:
            file.write('[dmarc]\nreject = "accept"\nquarantine = "quarantine"\n')
        ended = assay("config", "check", "-c", config)
        assert ended.stdout.decode().splitlines()[1:] == [
            "dmarc.temperror is not set: tempfail, because of dmarc.quarantine",
            "dmarc.malformed_from is not set: quarantine, because of dmarc.quarantine",
        ]

    def test_check_tries_everything_the_daemon_needs(self, config: str, tmp_path: Path) -> None:
        (tmp_path / "zone").write_text("example.org. A nonsense\n")
        ended = assay("config", "check", "-c", config)
        assert ended.returncode == CONFIG
        assert f"{tmp_path}/zone:1: ".encode() in ended.stderr

    def test_check_looks_up_the_group_of_the_socket(self, config: str) -> None:
        with open(config, "a") as file:
            file.write('[milter]\nsocket_group = "no-such-group"\n')
        ended = assay("config", "check", "-c", config)
        assert ended.returncode == CONFIG
        assert b"milter.socket_group: 'no-such-group' is not a group of this host; create it" in ended.stderr

    @pytest.mark.parametrize(
        ("facts", "reason"),
        [
            pytest.param("{folder}", b"Is a directory", id="a directory"),
            pytest.param("{folder}/none/facts", b"No such file or directory", id="no directory"),
            pytest.param("{folder}/facts", b"", id="a file to be created"),
        ],
    )
    def test_check_tries_the_facts_file_and_does_not_create_it(
        self, config: str, tmp_path: Path, facts: str, reason: bytes
    ) -> None:
        before = sorted(tmp_path.iterdir())
        with open(config, "a") as file:
            file.write(f'[log]\nfacts = "{facts.format(folder=tmp_path)}"\n')
        ended = assay("config", "check", "-c", config)
        assert ended.returncode == (CONFIG if reason else 0)
        assert reason in ended.stderr
        assert sorted(tmp_path.iterdir()) == before

    def test_show_prints_the_values_in_force(self, config: str, tmp_path: Path) -> None:
        shown = assay("config", "show", "-c", config).stdout
        assert f'authserv_id = "{OUR_ID}"'.encode() in shown
        again = tmp_path / "again.toml"
        again.write_bytes(shown)
        assert assay("config", "show", "-c", str(again)).stdout == shown

    def test_sample(self) -> None:
        assert assay("config", "sample").stdout.decode() == sample()

    @pytest.mark.parametrize("verb", ["check", "show"])
    def test_a_broken_file(self, tmp_path: Path, verb: str) -> None:
        (tmp_path / "broken").write_text("[dmarc]\nreject = 'x'\n")
        ended = assay("config", verb, "-c", str(tmp_path / "broken"))
        assert ended.returncode == CONFIG
        assert ended.stderr.count(b"\n") == 1
        assert b"dmarc.reject" in ended.stderr


class TestUsage:
    @pytest.mark.parametrize(
        "arguments",
        [
            (),
            ("nonsense",),
            ("check",),
            ("check", "-"),
            ("check", "-", "--ip", "nonsense"),
            ("check", "-", "--ip", GOOD, "--nonsense"),
            ("probe", "unix:x"),
            ("config",),
            ("config", "nonsense"),
            ("config", "sample", "-c", "x"),
            ("serve", "x"),
        ],
        ids=" ".join,
    )
    def test_wrong_arguments(self, arguments: tuple[str, ...]) -> None:
        ended = assay(*arguments)
        assert ended.returncode == USAGE
        assert ended.stderr.startswith(b"usage: assay")
        assert ended.stdout == b""

    @pytest.mark.parametrize("command", ["", "serve", "check", "probe", "config", "config check"])
    def test_help(self, command: str) -> None:
        ended = assay(*command.split(), "--help")
        assert ended.returncode == 0
        assert ended.stdout.startswith(f"usage: {' '.join(['assay', *command.split()])}".encode())

    def test_version(self) -> None:
        assert assay("--version").stdout == f"assay {__version__}\n".encode()

    def test_a_reader_that_closes_the_pipe(self, config: str, saved: str) -> None:
        for arguments in (["config", "sample"], ["check", saved, *ENVELOPE, "-c", config, "--json"]):
            reading, writing = os.pipe()
            os.close(reading)
            with os.fdopen(writing, "wb") as broken:
                ended = subprocess.run(
                    [sys.executable, "-m", "assay", *arguments],
                    stdout=broken,
                    stderr=subprocess.PIPE,
                    check=False,
                    env=BUFFERED,
                )
            assert ended.stderr == b""
            assert ended.returncode == 0

    @pytest.mark.parametrize(
        "arguments", [("config", "sample"), ("--help",), ("--version",), ("keys", "--help"), ("spfquery", "--version")]
    )
    @pytest.mark.parametrize("buffered", [True, False])
    def test_a_full_disk(self, arguments: tuple[str, ...], buffered: bool) -> None:
        with open("/dev/full", "wb") as full:
            ended = subprocess.run(
                [sys.executable, "-m", "assay", *arguments],
                stdout=full,
                stderr=subprocess.PIPE,
                check=False,
                env=BUFFERED if buffered else {**BUFFERED, "PYTHONUNBUFFERED": "1"},
            )
        assert ended.returncode == os.EX_IOERR
        assert ended.stderr == b"assay: output: No space left on device\n"

    @pytest.mark.parametrize(
        ("arguments", "code"),
        [(("config", "check", "-c", "/none"), CONFIG), (("config",), USAGE), (("check", "-", "--ip", "::1"), 0)],
        ids=["an error in the configuration", "wrong arguments", "no output"],
    )
    @pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&-", "<&- >&- 2>&-", "2>/dev/full"])
    def test_the_exit_code_is_kept_when_output_fails(self, arguments: tuple[str, ...], code: int, closed: str) -> None:
        line = f"exec {sys.executable} -m assay {' '.join(arguments)} {closed}"
        ended = subprocess.run(["/bin/sh", "-c", line], capture_output=True, stdin=subprocess.DEVNULL, check=False)
        if closed == "2>/dev/full" and code == 0:
            code = os.EX_IOERR  # it had a warning to print
        assert ended.returncode == code
        assert b"Traceback" not in ended.stderr + ended.stdout


def test_ctrl_c_while_the_program_still_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most of the time that a short command takes goes into imports."""

    class Interrupting:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "assay.cli.main":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "assay.cli.main", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Interrupting(), *sys.meta_path])
    assert program.main() == 130


def test_without_the_libraries_of_the_store(tmp_path: Path) -> None:
    """Every command says what to install. In a process of its own: here, all of it is loaded."""
    configuration = tmp_path / "assay.toml"
    configuration.write_text(f"[store]\ndirectory = '{tmp_path}'\nbroker = 'amqp://mq.example.org/'\n")
    commands = [
        *(["store", verb] for verb in ("check", "migrate", "consume", "export")),
        ["store", "forget", "--domain", "example.org"],
        *(["report", verb] for verb in ("list", "send", "suppress")),
        *(["report", verb, "example.org"] for verb in ("show", "why", "bounced")),
    ]
    program_text = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(('sqlalchemy', 'alembic', 'aio_pika')))\n"
        "from assay.cli.main import main\n"
        f"for command in {commands!r}:\n"
        f"    assert main([*command, '-c', {str(configuration)!r}]) == {os.EX_CONFIG}, command\n"
    )
    done = subprocess.run([sys.executable, "-c", program_text], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = f"store.database: this needs Python packages; run: {sys.executable} -m pip install SQLAlchemy alembic"
    assert done.stderr.count(said) == len(commands)


def test_the_console_script_is_that_program() -> None:
    setup = Path(__file__).parents[2] / "setup.cfg"
    assert "    assay = assay.__main__:main" in setup.read_text("utf-8").splitlines()
