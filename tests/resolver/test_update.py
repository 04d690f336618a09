# SPDX-License-Identifier: GPL-3.0-or-later
"""TSIG key files: read as ``tsig-keygen`` writes them. A real server takes updates in ``keys/test_knot.py``."""

from __future__ import annotations

from pathlib import Path

import pytest

from assay.resolver.update import read_tsig

SECRET = "c2VjcmV0"
FILE = f'key "assay" {{\n\talgorithm hmac-sha256;\n\tsecret "{SECRET}";\n}};\n'


def written(folder: Path, text: str) -> Path:
    path = folder / "tsig"
    path.touch(0o600)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "text",
    [
        FILE,
        FILE.replace('"', ""),
        FILE.replace("\n", " "),
        FILE.replace("hmac-sha256", "HMAC-SHA256."),
        f"# made by tsig-keygen\n/* of\nBIND */ {FILE}// end\n",
        f'KEY assay{{secret "{SECRET}";algorithm hmac-sha256;}};',
    ],
)
def test_what_tsig_keygen_writes_is_read(tmp_path: Path, text: str) -> None:
    key = read_tsig(written(tmp_path, text))
    assert (key.name, key.algorithm, key.secret) == ("assay", "hmac-sha256", b"secret")


def test_a_secret_is_never_shown(tmp_path: Path) -> None:
    key = read_tsig(written(tmp_path, FILE))
    for shown in (repr(key), str(key), f"{key!r}"):
        assert "secret" not in shown
        assert SECRET not in shown


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("hello", "not a TSIG key; make one with: tsig-keygen NAME >"),
        (FILE + FILE, "not a TSIG key"),
        (FILE.replace("secret", "geheim"), "not a TSIG key"),
        (FILE.replace("algorithm hmac-sha256;", ""), "not a TSIG key"),
        (FILE.replace("hmac-sha256", "hmac-md5"), "the algorithm hmac-md5 is not one of hmac-sha256, hmac-sha384"),
        (FILE.replace(SECRET, "a*b"), "the secret is not base64, or the name is not one of the DNS"),
        (FILE.replace("assay", "a..b"), "the secret is not base64, or the name is not one of the DNS"),
        ("\0" * 50, "not a TSIG key"),
        ("key " * 5000, "not a TSIG key"),
    ],
)
def test_anything_else_is_refused_with_the_file(tmp_path: Path, text: str, why: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ValueError, match=r"tsig: ") as caught:
        read_tsig(path)
    assert str(caught.value).startswith(f"{path}: {why}")
    assert "secret of" not in str(caught.value)


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, FILE)
    path.chmod(0o644)
    with pytest.raises(ValueError, match="anyone can read it"):
        read_tsig(path)
