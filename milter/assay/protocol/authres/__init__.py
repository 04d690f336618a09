# SPDX-License-Identifier: GPL-3.0-or-later
"""Authentication-Results (RFC 8601): write the field, read it, and spot those that only claim to be ours.

::

    authres.render("mx.example.org", [MethodResult("spf", "pass", properties=(Property("smtp", "helo", name),))])
    authres.parse(field.value)
    authres.claims(field.value, {"mx.example.org"})

It decides nothing: the policy decides which results are reported, and which field may be believed.
"""

from assay.protocol.authres.forged import claims, forged_received_spf
from assay.protocol.authres.parse import is_of_another_version, parse
from assay.protocol.authres.render import render
from assay.protocol.authres.result import (
    METHODS,
    AuthenticationResults,
    FieldFault,
    MethodResult,
    Property,
    RegisteredMethod,
    unregistered,
)

__all__ = [
    "METHODS",
    "AuthenticationResults",
    "FieldFault",
    "MethodResult",
    "Property",
    "RegisteredMethod",
    "claims",
    "forged_received_spf",
    "is_of_another_version",
    "parse",
    "render",
    "unregistered",
]
