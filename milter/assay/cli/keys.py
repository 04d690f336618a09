# SPDX-License-Identifier: GPL-3.0-or-later
"""``assay keys``: make signing keys, publish them, replace them, and compare them with the DNS."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from assay import secrets
from assay.cli import key_report
from assay.cli.options import add_configuration
from assay.cli.output import say
from assay.cli.serve import name
from assay.config import ConfigError, Configuration, load
from assay.config.publishing import make_authority, make_publisher
from assay.config.signing import make_signing
from assay.keyring import Directory, KeyringError, directories
from assay.keyring.material import bits_of, read_foreign
from assay.keyring.run import Report, adopt, advance, key_name, look
from assay.keys.forms import Form
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
    for one in (create, retirement, taking):
        one.add_argument("domain", metavar="DOMAIN", type=_domain)
    for one in (listing, check, rotate):
        one.add_argument("domains", metavar="DOMAIN", type=_domain, nargs="*", help="default: all")
    for one in (retirement, taking):
        one.add_argument("selector", metavar="SELECTOR", type=_selector)
    create.add_argument("--type", type=KeyType, choices=list(KeyType), help="default: those of keys.types")
    create.add_argument("--bits", type=int, help="of an RSA key, 1024 to 4096 (default: keys.rsa_bits)")
    create.add_argument("--selector", type=_selector, help="default: the letter of the type and the date")
    rotate.add_argument("--due", action="store_true", help="replace only keys that have signed for keys.rotate_days")
    retirement.add_argument(
        "--at-once", action="store_true", help="without the overlap, for a key that others have: mail on its way fails"
    )
    taking.add_argument("file", metavar="FILE", type=Path)
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

    def chosen(self) -> Iterator[tuple[Directory, KeyRing]]:
        """The directories of the named domains, or all."""
        named = tuple(map(self.directory, self.options.domains))
        for directory in named or directories(Path(self.settings.directory)):
            yield directory, directory.load()

    def advance(self, directory: Directory, schedule: Schedule, first: Iterable[KeyStep] = (), bits: int = 0) -> Report:
        """Take the steps that are due, and report them."""
        authority = self.authority
        publisher = make_publisher(self.settings, authority, Domain(directory.load().domain))
        report = advance(
            directory,
            schedule,
            authority.texts,
            publisher,
            self.now,
            bits=bits or self.settings.rsa_bits,
            first=tuple(first),
        )
        say(key_report.describe(report, self.options.form, self.settings.ttl_seconds))
        for failure in report.failed:
            print(f"assay keys: {report.ring.domain}: {failure}", file=sys.stderr)
        return report


def _run(verb: Callable[[_Keys], int], options: argparse.Namespace) -> int:
    try:
        return verb(_Keys(options))
    except RefusedStepError as error:
        print(f"assay keys: {error}", file=sys.stderr)
        return os.EX_USAGE
    except KeyringError as error:
        print(f"assay keys: {error}", file=sys.stderr)
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
    ring = directory.load()
    if options.selector and ring.find(options.selector):
        raise RefusedStepError(
            f"{ring.domain} has or had a key with the selector {options.selector}; use another, so that no verifier "
            "has the old record in its cache"
        )
    first = [KeyStep(step.act, step.type, options.selector or "", step.why) for step in (begin(ring, k) for k in kinds)]
    return _code(keys.advance(directory, keys.without_new, first, bits))


def _list(keys: _Keys) -> int:
    found = False
    for directory, ring in keys.chosen():
        found = True
        say(key_report.rows(ring, keys.settings.schedule, keys.now))
        if any(key.state is KeyState.PENDING for key in ring.keys):
            say(["", f"  to publish, if it is not yet (assay keys check {ring.domain}):"])
            say(key_report.records(ring, keys.options.form, keys.settings.ttl_seconds))
        for key in ring.keys:
            if key.state is not KeyState.RETIRED:
                directory.private(key)  # says what is wrong with a file
    if not found:
        print(f"no keys in {keys.settings.directory}; make some with: assay keys create DOMAIN")
    return os.EX_OK


def _rotate(keys: _Keys) -> int:
    schedule = keys.settings.schedule
    code = os.EX_OK
    for directory, ring in keys.chosen():
        first = []
        if not keys.options.due:  # one that is under way is only continued
            first = [begin(ring, kind) for kind in schedule.types if not ring.of(kind, KeyState.PENDING)]
        code = max(code, _code(keys.advance(directory, schedule, first)))
    return code


def _retire(keys: _Keys) -> int:
    directory = keys.directory(keys.options.domain)
    with directory.locked():
        ring = retire(directory.load(), keys.options.selector, keys.now, at_once=keys.options.at_once)
        directory.save(ring)
        directory.clean(ring)
    return _code(keys.advance(directory, keys.without_new))


def _import(keys: _Keys) -> int:
    options = keys.options
    try:
        private = read_foreign(secrets.read(options.file))
    except secrets.SecretError as error:
        raise KeyringError(str(error)) from error
    except ValueError as error:
        raise KeyringError(f"{options.file}: {error}") from error
    directory = keys.directory(options.domain)
    directory.begin(options.domain)
    with directory.locked():
        adopt(directory, options.selector, private, keys.now)
    print(f"{options.domain}: import {options.selector}: {bits_of(private)} bits, from {options.file}")
    return _code(keys.advance(directory, keys.without_new))


def _check(keys: _Keys) -> int:
    authority = keys.authority
    asked: set[tuple[str, str]] = set()
    good = True
    for _, ring in keys.chosen() if not keys.options.domains or _has_directory(keys) else ():
        for selector, publication in look(ring, authority.texts).items():
            key = ring.find(selector)
            if key is not None:
                asked.add((ring.domain, selector))
                say(key_report.publication(key_name(ring, selector), key.state, publication))
                good &= key.state in (KeyState.PENDING, KeyState.RETIRED) or _is_good(publication)
    for place, domain, signer, below in _configured(keys.configuration):
        known = (domain.name, signer.selector.name)
        if known not in asked and (not keys.options.domains or domain in keys.options.domains):
            asked.add(known)
            at = dkim.key_name(domain, signer.selector)
            found = compare(dkim.record_of(signer.private), authority.texts(at), signs_below=below)
            say(key_report.publication(at, place, found))
            good &= _is_good(found)
    if not asked:
        print("no keys; make some with: assay keys create DOMAIN")
    return os.EX_OK if good else EX_DIFFERENT


def _has_directory(keys: _Keys) -> bool:
    return any(keys.directory(domain).state.exists() for domain in keys.options.domains)


def _configured(configuration: Configuration) -> Iterator[tuple[str, Domain, dkim.SigningKey, bool]]:
    """All keys of ``[sign]``: the row, d=, the key, and whether i= may be in a subdomain of d=."""
    signing = make_signing(configuration)
    for table in signing.tables if signing is not None else ():
        for signatory in table.signatories:
            identity = signatory.identity.rpartition("@")[2].lower()
            for key in signatory.keys:
                yield signatory.place, signatory.domain, key, identity not in ("", signatory.domain.name)


def _is_good(publication: Publication) -> bool:
    return publication.sight is Sight.EVERYWHERE


def _code(report: Report) -> int:
    return os.EX_UNAVAILABLE if report.failed else os.EX_OK


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
