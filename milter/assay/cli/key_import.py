# SPDX-License-Identifier: GPL-3.0-or-later
"""``assay keys import``: private keys of other programs, with the selectors under which they are published."""

from __future__ import annotations

import os
from pathlib import Path

from assay import secrets
from assay.cli.key_command import KeyCommand, complain
from assay.cli.output import say
from assay.config.signing import read_key_table
from assay.keyring import KeyringError
from assay.keyring.material import bits_of, read_foreign
from assay.keyring.run import adopt
from assay.keys.opendkim import AUTHOR_DOMAIN
from assay.keys.rotation import RefusedStepError
from assay.model.name import Domain


def take_over(keys: KeyCommand) -> int:
    """Import one key, or those of a KeyTable; the exit code."""
    options = keys.options
    one = (options.domain, options.selector, options.file)
    if options.key_table is None:
        if options.file is None:
            raise RefusedStepError("import DOMAIN SELECTOR FILE, or import --key-table FILE")
        return _import_one(keys, *one)
    if any(one):
        raise RefusedStepError("--key-table names all domains, selectors and files; write nothing else")
    try:
        rows = read_key_table(options.key_table)
    except ValueError as error:
        raise KeyringError(str(error)) from error
    code = os.EX_OK
    for row in rows:
        try:
            if row.domain is None or AUTHOR_DOMAIN in row.path:
                raise KeyringError("% stands for many domains; import the key of each: assay keys import DOMAIN ...")
            code = max(code, _import_one(keys, row.domain, row.selector.name, Path(row.path)))
        except KeyringError as error:
            complain(f"{row.place}: {error}")
            code = max(code, os.EX_NOINPUT)
    return code


def _import_one(keys: KeyCommand, domain: Domain, selector: str, path: Path) -> int:
    try:
        private = read_foreign(secrets.read(path))
    except secrets.SecretError as error:
        raise KeyringError(str(error)) from error
    except ValueError as error:
        raise KeyringError(f"{path}: {error}") from error
    directory = keys.directory(domain)
    directory.begin(domain)
    with directory.locked():
        adopt(directory, selector, private, keys.now)
    say([f"{domain}: import {selector}: {bits_of(private)} bits, from {path}"])
    return keys.advance(directory, keys.without_new)
