# SPDX-License-Identifier: GPL-3.0-or-later
"""A second reading of a field: the library authres's, which shares no parser with ours.

For whoever compares, never for a verdict: see `parse` for what the library does with hostile fields.
"""

from __future__ import annotations

from assay.protocol.authres.result import AuthenticationResults, FieldFault, MethodResult, Property


def second_reading(value: str) -> AuthenticationResults | FieldFault:
    """What the library reads in a field's value, in our types; nothing is raised through.

    :param value: folded with CRLF or not. The library leaves comments out, and so does what is returned.
    """
    import authres  # imported by whoever writes a field, but only in part

    try:
        header = authres.all_features().parse_value(value.replace("\r\n", ""))
    except Exception as error:  # RecursionError too: the library goes into comments until Python's limit
        return FieldFault(f"it cannot read the field: {type(error).__name__}")
    results = tuple(
        MethodResult(
            one.method,
            one.result,
            reason=one.reason or "",
            properties=tuple(Property(each.type, each.name, each.value) for each in one.properties),
        )
        for one in header.results
    )
    return AuthenticationResults(header.authserv_id, int(header.version or 1), results)
