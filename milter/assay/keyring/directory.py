# SPDX-License-Identifier: GPL-3.0-or-later
"""The directory of one domain's keys: ``keys.json`` with the state of each, and ``SELECTOR.pem`` with the private keys.

The state file is replaced whole, so one rename is one transition: a reader finds the keys as they were before it or
after it. A key file never changes: its name is the selector, and no selector is used twice. It is on the disk before
the state file names it, and goes after the state file has said that it is retired.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import msgspec

from assay import files, secrets
from assay.keys.rotation import KeyRing, KeyState, RingKey, check_selector
from assay.model.name import Domain, InvalidNameError
from assay.protocol import dkim

STATE_FILE = "keys.json"
_PEM = ".pem"


class KeyringError(ValueError):
    """A directory of keys that cannot be used. The message names the file and the fix."""


class Signers(msgspec.Struct, frozen=True):
    """The keys of a domain with their private keys: those that sign, and those that are retiring."""

    domain: str
    active: tuple[tuple[RingKey, dkim.PrivateKey], ...]
    retiring: tuple[tuple[RingKey, dkim.PrivateKey], ...]


class Directory:
    """The keys of one domain. Every method may raise `KeyringError`, and those that write `OSError`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def state(self) -> Path:
        """The file with the states."""
        return self.path / STATE_FILE

    @property
    def exists(self) -> bool:
        """Whether the domain has keys. True if that cannot be seen: whoever loads them then reports the reason."""
        try:
            self.state.stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True
        return True

    def key_file(self, selector: str) -> Path:
        """The file with the private key of a selector."""
        return self.path / f"{selector}{_PEM}"

    def load(self) -> KeyRing:
        """Read the states."""
        try:
            ring = msgspec.json.decode(files.read_text(self.state), type=KeyRing)
        except FileNotFoundError as error:
            raise self._missing() from error
        except OSError as error:
            raise KeyringError(f"{self.state}: cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise KeyringError(f"{self.state}: not a state file (not UTF-8 text); restore it from a backup") from error
        except msgspec.DecodeError as error:
            raise KeyringError(f"{self.state}: not a state file ({error}); restore it from a backup") from error
        self._check(ring)
        return ring

    def save(self, ring: KeyRing) -> None:
        """Replace the states, at once."""
        text = msgspec.json.format(msgspec.json.encode(ring), indent=2)
        secrets.write(self.state, text + b"\n")

    def save_key(self, selector: str, pem: bytes) -> None:
        """Write the private key of a new selector."""
        secrets.write(self.key_file(selector), pem)

    def private(self, key: RingKey) -> dkim.PrivateKey:
        """The private key of a selector, which must belong to its record."""
        path = self.key_file(key.selector)
        private = self.load_private(key.selector)
        if dkim.record_of(private) != key.record:
            raise KeyringError(f"{path}: not the key of which {self.state} has the record; restore it from a backup")
        return private

    def load_private(self, selector: str) -> dkim.PrivateKey:
        """The private key in the file of a selector, which the state file may not know."""
        path = self.key_file(selector)
        try:
            return dkim.load_private_key(secrets.read(path))
        except secrets.SecretError as error:
            raise KeyringError(str(error)) from error
        except ValueError as error:
            raise KeyringError(f"{path}: {error}") from error

    def signing(self) -> Signers:
        """The keys that sign, and those that signed until lately. One read of the state file decides which.

        A retiring key whose file is broken is left out: no mail needs it.
        """
        ring = self.load()
        # The RSA signature goes on top, for verifiers that look at no other.
        keys = sorted(ring.keys, key=lambda key: key.type, reverse=True)
        retiring = []
        for key in keys:
            if key.state is KeyState.RETIRING:
                with suppress(KeyringError):
                    retiring.append((key, self.private(key)))
        active = tuple((key, self.private(key)) for key in keys if key.state is KeyState.ACTIVE)
        return Signers(ring.domain, active, tuple(retiring))

    def clean(self, ring: KeyRing) -> None:
        """Remove what an interrupted run left, and the private keys of retired selectors."""
        for path in self.path.glob(f"{files.UNFINISHED}*"):
            files.remove(path)
        for key in ring.keys:
            if key.state is KeyState.RETIRED and self.key_file(key.selector).exists():
                files.remove(self.key_file(key.selector))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs out: two timers, or a timer and an operator. Waits for the other run."""
        with ExitStack() as stack:
            try:
                stack.enter_context(files.locked(self.path))
            except FileNotFoundError as error:
                raise self._missing() from error
            yield

    def begin(self, domain: Domain) -> None:
        """Make the directory and an empty state file for a domain that has none. Of two runs, one does."""
        if self.state.exists():
            return
        folder = self.path.parent
        with ExitStack() as stack:
            try:
                status = folder.stat()
                stack.enter_context(files.locked(folder))
            except OSError as error:
                raise KeyringError(
                    f"{folder}: {error.strerror}; make it for the daemon: install -d -m 0750 -o USER -g GROUP {folder}"
                ) from error
            if not self.path.exists():
                unfinished = folder / f"{files.UNFINISHED}{self.path.name}"
                unfinished.mkdir(mode=0o700, exist_ok=True)
                if os.geteuid() == 0:
                    os.chown(unfinished, status.st_uid, status.st_gid)
                unfinished.chmod(status.st_mode & 0o750)
                os.rename(unfinished, self.path)
            if not self.state.exists():
                self.save(KeyRing(domain.name))

    def _missing(self) -> KeyringError:
        return KeyringError(f"{self.state}: no such file; make keys with: assay keys create {self.path.name}")

    def _check(self, ring: KeyRing) -> None:
        seen = set()
        try:
            Domain.parse_host(ring.domain)
            for key in ring.keys:
                if check_selector(key.selector) != key.selector or key.selector in seen:
                    raise ValueError(f"the selector {key.selector!r} appears twice or in another spelling")
                seen.add(key.selector)
        except InvalidNameError as error:
            raise KeyringError(f"{self.state}: {ring.domain!r} is not a domain: {error}") from error
        except ValueError as error:
            raise KeyringError(f"{self.state}: {error}") from error


def directories(above: Path) -> tuple[Directory, ...]:
    """The directories of keys below one, by name; none if it does not exist. One that may not be entered is among them.

    :raises KeyringError: it cannot be listed.
    """
    try:
        names = sorted(os.listdir(above))
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise KeyringError(f"{above}: cannot be listed: {error.strerror}") from error
    return tuple(found for name in names if (found := Directory(above / name)).exists)
