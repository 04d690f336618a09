# SPDX-License-Identifier: GPL-3.0-or-later
"""What the verbs of ``assay keys`` have in common: the configuration, the directories, one run over a directory."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from msgspec.structs import replace

from assay.cli import key_report, output
from assay.cli.output import say
from assay.config import Configuration, load
from assay.config.publishing import make_authority, make_publisher
from assay.config.section import SettingError
from assay.keyring import Directory, KeyringError, directories
from assay.keyring.run import First, advance, no_steps
from assay.keys.rotation import Schedule
from assay.model.name import Domain
from assay.resolver.authority import Authority


class KeyCommand:
    """The configuration of one ``assay keys`` command, and what it works with."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.configuration: Configuration = load(options.config)
        self.settings = self.configuration.keys
        self.now = int(time.time())

    @cached_property
    def authority(self) -> Authority:
        """Asks the authoritative servers what is published."""
        return make_authority(self.settings, self.configuration.dns)

    @property
    def without_new(self) -> Schedule:
        """The schedule without keys to make that the operator has not asked for."""
        return replace(self.settings.schedule, types=())

    def directory(self, domain: Domain) -> Directory:
        """The directory of one domain."""
        return Directory(Path(self.settings.directory) / domain.name)

    def each(self, act: Callable[[Directory], int]) -> int:
        """Do something for the named domains, or all. What is wrong with one does not keep it from the others.

        :returns: the worst exit code.
        """
        code = os.EX_OK
        named = tuple(map(self.directory, self.options.domains))
        for directory in named or directories(Path(self.settings.directory)):
            try:
                code = max(code, act(directory))
            except KeyringError as error:
                complain(str(error))
                code = max(code, os.EX_NOINPUT)
            except SettingError as error:
                complain(f"{directory.path.name}: {error}")
                code = max(code, os.EX_CONFIG)
            except OSError as error:
                complain(f"{error.filename or directory.path}: {error.strerror}")
                code = max(code, os.EX_IOERR)
        return code

    def advance(self, directory: Directory, schedule: Schedule, first: First = no_steps, bits: int = 0) -> int:
        """Take the steps that are due, and report them; the exit code."""
        authority = self.authority
        publisher = make_publisher(self.settings, authority, Domain(directory.load().domain))
        report = advance(
            directory,
            schedule,
            authority.texts,
            publisher,
            self.now,
            bits=bits or self.settings.rsa_bits,
            first=first,
        )
        routine = not getattr(self.options, "due", False)  # a timer's run prints only what the operator has to do
        say(key_report.describe(report, self.options.form, self.settings.ttl_seconds, routine=routine))
        for failure in report.failed:
            complain(f"{report.ring.domain}: {failure}")
        return os.EX_UNAVAILABLE if report.failed else os.EX_OK


def complain(text: str) -> None:
    """Report an error, which may quote a file, a program or a server."""
    output.complain("keys", text)
