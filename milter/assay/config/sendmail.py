# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare a configuration with Sendmail's own, the file sendmail.cf."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Mapping

from msgspec import Struct

from assay.config.configuration import Configuration
from assay.config.endpoint import Endpoint, EndpointError
from assay.config.reach import obstacle, unsafe_directories
from assay.config.waits import drained_too_soon, needed, too_short

#: Sendmail's defaults (libmilter's README): to connect, to send, to read a reply, and for the end of a message.
_TIMES: Mapping[str, str] = {"C": "5m", "S": "10s", "R": "10s", "E": "5m"}
_FILTER = re.compile(r"X([^,\s]+)\s*,(.*)")
_OPTION = re.compile(r"O\s*([A-Za-z.]+)\s*(?:=\s*(.*))?")
_TIME = re.compile(r"(?:[0-9]{1,9}[smhdw])*[0-9]{1,9}[smhdw]?")  # more digits than any time needs
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_GOOD_FLAGS = "T4"  # a temporary error, for the command or for the session

#: Values of NoRecipientAction. The others add nothing, or a field that is not signed.
_ADDING_TO = ("add-to", "add-to-undisclosed")

_USUAL = "/run/assay"  # the directory of the socket in the documentation
_SHARED = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - directories that every user must be able to write to


class SendmailError(ValueError):
    """A text that is not a sendmail.cf. The message says so."""


class Filter(Struct, frozen=True):
    """A line ``Xname, S=..., F=..., T=...``, which INPUT_MAIL_FILTER and MAIL_FILTER of the .mc file write."""

    name: str
    socket: str
    flags: str
    times: Mapping[str, str]


class SendmailCf(Struct, frozen=True):
    """What we read of a sendmail.cf.

    :ivar filters: that are defined, used or not.
    :ivar options: by name in lower case; of several of one name the last.
    :ivar of_daemons: those of ``DaemonPortOptions``.
    """

    filters: tuple[Filter, ...]
    options: Mapping[str, str]
    of_daemons: tuple[str, ...]

    @property
    def used(self) -> list[str]:
        """The filters that messages go through, in order."""
        return [name.strip() for name in self.options.get("inputmailfilters", "").split(",") if name.strip()]


def parse(text: str) -> SendmailCf:
    """Read a sendmail.cf.

    :raises SendmailError: it has no option, so it is something else, such as a sendmail.mc.
    """
    filters: list[Filter] = []
    options: dict[str, str] = {}
    of_daemons: list[str] = []
    for line in re.sub(r"\n[ \t]+", " ", text).splitlines():
        if match := _FILTER.fullmatch(line):
            filters.append(_filter(match[1], match[2]))
        elif match := _OPTION.fullmatch(line):
            options[match[1].lower()] = value = (match[2] or "").strip()
            if match[1].lower() == "daemonportoptions":
                of_daemons.append(value)
    if not options:
        raise SendmailError("not a sendmail.cf: it has no options; give the file that make -C /etc/mail writes")
    return SendmailCf(tuple(filters), options, tuple(of_daemons))


def differences(configuration: Configuration, cf: SendmailCf) -> Iterator[str]:
    """Describe what in Sendmail's configuration does not fit ours, in one sentence each: the place and the fix."""
    ours = Endpoint.parse(configuration.milter.socket)
    for each in cf.filters:
        if why := _unreadable(each.socket):
            yield f"X{each.name}, S={each.socket}: Sendmail cannot use it: {why}"
    names = [each.name for each in cf.filters]
    for name in dict.fromkeys(name for name in names if names.count(name) > 1):
        yield f"X{name} is defined twice, so Sendmail does not start; remove all but one INPUT_MAIL_FILTER of it"
    found = [each for each in cf.filters if _endpoint(each.socket) == ours]
    if not found:
        yield (
            "sendmail.cf: no filter has the socket of this configuration; write "
            f"INPUT_MAIL_FILTER(`assay', `S={_for_sendmail(ours)}, F=T, T=C:30s;S:30s;R:60s;E:5m') in sendmail.mc "
            "(contrib/sendmail/assay.mc), unless assay.socket opens another one"
        )
        return
    yield from _unused(cf, found)
    assay = next((each for each in found if each.name in cf.used), found[0])
    if ours.family == socket.AF_UNIX:
        yield from _out_of_reach(cf, assay, ours)
    yield from _differing_flags(assay)
    yield from _differing_times(configuration, assay)
    if configuration.sign.domain or configuration.sign.signing_table:
        yield from _altering(configuration, cf)


def _altering(configuration: Configuration, cf: SendmailCf) -> Iterator[str]:
    """Options that change a message after it is signed."""
    action = cf.options.get("norecipientaction", "").lower()
    if action in _ADDING_TO and "to" in map(str.lower, configuration.sign.oversigned_fields):
        yield (
            f"NoRecipientAction = {action}: a message without recipients in its header gets To after it is signed, "
            "which breaks the signature; write define(`confNO_RCPT_ACTION', `add-bcc')"
        )


def _unused(cf: SendmailCf, found: list[Filter]) -> Iterator[str]:
    """Filters that are defined are used only if they are listed, and in the order of the list."""
    used = list(dict.fromkeys(each.name for each in found if each.name in cf.used))
    if not used:
        yield (
            f"X{found[0].name} is not in InputMailFilters, so no message goes through it; write INPUT_MAIL_FILTER in "
            "place of MAIL_FILTER, and no define of confINPUT_MAIL_FILTERS below it"
        )
    elif len(used) > 1:
        yield f"InputMailFilters has {' and '.join(used)}, which are the same assay; remove all but the first"
    elif cf.used[0] != used[0]:
        yield (
            f"InputMailFilters = {', '.join(cf.used)}: assay is not the first, so the others see forged "
            "Authentication-Results fields; move its INPUT_MAIL_FILTER above theirs"
        )
    for options in cf.of_daemons:
        if match := re.search(r"(?i)\bInput\w*\s*=\s*([^,]*)", options):
            names = [name.strip() for name in match[1].split(";")]
            if not {each.name for each in found} & {*names}:
                yield (
                    f"DaemonPortOptions = {options}: {match[0].strip()} replaces InputMailFilters for this port; "
                    f"write {found[0].name} there too, unless its mail is not to be judged"
                )


def _out_of_reach(cf: SendmailCf, assay: Filter, ours: Endpoint) -> Iterator[str]:
    blame = cf.options.get("dontblamesendmail", "").lower()
    for folder, who, owners in unsafe_directories(ours.path, sticky_is_safe="truststickybit" in blame):
        if who != "group" or "groupwritabledirpathsafe" not in blame:
            letter = "g" if who == "group" else "o"
            fixes = [
                f"run: chmod {letter}-w {folder}" if folder not in _SHARED else "",
                f"put the socket in a directory of its own, such as {_USUAL}" if folder != _USUAL else "",
            ]
            yield (
                f"X{assay.name}, S={assay.socket}: unsafe for Sendmail, which does not start: {who} may write to "
                f"{folder} ({owners}); {'; or '.join(filter(None, fixes))}"
            )
    user = cf.options.get("runasuser", "").partition(":")[0]
    if user and (why := obstacle(ours.path, user)):
        yield f"milter.socket = '{ours}': {why}"


def _differing_flags(assay: Filter) -> Iterator[str]:
    if "R" in assay.flags:
        yield f"X{assay.name}, F={assay.flags}: mail is refused for good while assay does not answer; write F=T"
    elif not {*assay.flags} & {*_GOOD_FLAGS}:
        yield (
            f"X{assay.name} has no F=T: while assay does not answer, mail passes unjudged, together with forged "
            "Authentication-Results fields; write F=T"
        )


def _differing_times(configuration: Configuration, assay: Filter) -> Iterator[str]:
    needs = needed(configuration)
    for name, least in (("E", needs.end), ("R", needs.command)):
        text = assay.times.get(name, _TIMES[name])
        seconds = _seconds(text)
        written = f"X{assay.name}, T={name}:{text}" + ("" if name in assay.times else " (the default)")
        if seconds is None:
            yield f"{written}: not a time"
            continue
        yield from too_short(configuration, least, f"{name}:", written, seconds)
        if name == "E" and seconds >= least:
            yield from drained_too_soon(configuration, f"T=E:{text}", seconds, "Sendmail")


def _filter(name: str, text: str) -> Filter:
    fields = {
        key.strip()[:1].upper(): value.strip() for key, _, value in (part.partition("=") for part in text.split(","))
    }
    times = (part.partition(":") for part in fields.get("T", "").split(";") if part.strip())
    return Filter(
        name=name,
        socket=fields.get("S", ""),
        flags=fields.get("F", ""),
        times={key.strip()[:1].upper(): value.strip() for key, _, value in times},
    )


def _endpoint(place: str) -> Endpoint | None:
    """A socket in Sendmail's notation, which is ours, but a bare path is one too; None if it is not one."""
    try:
        return Endpoint.parse(f"unix:{place}" if place.startswith("/") else place)
    except EndpointError:
        return None


def _unreadable(place: str) -> str:
    """Why Sendmail cannot read an address, and what to write; empty if it can."""
    try:
        found = Endpoint.parse(f"unix:{place}" if place.startswith("/") else place)
    except EndpointError as error:
        return str(error)
    if found.family == socket.AF_UNIX:
        return "" if found.path.startswith("/") else "write the whole path, from / on"
    if "[" in place:
        return f"write {found}, without brackets"
    return "" if found.host else f"write {_for_sendmail(found)}, with a host"


def _for_sendmail(ours: Endpoint) -> str:
    """Our socket in Sendmail's notation, which needs a host."""
    if ours.family == socket.AF_UNIX or ours.host:
        return str(ours)
    return f"{ours}@{'127.0.0.1' if ours.family == socket.AF_INET else '::1'}"


def _seconds(text: str) -> float | None:
    if not _TIME.fullmatch(text):
        return None
    return sum(int(count) * _SECONDS[unit] for count, unit in re.findall(r"([0-9]+)([smhdw]?)", text))
