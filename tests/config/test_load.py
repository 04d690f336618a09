# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading a configuration file. Its error messages are in test_messages.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import get_type_hints

import msgspec
import pytest

from assay.config import ConfigError, Configuration, load, make_resolver, make_settings, make_trust
from assay.config.section import row_type
from assay.policy import Stage
from assay.policy.outcomes import MethodOutcome


def fault(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path)
    return str(caught.value)


def test_a_file_that_is_not_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "assay.toml"
    path.write_bytes(b"# a comment\n# caf\xe9\n")
    assert fault(path) == f"{path}: line 2 is not UTF-8 text; save the file as UTF-8"


def test_a_byte_order_mark_and_other_line_ends_are_accepted(tmp_path: Path) -> None:
    path = tmp_path / "assay.toml"
    path.write_bytes(b"\xef\xbb\xbf[milter]\r\nworkers = 7\r\n")
    assert load(path).milter.workers == 7


@pytest.mark.parametrize("text", [None, "[dns]\nzone = '/dev/zero'\n", "[lists]\na = '/dev/zero'\n"])
def test_an_endless_file_is_rejected(tmp_path: Path, text: str | None) -> None:
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


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("")
    assert load(None) == load(tmp_path / "empty") == Configuration()


def test_our_own_domains_are_those_of_signing_and_forwarding(tmp_path: Path) -> None:
    (tmp_path / "c").write_text(
        "[srs]\nown_domains = ['b.example', '*.c.example', '@D.example', '.e.example', 'a.example']\n"
        "[[sign.domain]]\ndomain = 'A.example'\nkey_directory = '/keys'\n"
    )
    assert load(tmp_path / "c").own_domains == ("a.example", "b.example", "d.example", "e.example")


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
        "authserv_id = 'mx.example.net'\nstrip = ['old.example.net']\n[clients]\ninternal = ['10.0.0.0/8']\n"
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
    assert (settings.iprev, settings.trace.received_spf) == (False, False)
    assert (settings.authserv_id, settings.further_authserv_ids) == ("mx.example.net", ("old.example.net",))
    clients = make_trust(configuration)
    assert [str(network) for network in clients.internal.members] == ["10.0.0.0/8"]
    assert clients.judge_authenticated
    assert clients.exempt_recipients.addresses == {"abuse@example.net"}


def sections(struct: type) -> Iterator[type]:
    """A section and its subsections."""
    for field in msgspec.structs.fields(struct):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield field.type
            yield from sections(field.type)


@pytest.mark.parametrize("section", sorted(set(sections(Configuration)), key=str))
def test_every_key_has_a_default_and_a_description(section: type) -> None:
    hints = get_type_hints(section, include_extras=True)
    for field in msgspec.structs.fields(section):
        if row_type(field.type) or (isinstance(field.type, type) and issubclass(field.type, msgspec.Struct)):
            continue
        assert (field.default, field.default_factory) != (msgspec.NODEFAULT, msgspec.NODEFAULT), field.name
        assert hints[field.name].__metadata__[0].description, field.name
