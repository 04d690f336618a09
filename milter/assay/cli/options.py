# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that several subcommands share."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from assay import files
from assay.model.smtp import Address, parse_address

MAX_MESSAGE_OCTETS = 512 * 1024 * 1024  # our choice: MTAs accept 10 to 100 MiB


def add_configuration(parser: argparse.ArgumentParser) -> None:
    """``-c FILE``."""
    parser.add_argument(
        "-c", "--config", type=Path, metavar="FILE", help="configuration file (default: none, built-in defaults)"
    )


def add_envelope(parser: argparse.ArgumentParser, *, ip_required: bool = True) -> None:
    """The message and its SMTP envelope."""
    parser.add_argument("message", metavar="MESSAGE", help="file with the message as received; - for standard input")
    parser.add_argument("--ip", type=address, required=ip_required, help="address of the SMTP client")
    parser.add_argument("--helo", default="", help="argument of HELO or EHLO")
    parser.add_argument("--mail-from", default="", metavar="PATH", help="reverse-path of MAIL (default: the null one)")


def address(text: str) -> Address:
    """An IP address, for argparse."""
    found = parse_address(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not an IP address")
    return found


def read_message(path: str) -> bytes:
    """The octets of a message.

    :param path: a file, or ``-`` for standard input.
    :raises OSError: the file cannot be read, or is larger than `MAX_MESSAGE_OCTETS`; ``strerror`` says so.
    """
    if path == "-":
        return files.read(sys.stdin.buffer, MAX_MESSAGE_OCTETS)
    with open(path, "rb") as file:
        return files.read(file, MAX_MESSAGE_OCTETS)
