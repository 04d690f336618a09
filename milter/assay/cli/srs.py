# SPDX-License-Identifier: GPL-3.0-or-later
"""``assay srs``: rewrite an envelope sender as the daemon would, turn one back, and say which check fails."""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import Any

from assay.cli.options import add_configuration
from assay.cli.output import say
from assay.cli.serve import name
from assay.config import ConfigError, load, make_rewriting
from assay.config.section import SettingError
from assay.model.name import InvalidNameError, parse_mailbox
from assay.model.printable import as_prose
from assay.policy import Rewriting
from assay.policy.rewriting import written
from assay.protocol import srs


def add_to(commands: Any) -> None:
    """Add the subcommands to the parser."""
    parser = commands.add_parser("srs", help="rewrite and turn back envelope senders (SRS)")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for verb_name, run, text in (
        ("forward", _forward, "print the address that a sender is rewritten to"),
        ("reverse", _reverse, "print the sender that an SRS address stands for"),
        ("test", _test, "show both for any address, and the check that fails"),
    ):
        verb = verbs.add_parser(verb_name, help=text, description=text[0].upper() + text[1:] + ".")
        add_configuration(verb)
        verb.add_argument("address", metavar="ADDRESS", type=_address, help="with or without angle brackets")
        verb.set_defaults(run=run)


def _address(text: str) -> str:
    """The address with its local part not quoted. What is not a mailbox stays as it is, for the checks to report."""
    text = text.removeprefix("<").removesuffix(">")
    try:
        mailbox = parse_mailbox(text)
    except InvalidNameError:
        return text
    return f"{mailbox.local_part}@{mailbox.domain}"


def _rewriting(options: argparse.Namespace) -> Rewriting:
    place = name(options.config)
    try:
        rewriting = make_rewriting(load(options.config).srs)
    except SettingError as error:
        raise ConfigError(f"{place}: {error}") from error
    if rewriting is None:
        raise ConfigError(f"{place}: srs.domain: not set, so no address is rewritten; see docs/forwarding.md")
    return rewriting


def _forward(options: argparse.Namespace) -> int:
    rewriting = _rewriting(options)
    try:
        forwarded, why = _forwarded(rewriting, options.address)
    except srs.SrsError as error:
        return _failed(error)
    say([written(forwarded)])
    if why:
        print(f"assay srs: {why}, so it is not rewritten", file=sys.stderr)
    return os.EX_OK


def _reverse(options: argparse.Namespace) -> int:
    try:
        say([written(_reversed(_rewriting(options), options.address)[0])])
    except srs.SrsError as error:
        return _failed(error)
    return os.EX_OK


def _test(options: argparse.Namespace) -> int:
    rewriting = _rewriting(options)
    scheme = rewriting.scheme
    number = len(scheme.secrets)
    say([f"domain   {scheme.domain}, {number} secret{'s' if number > 1 else ''}, valid for {scheme.max_age_days} days"])
    failures = 0
    for verb, way in (("forward", _forwarded), ("reverse", _reversed)):
        try:
            address, why = way(rewriting, options.address)
        except srs.SrsError as error:
            failures += 1
            say([f"{verb}  {error.fault}: {error}"])
            continue
        say([f"{verb}  {written(address)}" + (f" ({why}, so it is not rewritten)" if why else "")])
    return 1 if failures == 2 else os.EX_OK


def _forwarded(rewriting: Rewriting, address: str) -> tuple[str, str]:
    """The address that the sender is rewritten to; or the same address, and why."""
    domain = address.rpartition("@")[2]
    if domain and rewriting.own.hold(domain):
        return address, f"{as_prose(domain)} is one of our domains"
    return srs.forward(address, rewriting.scheme, time.time()), ""


def _reversed(rewriting: Rewriting, address: str) -> tuple[str, str]:
    """The sender that the address stands for."""
    _, at, domain = address.rpartition("@")
    if at and domain.lower() != rewriting.scheme.domain:
        raise srs.SrsError(srs.Fault.DOMAIN, f"not ours: the domain is not {rewriting.scheme.domain}")
    return srs.reverse(address, rewriting.scheme, time.time()), ""


def _failed(error: srs.SrsError) -> int:
    print(f"assay srs: {error.fault}: {as_prose(str(error))}", file=sys.stderr)
    return 1
