# SPDX-License-Identifier: GPL-3.0-or-later
"""Floor 7, the doors: one subcommand a module, each a thin layer over what lies below."""
