# SPDX-License-Identifier: GPL-3.0-or-later
"""``assay keys check``: all keys that sign, compared with what each authoritative server publishes."""

from __future__ import annotations

import os

from assay.cli import key_report
from assay.cli.key_command import KeyCommand, complain
from assay.cli.output import say
from assay.cli.serve import name
from assay.config.signing import make_signing
from assay.keyring import Directory
from assay.keyring.run import key_name, look
from assay.keys.configured import configured
from assay.keys.published import Publication, Sight, compare
from assay.keys.rotation import KeyState
from assay.protocol import dkim

EX_DIFFERENT = 1


def check(keys: KeyCommand) -> int:
    """Compare all keys that sign with the DNS; the exit code."""
    authority = keys.authority
    unusable = os.EX_OK
    try:
        signing = make_signing(keys.configuration)
    except ValueError as error:  # a domain whose first key is not published yet, for instance: check that one
        complain(f"{name(keys.options.config)}: {error}")
        signing, unusable = None, os.EX_CONFIG
    listed = {(key.domain.name, key.selector.name): key for key in configured(signing)}
    asked: set[tuple[str, str]] = set()
    read: set[str] = set()

    def check_ring(directory: Directory) -> int:
        ring = directory.load()
        read.add(ring.domain)
        below = {selector for (domain, selector), key in listed.items() if domain == ring.domain and key.below}
        code = os.EX_OK
        for selector, publication in look(ring, authority.texts, below).items():
            key = ring.find(selector)
            if key is not None:
                asked.add((ring.domain, selector))
                say(key_report.publication(key_name(ring, selector), key.state, publication))
                if key.state in (KeyState.ACTIVE, KeyState.RETIRING):
                    code = max(code, _code(publication))
        return code

    only = keys.options.domains
    kept = [domain for domain in only if keys.directory(domain).exists]
    keys.options.domains = kept
    code = keys.each(check_ring) if kept or not only else os.EX_OK
    unread = {domain.name for domain in kept} - read  # what is wrong with them has been reported
    for known, key in listed.items():
        if known not in asked and (not only or key.domain in only):
            asked.add(known)
            at = dkim.key_name(key.domain, key.selector)
            found = compare(key.record, authority.texts(at), signs_below=key.below)
            say(key_report.publication(at, key.place, found))
            code = max(code, _code(found))
    for domain in only:
        if domain.name not in unread | {known for known, _ in asked}:
            complain(f"{domain}: it has no keys; make some with: assay keys create {domain}")
            code = max(code, os.EX_NOINPUT)
    if not asked and not only and code == os.EX_OK:
        print("no keys; make some with: assay keys create DOMAIN")
    return max(code, unusable)


def _code(publication: Publication) -> int:
    return os.EX_OK if publication.sight is Sight.EVERYWHERE else EX_DIFFERENT
