# SPDX-License-Identifier: GPL-3.0-or-later
"""Every fault of a configuration ends in one sentence that names the file, the key and the mend."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import get_type_hints

import msgspec
import pytest

from assay.config import ConfigError, Configuration, load, make_resolver, make_settings, make_trust
from assay.policy import Stage
from assay.policy.outcomes import MethodOutcome

FAULTS = [
    pytest.param("[mitler]\n", "unknown section [mitler]; did you mean milter?", id="unknown section"),
    pytest.param("[qqqq]\n", "unknown section [qqqq]; known are addresses, arc, ", id="unknown section like none"),
    pytest.param("[milter]\nsokcet = 'x'\n", "unknown key milter.sokcet; did you mean socket?", id="unknown key"),
    pytest.param(
        "[iprev]\nqqqq = 1\n", "unknown key iprev.qqqq; known are dry_run, enabled, fail", id="unknown key like none"
    ),
    pytest.param("milter = 1\n", "milter is a section: write [milter] on a line of its own", id="section as a key"),
    pytest.param("[[milter]]\n", "milter is a section: write [milter]", id="section as an array"),
    pytest.param("[milter.socket]\nx = 1\n", "milter.socket: expected str, got object", id="key as a section"),
    pytest.param("[milter]\nsocket = 1\n", "milter.socket: expected str, got int", id="number for text"),
    pytest.param("[milter]\nworkers = '2'\n", "milter.workers: expected int, got str", id="text for number"),
    pytest.param("[milter]\nworkers = 2.5\n", "milter.workers: expected int, got float", id="fraction for number"),
    pytest.param("[milter]\ndry_run = 1\n", "milter.dry_run: expected bool, got int", id="number for a switch"),
    pytest.param("[clients]\ninternal = '::1'\n", "clients.internal: expected array, got str", id="text for a list"),
    pytest.param("[clients]\ninternal = [1]\n", "clients.internal: expected str, got int", id="wrong item in a list"),
    pytest.param("[milter]\nworkers = -1\n", "milter.workers: expected int >= 0", id="too small"),
    pytest.param("[milter]\nworkers = 1000\n", "milter.workers: expected int <= 256", id="too large"),
    pytest.param("[dns]\nbudget_seconds = 0\n", "dns.budget_seconds: expected float > 0", id="no time"),
    pytest.param("[dns]\nbudget_seconds = nan\n", "dns.budget_seconds: ", id="a time that is no number"),
    pytest.param("[dns]\nbudget_seconds = inf\n", "dns.budget_seconds: ", id="endless time"),
    pytest.param("[dmarc]\nreject = 'bounce'\n", "dmarc.reject: invalid enum value 'bounce'", id="unknown action"),
    pytest.param(
        "[dmarc]\nreject = 'bounce'\n", "accept, tag, quarantine, tempfail, discard, reject", id="the words are told"
    ),
    pytest.param("[milter]\non_error = 'reject'\n", "milter.on_error: ", id="an action that is not safe there"),
    pytest.param("[milter]\nsocket = 'tcp:1'\n", "milter: 'tcp:1': write inet:PORT@HOST", id="unknown socket family"),
    pytest.param("[milter]\nsocket = 'inet:0@h'\n", "milter: 'inet:0@h'", id="port 0"),
    pytest.param("[milter]\nsocket = 'inet:99999'\n", "milter: 'inet:99999'", id="port too high"),
    pytest.param("[milter]\nsocket = 'unix:'\n", "milter: 'unix:'", id="unix socket without path"),
    pytest.param("[milter]\nsocket_mode = '888'\n", "milter: socket_mode = '888'", id="mode that is not octal"),
    pytest.param("[milter]\nsocket_mode = '7777'\n", "milter: socket_mode = '7777'", id="mode with special bits"),
    pytest.param("[clients]\ninternal = ['10.0.0.0/33']\n", "clients: '10.0.0.0/33' is no IP address", id="network"),
    pytest.param(
        "[clients]\ninternal = ['localhost']\n", "clients: 'localhost' is no IP address", id="name as network"
    ),
    pytest.param("[dns]\nnameservers = ['dns.example']\n", "dns: 'dns.example' is no nameserver", id="nameserver"),
    pytest.param("[dns]\nnameservers = []\n", "dns: no nameserver", id="no nameserver"),
    pytest.param("[dns]\nnameservers = ['system', '::1']\n", "dns: 'system' must stand alone", id="word in a list"),
    pytest.param("[dns]\nnameservers = 'nowhere'\n", "dns: 'nowhere' is no nameserver", id="unknown word"),
    pytest.param("[log]\nto = 'file'\n", "log: to = 'file': write", id="unknown log"),
    pytest.param("[log]\nlevel = 'loud'\n", "log: level = 'loud': write", id="unknown level"),
    pytest.param("[identity]\nauthserv_id = 'a b'\n", "identity: authserv_id = 'a b'", id="authserv-id with a space"),
    pytest.param('[identity]\nauthserv_id = "a\\nX: y"\n', "identity: authserv_id = 'a\\nX: y'", id="two lines in it"),
    pytest.param("[identity]\nstrip = ['']\n", "identity: strip", id="an empty name to strip"),
    pytest.param("[milter]\nworkers = 1\nworkers = 2\n", "is no TOML: ", id="a key twice"),
    pytest.param("\n\n[milter\n", "line 3", id="TOML syntax"),
    pytest.param("[milter]\ndry_run = yes\n", 'write text in "quotes", a switch as true or false', id="a bare word"),
    pytest.param("milter: 1\n", 'write key = "value"', id="YAML"),
    pytest.param("a = " + "[" * 5000, "nested too deeply", id="brackets without end"),
    pytest.param("rule = [1]\n", "rules are several: write [[rule]] for each", id="rules that are none"),
    pytest.param("[[rule]]\nname = 'a'\n", "rule 1: object missing required field when", id="half a rule"),
    pytest.param(
        "[[rule]]\nname = 'a'\nwhen = 'true'\nstage = 'eom'\n[[rule]]\nname = 'b'\nwhen = 'true'\nstage = 'data'\n",
        "rule 2.stage: invalid enum value 'data'; known are connect, helo, mail, rcpt, eom",
        id="which rule, and its words",
    ),
    pytest.param(
        "[[rule]]\nname = 'a'\nwhen = 'true'\nstage = 'eom'\naction = 'bounce'\n",
        "rule 1.action: invalid enum value 'bounce'; known are accept, ",
        id="the words of a key that may be left out",
    ),
    *(
        pytest.param(
            f"[dkim]\n{key} = 'tempfail'\n",
            f"dkim: {key} = 'tempfail': only temperror may be deferred; write reject, quarantine, tag or accept",
            id=f"dkim.{key} deferred",
        )
        for key in ("none", "fail", "policy", "neutral", "permerror", "unsigned_fields", "unaligned")
    ),
    pytest.param("[dkim]\nsingle_fields = ['To:']\n", "single_fields: 'To:' is not the name of a header", id="a colon"),
    pytest.param("[dkim]\nrequired_fields = ['']\n", "required_fields: '' is not the name of a header", id="no name"),
    pytest.param("[milter]\nsocket = '/run/s'\n", "; here, unix:/run/s", id="a bare path"),
    pytest.param("[milter]\nsocket = 'inet:h:25'\n", "; here, inet:25@h", id="a socket as Postfix has it"),
    pytest.param("[milter]\nsocket = 'inet:[::1]:25'\n", "; here, inet6:25@::1", id="a socket as Postfix has it, IPv6"),
    pytest.param("[milter]\nsocket = 'inet:25@::1'\n", "write inet6:25@::1", id="an IPv6 address as IPv4"),
    pytest.param("[milter]\nsocket = 'inet:25@a b'\n", "write inet:PORT@HOST", id="a space in a host"),
    pytest.param("[milter]\nsocket = 'inet:\u0662@h'\n", "write inet:PORT@HOST", id="a port in other digits"),
    pytest.param('[milter]\nsocket = "unix:/a\\u0000"\n', "write inet:PORT@HOST", id="NUL in a path"),
]


def fault(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path)
    return str(caught.value)


@pytest.mark.parametrize(("text", "message"), FAULTS)
def test_faults(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "assay.toml"
    path.write_text(text)
    said = fault(path)
    assert said.startswith(f"{path}: ")
    assert message in said
    assert said.isprintable(), "one line"


def test_a_file_that_is_no_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "assay.toml"
    path.write_bytes(b"# caf\xe9\n")
    assert fault(path) == f"{path}: is no UTF-8 text (octet 5)"


def test_a_byte_order_mark_and_other_line_ends_are_harmless(tmp_path: Path) -> None:
    path = tmp_path / "assay.toml"
    path.write_bytes(b"\xef\xbb\xbf[milter]\r\nworkers = 7\r\n")
    assert load(path).milter.workers == 7


@pytest.mark.parametrize("text", [None, "[dns]\nzone = '/dev/zero'\n", "[lists]\na = '/dev/zero'\n"])
def test_a_file_without_end_is_refused(tmp_path: Path, text: str | None) -> None:
    path = Path("/dev/zero")
    if text is not None:
        path = tmp_path / "assay.toml"
        path.write_text(text)
    with pytest.raises((ConfigError, ValueError), match=r"/dev/zero: (cannot be read: )?larger than 64 MiB"):
        _make(path)


def _make(path: Path) -> None:
    configuration = load(path)
    make_resolver(configuration).close()
    make_settings(configuration)


def test_a_missing_file(tmp_path: Path) -> None:
    assert fault(tmp_path / "none") == f"{tmp_path}/none: cannot be read: No such file or directory"


def test_a_directory(tmp_path: Path) -> None:
    assert fault(tmp_path) == f"{tmp_path}: cannot be read: Is a directory"


def test_nothing_is_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("")
    assert load(None) == load(tmp_path / "empty") == Configuration()


def test_the_defaults_reject_nothing() -> None:
    settings = make_settings(Configuration())
    assert settings.policy.methods == ()
    assert settings.policy.rules == ()
    assert not any(settings.policy.acts_at(stage) for stage in Stage)
    assert Configuration().milter.socket == "unix:/run/assay/assay.sock"
    assert Configuration().milter.on_error == "accept"
    assert not settings.dry_run


def test_every_key_reaches_its_struct(tmp_path: Path) -> None:
    path = tmp_path / "assay.toml"
    path.write_text(
        "[milter]\nworkers = 3\n[iprev]\nenabled = false\nfail = 'tempfail'\n[spf]\ndns_terms = 7\n"
        "void_lookups = 1\nbest_guess = 'v=spf1 a -all'\n[spf.mailfrom]\nstage = 'mail'\nfail = 'reject'\n"
        "[dkim]\nmin_rsa_bits = 2048\nmax_signatures = 4\nsingle_fields = ['To']\n[dmarc]\nnone = 'quarantine'\n"
        "quarantine = 'tempfail'\nreject = 'reject'\nlegacy_pct = 'sample'\norganizational_domain = 'psl'\n"
        "[headers]\nreceived_spf = false\n[identity]\n"
        "authserv_id = 'mx.example.net'\nstrip = ['old.example.net']\n[clients]\ninternal = ['10.1.2.3/8']\n"
        "judge_authenticated = true\nexempt_recipients = ['Abuse@example.net']\n"
    )
    configuration = load(path)
    settings = make_settings(configuration)
    methods = {method.name: method for method in settings.policy.methods}
    assert configuration.milter.worker_count == 3
    assert set(methods) == {"iprev", "spf.mailfrom", "dmarc"}
    assert methods["iprev"].actions["fail"] == "tempfail"
    mail_from = methods["spf.mailfrom"]
    assert mail_from.treat(MethodOutcome("fail_all", "")) == ("spf.mailfrom.fail", "reject")
    assert mail_from.stage == "mail"
    assert [methods["dmarc"].actions[key] for key in ("none", "quarantine", "reject")] == [
        "quarantine",
        "tempfail",
        "reject",
    ]
    assert (settings.spf_limits.dns_terms, settings.spf_limits.void_lookups) == (7, 1)
    assert settings.spf_best_guess == b"v=spf1 a -all"
    assert settings.legacy_pct == "sample"
    assert settings.public_suffix is not None
    assert settings.public_suffix("mail.example.co.uk") == "co.uk"
    assert (settings.dkim.min_rsa_bits, settings.dkim.max_signatures) == (2048, 4)
    assert settings.dkim.single_fields == ("To",)
    assert (settings.iprev, settings.received_spf) == (False, False)
    assert (settings.authserv_id, settings.further_authserv_ids) == ("mx.example.net", ("old.example.net",))
    clients = make_trust(configuration)
    assert [str(network) for network in clients.internal.members] == ["10.0.0.0/8"]
    assert clients.judge_authenticated
    assert clients.exempt_recipients.addresses == {"abuse@example.net"}


def sections(struct: type) -> Iterator[type]:
    """A section and those in it."""
    for field in msgspec.structs.fields(struct):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield field.type
            yield from sections(field.type)


@pytest.mark.parametrize("section", sorted(set(sections(Configuration)), key=str))
def test_every_key_has_a_default_and_a_description(section: type) -> None:
    hints = get_type_hints(section, include_extras=True)
    for field in msgspec.structs.fields(section):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            continue
        assert (field.default, field.default_factory) != (msgspec.NODEFAULT, msgspec.NODEFAULT), field.name
        assert hints[field.name].__metadata__[0].description, field.name


@pytest.mark.parametrize(
    ("zone", "message"),
    [
        pytest.param(None, "zone: No such file or directory", id="missing"),
        pytest.param('example.org. TXT "x"\nexample.org. A nonsense\n', "zone:2: ", id="wrong record"),
        pytest.param("example.org. TXT \xe9", "zone:1: not UTF-8", id="not UTF-8"),
        pytest.param("a.example. CNAME a.example.\n", "CNAME loop", id="a loop"),
    ],
)
def test_a_zone_file_is_named_with_its_line(tmp_path: Path, zone: str | None, message: str) -> None:
    path = tmp_path / "zone"
    if zone is not None:
        path.write_bytes(zone.encode("latin-1"))
    configuration = msgspec.convert({"dns": {"nameservers": "none", "zone": str(path)}}, Configuration)
    with pytest.raises(ValueError, match="zone") as caught:
        make_resolver(configuration)
    assert f"{tmp_path}/{message}" in str(caught.value) or message in str(caught.value)
