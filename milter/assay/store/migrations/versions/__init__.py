# SPDX-License-Identifier: GPL-3.0-or-later
"""One module a revision.

A released one never changes. So it repeats parts of `assay.store.schema` and imports nothing of it: the schema goes on,
and a database of that time must still be brought up to date in the same steps.
"""
