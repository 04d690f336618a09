# SPDX-License-Identifier: GPL-3.0-or-later
"""Floor 6, reports: those that we send about the domains of others, and those that others send about ours (`incoming`).

`planning` and `aggregate_dispatch` say which aggregate reports there are, `aggregate_writing` what is in them;
`failure_dispatch` does both for failure reports. `correspondence`, `destinations`, `delivering` and `relay` are common
to both kinds.
"""
