# SPDX-License-Identifier: GPL-3.0-or-later
"""``assay config check --online``: whether the nameservers are resolvers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from assay.cli.main import main
from nameserver import NameServer, closed_port
from zone import Rows

PUBLIC: Rows = {"a.root-servers.net": [["A", "198.41.0.4"]]}
SERVERS: dict[str, tuple[Rows, dict[str, Any], str]] = {
    "a resolver": (PUBLIC, {}, ""),
    "a server that knows only its own zones": ({}, {}, "{server} reports that a.root-servers.net does not exist"),
    "a server that refuses": (PUBLIC, {"rcodes": {"a.root-servers.net": "REFUSED"}}, "{server} answered REFUSED"),
    "a server that does not answer": (PUBLIC, {"drop": True}, "{server} did not answer within"),
    "a server that fails for names that do not exist": (
        PUBLIC,
        {"rcodes": {"assay-config-check.invalid": "SERVFAIL"}},
        "{server} answered SERVFAIL",
    ),
    "a server that lies": (
        PUBLIC | {"assay-config-check.invalid": [["A", "192.0.2.1"]]},
        {},
        "{server} answers for assay-config-check.invalid",
    ),
}


def check(directory: Path, capsys: pytest.CaptureFixture[str], *servers: str) -> tuple[int, str]:
    path = directory / "assay.toml"
    path.write_text(
        f"[dns]\nnameservers = {list(servers)}\ntimeout_seconds = 0.3\nbudget_seconds = 2\n".replace("'", '"')
    )
    code = main(["config", "check", "--online", "-c", str(path)])
    return code, capsys.readouterr().err


@pytest.mark.parametrize(("rows", "options", "fault"), SERVERS.values(), ids=SERVERS)
def test_each_nameserver_is_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: Rows, options: dict[str, Any], fault: str
) -> None:
    with NameServer(PUBLIC) as good, NameServer(rows, **options) as server:
        code, said = check(tmp_path, capsys, good.text, server.text)
        assert code == (69 if fault else 0)
        assert fault.format(server=server.text) in said
        assert said.count("; repair it, or write another in dns.nameservers\n") == bool(fault)
        assert good.text not in said


def test_a_refused_connection(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = check(tmp_path, capsys, closed_port())
    assert code == 69
    assert "could not be asked" in said
