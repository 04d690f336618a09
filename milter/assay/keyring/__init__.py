# SPDX-License-Identifier: GPL-3.0-or-later
"""Floor 5, keys on disk: one directory for each domain, with a state file and the private keys.

`directory` reads and writes them. The rest is for ``assay keys`` and not imported here, because a worker needs none of
it: `material` makes private keys and reads those of other programs, `publisher` changes the DNS, and `run` takes the
steps that `assay.keys.rotation` says are due.
"""

from assay.keyring.directory import STATE_FILE, Directory, KeyringError, directories

__all__ = ["STATE_FILE", "Directory", "KeyringError", "directories"]
