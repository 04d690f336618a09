# SPDX-License-Identifier: GPL-3.0-or-later
"""Why nothing can listen on an endpoint: the fix fits the error."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from assay.config.endpoint import Endpoint

UNIX, INET = Endpoint.parse("unix:/run/assay/assay.sock"), Endpoint.parse("inet:8891@127.0.0.1")


def test_a_path_that_is_too_long() -> None:
    endpoint = Endpoint.parse(f"unix:/{'x' * 120}")
    with socket.socket(socket.AF_UNIX) as listening, pytest.raises(OSError, match="long") as raised:
        listening.bind(endpoint.path)
    assert endpoint.explain(raised.value) == "AF_UNIX path too long; write a shorter path"


@pytest.mark.parametrize("endpoint", [UNIX, INET], ids=str)
@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM, errno.ENOSPC, errno.EIO])
def test_what_no_other_address_mends(endpoint: Endpoint, number: int) -> None:
    assert endpoint.explain(OSError(number, os.strerror(number))) == os.strerror(number)


def test_an_error_without_a_number() -> None:
    assert UNIX.explain(OSError("the HTTP server does not start")) == "the HTTP server does not start"
