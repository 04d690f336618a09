# SPDX-License-Identifier: GPL-3.0-or-later
"""``assay keys``: make signing keys, publish them, replace them, and compare them with the DNS."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from assay import secrets
from assay.cli import key_report
from assay.cli.options import add_configuration
from assay.cli.output import say
from assay.cli.serve import name
from assay.config import ConfigError, Configuration, load
from assay.config.publishing import make_authority, make_publisher
from assay.config.section import SettingError
from assay.config.signing import make_signing, read_key_table
from assay.keyring import Directory, KeyringError, directories
from assay.keyring.material import bits_of, read_foreign
from assay.keyring.run import First, adopt, advance, key_name, look, no_steps
from assay.keys import Signing
from assay.keys.forms import Form
from assay.keys.opendkim import AUTHOR_DOMAIN
from assay.keys.published import Publication, Sight, compare
from assay.keys.rotation import (
    KeyRing,
    KeyState,
    KeyStep,
    KeyType,
    RefusedStepError,
    Schedule,
    begin,
    check_selector,
    retire,
)
from assay.model.name import Domain, InvalidNameError
from assay.model.printable import escaped
from assay.protocol import dkim
from assay.resolver.authority import Authority

EX_DIFFERENT = 1


def add_to(commands: Any) -> None:
    """Add the subcommands to the parser."""
    parser = commands.add_parser("keys", help="make, publish, check and replace signing keys")
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    def verb(name: str, run: Callable[[_Keys], int], text: str) -> Any:
        one = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        add_configuration(one)
        one.set_defaults(run=lambda options: _run(run, options))
        return one

    create = verb("create", _create, "make the first keys of a domain, or a further one, and publish them")
    listing = verb("list", _list, "list the keys, their states and what each waits for, without asking the DNS")
    check = verb("check", _check, "compare all keys that sign with what each authoritative server publishes")
    rotate = verb("rotate", _rotate, "replace keys, and take all steps that are due")
    retirement = verb("retire", _retire, "stop signing with a key")
    taking = verb("import", _import, "take over a private key of another program, with its selector")
    for one in (create, retirement):
        one.add_argument("domain", metavar="DOMAIN", type=_domain)
    for one in (listing, check, rotate):
        one.add_argument("domains", metavar="DOMAIN", type=_domain, nargs="*", help="default: all")
    retirement.add_argument("selector", metavar="SELECTOR", type=_selector)
    create.add_argument("--type", type=KeyType, choices=list(KeyType), help="default: those of keys.types")
    create.add_argument("--bits", type=int, help="of an RSA key, 1024 to 4096 (default: keys.rsa_bits)")
    create.add_argument("--selector", type=_selector, help="default: the letter of the type and the date")
    rotate.add_argument("--due", action="store_true", help="replace only keys that have signed for keys.rotate_days")
    retirement.add_argument(
        "--at-once", action="store_true", help="without the overlap, for a key that others have: mail on its way fails"
    )
    taking.add_argument("domain", metavar="DOMAIN", type=_domain, nargs="?")
    taking.add_argument("selector", metavar="SELECTOR", type=_selector, nargs="?")
    taking.add_argument("file", metavar="FILE", type=Path, nargs="?")
    taking.add_argument("--key-table", metavar="TABLE", help="take over all keys of OpenDKIM's KeyTable instead")
    for one in (create, listing, rotate, retirement, taking):
        one.add_argument("--form", type=Form, choices=list(Form), default=Form.ZONE, help="of records to publish")


class _Keys:
    """The configuration of one command, and what it works with."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.configuration: Configuration = load(options.config)
        self.settings = self.configuration.keys
        self.now = int(time.time())

    @property
    def authority(self) -> Authority:
        """Whom to ask what is published."""
        dns = self.configuration.dns
        return make_authority(self.settings, dns.nameserver_texts, dns.timeout_seconds)

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
        say(key_report.describe(report, self.options.form, self.settings.ttl_seconds))
        for failure in report.failed:
            complain(f"{report.ring.domain}: {failure}")
        return os.EX_UNAVAILABLE if report.failed else os.EX_OK


def complain(text: str) -> None:
    """Report an error, which may quote a file, a program or a server."""
    print(f"assay keys: {escaped(text)}", file=sys.stderr)


def _run(verb: Callable[[_Keys], int], options: argparse.Namespace) -> int:
    try:
        return verb(_Keys(options))
    except RefusedStepError as error:
        complain(str(error))
        return os.EX_USAGE
    except KeyringError as error:
        complain(str(error))
        return os.EX_NOINPUT
    except ValueError as error:
        raise ConfigError(f"{name(options.config)}: {error}") from error


def _create(keys: _Keys) -> int:
    options = keys.options
    kinds = (options.type,) if options.type else keys.settings.schedule.types
    bits = options.bits or keys.settings.rsa_bits
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


def _list(keys: _Keys) -> int:
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

    if not keys.options.domains and not directories(Path(keys.settings.directory)):
        print(f"no keys in {keys.settings.directory}; make some with: assay keys create DOMAIN")
    return keys.each(show)


def _rotate(keys: _Keys) -> int:
    schedule = keys.settings.schedule

    def first(ring: KeyRing) -> list[KeyStep]:  # what is under way is only continued
        return [begin(ring, kind) for kind in schedule.types if not ring.of(kind, KeyState.PENDING)]

    return keys.each(lambda directory: keys.advance(directory, schedule, no_steps if keys.options.due else first))


def _retire(keys: _Keys) -> int:
    directory = keys.directory(keys.options.domain)
    with directory.locked():
        ring = retire(directory.load(), keys.options.selector, keys.now, at_once=keys.options.at_once)
        directory.save(ring)
        directory.clean(ring)
    return keys.advance(directory, keys.without_new)


def _import(keys: _Keys) -> int:
    options = keys.options
    one = (options.domain, options.selector, options.file)
    if options.key_table is None:
        if options.file is None:
            raise RefusedStepError("import DOMAIN SELECTOR FILE, or import --key-table FILE")
        return _import_one(keys, *one)
    if any(one):
        raise RefusedStepError("--key-table names all domains, selectors and files; write nothing else")
    try:
        rows = read_key_table(options.key_table)
    except ValueError as error:
        raise KeyringError(str(error)) from error
    code = os.EX_OK
    for row in rows:
        try:
            if row.domain is None or AUTHOR_DOMAIN in row.path:
                raise KeyringError("% stands for many domains; import the key of each: assay keys import DOMAIN ...")
            code = max(code, _import_one(keys, row.domain, row.selector.name, Path(row.path)))
        except KeyringError as error:
            complain(f"{row.place}: {error}")
            code = max(code, os.EX_NOINPUT)
    return code


def _import_one(keys: _Keys, domain: Domain, selector: str, path: Path) -> int:
    try:
        private = read_foreign(secrets.read(path))
    except secrets.SecretError as error:
        raise KeyringError(str(error)) from error
    except ValueError as error:
        raise KeyringError(f"{path}: {error}") from error
    directory = keys.directory(domain)
    directory.begin(domain)
    with directory.locked():
        adopt(directory, selector, private, keys.now)
    say([f"{domain}: import {selector}: {bits_of(private)} bits, from {path}"])
    return keys.advance(directory, keys.without_new)


def _check(keys: _Keys) -> int:
    authority = keys.authority
    try:
        signing = make_signing(keys.configuration)
    except ValueError as error:  # a domain whose first key is not published yet, for instance: check that one
        complain(f"{name(keys.options.config)}: {error}")
        signing = None
    configured = {(one.domain.name, one.key.selector.name): one for one in _configured(signing)}
    asked: set[tuple[str, str]] = set()

    def check(directory: Directory) -> int:
        ring = directory.load()
        below = {selector for (domain, selector), one in configured.items() if domain == ring.domain and one.below}
        code = os.EX_OK
        for selector, publication in look(ring, authority.texts, below).items():
            key = ring.find(selector)
            if key is not None:
                asked.add((ring.domain, selector))
                say(key_report.publication(key_name(ring, selector), key.state, publication))
                if key.state in (KeyState.ACTIVE, KeyState.RETIRING):
                    code = max(code, _code(publication))
        return code

    only = keys.options.domains
    keys.options.domains = [domain for domain in only if keys.directory(domain).state.exists()]
    code = keys.each(check) if keys.options.domains or not only else os.EX_OK
    for known, one in configured.items():
        if known not in asked and (not only or one.domain in only):
            asked.add(known)
            at = dkim.key_name(one.domain, one.key.selector)
            found = compare(dkim.record_of(one.key.private), authority.texts(at), signs_below=one.below)
            say(key_report.publication(at, one.place, found))
            code = max(code, _code(found))
    if not asked:
        print("no keys; make some with: assay keys create DOMAIN")
    return code


class _Configured(Struct, frozen=True):
    """A key that ``[sign]`` names. `below`: the domain in i= may be below that in d=."""

    place: str
    domain: Domain
    key: dkim.SigningKey
    below: bool


def _configured(signing: Signing | None) -> Iterator[_Configured]:
    for table in signing.tables if signing is not None else ():
        for signatory in table.signatories:
            identity = signatory.identity.rpartition("@")[2].lower()
            below = identity not in ("", signatory.domain.name)
            for key in signatory.keys:
                yield _Configured(signatory.place, signatory.domain, key, below)


def _code(publication: Publication) -> int:
    return os.EX_OK if publication.sight is Sight.EVERYWHERE else EX_DIFFERENT


def _domain(text: str) -> Domain:
    try:
        return Domain.parse_host(text)
    except InvalidNameError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a domain: {error}") from error


def _selector(text: str) -> str:
    try:
        return check_selector(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
