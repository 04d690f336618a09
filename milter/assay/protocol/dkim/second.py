# SPDX-License-Identifier: GPL-3.0-or-later
"""A second opinion about a signature: dkimpy's, which shares no code with ours.

For comparison only, never for a verdict. dkimpy is imported on demand and gets our answers to its DNS questions. It is
written for honest mail, and hostile mail may make it raise anything: that becomes an opinion that says so. It reads the
clock itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from msgspec import Struct

T = TypeVar("T")
#: Returns the first TXT record of a name, None if there is none; raises `NoAnswerError`.
FindText = Callable[[str], bytes | None]
_NEEDS = "pynacl module required"  # dkimpy's words
MAX_REASON = 200  # characters of the library's reason; our choice: it may quote a whole field

#: The section that decides where two verifiers differ, by words of the one that does not pass. The first match counts.
SECTIONS = (
    ("rsa-sha1 is not accepted", "RFC 8301, 3.1"),
    ("RSA key of", "RFC 8301, 3.2"),
    ("public key too small", "RFC 8301, 3.2"),
    ("l= leaves", "RFC 6376, 8.2"),
    ("not signed", "RFC 6376, 8.15"),
    ("(t=s)", "RFC 6376, 3.6.1"),
    ("(h=)", "RFC 6376, 3.6.1"),
    ("(s=)", "RFC 6376, 3.6.1"),
    ("key", "RFC 6376, 3.6.1"),
    ("malformed signature", "RFC 6376, 3.2"),
    ("h= does not name From", "RFC 6376, 5.4"),
    ("l= is larger than the body", "RFC 6376, 3.5"),
    ("did not verify", "RFC 6376, 3.7"),
    ("body hash mismatch", "RFC 6376, 3.7"),
)
OTHERWISE = "RFC 6376, 3.5"  # all other reasons are about a tag of the field


class NoAnswerError(Exception):
    """The DNS lookup failed temporarily."""


class Opinion(Struct, Generic[T], frozen=True):
    """The answer of another library: `value` is None if it has none, and `reason` is then why."""

    value: T | None
    reason: str = ""


def second_opinion(message: bytes, position: int, find_text: FindText) -> Opinion[bool]:
    """Whether dkimpy verifies a signature.

    :param message: as on the wire, with CRLF.
    :param position: of the signature among the DKIM-Signature fields, from the top, counted from 0.
    """

    def verify(library: Any, notes: Any, find: Any) -> bool:
        return bool(library.DKIM(message, logger=notes).verify(position, find))

    return ask(verify, find_text, refused=False)


def section(reason: str) -> str:
    """The section that decides about a signature that one verifier refuses for this reason and the other passes."""
    return next((section for words, section in SECTIONS if words in reason), OTHERWISE)


def ask(question: Callable[[Any, Any, Any], T], find_text: FindText, *, refused: T) -> Opinion[T]:
    """Ask dkimpy; its exceptions become opinions.

    :param question: called with the library, a logger for it, and its ``dnsfunc``.
    :param refused: the answer if the library raises one of its own errors.
    """
    import dkim  # seldom needed, and importing it takes as long as judging ten messages

    notes = _Notes()

    def find(name: bytes, timeout: float = 0) -> bytes | None:
        return find_text(name.decode("utf-8", "surrogateescape").removesuffix("."))

    try:
        value, reason = question(dkim, notes, find), notes.error_text
    except NoAnswerError:
        return Opinion(None, "the DNS has no answer now")
    except dkim.DKIMException as error:
        value, reason = refused, str(error)
    except Exception as error:  # what a library does with hostile mail must not stop us
        return Opinion(None, _plain(f"it failed: {error!r}"))
    if _NEEDS in reason:
        return Opinion(None, "it needs the Python package pynacl for Ed25519")
    return Opinion(value, _plain(reason))


class _Notes:
    """A logger for dkimpy that keeps the last error, which says why it returns False."""

    error_text = ""

    def error(self, text: object, *_: object) -> None:
        self.error_text = str(text)

    def debug(self, *_: object) -> None:
        """Not kept."""

    def isEnabledFor(self, _: int) -> bool:  # noqa: N802 - the name is logging's
        return False


def _plain(text: str) -> str:
    """The library's reason on one line, bounded."""
    cut = re.sub(r"\s+", " ", text[: 2 * MAX_REASON]).strip()
    return cut if len(cut) <= MAX_REASON else cut[:MAX_REASON] + "..."
