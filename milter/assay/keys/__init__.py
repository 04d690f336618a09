# SPDX-License-Identifier: GPL-3.0-or-later
"""Our own signing keys: which key signs what and who may sign as whom, the stages of a rotation, and what the DNS
says about a key.

All of it is data and pure functions. Files are read in `assay.config` and `assay.keyring`.
"""

from assay.keys.senders import Senders, SendersError, parse_senders
from assay.keys.signing import Chosen, Identities, OnSignError, Signing, Unpublished
from assay.keys.table import DomainRow, DomainTable, Signatory, Table

__all__ = [
    "Chosen",
    "DomainRow",
    "DomainTable",
    "Identities",
    "OnSignError",
    "Senders",
    "SendersError",
    "Signatory",
    "Signing",
    "Table",
    "Unpublished",
    "parse_senders",
]
