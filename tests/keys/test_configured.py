# SPDX-License-Identifier: GPL-3.0-or-later
"""The public halves of the keys that the configuration names."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from assay.keys.configured import configured
from assay.model.name import Domain
from assay.protocol import dkim
from signing import pem, rsa_key


@pytest.mark.parametrize(
    ("identity", "below"),
    [("", False), ("@example.org", False), ("ann@EXAMPLE.org", False), ("@lists.example.org", True)],
)
def test_a_key_is_below_if_its_identity_is(identity: str, below: bool) -> None:
    private = dkim.load_private_key(pem(rsa_key()))
    key = SimpleNamespace(selector=Domain("s1"), private=private)
    signatory = SimpleNamespace(identity=identity, domain=Domain("example.org"), keys=(key,), place="sign.domain 1")
    signing: Any = SimpleNamespace(tables=(SimpleNamespace(signatories=(signatory,)),))
    (found,) = configured(signing)
    assert (found.below, found.record, found.place) == (below, dkim.record_of(private), "sign.domain 1")
    assert list(configured(None)) == []
