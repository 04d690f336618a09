# SPDX-License-Identifier: GPL-3.0-or-later
"""The author before an MTA rewrites From, and in the message that it stores.

The milter sees the field as it was sent, and mail readers see it as it was stored. So a message that could pass for the
attacker's domain must not be stored under another author.
"""

from __future__ import annotations

import email.utils
import os
import re
from typing import Final

import pytest

from assay.model.message import HeaderField, split_message
from assay.protocol import dmarc
from mta.base import HOSTNAME, MTA, UnavailableError
from mta.forms import VICTIM, forms
from mta.postfix import Postfix
from mta.sendmail import Sendmail

SEED: Final = int(os.environ.get("ASSAY_FORMS_SEED", "1"))
COUNT: Final = int(os.environ.get("ASSAY_FORMS", "300"))

#: A line that is not a continuation would be another field, or not a field.
_BROKEN = re.compile(rb"\n(?![ \t])|(?<!\r)\n|\r(?!\n)")


def shown(stored: bytes) -> set[str]:
    """The domains that a reader of the stored message could take for the author's."""
    fields = split_message(stored)[0].all("From")
    values = [field.unfolded.decode("latin-1") for field in fields]
    read = {address.rpartition("@")[2].lower() for _, address in email.utils.getaddresses(values) if "@" in address}
    return read | {domain.name for domain in dmarc.author(fields).domains}


def is_anothers(domain: str) -> bool:
    """Whether a domain is the victim's, or the MTA's own, which the MTA may add."""
    return domain.endswith((VICTIM.decode(), HOSTNAME))


@pytest.mark.parametrize("kind", [Sendmail, Postfix])
def test_a_message_that_can_pass_is_stored_under_the_same_author(kind: type[MTA]) -> None:
    try:
        kind.check()
    except UnavailableError as missing:
        pytest.skip(str(missing))
    values = [value for value in forms(SEED, COUNT) if not _BROKEN.search(value)]
    with kind() as mta:
        with mta.connect() as session:
            for number, value in enumerate(values):
                session.sendmail("author@example.net", [f"r{number}@example.org"], b"From: " + value + b"\r\n\r\nx\r\n")
        mta.wait_for(len(values), timeout=60 + COUNT / 10)
        stored = dict(mta.stored())
    wrong = []
    for number, value in enumerate(values):
        author = dmarc.author([HeaderField(b"From", b" " + value)])
        if author.domain is None or is_anothers(author.domain.name):
            continue
        if found := {domain for domain in shown(stored[f"r{number}@example.org"]) if is_anothers(domain)}:
            wrong.append((value, str(author.domain), found))
    assert not wrong
