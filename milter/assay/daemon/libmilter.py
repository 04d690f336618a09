# SPDX-License-Identifier: GPL-3.0-or-later
"""What libmilter can do and pymilter 1.0.5 has no function for: calls of the library that pymilter itself uses."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import Milter


def change_field(context: Any, name: str, occurrence: int, value: bytes) -> None:
    """Change a header field (``smfi_chgheader``). pymilter takes text and writes it as UTF-8; other octets go past it.

    :param context: pymilter's context of the connection, at the end of a message.
    :param value: without NUL, folded with bare line feeds.
    :raises Milter.error: libmilter refuses, or its context cannot be found.
    """
    try:
        context.chgheader(name, occurrence, value.decode())
        return
    except UnicodeDecodeError:
        pass
    pointer = _pointer(context)
    if _library().smfi_chgheader(pointer, name.encode(), ctypes.c_int(occurrence), value):
        raise Milter.error("cannot change header")


def _pointer(context: Any) -> ctypes.c_void_p:
    """libmilter's own context: the first member of pymilter's object.

    libmilter has it point back to that object (``smfi_getpriv``); unless it does, this is not the layout we know.
    """
    pointer = ctypes.c_void_p.from_address(id(context) + object.__basicsize__)
    if not pointer.value or _library().smfi_getpriv(pointer) != id(context):
        raise Milter.error("cannot find libmilter's context")
    return pointer


@cache
def _library() -> ctypes.CDLL:
    with open("/proc/self/maps") as maps:  # the very library that pymilter uses, whatever its name
        path = next(line.split()[-1] for line in maps if "/libmilter." in line)
    library = ctypes.CDLL(path)
    library.smfi_getpriv.restype = ctypes.c_void_p
    library.smfi_getpriv.argtypes = [ctypes.c_void_p]
    library.smfi_chgheader.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p]
    return library


def take_events_of(octets: int) -> None:
    """Have libmilter take longer events than 65,535 octets (``smfi_setmaxdatasize``).

    :raises OSError, StopIteration, AttributeError: the library is not found, or lacks it.
    """
    _library().smfi_setmaxdatasize(ctypes.c_size_t(octets))
