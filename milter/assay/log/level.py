# SPDX-License-Identifier: GPL-3.0-or-later
"""Severities."""

from __future__ import annotations

import syslog
from enum import IntEnum


class Level(IntEnum):
    """Severities, with syslog's numbers (RFC 5424, 6.2.1)."""

    ERROR = syslog.LOG_ERR
    WARNING = syslog.LOG_WARNING
    INFO = syslog.LOG_INFO
    DEBUG = syslog.LOG_DEBUG
