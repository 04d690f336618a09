# SPDX-License-Identifier: GPL-3.0-or-later
"""assay: one milter daemon that tells an MTA who really sent each message.

The package is a house of floors; a module imports only from floors below its own. ``docs/architecture.md`` is the
map.
"""

__version__ = "0.1.0"
