# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of Postfix that change a message after it is signed.

Its cleanup(8) rewrites addresses and applies ``header_checks`` before milters see the message, its smtp(8) after that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

#: Postfix's defaults (postconf(5)) of the parameters that `alterations` reads.
DEFAULTS: Mapping[str, str] = {
    "disable_mime_output_conversion": "no",
    "smtp_body_checks": "",
    "smtp_discard_ehlo_keywords": "",
    "smtp_generic_maps": "",
    "smtp_header_checks": "",
    "smtp_line_length_limit": "998",
    "smtp_mime_header_checks": "",
    "smtp_nested_header_checks": "",
}
_CHECKS = ("body_checks", "header_checks", "mime_header_checks", "nested_header_checks")
_LINE_OCTETS = 998  # RFC 5322, 2.1.1


def alterations(parameters: Mapping[str, str], values: Mapping[str, str]) -> Iterator[str]:
    """Describe each setting that breaks signatures, in one sentence: the parameter and the fix.

    Parameters of single services (``postconf -P``: ``SERVICE/TYPE/NAME``) count as well.

    :param parameters: by name, as they are written.
    :param values: the same, with the parameters that they name put in.
    """
    converts = values["disable_mime_output_conversion"] != "yes"
    for full_name, value in values.items():
        _, _, name = full_name.rpartition("/")
        checks = name.removeprefix("smtp_")
        written = parameters[full_name]
        setting = f"{full_name} = {written}"
        if name == "smtp_generic_maps" and value:
            yield (
                f"{setting}: addresses change after the message is signed, which breaks the signature; write "
                f"sender_canonical_maps = {written}, which acts before, also on mail that stays here"
            )
        elif name.startswith("smtp_") and checks in _CHECKS and value:
            yield (
                f"{setting}: what it changes after the message is signed breaks the signature, unless it is a field "
                f"that is not signed, such as Received; write {checks} = {written}, which acts before"
            )
        elif name == "smtp_discard_ehlo_keywords" and converts and "8bitmime" in re.split(r"[\s,]+", value.lower()):
            yield (
                f"{setting}: 8-bit text becomes quoted-printable after the message is signed, which breaks the "
                "signature; remove 8bitmime, or write disable_mime_output_conversion = yes"
            )
        elif name == "smtp_line_length_limit" and re.fullmatch("[0-9]{1,9}", value) and 0 < int(value) < _LINE_OCTETS:
            yield (
                f"{setting}: longer lines are broken after the message is signed, which breaks the signature; write "
                f"smtp_line_length_limit = {_LINE_OCTETS}"
            )
