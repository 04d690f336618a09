# SPDX-License-Identifier: GPL-3.0-or-later
"""Floor 6, reports: those that others send about our domains (`incoming`)."""
