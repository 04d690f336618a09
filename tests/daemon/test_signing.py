# SPDX-License-Identifier: GPL-3.0-or-later
"""A daemon that signs: keys and tables are replaced together by a reload, or not at all, and a worker that is restarted
signs as the others do."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from daemon.test_memory import BODY_OCTETS, GROWTH_KIB, resident
from running import Daemon, until
from sending import MESSAGE, ROWS, greet, send
from signing import pem, rsa_key


def signature(daemon: Daemon) -> str:
    """The inserted signature of one message of ours, on one line."""
    with daemon.mta() as mta:
        greet(mta, "10.0.0.1")
        outcome = send(mta, MESSAGE)
    (value,) = [value for _, name, value in outcome.edits if name == b"DKIM-Signature" and value is not None]
    return " ".join(value.decode().split())


def row(folder: Path, selector: str) -> dict[str, object]:
    return {"domain": "example.org", "selectors": (selector,), "key_files": (str(folder / "key.pem"),)}


def test_keys_are_read_at_start_and_at_a_reload(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.touch(0o600)
    path.write_bytes(pem(rsa_key()))
    sections = {"clients": {"internal": ("10.0.0.0/8",)}, "sign": {"domain": (row(tmp_path, "one"),)}}
    with Daemon(tmp_path, ROWS, milter={"workers": 1}, **sections) as daemon:
        assert "d=example.org; s=one;" in signature(daemon)
        assert "sign=example.org/one" in daemon.wait_for_log("sign=")

        path.write_bytes(b"broken")
        daemon.signal(signal.SIGHUP)
        log = daemon.wait_for_log("not reloaded, the old configuration stays: ")
        assert f"sign.domain 1.key_files: {path}: not a private key in PEM" in log
        assert "s=one;" in signature(daemon)

        (worker,) = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text().split()
        os.kill(int(worker), signal.SIGKILL)
        daemon.wait_for_log("starting another")
        assert "s=one;" in signature(daemon), "it has the key that was read at start"

        path.write_bytes(pem(rsa_key(1024)))
        daemon.configure(sign={"domain": (row(tmp_path, "two"),)})
        daemon.signal(signal.SIGHUP)
        daemon.wait_for_log(": reloaded")
        until(lambda: "s=two;" in signature(daemon), "the old worker may still take a session")


def test_a_large_body_is_signed_and_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.touch(0o600)
    path.write_bytes(pem(rsa_key()))
    sections = {"clients": {"internal": ("10.0.0.0/8",)}, "sign": {"domain": (row(tmp_path, "one"),)}}
    large = MESSAGE + (b"y " * 38 + b"\r\n") * (BODY_OCTETS // 78)
    with Daemon(tmp_path, ROWS, milter={"workers": 1}, **sections) as daemon, daemon.mta() as mta:
        greet(mta, "10.0.0.1")
        send(mta, MESSAGE)
        before = resident(daemon)
        for _ in range(2):
            assert b"DKIM-Signature" in [name for _, name, _ in send(mta, large).edits]
        assert resident(daemon) - before < GROWTH_KIB
