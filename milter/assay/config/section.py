# SPDX-License-Identifier: GPL-3.0-or-later
"""What all sections of the configuration file have in common."""

from __future__ import annotations

import msgspec


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One ``[section]`` of the file."""
