# SPDX-License-Identifier: GPL-3.0-or-later
"""What ``[reports]`` names, checked: the files and keys that sending needs."""

from __future__ import annotations

from pathlib import Path

from assay import files, secrets
from assay.config.configuration import Configuration
from assay.config.reports import FailureSection
from assay.config.section import SettingError, require
from assay.config.signing import make_signing
from assay.keys import Signing
from assay.policy.addresses import Entries
from assay.protocol import report


def check_reports(configuration: Configuration) -> None:
    """Check that reports can be made, if they are wanted.

    :raises SettingError: they cannot.
    """
    if configuration.reports.enabled:
        reports_signing(configuration)
        reports_suppressed(configuration.reports.suppress)
        reports_redactor(configuration.reports.failure)
    if configuration.reports.incoming.listen:
        _check_incoming(configuration)


def _check_incoming(configuration: Configuration) -> None:
    require("reports.incoming.listen", {"aiosmtpd": "aiosmtpd", "parsedmarc": "parsedmarc"})
    if not configuration.store.location:
        raise SettingError(
            "reports.incoming.listen", "reports are kept in the store, and there is no database; set store.directory"
        )


def reports_signing(configuration: Configuration) -> Signing:
    """What signs reports.

    :raises SettingError: nothing does, or there is nothing to report from.
    """
    section = configuration.reports
    if not configuration.store.location:
        raise SettingError("reports.organization", "reports are made from the store; set store.directory")
    signing = make_signing(configuration)
    domain = section.sender.domain
    if signing is None or not signing.signs_as(domain):
        raise SettingError(
            "reports.contact",
            f"nothing signs as {domain}, and unsigned reports are not believed; write a [[sign.domain]]",
        )
    return signing


def reports_redactor(section: FailureSection) -> report.Redactor | None:
    """What redacts failure reports; None if there are none.

    :raises SettingError: the file with the secret cannot be used.
    """
    if not section.enabled:
        return None
    if not section.redact:
        return report.Unredacted()
    try:
        return report.Redactor(secrets.read(Path(section.redaction_key_file)).strip())
    except secrets.SecretError as error:
        raise SettingError("reports.failure.redaction_key_file", str(error)) from error


def reports_suppressed(name: str) -> Entries:
    """The domains and addresses in ``reports.suppress``.

    :raises SettingError: the file cannot be used; the message names the line.
    """
    if not name:
        return Entries()
    try:
        lines = files.read_text(Path(name)).splitlines()
    except OSError as error:
        raise SettingError("reports.suppress", f"{name}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingError("reports.suppress", f"{name}: {files.not_text(error)}") from error
    found = []
    for number, line in enumerate(lines, 1):
        if entry := line.partition("#")[0].strip():
            try:
                Entries.parse((entry,))
            except ValueError as error:
                raise SettingError("reports.suppress", f"{name}:{number}: {error}") from error
            found.append(entry)
    return Entries.parse(found)
