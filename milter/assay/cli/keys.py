# SPDX-License-Identifier: GPL-3.0-or-later
"""``assay keys``: make signing keys, publish them, replace them, and compare them with the DNS."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from assay.cli import key_report
from assay.cli.key_check import check
from assay.cli.key_command import KeyCommand, complain
from assay.cli.key_import import take_over
from assay.cli.options import add_configuration, domain, file_path
from assay.cli.output import say
from assay.cli.serve import name
from assay.config import ConfigError
from assay.keyring import Directory, KeyringError, directories
from assay.keyring.run import no_steps
from assay.keys.forms import Form
from assay.keys.rotation import (
    KeyRing,
    KeyState,
    KeyStep,
    KeyType,
    RefusedStepError,
    begin,
    check_selector,
    retire,
)
from assay.protocol import dkim


def add_to(commands: Any) -> None:
    """Add the subcommands to the parser."""
    parser = commands.add_parser("keys", help="make, publish, check and replace signing keys")
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    def verb(name: str, run: Callable[[KeyCommand], int], text: str) -> Any:
        command = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        add_configuration(command)
        command.set_defaults(run=lambda options: _run(run, options))
        return command

    create = verb("create", _create, "make the first keys of a domain, or a further one, and publish them")
    listing = verb("list", _list, "list the keys, their states and what each waits for, without asking the DNS")
    checking = verb("check", check, "compare all keys that sign with what each authoritative server publishes")
    rotate = verb("rotate", _rotate, "replace keys, and take all steps that are due")
    retirement = verb("retire", _retire, "stop signing with a key")
    taking = verb("import", take_over, "take over a private key of another program, with its selector")
    for command in (create, retirement):
        command.add_argument("domain", metavar="DOMAIN", type=domain)
    for command in (listing, checking, rotate):
        command.add_argument("domains", metavar="DOMAIN", type=domain, nargs="*", help="default: all")
    retirement.add_argument("selector", metavar="SELECTOR", type=_selector)
    create.add_argument("--type", type=KeyType, choices=list(KeyType), help="default: those of keys.types")
    create.add_argument("--bits", type=int, help="of an RSA key, 1024 to 4096 (default: keys.rsa_bits)")
    create.add_argument("--selector", type=_selector, help="default: the letter of the type and the date")
    rotate.add_argument("--due", action="store_true", help="replace only keys that have signed for keys.rotate_days")
    retirement.add_argument(
        "--at-once", action="store_true", help="without the overlap, for a stolen key: mail in transit fails"
    )
    taking.add_argument("domain", metavar="DOMAIN", type=domain, nargs="?")
    taking.add_argument("selector", metavar="SELECTOR", type=_selector, nargs="?")
    taking.add_argument("file", metavar="FILE", type=file_path, nargs="?")
    taking.add_argument("--key-table", metavar="TABLE", help="take over all keys of OpenDKIM's KeyTable instead")
    for command in (create, listing, rotate, retirement, taking):
        command.add_argument("--form", type=Form, choices=list(Form), default=Form.ZONE, help="of records to publish")


def _run(verb: Callable[[KeyCommand], int], options: argparse.Namespace) -> int:
    try:
        return verb(KeyCommand(options))
    except RefusedStepError as error:
        complain(str(error))
        return os.EX_USAGE
    except KeyringError as error:
        complain(str(error))
        return os.EX_NOINPUT
    except ValueError as error:
        raise ConfigError(f"{name(options.config)}: {error}") from error


def _create(keys: KeyCommand) -> int:
    options = keys.options
    kinds = (options.type,) if options.type else keys.settings.schedule.types
    bits = keys.settings.rsa_bits if options.bits is None else options.bits
    if not dkim.MIN_RSA_BITS <= bits <= dkim.MAX_RSA_BITS:
        raise RefusedStepError(f"--bits {bits}: {dkim.MIN_RSA_BITS} to {dkim.MAX_RSA_BITS} are accepted everywhere")
    if options.selector and len(kinds) > 1:
        raise RefusedStepError("--selector names one key, and keys.types has several; say which with --type")
    directory = keys.directory(options.domain)
    directory.begin(options.domain)

    def first(ring: KeyRing) -> list[KeyStep]:
        if options.selector and ring.find(options.selector):
            raise RefusedStepError(
                f"{ring.domain} has or had a key with the selector {options.selector}; use another, so that no "
                "verifier has the old record in its cache"
            )
        return [replace(begin(ring, kind), selector=options.selector or "") for kind in kinds]

    return keys.advance(directory, keys.without_new, first, bits)


def _list(keys: KeyCommand) -> int:
    def show(directory: Directory) -> int:
        ring = directory.load()
        say(key_report.rows(ring, keys.settings.schedule, keys.now))
        if any(key.state is KeyState.PENDING for key in ring.keys):
            say(["", f"  to publish, if it is not yet (assay keys check {ring.domain}):"])
            say(key_report.records(ring, keys.options.form, keys.settings.ttl_seconds))
        for key in ring.keys:
            if key.state is not KeyState.RETIRED:
                directory.private(key)  # says what is wrong with a file
        return os.EX_OK

    _tell_if_none(keys)
    return keys.each(show)


def _tell_if_none(keys: KeyCommand) -> None:
    if not keys.options.domains and not directories(Path(keys.settings.directory)):
        print(f"no keys in {keys.settings.directory}; make some with: assay keys create DOMAIN")


def _rotate(keys: KeyCommand) -> int:
    schedule = keys.settings.schedule

    def first(ring: KeyRing) -> list[KeyStep]:  # what is under way is only continued
        return [begin(ring, kind) for kind in schedule.types if not ring.of(kind, KeyState.PENDING)]

    _tell_if_none(keys)  # a run without -c, for instance, has another directory
    return keys.each(lambda directory: keys.advance(directory, schedule, no_steps if keys.options.due else first))


def _retire(keys: KeyCommand) -> int:
    directory = keys.directory(keys.options.domain)
    with directory.locked():
        ring = retire(directory.load(), keys.options.selector, keys.now, at_once=keys.options.at_once)
        directory.save(ring)
        directory.clean(ring)
    return keys.advance(directory, keys.without_new)


def _selector(text: str) -> str:
    try:
        return check_selector(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
