# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that several subcommands share."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from assay import files
from assay.model.name import Domain, InvalidNameError
from assay.model.smtp import Address, parse_address

MAX_MESSAGE_OCTETS = 512 * 1024 * 1024  # our choice: MTAs accept 10 to 100 MiB


class UsageError(Exception):
    """Arguments that do not go together, or that only the command can read. The message says what to write."""


def add_configuration(parser: argparse.ArgumentParser) -> None:
    """``-c FILE``."""
    parser.add_argument(
        "-c", "--config", type=file_path, metavar="FILE", help="configuration file (default: none, built-in defaults)"
    )


def add_envelope(parser: argparse.ArgumentParser, *, ip_required: bool = True) -> None:
    """The message and its SMTP envelope."""
    parser.add_argument(
        "message", metavar="MESSAGE", type=file_name, help="file with the message as received; - for standard input"
    )
    parser.add_argument("--ip", type=address, required=ip_required, help="address of the SMTP client")
    parser.add_argument("--helo", default="", help="argument of HELO or EHLO")
    parser.add_argument("--mail-from", default="", metavar="PATH", help="reverse-path of MAIL (default: the null one)")
    parser.add_argument("--login", default="", metavar="NAME", help="the login name, if the client authenticated")
    parser.add_argument("--rcpt", action="append", default=[], metavar="PATH", help="recipient; may be repeated")


def file_name(text: str) -> str:
    """A text that is not empty, as a variable of a shell that is not set, for argparse."""
    if not text:
        raise argparse.ArgumentTypeError("empty; write the name of a file")
    return text


def file_path(text: str) -> Path:
    """A path, for argparse. `Path` takes an empty text for the current directory."""
    return Path(file_name(text))


def address(text: str) -> Address:
    """An IP address, for argparse."""
    found = parse_address(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not an IP address")
    return found


def domain(text: str) -> Domain:
    """A domain, for argparse."""
    try:
        return Domain.parse_host(text)
    except InvalidNameError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a domain: {error}") from error


@contextlib.contextmanager
def open_input(path: str) -> Iterator[BinaryIO]:
    """Open a file, a pipe from which something comes in time, or standard input for ``-``.

    :raises OSError: it cannot be opened, or nothing comes; ``strerror`` says so.
    """
    if path == "-":
        yield sys.stdin.buffer
        return
    with files.open_to_read(Path(path)) as file:
        yield file


def read_message(path: str) -> bytes:
    """The octets of a message.

    :param path: a file, or ``-`` for standard input.
    :raises OSError: the file cannot be read, or is larger than `MAX_MESSAGE_OCTETS`, or nothing comes from a pipe;
        ``strerror`` says so.
    """
    with open_input(path) as file:
        return files.read(file, MAX_MESSAGE_OCTETS)
