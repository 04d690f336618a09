# SPDX-License-Identifier: GPL-3.0-or-later
"""Which signatures are tried first (RFC 6376, 6.1)."""

from __future__ import annotations

import pytest

from assay.model.message import HeaderField
from assay.model.name import Domain
from assay.protocol import dkim


def preferred(domains: list[str], author: str | None, form: str = " v=1; a=x; d={}; s=s; b=d=") -> list[int]:
    fields = [HeaderField(b"DKIM-Signature", form.format(domain).encode()) for domain in domains]
    return dkim.preferred(fields, Domain.parse(author) if author else None)


@pytest.mark.parametrize(
    ("domains", "author", "order"),
    [
        pytest.param(["a.net", "c.net"], None, [0, 1], id="no author: from the top"),
        pytest.param(["a.net", "b.net", "c.net"], "c.net", [2, 0, 1], id="the author's domain first"),
        pytest.param(["a.net", "C.NET"], "c.net", [1, 0], id="in any case"),
        pytest.param(["a.net", "m.c.net"], "c.net", [1, 0], id="below the author's domain"),
        pytest.param(["a.net", "c.net", "m.c.net"], "m.c.net", [2, 1, 0], id="the author's before one above"),
        pytest.param(["a.net", "n.c.net", "c.net"], "m.c.net", [2, 1, 0], id="beside the author's before a stranger's"),
        pytest.param(["a.net", "xc.net"], "c.net", [0, 1], id="a name that only ends alike"),
        pytest.param(["a.net", "", "c.net"], "c.net", [2, 0, 1], id="no name"),
        pytest.param(["a.net", "b\u00fccher.example"], "xn--bcher-kva.example", [1, 0], id="U-labels"),
    ],
)
def test_order(domains: list[str], author: str | None, order: list[int]) -> None:
    assert preferred(domains, author) == order


@pytest.mark.parametrize("form", ["d={}", " v=1;\r\n\td \t= {}\r\n\t; s=s", ";;x=1;d={};", " z=d:x; d={}"])
def test_the_tag_is_found_wherever_it_stands(form: str) -> None:
    assert preferred(["a.net", "c.net"], "c.net", form) == [1, 0]


@pytest.mark.parametrize("form", ["", " v=1; s=s", " v=1; ad={}", " v=1; x=d={}", " v=1; bd={}; s=d"])
def test_without_the_tag_it_is_a_strangers(form: str) -> None:
    fields = [
        HeaderField(b"DKIM-Signature", form.format("c.net").encode()),
        HeaderField(b"DKIM-Signature", b"d=m.c.net"),
    ]
    assert dkim.preferred(fields, Domain("c.net")) == [1, 0]
