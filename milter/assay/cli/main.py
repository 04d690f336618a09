# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line: the subcommands and their exit codes."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn, TextIO

from assay import __version__
from assay.cli import check, config, keys, policy, probe, report, serve, spfquery, srs, status, store
from assay.cli.options import UsageError
from assay.cli.output import OutputError
from assay.config import ConfigError
from assay.model.printable import escaped
from assay.store.feeding import UnavailableError

_EXIT_CODES = """\
exit codes, those of sysexits(3):
   0  done
   1  probe: the message was refused; policy try: some message would have
      ended differently; keys check: a key is not published as it should be;
      srs: the address is not rewritten or not turned back;
      spfquery has its own codes, one for each result
  64  wrong arguments; keys: a step that would do harm
  65  policy try: the log has no usable line; config check: the file is not
      a configuration of that MTA; report: there is no such report,
      destination or token; report read: something cannot be used
  66  unreadable file
  69  nothing listens there, the daemon cannot be asked, the socket cannot
      be opened, or the database cannot be used now; config check: a
      nameserver is not a resolver for this host; keys: the DNS was not
      changed
  70  an internal error
  74  a file or the output cannot be written
  75  probe: the message was deferred; report send: something has to wait,
      or another process sends
  77  serve: the process cannot become milter.user
  78  unusable configuration
 130  interrupted by Ctrl-C
"""


class _Parser(argparse.ArgumentParser):
    """Exits with EX_USAGE, as mail programs do, instead of 2."""

    def error(self, message: str) -> NoReturn:
        _complain(f"{self.format_usage()}{self.prog}: {message}")
        sys.exit(os.EX_USAGE)

    def _print_message(self, message: str, file: Any = None) -> None:
        """Print the help or the version.

        :raises OSError: it cannot be written; argparse itself says nothing then.
        """
        (file or sys.stderr).write(message)
        sys.stdout.flush()  # here, where an error can still be reported


def make_parser() -> argparse.ArgumentParser:
    """The parser of all subcommands, each with a default `run`, which takes the options and returns the exit code."""
    parser = _Parser(
        prog="assay",
        description="Tells an MTA who really sent each message.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-V", "--version", action="version", version=f"assay {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for module in (serve, status, check, policy, probe, spfquery, keys, srs, store, report, config):
        module.add_to(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    :param arguments: without the program's name; None for the process's own.
    :returns: the exit code.
    """
    parser = make_parser()
    _open_what_is_closed()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a message may have characters that the terminal cannot show
    try:
        options = parser.parse_args(arguments)
        code = int(options.run(options))
        sys.stdout.flush()  # here, where an error can still be reported
        return code
    except UsageError as error:
        _complain(f"assay: {error}")
        return os.EX_USAGE
    except ConfigError as error:
        _complain(f"assay: {error}")
        return os.EX_CONFIG
    except UnavailableError as error:
        _complain(f"assay: {error}")
        return os.EX_UNAVAILABLE
    except OutputError as error:
        return _not_written(error.cause)
    except OSError as error:
        return _not_written(error)


def _not_written(error: OSError) -> int:
    """Report that the output or a file cannot be written; the exit code."""
    _drop_output()
    if isinstance(error, BrokenPipeError):  # "assay check ... | head" is not an error
        return os.EX_OK
    _complain(f"assay: {error.filename or 'output'}: {error.strerror or error}")
    return os.EX_IOERR


def _open_what_is_closed() -> None:
    """Redirect standard streams that the caller closed (``2>&-``) to /dev/null.

    Otherwise the next file or socket would get the number, and we would write our log into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number
    if sys.stdin is None:
        sys.stdin = open(os.devnull)  # noqa: SIM115 - it lives as long as the process
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - it lives as long as the process
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - it lives as long as the process


def _complain(text: str) -> None:
    """Report an error. If it cannot be written, the exit code has to do."""
    try:
        print(escaped(text, keep="\n\t"), file=sys.stderr, flush=True)
    except OSError:
        _drop(sys.stderr)


def _drop_output() -> None:
    """Discard what is still in the buffer. Otherwise Python reports an error at exit."""
    _drop(sys.stdout)


def _drop(stream: TextIO) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
