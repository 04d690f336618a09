# SPDX-License-Identifier: GPL-3.0-or-later
"""Floor 2, the protocols: one room each, pure evaluators with no clock, log, file, socket or thread."""
