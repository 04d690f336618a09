# SPDX-License-Identifier: GPL-3.0-or-later
"""``assay spfquery``: the SPF result for a client and a sender, and with ``-v`` each step.

The options are those of the tool of the same name in Sun Messaging Server; the exit codes are those of Mail::SPF's. It
reads the daemon's configuration and runs the daemon's own checks, so it shows the daemon's result. It does not apply
the policy; see ``assay check``.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import Any

import msgspec
from msgspec import Struct

from assay import __version__, resolver
from assay.cli.narration import Asked, Check, narrate
from assay.cli.options import add_configuration, address
from assay.cli.output import say, say_object
from assay.cli.plain import plain
from assay.cli.serve import read_configuration
from assay.config import Configuration, make_resolver, make_settings, make_trust
from assay.inquiry import Answer, Question
from assay.model.name import ReversePath
from assay.model.smtp import Address
from assay.protocol import spf

#: As in Mail::SPF's spfquery, so that scripts written for it continue to work. libspf2's has other numbers.
EXIT_CODES = {
    spf.Result.PASS: 0,
    spf.Result.FAIL: 1,
    spf.Result.SOFTFAIL: 2,
    spf.Result.NEUTRAL: 3,
    spf.Result.PERMERROR: 4,
    spf.Result.TEMPERROR: 5,
    spf.Result.NONE: 6,
}
EX_UNEXPECTED = 1  #: with --expect: another result

_DEFAULT_ADDRESS = IPv4Address("127.0.0.1")  # as in Sun's tool
_POSTMASTER = "postmaster"  # RFC 7208, 4.3


class Subject(Struct, frozen=True):
    """The subject given on the command line. `reverse_path` is None if only HELO is checked."""

    address: Address
    helo: str
    reverse_path: ReversePath | None
    check_helo: bool


def add_to(commands: Any) -> None:
    """Add the subcommand to the parser."""
    codes = ", ".join(f"{result} {code}" for result, code in EXIT_CODES.items())
    parser = commands.add_parser(
        "spfquery",
        help="show the SPF result for a client and a sender",
        description="Show the daemon's SPF result: for MAIL FROM with a sender or a domain, and for HELO with -h.",
        epilog=f"The exit code is the result: {codes}. With -e: 0 for the expected result, otherwise 1.",
        add_help=False,  # -h is HELO here
    )
    parser.add_argument("domain", nargs="?", metavar="DOMAIN", help="check MAIL FROM postmaster@DOMAIN")
    parser.add_argument(
        "-i",
        "--ip-address",
        type=address,
        default=_DEFAULT_ADDRESS,
        metavar="ADDRESS",
        help="address of the SMTP client (default: %(default)s)",
    )
    parser.add_argument(
        "-s",
        "--sender",
        metavar="PATH",
        help="check this MAIL FROM; '' is the null one; together with DOMAIN only its local part is used",
    )
    parser.add_argument(
        "-h", "--helo-domain", metavar="NAME", help="check this HELO (default: not checked; macros see the domain)"
    )
    parser.add_argument(
        "-e", "--expect", type=_result, metavar="RESULT", help="the result of the (first) check that gives exit code 0"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="print each step, timed and indented")
    parser.add_argument("--json", action="store_true", help="print everything as one JSON object")
    parser.add_argument(
        "--nameserver",
        action="append",
        metavar="ADDRESS[:PORT]",
        help="ask this nameserver instead of the configured ones; may be repeated; also 'system' or 'none'",
    )
    add_configuration(parser)
    parser.add_argument("-V", "--version", action="version", version=f"assay {__version__}", help="print the version")
    parser.add_argument("-?", "--help", action="help", help="print this help")
    parser.set_defaults(run=run, refuse=parser.error)


def run(options: argparse.Namespace) -> int:
    """Check and print."""
    query = _query(options)
    configuration, _ = read_configuration(options.config)
    if options.nameserver:
        try:
            resolver.configured(options.nameserver)
        except resolver.NameserverError as error:
            options.refuse(f"argument --nameserver: {error}")
        dns = msgspec.structs.replace(configuration.dns, nameservers=tuple(options.nameserver))
        configuration = msgspec.structs.replace(configuration, dns=dns)
    checks = _run(configuration, query)
    if options.json:
        found = _object(configuration, query, checks, options.expect)
        say_object(found)
    else:
        if options.verbose:
            say(_narration(configuration, query, checks))
        say(_summary(checks))
    result = checks[0].evaluation.result
    if options.expect is None:
        return EXIT_CODES[result]
    if result is options.expect:
        return os.EX_OK
    print(f"assay spfquery: expected {options.expect}, got {result}", file=sys.stderr)
    return EX_UNEXPECTED


def _result(text: str) -> spf.Result:
    """A result word, for argparse."""
    try:
        return spf.Result(text.lower())
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(EXIT_CODES)}") from error


def _query(options: argparse.Namespace) -> Subject:
    """The identities given by the options. Exits with EX_USAGE if there is none."""
    sender, domain = options.sender, options.domain
    if domain is not None:
        if "@" in domain:
            options.refuse(f"argument DOMAIN: {domain!r} has an @; give an address with -s")
        text = ReversePath.parse(sender or "").text
        local_part = text.rpartition("@")[0] if "@" in text else text
        path = ReversePath.parse(f"{local_part or _POSTMASTER}@{domain}")
    elif sender is not None:
        path = ReversePath.parse(sender)
        domain = path.text.rpartition("@")[2]
    else:
        path = None
    if path is None and options.helo_domain is None:
        options.refuse("nothing to check: give a DOMAIN, a sender (-s) or a HELO name (-h)")
    helo = domain if options.helo_domain is None else options.helo_domain
    return Subject(options.ip_address, helo, path, options.helo_domain is not None)


def _run(configuration: Configuration, query: Subject) -> list[Check]:
    """Check MAIL FROM, then HELO, each with its own time budget, as in the daemon."""
    settings = make_settings(configuration)
    request = spf.Request(
        query.address,
        query.helo,
        receiver=settings.authserv_id or settings.fallback_authserv_id,
        now=int(time.time()),
        limits=settings.spf_limits,
        best_guess=settings.spf_best_guess,
    )
    requests = []
    if query.reverse_path is not None:
        requests.append(request.of_mail_from(query.reverse_path))
    if query.check_helo:
        requests.append(request.of_helo())
    with make_resolver(configuration) as source:
        return [_check(configuration, source, query, each) for each in requests]


def _check(configuration: Configuration, source: resolver.Resolver, query: Subject, request: spf.Request) -> Check:
    asked: list[Asked] = []
    narrator = spf.Narrator()
    begun = time.monotonic()

    def observe(question: Question, answer: Answer, seconds: float) -> None:
        asked.append(Asked(question, answer, seconds, time.monotonic() - begun))

    driver = source.driver(_seconds(configuration), observe)
    evaluation = driver.start(spf.check(request, narrator)).result()
    seconds = time.monotonic() - begun
    received = spf.render(
        evaluation,
        client_address=query.address,
        helo=query.helo,
        envelope_from=query.reverse_path.text if query.reverse_path is not None else "",
        receiver=request.receiver,
    )
    return Check(evaluation, narrator.steps, received, tuple(asked), seconds)


def _seconds(configuration: Configuration) -> float:
    """How long one check may wait for the DNS."""
    return configuration.spf.seconds or configuration.dns.budget_seconds


def _summary(checks: list[Check]) -> Iterator[str]:
    """A check as spfquery tools print it: the result word, its reason, the trace field."""
    for position, check in enumerate(checks):
        evaluation = check.evaluation
        if position:
            yield ""
            yield f"{evaluation.identity}: {evaluation.result}"
        else:
            yield evaluation.result
        yield evaluation.reason
        if evaluation.explanation:
            yield f"{evaluation.domain} explains: {evaluation.explanation}"
        yield from f"Received-SPF: {check.received_spf}".split("\r\n")


def _narration(configuration: Configuration, query: Subject, checks: list[Check]) -> Iterator[str]:
    """The settings, then each check step by step, each line with the milliseconds after which it was known."""
    settings = make_settings(configuration)
    nameservers = ", ".join(map(str, resolver.configured(configuration.dns.nameserver_texts)))
    yield f"client       {query.address}"
    if query.reverse_path is not None:
        yield f"MAIL FROM    <{query.reverse_path.text}>"
    yield f"HELO         {query.helo}" + ("" if query.check_helo else " (not given; only macros see it)")
    yield f"nameservers  {nameservers or 'none'}"
    if configuration.dns.zone:
        yield f"zone         {configuration.dns.zone}"
    limits = settings.spf_limits
    yield (
        f"limits       {limits.dns_terms} DNS terms, {limits.void_lookups} void lookups, {_seconds(configuration):g} s"
    )
    network = make_trust(configuration).internal.find(query.address)
    if network is not None:
        yield f"note         the daemon does not judge mail of this client: internal network {network}"
    for check in checks:
        evaluation = check.evaluation
        yield ""
        domain = evaluation.domain or "no domain"
        yield f"{evaluation.identity}: check_host({query.address}, {domain}, {evaluation.sender})"
        yield from narrate(check)
    yield ""


def _object(
    configuration: Configuration, query: Subject, checks: list[Check], expected: spf.Result | None
) -> dict[str, Any]:
    """All of it as plain values, with the names of the narration."""
    network = make_trust(configuration).internal.find(query.address)
    result = checks[0].evaluation.result
    return {
        "result": plain(result),
        "expected": plain(expected),
        "client": str(query.address),
        "helo": plain(query.helo),
        "mail_from": plain(query.reverse_path.text) if query.reverse_path is not None else None,
        "internal_network": str(network) if network is not None else None,
        "checks": [_check_object(check) for check in checks],
    }


def _check_object(check: Check) -> dict[str, Any]:
    evaluation: dict[str, Any] = plain(check.evaluation)
    evaluation["steps"] = [
        {"depth": step.depth, "domain": plain(step.domain), "term": step.term, "event": step.event.value}
        | ({"text": plain(step.text)} if step.question is None else plain(step.question) | plain(step.answer))
        for step in check.steps
    ]
    return evaluation | {
        "received_spf": check.received_spf.replace("\r\n\t", " "),
        "ms": round(check.seconds * 1000, 1),
        "dns": [
            plain(asked.question) | plain(asked.answer) | {"ms": round(asked.seconds * 1000, 1)}
            for asked in check.asked
        ],
    }
