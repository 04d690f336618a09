# SPDX-License-Identifier: GPL-3.0-or-later
"""Floor 7, the doors: one module per subcommand, each a thin layer over the floors below."""
