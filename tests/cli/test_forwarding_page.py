# SPDX-License-Identifier: GPL-3.0-or-later
"""``docs/forwarding.md`` is correct: its commands run as they are written, in a directory in place of /etc."""

from __future__ import annotations

import grp
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from assay.cli.main import main
from assay.config import load, make_rewriting
from assay.config.forwarding import make_sealing

PAGE = (Path(__file__).parents[2] / "docs" / "forwarding.md").read_text("utf-8")
SHELL = re.findall(r"^ *```sh\n(.*?)^ *```$", PAGE, re.MULTILINE | re.DOTALL)
TOML = re.findall(r"^ *```toml\n(.*?)^ *```$", PAGE, re.MULTILINE | re.DOTALL)
#: The hash and the date, which differ each time.
CHANGING = re.compile("SRS0=[^=]{4}=[A-Z2-7]{2}=")


@pytest.fixture
def placed(tmp_path: Path) -> Path:
    """The configuration of the page, with its secret and its key."""
    if not shutil.which("openssl"):
        pytest.skip("no openssl")
    group = grp.getgrgid(os.getegid()).gr_name
    for commands in SHELL:
        text = commands.replace("/etc/", f"{tmp_path}/etc/").replace("chgrp assay", f"chgrp {group}")
        text = text.replace("-g assay", f"-g {group}")
        done = subprocess.run(["sh", "-e", "-c", text], capture_output=True, text=True, check=True)
    assert re.fullmatch("v=DKIM1; k=rsa; p=[A-Za-z0-9+/]{300,}=*\n", done.stdout)
    path = tmp_path / "etc/assay.toml"
    wanted = [text for text in TOML if "secrets_file" in text or "arc.seal" in text]
    path.write_text("\n".join(wanted).replace("/etc/", f"{tmp_path}/etc/"))
    return path


def test_the_secret_and_the_key_that_the_commands_make_are_used(placed: Path) -> None:
    configuration = load(placed)
    assert make_rewriting(configuration.srs) is not None
    assert make_sealing(configuration.arc) is not None
    assert main(["config", "check", "-c", str(placed)]) == os.EX_OK


def test_the_examples_print_what_the_page_shows(placed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    examples = re.findall(r"^    \$ assay (srs .*)\n((?:    [^$\n].*\n)+)", PAGE, re.MULTILINE)
    assert len(examples) == 3
    for command, shown in examples:
        arguments = shlex.split(command.replace("/etc/", f"{placed.parents[1]}/etc/"))
        if arguments[1] == "reverse":  # of an address that has been made with this secret
            main(["srs", "forward", *arguments[2:4], "ann@a.example"])
            arguments[-1] = capsys.readouterr().out.strip()
        assert main(arguments) == ("so it is not rewritten" in shown)  # 1, as the page says
        printed = capsys.readouterr()
        expected = shown.replace("\n    ", "\n").removeprefix("    ")
        assert CHANGING.sub("", printed.out + printed.err) == CHANGING.sub("", expected)
