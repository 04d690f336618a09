# SPDX-License-Identifier: GPL-3.0-or-later
"""A second reading of a field: the library authres's, which shares no parser with ours.

For comparison only, never for a verdict: see `parse` for what the library does with hostile fields.
"""

from __future__ import annotations

from assay.protocol.authres.result import AuthenticationResults, FieldFault, MethodResult, Property


def second_reading(value: str) -> AuthenticationResults | FieldFault:
    """The library's reading of a field's value, in our types. Never raises.

    :param value: folded with CRLF or not. The library drops comments, so the result has none.
    """
    import authres  # `render` imports only a part of it

    try:
        header = authres.all_features().parse_value(value.replace("\r\n", ""))
    except Exception as error:  # RecursionError too: the library recurses into comments until Python's limit
        return FieldFault(f"it cannot read the field: {type(error).__name__}")
    results = tuple(
        MethodResult(
            result.method,
            result.result,
            reason=result.reason or "",
            properties=tuple(Property(evidence.type, evidence.name, evidence.value) for evidence in result.properties),
        )
        for result in header.results
    )
    return AuthenticationResults(header.authserv_id, int(header.version or 1), results)
