# SPDX-License-Identifier: GPL-3.0-or-later
"""``assay srs``: rewrite an envelope sender as the daemon would, turn one back, and say which check fails."""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

from msgspec.structs import replace

from assay.cli.options import add_configuration, address
from assay.cli.output import complain, say
from assay.cli.serve import name
from assay.config import ConfigError, Configuration, load, make_rewriting
from assay.config.section import SettingError
from assay.model.name import InvalidNameError, ReversePath, parse_mailbox
from assay.model.printable import as_prose
from assay.model.smtp import Client, Envelope
from assay.model.wording import counted
from assay.policy import Rewriting, Rewritten
from assay.policy.addresses import Entries
from assay.protocol import srs

EX_NOT_REWRITTEN = 1  #: nor turned back


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
        verb.add_argument("address", metavar="ADDRESS", help="with or without angle brackets")
        if run is _forward:
            verb.add_argument("--ip", type=address, help="address of the SMTP client, for srs.networks")
            verb.add_argument("--daemon-name", metavar="NAME", help="the MTA's service, for srs.daemon_names")
            verb.add_argument("--login", metavar="NAME", help="the login name, for srs.logins")
            verb.add_argument("--rcpt", action="append", default=[], metavar="PATH", help="recipient; may be repeated")
        verb.set_defaults(run=run)


def _rewriting(options: argparse.Namespace, configuration: Configuration) -> Rewriting:
    place = name(options.config)
    try:
        rewriting = make_rewriting(configuration.srs)
    except SettingError as error:
        raise ConfigError(f"{place}: {error}") from error
    if rewriting is None:
        raise ConfigError(f"{place}: srs.domain: not set, so no address is rewritten; see docs/forwarding.md")
    return rewriting


def _forward(options: argparse.Namespace) -> int:
    configuration = load(options.config)
    rewriting, conditions = _without_unknown(_rewriting(options, configuration), options)
    rules = [rule.name for rule in configuration.rule if rule.forward is not None]
    if rules:
        conditions.append(f"no rule decides otherwise ({', '.join(rules)})")
    sender, rewritten = _forwarded(
        rewriting,
        options.address,
        Client(options.ip, daemon=options.daemon_name or ""),
        tuple(path.removeprefix("<").removesuffix(">") for path in options.rcpt),
        options.login or "",
    )
    say([sender or "<>"])
    if rewritten.why:
        complain("srs", f"{rewritten.why}, so it is not rewritten")
        return EX_NOT_REWRITTEN
    if conditions:
        complain("srs", f"provided that {', '.join(conditions)}")
    if rewritten.doubt:
        complain("srs", f"warning: {rewritten.doubt}")
    return os.EX_OK


def _without_unknown(rewriting: Rewriting, options: argparse.Namespace) -> tuple[Rewriting, list[str]]:
    """The settings without the conditions that the command line does not answer, and those in words."""
    conditions = []
    if not options.rcpt:
        conditions.append("no recipient is in srs.own_domains (--rcpt)")
        if rewriting.recipients != Entries():
            conditions.append("all recipients are in srs.recipient_domains (--rcpt)")
    if rewriting.networks is not None and options.ip is None:
        conditions.append("the client is in srs.networks (--ip)")
        rewriting = replace(rewriting, networks=None)
    if rewriting.daemon_names and options.daemon_name is None:
        conditions.append("the service is in srs.daemon_names (--daemon-name)")
        rewriting = replace(rewriting, daemon_names=frozenset())
    if rewriting.logins and options.login is None:
        conditions.append("the login is in srs.logins (--login)")
        rewriting = replace(rewriting, logins=frozenset())
    return rewriting, conditions


def _reverse(options: argparse.Namespace) -> int:
    try:
        say([_reversed(_rewriting(options, load(options.config)), options.address)])
    except srs.SrsError as error:
        complain("srs", f"{error.fault}: {as_prose(str(error))}")
        return EX_NOT_REWRITTEN
    return os.EX_OK


def _test(options: argparse.Namespace) -> int:
    """`EX_NOT_REWRITTEN` if it is neither rewritten nor turned back."""
    rewriting = _rewriting(options, load(options.config))
    scheme = rewriting.scheme
    number = len(scheme.secrets)
    say([f"domain   {scheme.domain}, {counted(number, 'secret')}, valid for {counted(scheme.max_age_days, 'day')}"])
    every = replace(rewriting, networks=None, daemon_names=frozenset(), logins=frozenset())
    sender, rewritten = _forwarded(every, options.address, Client())
    comment = f"{rewritten.why}, so it is not rewritten" if rewritten.why else rewritten.doubt
    say([f"forward  {sender or '<>'}" + (f" ({comment})" if comment else "")])
    try:
        say([f"reverse  {_reversed(rewriting, options.address)}"])
    except srs.SrsError as error:
        say([f"reverse  {error.fault}: {error}"])
        return EX_NOT_REWRITTEN if rewritten.why else os.EX_OK
    return os.EX_OK


def _forwarded(
    rewriting: Rewriting, sender: str, client: Client, recipients: tuple[str, ...] = (), login: str = ""
) -> tuple[str, Rewritten]:
    """The sender that a message would have, and what the daemon does about it."""
    path = ReversePath.parse(sender)
    envelope = Envelope(path, recipients, authenticated=login)
    rewritten = rewriting.forward(client, envelope, None, time.time())
    return rewritten.sender or path.text, rewritten


def _reversed(rewriting: Rewriting, recipient: str) -> str:
    """The sender that the address stands for.

    :raises srs.SrsError: it is not ours, or fails a check.
    """
    text = recipient.removeprefix("<").removesuffix(">")
    if original := rewriting.reverse(text, time.time()):
        return original
    try:
        mailbox = parse_mailbox(text)
    except InvalidNameError as error:
        raise srs.SrsError(srs.Fault.DOMAIN, f"not a mailbox: {error}") from error
    if mailbox.domain.name != rewriting.scheme.domain:
        raise srs.SrsError(srs.Fault.DOMAIN, f"not ours: the domain is not {rewriting.scheme.domain}")
    raise srs.SrsError(srs.Fault.FORM, "not an SRS address")
