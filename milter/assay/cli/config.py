# SPDX-License-Identifier: GPL-3.0-or-later
"""``assay config check | show | sample``: check a configuration, print it, print all keys."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from typing import Any

from assay import files
from assay.cli.online import faults
from assay.cli.options import add_configuration, file_name, open_input
from assay.cli.output import complain
from assay.cli.serve import read_for_serving
from assay.config import Configuration, load, postconf, risks, sample, sendmail, show
from assay.config.postconf import PostconfError
from assay.config.sendmail import SendmailError
from assay.policy import Action


def add_to(commands: Any) -> None:
    """Add the subcommands to the parser."""
    parser = commands.add_parser("config", help="check, show or write a configuration")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for name, run, text in (
        (
            "check",
            _check,
            "check a configuration as a start or a reload does; warn about settings that open a hole",
        ),
        ("show", _show, "print the values in force, defaults included"),
        ("sample", _sample, "print every key with its default and the reason for the default"),
    ):
        verb = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if run is not _sample:
            add_configuration(verb)
        if run is _check:
            verb.add_argument(
                "--online",
                action="store_true",
                help="also ask each nameserver for a name that exists in the public DNS and for one that cannot",
            )
            verb.add_argument(
                "--postconf",
                metavar="FILE",
                type=file_name,
                help="also compare with Postfix's configuration, as postconf prints it; - is standard input",
            )
            verb.add_argument(
                "--sendmail-cf",
                metavar="FILE",
                type=file_name,
                help="also compare with Sendmail's configuration, /etc/mail/sendmail.cf; - is standard input",
            )
        verb.set_defaults(run=run)


def _check(options: argparse.Namespace) -> int:
    configuration, _ = read_for_serving(options.config)
    for file, compare in ((options.postconf, _with_postfix), (options.sendmail_cf, _with_sendmail)):
        try:
            different = list(compare(configuration, _read(file))) if file else []
        except (PostconfError, SendmailError) as error:
            complain("config check", f"{file}: {error}")
            return os.EX_DATAERR
        except OSError as error:
            complain("config check", f"{file}: {error.strerror}")
            return os.EX_NOINPUT
        for difference in different:
            complain("config check", f"warning: {difference}")
    for risk in risks(configuration):
        complain("config check", f"warning: {risk}")
    wrong = list(faults(configuration)) if options.online else []
    for fault in wrong:
        complain("config check", f"{fault}; repair it, or write another in dns.nameservers")
    if wrong:
        return os.EX_UNAVAILABLE
    print(f"OK: {options.config or 'no configuration file, built-in defaults'}")
    followed, strictest = configuration.dmarc.strictest
    for key in ("temperror", "malformed_from"):
        if getattr(configuration.dmarc, key) is None and strictest is not Action.ACCEPT:
            print(f"dmarc.{key} is not set: {getattr(configuration.dmarc.in_force, key)}, because of dmarc.{followed}")
    return os.EX_OK


def _read(file: str) -> str:
    """The text of a file of the MTA, whose comments may be in any encoding; ``-`` is standard input.

    :raises OSError: it cannot be read, or is larger than `files.MAX_TEXT_OCTETS`; ``strerror`` says so.
    """
    with open_input(file) as octets:
        return files.read(octets, files.MAX_TEXT_OCTETS).decode("utf-8", "backslashreplace").replace("\r\n", "\n")


def _with_postfix(configuration: Configuration, text: str) -> Iterator[str]:
    return postconf.differences(configuration, postconf.parse(text))


def _with_sendmail(configuration: Configuration, text: str) -> Iterator[str]:
    return sendmail.differences(configuration, sendmail.parse(text))


def _show(options: argparse.Namespace) -> int:
    print(show(load(options.config)), end="")
    return os.EX_OK


def _sample(_options: argparse.Namespace) -> int:
    print(sample(), end="")
    return os.EX_OK
