# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare a configuration with Postfix's own, as ``postconf`` prints it."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator, Mapping

from assay.config.build import make_policy
from assay.config.configuration import Configuration
from assay.config.endpoint import Endpoint, EndpointError
from assay.policy import Stage
from assay.session import BEFORE_THE_END

#: Postfix's defaults (postconf(5)), for output of ``postconf -n``, which omits what is not set.
_DEFAULTS: Mapping[str, str] = {
    "milter_command_timeout": "30s",
    "milter_content_timeout": "300s",
    "milter_default_action": "tempfail",
    "milter_protocol": "6",
    "non_smtpd_milters": "",
    "queue_directory": "/var/spool/postfix",
    "smtpd_milter_maps": "",
    "smtpd_milters": "",
}
_LINE = re.compile(r"([\w.-]+) =(?: (.*))?")
_ENTRY = re.compile(r"\{([^{}]*)\}|([^\s,{}]+)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_MARGIN_SECONDS = 10.0  # beyond the waiting for the DNS: an end of message takes milliseconds, and a busy host longer


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
            raise PostconfError(f"{line[:80]!r} is not a line that postconf prints; run: postconf | assay config check")
        found[match[1]] = match[2] or ""
    if not found:
        raise PostconfError("no parameters; run: postconf | assay config check --postconf -")
    return {**_DEFAULTS, **found}


def differences(configuration: Configuration, parameters: Mapping[str, str]) -> Iterator[str]:
    """Describe what in Postfix's configuration does not fit ours, in one sentence each: the parameter and the fix.

    :param parameters: from `parse`.
    """
    ours = Endpoint.parse(configuration.milter.socket)
    entries = list(_milters(parameters["smtpd_milters"]))
    found = [number for number, (place, _) in enumerate(entries) if _endpoint(place, parameters) == ours]
    if not found:
        yield (
            f"smtpd_milters = {parameters['smtpd_milters'] or '(empty)'}: not the socket of this configuration; "
            f"write smtpd_milters = {_for_postfix(ours, parameters)}, unless assay.socket opens another one"
        )
        own: Mapping[str, str] = {}
    else:
        own = entries[found[0]][1]
        if found[0]:
            yield "smtpd_milters: assay is not the first, so the others see forged Authentication-Results fields"
    if parameters["smtpd_milter_maps"]:
        yield "smtpd_milter_maps replaces smtpd_milters for some clients: make sure that theirs have assay"
    if any(_endpoint(place, parameters) == ours for place, _ in _milters(parameters["non_smtpd_milters"])):
        yield "non_smtpd_milters has assay: mail from this machine does not come from strangers; remove it there"
    yield from _differing_actions(parameters, own)
    yield from _differing_times(configuration, parameters, own)


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
    version = parameters["milter_protocol"].split()[:1]
    if version and version[0].isdigit() and int(version[0]) < 6:
        yield f"milter_protocol = {version[0]}: octets of header fields change on the way; write milter_protocol = 6"


def _differing_times(
    configuration: Configuration, parameters: Mapping[str, str], own: Mapping[str, str]
) -> Iterator[str]:
    budget = configuration.dns.budget_seconds
    for name, needed in (
        ("content_timeout", budget + _MARGIN_SECONDS),
        ("command_timeout", BEFORE_THE_END * budget if make_policy(configuration).stages - {Stage.EOM} else 0.0),
    ):
        text = own.get(name) or parameters[f"milter_{name}"]
        seconds = _seconds(text)
        if seconds is None:
            yield f"milter_{name} = {text}: not a time"
        elif seconds < needed:
            yield (
                f"milter_{name} = {text}: assay may take {needed:g} s (dns.budget_seconds = {budget:g}); "
                f"write milter_{name} = {needed:.0f}s or more, or a smaller dns.budget_seconds"
            )
        elif name == "content_timeout" and seconds > configuration.milter.drain_seconds:
            yield (
                f"milter.drain_seconds = {configuration.milter.drain_seconds:g}: shorter than milter_content_timeout "
                f"({text}), so a restart may end a session in which Postfix still waits; write {seconds + 30:.0f}"
            )


def _milters(text: str) -> Iterator[tuple[str, dict[str, str]]]:
    """The entries of a list of milters: the place, and its own parameters (``{ unix:x, content_timeout = 9s }``)."""
    for match in _ENTRY.finditer(text):
        place, *settings = (match[1] or match[2]).split(",")
        pairs = (setting.partition("=") for setting in settings)
        yield place.strip(), {name.strip(): value.strip() for name, _, value in pairs}


def _endpoint(place: str, parameters: Mapping[str, str]) -> Endpoint | None:
    """A socket in Postfix's notation; None if it is not one."""
    kind, _, rest = place.partition(":")
    if kind == "unix":
        path = rest if os.path.isabs(rest) else os.path.join(parameters["queue_directory"], rest)
        return Endpoint(socket.AF_UNIX, "", 0, os.path.normpath(path))
    host, _, port = rest.rpartition(":")
    host = host.strip("[]")
    try:
        return Endpoint.parse(f"{'inet6' if ':' in host else kind}:{port}@{host}")
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
    match = re.fullmatch(r"([0-9]+)([smhdw]?)", text)
    return int(match[1]) * _SECONDS[match[2] or "s"] if match else None
