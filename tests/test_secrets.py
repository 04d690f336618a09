# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of secrets: who may read them, and that they are written at once or not at all."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from assay import files, secrets


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o440, 0o640])
def test_what_only_owner_and_group_can_read_is_read(folder: Path, mode: int) -> None:
    path = folder / "secret"
    path.write_bytes(b"geheim\n")
    path.chmod(mode)
    assert secrets.read(path) == b"geheim\n"


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        (0o644, "anyone can read it (mode 0644); run: chmod 0640 "),
        (0o604, "anyone can read it (mode 0604); run: chmod 0600 "),
        (0o602, "anyone can change it (mode 0602); run: chmod 0600 "),
        (0o641, "anyone can change it (mode 0641); run: chmod 0640 "),
        (0o660, "its group can change it (mode 0660); run: chmod 0640 "),
        (0o666, "anyone can read it (mode 0666); run: chmod 0640 "),
    ],
)
def test_what_others_can_use_is_refused_with_the_fix(folder: Path, mode: int, message: str) -> None:
    path = folder / "secret"
    path.write_bytes(b"geheim\n")
    path.chmod(mode)
    with pytest.raises(secrets.SecretError) as caught:
        secrets.read(path)
    assert str(caught.value) == f"{path}: {message}{path}"
    path.chmod(int(str(caught.value).partition("chmod ")[2].partition(" ")[0], 8))
    assert secrets.read(path) == b"geheim\n"


def test_a_link_is_judged_by_what_it_leads_to(folder: Path) -> None:
    path = folder / "secret"
    path.write_bytes(b"geheim\n")
    path.chmod(0o644)
    link = folder / "link"
    link.symlink_to(path)
    with pytest.raises(secrets.SecretError, match="anyone can read it"):
        secrets.read(link)


def test_a_file_that_anyone_can_replace_is_refused(folder: Path) -> None:
    inner = folder / "keys"
    inner.mkdir()
    path = inner / "secret"
    secrets.write(path, b"geheim\n")
    inner.chmod(0o777)
    with pytest.raises(secrets.SecretError, match=rf"anyone can replace it.*run: chmod o-w {inner}"):
        secrets.read(path)
    inner.chmod(0o1777)  # as /tmp
    assert secrets.read(path) == b"geheim\n"


def test_what_cannot_be_read_says_why(folder: Path) -> None:
    for path, why in ((folder / "none", "cannot be read: No such file"), (folder, "cannot be read: Is a directory")):
        with pytest.raises(secrets.SecretError, match=why):
            secrets.read(path)
    path = folder / "empty"
    path.touch(0o600)
    with pytest.raises(secrets.SecretError, match="the file is empty"):
        secrets.read(path)
    path.write_bytes(bytes(secrets.MAX_OCTETS + 1))
    with pytest.raises(secrets.SecretError, match="larger than 64 KiB"):
        secrets.read(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="another user's permissions: run the tests as root")
def test_what_another_user_owns_is_refused_with_the_fix(folder: Path) -> None:
    path = folder / "secret"
    secrets.write(path, b"geheim\n")
    os.seteuid(65534)
    try:
        with pytest.raises(secrets.SecretError, match="Permission denied; give it, and the directories above"):
            secrets.read(path)
    finally:
        os.seteuid(0)


def test_a_pipe_of_the_shell_is_read(folder: Path) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"geheim\n")
    os.close(writer)
    assert secrets.read(Path(f"/dev/fd/{reader}")) == b"geheim\n"
    os.close(reader)


def test_a_pipe_without_a_writer_is_not_waited_for_without_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PIPE_SECONDS", 0.1)
    path = folder / "pipe"
    os.mkfifo(path, 0o600)
    said = "it is a pipe, and nothing was written into it for 0.1 seconds"
    with pytest.raises(secrets.SecretError, match=f"{path}: cannot be read: {said}"):
        secrets.read(path)
    with pytest.raises(OSError, match=said):
        files.read_text(path)
    silent = os.open(path, os.O_RDWR)
    with pytest.raises(OSError, match=said):
        files.read_text(path)
    os.close(silent)


def test_a_named_pipe_is_read_until_its_writer_closes_it(folder: Path) -> None:
    path = folder / "pipe"
    os.mkfifo(path, 0o600)
    writer = subprocess.Popen(["sh", "-c", 'exec >"$1"; echo one; sleep 0.2; echo two', "sh", str(path)])
    assert files.read_text(path) == "one\ntwo\n"
    assert writer.wait() == 0


@pytest.mark.parametrize(("of_folder", "of_file"), [(0o700, 0o600), (0o750, 0o640), (0o755, 0o640)])
def test_a_new_file_is_for_those_who_may_read_its_directory(folder: Path, of_folder: int, of_file: int) -> None:
    inner = folder / "keys"
    inner.mkdir()
    inner.chmod(of_folder)
    before = os.umask(0)
    try:
        secrets.write(inner / "secret", b"geheim\n")
    finally:
        os.umask(before)
    assert (inner / "secret").stat().st_mode & 0o7777 == of_file
    assert (inner / "secret").stat().st_gid == inner.stat().st_gid
    assert secrets.read(inner / "secret") == b"geheim\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_writes_belongs_to_the_owner_of_the_directory(folder: Path) -> None:
    inner = folder / "keys"
    inner.mkdir()
    inner.chmod(0o750)
    os.chown(inner, 1234, 4321)
    secrets.write(inner / "secret", b"geheim\n")
    status = (inner / "secret").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (1234, 4321, 0o640)


def test_a_file_that_cannot_be_written_whole_leaves_the_old_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "secret"
    secrets.write(path, b"old\n")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        secrets.write(path, b"new\n")
    assert [one.name for one in folder.iterdir()] == ["secret"]
    assert path.read_bytes() == b"old\n"


def test_replacing_never_shows_half_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "secret"
    files.replace(path, b"old", mode=0o600)
    rename, seen = os.rename, []

    def watch(source: str, target: Path) -> None:
        seen.append((Path(source).read_bytes(), path.read_bytes(), Path(source).name.startswith(files.UNFINISHED)))
        rename(source, target)

    monkeypatch.setattr(os, "rename", watch)
    files.replace(path, b"new", mode=0o600)
    assert seen == [(b"new", b"old", True)]
