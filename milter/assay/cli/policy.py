# SPDX-License-Identifier: GPL-3.0-or-later
"""``assay policy try``: what another configuration would have decided about the messages of a facts log.

The log is that of ``log.facts``. docs/policy.md describes the output and the exit codes.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from typing import IO, Any

from assay.cli import output
from assay.cli.options import file_name, file_path, open_input
from assay.cli.replay import BrokenLineError, Ending, Judge, Logged, read_line
from assay.cli.serve import read_configuration
from assay.config import ConfigError
from assay.model.wording import counted
from assay.policy import Stage

MAX_LINE_OCTETS = 4 * 1024 * 1024  # our choice: fits a thousand recipients and many header fields
MAX_REPORTED = 20  # broken lines reported one by one, our choice: in a file of another kind all are broken

EX_DIFFERENT = 1


def add_to(commands: Any) -> None:
    """Add the subcommand to the parser."""
    parser = commands.add_parser("policy", help="try a new policy on past messages")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    verb = verbs.add_parser(
        "try",
        help="report what a configuration would have decided differently",
        description="Judge the messages of a facts log (log.facts) again, by another configuration, and print those "
        "that would have ended differently. The exit code is 0 for none, 1 for some, 65 if the log has no usable "
        "line.",
    )
    verb.add_argument("log", metavar="LOGFILE", type=file_name, help="file that log.facts named; - for standard input")
    verb.add_argument("-c", "--config", type=file_path, metavar="FILE", required=True, help="the configuration to try")
    verb.add_argument("--json", action="store_true", help="print everything as one JSON object")
    verb.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Judge line by line, print each difference at once, then the summary."""
    configuration, _ = read_configuration(options.config)
    try:
        judge = Judge.of(configuration)
    except ValueError as error:
        raise ConfigError(f"{options.config}: {error}") from error
    trial = Trial(judge, options.log)
    with ExitStack() as stack:
        try:
            lines = stack.enter_context(open_input(options.log))
        except OSError as error:
            _warn(f"{options.log}: {error.strerror}")
            return os.EX_NOINPUT
        for logged, ending in trial.changed(lines):
            if options.json:
                trial.found.append(_object(logged, ending))
            else:
                output.say([_line(logged, ending)])
    trial.warn_of_gaps()
    if options.json:
        output.say_object(trial.summary())
    else:
        output.say(trial.summary_lines())
        if configuration.milter.dry_run:
            output.say(["milter.dry_run is on: this configuration would have changed and refused nothing."])
    if not trial.messages:
        _warn(f"{options.log} has no usable line; name the file that log.facts writes, not the daemon's log")
        return os.EX_DATAERR
    return EX_DIFFERENT if trial.differing else os.EX_OK


class Trial:
    """The messages of one log, and their counts."""

    def __init__(self, judge: Judge, name: str) -> None:
        self.judge = judge
        self.name = name
        self.messages = 0
        self.skipped = 0
        self.otherwise = 0  #: same outcome, by another key or rule
        self.differing: Counter[tuple[str, str]] = Counter()
        self.deciding: Counter[tuple[str, str, str]] = Counter()
        self.found: list[dict[str, Any]] = []

    def changed(self, lines: IO[bytes]) -> Iterator[tuple[Logged, Ending]]:
        """The messages that would have ended differently. Broken lines are reported and skipped."""
        for number, line in enumerate(_lines(lines), 1):
            try:
                if len(line) > MAX_LINE_OCTETS:
                    raise BrokenLineError(f"longer than {MAX_LINE_OCTETS} octets")
                logged = read_line(line)
            except BrokenLineError as error:
                self._skip(number, str(error))
                continue
            ending = self.judge.judge(logged)
            self.messages += 1
            decision = ending.decision
            if decision.action is logged.action:
                self.otherwise += decision.by != logged.by
                continue
            self.differing[logged.action, decision.action] += 1
            self.deciding[logged.action, decision.action, decision.by or f"no longer {logged.by}"] += 1
            yield logged, ending

    def _skip(self, number: int, why: str) -> None:
        self.skipped += 1
        if self.skipped <= MAX_REPORTED:
            _warn(f"{self.name}:{number}: {why}; skipped")
        elif self.skipped == MAX_REPORTED + 1:
            _warn(f"{self.name}:{number}: broken too; further broken lines are only counted")

    def warn_of_gaps(self) -> None:
        """Report each fact that the log lacks, and each rule that cannot be evaluated, once."""
        for name, number in sorted(self.judge.missing.items()):
            _warn(f"{name} is not in the log for {number} of {self.messages} messages; treated {_absent(name)}")
        for reason, number in sorted(self.judge.failing.items()):
            _warn(f"{reason} ({number} of {self.messages} messages)")

    def summary_lines(self) -> Iterator[str]:
        """The counts, for people."""
        different = sum(self.differing.values())
        if different:
            yield ""
        yield f"{counted(self.messages, 'message')}, {different or 'none'} would have ended differently"
        for (old, new), number in self.differing.most_common():
            keys = ", ".join(
                f"{n} {by}" for (was, now, by), n in self.deciding.most_common() if (was, now) == (old, new)
            )
            yield f"  {old} -> {new}: {number} ({keys})"
        if self.otherwise:
            yield f"{self.otherwise} more with the same outcome, decided by another key or rule"
        if self.skipped:
            yield f"{counted(self.skipped, 'line')} skipped"

    def summary(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {
            "messages": self.messages,
            "different": self.found,
            "same_end_by_another": self.otherwise,
            "skipped_lines": self.skipped,
            "missing_facts": dict(self.judge.missing),
            "failing_rules": dict(self.judge.failing),
        }


def _lines(lines: IO[bytes]) -> Iterator[bytes]:
    """Lines. A line that is too long is cut to one octet more than the bound."""
    while line := lines.readline(MAX_LINE_OCTETS + 1):
        rest = line
        while len(rest) > MAX_LINE_OCTETS and not rest.endswith(b"\n"):
            rest = lines.readline(MAX_LINE_OCTETS + 1)
        yield line


def _absent(name: str) -> str:
    return "as before" if name == "arc.trusted" else "as absent"


def _line(logged: Logged, ending: Ending) -> str:
    decision = ending.decision
    where = f" at {ending.stage}" if ending.stage is not Stage.EOM else ""
    old = f"{logged.action} ({logged.by})" if logged.by else str(logged.action)
    new = f"{decision.action}{where} ({decision.by})" if decision.by else f"{decision.action}{where}"
    return f"{logged.queue or '-'} {old} -> {new}" + (f": {decision.reason}" if decision.reason else "")


def _object(logged: Logged, ending: Ending) -> dict[str, Any]:
    decision = ending.decision
    return {
        "queue": logged.queue,
        "old": {"action": logged.action, "by": logged.by},
        "new": {
            "action": decision.action,
            "by": decision.by,
            "stage": ending.stage,
            "reason": decision.reason,
            "reply": str(decision.reply) if decision.reply else None,
        },
    }


def _warn(text: str) -> None:
    output.complain("policy try", text)
