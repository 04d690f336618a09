# SPDX-License-Identifier: GPL-3.0-or-later
"""Our own signing keys: which key signs what, and who may sign as whom.

All of it is data and pure functions. Files are read in `assay.config`.
"""

from assay.keys.signing import Chosen, OnSignError, Signing
from assay.keys.table import DomainRow, DomainTable, Signatory, Table

__all__ = ["Chosen", "DomainRow", "DomainTable", "OnSignError", "Signatory", "Signing", "Table"]
