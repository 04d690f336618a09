# SPDX-License-Identifier: GPL-3.0-or-later
"""A second opinion about a chain: dkimpy's, with the same limits as `assay.protocol.dkim.second`."""

from __future__ import annotations

from typing import Any

from assay.protocol.arc.result import Result
from assay.protocol.dkim.second import FindText, Opinion, ask

#: dkimpy has no word for a chain that its last sealer received broken.
_RESULTS = {b"pass": Result.PASS, b"none": Result.NONE}
#: Where two validators differ: RFC 8617 has one section for all of it.
SECTION = "RFC 8617, 5.2"


def second_opinion(message: bytes, find_text: FindText) -> Opinion[Result]:
    """dkimpy's result for the chain.

    :param message: as on the wire, with CRLF.
    """

    def validate(library: Any, notes: Any, find: Any) -> Result:
        word, _, reason = library.ARC(message, logger=notes).verify(find)
        result = _RESULTS.get(word, Result.FAIL)
        if result is Result.FAIL and not notes.error_text:
            notes.error(reason)
        return result

    return ask(validate, find_text, refused=Result.FAIL)
