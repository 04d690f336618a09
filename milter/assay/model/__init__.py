# SPDX-License-Identifier: GPL-3.0-or-later
"""Floor 0, the words: names, messages and what SMTP gave us, each in one normalised form."""
