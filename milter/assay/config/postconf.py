# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare a configuration with Postfix's own, as ``postconf`` prints it."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator, Mapping

from assay.config import altering
from assay.config.configuration import Configuration
from assay.config.endpoint import Endpoint, EndpointError
from assay.config.reach import obstacle
from assay.config.signing import make_signing
from assay.config.waits import drained_too_soon, needed, too_short

#: Postfix's defaults (postconf(5)), for output of ``postconf -n``, which omits what is not set.
_DEFAULTS: Mapping[str, str] = {
    "milter_command_timeout": "30s",
    "milter_content_timeout": "300s",
    "milter_default_action": "tempfail",
    "milter_protocol": "6",
    "mail_owner": "postfix",
    "non_smtpd_milters": "",
    "queue_directory": "/var/spool/postfix",
    "smtpd_milter_maps": "",
    "smtpd_milters": "",
    **altering.DEFAULTS,
}
_LINE = re.compile(r"(\S+) =(?: (.*))?")  # postconf -F begins with SERVICE/TYPE/FIELD
_VARIABLE = re.compile(r"\$(?:(\w+)|\((\w+)\)|\{(\w+)\})")
_MAX_DEPTH = 10  # of parameters that name parameters
_KINDS = ("unix", "local", "inet")
_ENTRY = re.compile(r"\{([^{}]*)\}|([^\s,{}]+)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


class PostconfError(ValueError):
    """A text that is not the output of ``postconf``. The message quotes the line."""


def parse(text: str) -> dict[str, str]:
    """The parameters in the output of ``postconf`` or ``postconf -n``, with Postfix's defaults for those we read.

    :raises PostconfError: a line is not ``name = value``, or none is.
    """
    found = {}
    for line in text.splitlines():
        match = _LINE.fullmatch(line.rstrip())
        if match is None:
            raise PostconfError(
                f"{line[:80]!r} is not a line that postconf prints; run: postconf | assay config check --postconf -"
            )
        found[match[1]] = match[2] or ""
    if not found:
        raise PostconfError("no parameters; run: postconf | assay config check --postconf -")
    return {**_DEFAULTS, **found}


def differences(configuration: Configuration, parameters: Mapping[str, str]) -> Iterator[str]:
    """Describe what in Postfix's configuration does not fit ours, in one sentence each: the parameter and the fix.

    :param parameters: from `parse`.
    """
    ours = Endpoint.parse(configuration.milter.socket)
    value = _expanded(parameters["smtpd_milters"], parameters)
    entries = list(_milters(value))
    found = [number for number, (place, _) in enumerate(entries) if _endpoint(place, parameters) == ours]
    if not found:
        yield (
            f"smtpd_milters = {value or '(empty)'}: {_misread(entries)}not the socket of this configuration; "
            f"write smtpd_milters = {_for_postfix(ours, parameters)}, unless assay.socket opens another one"
        )
        own: Mapping[str, str] = {}
    else:
        place, own = entries[found[0]]
        if found[0]:
            yield "smtpd_milters: assay is not the first, so the others see forged Authentication-Results fields"
        yield from _unseen("smtpd_milters", "an smtpd", ours, place, parameters)
        if ours.family == socket.AF_UNIX and (why := obstacle(ours.path, parameters["mail_owner"])):
            yield f"milter.socket = '{ours}': {why}"
    if parameters["smtpd_milter_maps"]:
        yield "smtpd_milter_maps replaces smtpd_milters for some clients: make sure that theirs have assay"
    yield from _differing_for_our_mail(configuration, ours, parameters)
    yield from _differing_actions(parameters, own)
    yield from _differing_times(configuration, parameters, own)


def _misread(entries: list[tuple[str, dict[str, str]]]) -> str:
    """Why Postfix cannot read an entry, as a clause; empty if it can read all."""
    for place, _ in entries:
        kind, _, rest = place.partition(":")
        if kind not in _KINDS or (kind == "inet" and "@" in rest):
            return f"{place!r} is not in Postfix's notation (unix:PATH, inet:HOST:PORT, inet:[ADDRESS]:PORT), and "
    return ""


def _unseen(name: str, process: str, ours: Endpoint, place: str, parameters: Mapping[str, str]) -> Iterator[str]:
    """An absolute path is another file in a chroot, even if it leads below the queue directory.

    :param name: the parameter that has the path.
    :param process: who reads it.
    """
    if ours.family != socket.AF_UNIX or not os.path.isabs(place.partition(":")[2]):
        return
    chroots = {value for name, value in parameters.items() if name.endswith("/inet/chroot")}
    if chroots and "y" not in chroots:
        return
    queue = parameters["queue_directory"]
    if ours.path.startswith(f"{queue}/"):
        fix = f"write {_for_postfix(ours, parameters)}"
    else:
        fix = (
            f"write milter.socket = 'unix:{queue}/assay/assay.sock' and {name} = unix:assay/assay.sock "
            "(contrib/postfix/main.cf.assay)"
        )
    yield (
        f"{name} = {place}: {process} in a chroot, as Debian has it, does not find an absolute path; {fix}. "
        "If no smtpd is in a chroot, compare with: (postconf; postconf -F '*/inet/chroot')"
    )


def _differing_for_our_mail(
    configuration: Configuration, ours: Endpoint, parameters: Mapping[str, str]
) -> Iterator[str]:
    try:
        signs = make_signing(configuration) is not None
    except ValueError:  # an error, and reported as such
        return
    yield from _differing_for_local_mail(ours, parameters, signs=signs)
    if signs or configuration.arc.seal:
        values = {name: _expanded(value, parameters) for name, value in parameters.items()}
        yield from altering.alterations(parameters, values)


def _differing_for_local_mail(ours: Endpoint, parameters: Mapping[str, str], *, signs: bool) -> Iterator[str]:
    """Mail that does not arrive by SMTP: there is nothing to judge, and something to sign."""
    value = _expanded(parameters["non_smtpd_milters"], parameters)
    entries = list(_milters(value))
    places = [place for place, _ in entries if _endpoint(place, parameters) == ours]
    has = bool(places)
    if value == _expanded(parameters["smtpd_milters"], parameters):
        pass  # what is wrong with it has been said
    elif misread := _misread(entries):
        fix = f"write non_smtpd_milters = {_for_postfix(ours, parameters)}" if signs else "remove it there"
        yield f"non_smtpd_milters = {value}: {misread}mail of the sendmail command waits in the queue; {fix}"
        return
    elif signs and places:
        yield from _unseen("non_smtpd_milters", "a cleanup", ours, places[0], parameters)
    if has and not signs:
        yield "non_smtpd_milters has assay: mail from this machine does not come from strangers; remove it there"
    elif signs and not has:
        yield (
            "non_smtpd_milters does not have assay: mail of the sendmail command is not signed; "
            f"write non_smtpd_milters = {_for_postfix(ours, parameters)}, unless this machine sends none"
        )


def _differing_actions(parameters: Mapping[str, str], own: Mapping[str, str]) -> Iterator[str]:
    action = own.get("default_action") or parameters["milter_default_action"]
    match action:
        case "tempfail":
            pass
        case "accept":
            yield (
                "milter_default_action = accept: while assay does not answer, mail passes unjudged, together with "
                "forged Authentication-Results fields; write tempfail"
            )
        case _:
            yield f"milter_default_action = {action}: mail is lost or kept while assay does not answer; write tempfail"
    version = re.match(r"[0-5](?![^\s,])", parameters["milter_protocol"])
    if version:
        yield f"milter_protocol = {version[0]}: octets of header fields change on the way; write milter_protocol = 6"


def _differing_times(
    configuration: Configuration, parameters: Mapping[str, str], own: Mapping[str, str]
) -> Iterator[str]:
    needs = needed(configuration)
    for name, least in (("content_timeout", needs.end), ("command_timeout", needs.command)):
        text = own.get(name) or parameters[f"milter_{name}"]
        seconds = _seconds(text)
        written = f"milter_{name} = {text}"
        if seconds is None:
            yield f"{written}: not a time"
            continue
        yield from too_short(configuration, least, f"milter_{name} = ", written, seconds)
        if name == "content_timeout" and seconds >= least:
            yield from drained_too_soon(configuration, f"milter_content_timeout ({text})", seconds, "Postfix")


def _milters(text: str) -> Iterator[tuple[str, dict[str, str]]]:
    """The entries of a list of milters: the place, and its own parameters (``{ unix:x, content_timeout = 9s }``)."""
    for match in _ENTRY.finditer(text):
        place, *settings = (match[1] or match[2]).split(",")
        pairs = (setting.partition("=") for setting in settings)
        yield place.strip(), {name.strip(): value.strip() for name, _, value in pairs}


def _expanded(text: str, parameters: Mapping[str, str]) -> str:
    """A value with the parameters that it names, such as ``$smtpd_milters``; unknown ones are empty."""
    for _ in range(_MAX_DEPTH):
        if "$" not in text:
            break
        text = _VARIABLE.sub(lambda match: parameters.get(match[1] or match[2] or match[3], ""), text)
    return text


def _endpoint(place: str, parameters: Mapping[str, str]) -> Endpoint | None:
    """A socket in Postfix's notation; None if it is not one."""
    kind, _, rest = place.partition(":")
    if kind in ("unix", "local"):
        path = rest if os.path.isabs(rest) else os.path.join(parameters["queue_directory"], rest)
        return Endpoint(socket.AF_UNIX, "", 0, os.path.normpath(path))
    host, _, port = rest.rpartition(":")
    host = host.strip("[]")
    if kind != "inet":
        return None
    try:
        return Endpoint.parse(f"{'inet6' if ':' in host else 'inet'}:{port}@{host}")
    except EndpointError:
        return None


def _for_postfix(ours: Endpoint, parameters: Mapping[str, str]) -> str:
    """Our socket in Postfix's notation."""
    if ours.family == socket.AF_UNIX:
        below = os.path.relpath(ours.path, parameters["queue_directory"])
        return f"unix:{ours.path if below.startswith('..') else below}"
    host = ours.host or "127.0.0.1"
    return f"inet:{f'[{host}]' if ':' in host else host}:{ours.port}"


def _seconds(text: str) -> float | None:
    match = re.fullmatch(r"([0-9]{1,9})([smhdw]?)", text)
    return int(match[1]) * _SECONDS[match[2] or "s"] if match else None
