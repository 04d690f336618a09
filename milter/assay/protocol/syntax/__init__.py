# SPDX-License-Identifier: GPL-3.0-or-later
"""Grammar that several RFCs share, one module each. Parsers here never judge."""
