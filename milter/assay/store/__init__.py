# SPDX-License-Identifier: GPL-3.0-or-later
"""Floor 5: every result kept, so that it can be found again.

A worker hands each verdict as a `MessageRow` to the recorder (floor 6), which appends it to a spool on disk and writes
batches of rows from there into the database.
"""
