# SPDX-License-Identifier: GPL-3.0-or-later
"""Floor 6: the processes. A supervisor keeps the socket and the workers; each worker is a libmilter daemon."""
