# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks of sockets that several sections name."""

from __future__ import annotations

import os
import socket

from assay.config.endpoint import Endpoint, EndpointError
from assay.config.section import SettingError


def check_mode(mode: str) -> None:
    """Check the permissions of a unix socket.

    :raises SettingError: not octal digits.
    """
    try:
        fits = 0 <= int(mode, 8) <= 0o777
    except ValueError:
        fits = False
    if not fits:
        raise SettingError("socket_mode", f"{mode!r} is not a mode; write octal digits such as '0660'")


def check_endpoint(key: str, text: str, usual: str) -> Endpoint:
    """Check the address of a socket.

    :param usual: the name of such a socket in /run/assay.
    :raises SettingError: not an address, or a relative path.
    """
    try:
        endpoint = Endpoint.parse(text)
    except EndpointError as error:
        raise SettingError(key, str(error)) from error
    # Postfix reads a path from its queue directory; a daemon would read it from wherever it was started.
    if endpoint.family == socket.AF_UNIX and not os.path.isabs(endpoint.path):
        raise SettingError(key, f"{text!r} is not an absolute path; write one such as unix:/run/assay/{usual}")
    return endpoint
