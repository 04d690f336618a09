# SPDX-License-Identifier: GPL-3.0-or-later
"""What libmilter can do and pymilter 1.0.5 has no function for: calls of the library that pymilter itself uses."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from typing import Any

import Milter

#: Octets of libmilter's context in which its pointer to pymilter's object is: after 250 or so in all known versions.
_CONTEXT_OCTETS = 1024
_POINTER_OCTETS = ctypes.sizeof(ctypes.c_void_p)


class UnsupportedError(Exception):
    """This pymilter or libmilter is not one that we know. The message says what is different."""


def change_field(context: Any, name: str, occurrence: int, value: bytes) -> None:
    """Change a header field (``smfi_chgheader``). pymilter takes text and writes it as UTF-8; other octets go past it.

    :param context: pymilter's context of the connection, at the end of a message.
    :param value: without NUL, folded with bare line feeds.
    :raises Milter.error: libmilter refuses.
    :raises UnsupportedError: it is not UTF-8, and the field cannot be changed.
    """
    try:
        text = value.decode()
    except UnicodeDecodeError:
        pointer = _pointer(context)
        if _library().smfi_chgheader(pointer, name.encode(), occurrence, value):
            raise Milter.error("cannot change header") from None
    else:
        context.chgheader(name, occurrence, text)


def _pointer(context: Any) -> int:
    """The address of libmilter's own context: the first member of pymilter's object.

    libmilter has it point back to that object. Whether it does is looked up without following a pointer that may be
    something else: another layout must not end in a crash.
    """
    if type(context).__basicsize__ < object.__basicsize__ + _POINTER_OCTETS:
        raise UnsupportedError("pymilter's context has no room for libmilter's")
    pointer = int.from_bytes(_read(id(context) + object.__basicsize__, _POINTER_OCTETS), sys.byteorder)
    back = id(context).to_bytes(_POINTER_OCTETS, sys.byteorder)
    members = _read(pointer, _CONTEXT_OCTETS)
    if all(members[at : at + _POINTER_OCTETS] != back for at in range(0, len(members), _POINTER_OCTETS)):
        raise UnsupportedError("pymilter's context does not begin with libmilter's")
    try:
        if _library().smfi_getpriv(pointer) == id(context):
            return pointer
    except (OSError, StopIteration, AttributeError) as error:
        raise UnsupportedError("libmilter is not found or lacks a function") from error
    raise UnsupportedError("libmilter's context does not point back to pymilter's")


def _read(address: int, octets: int) -> bytes:
    """Read memory that may not be there: the system copies it, and reports an address where nothing is."""
    reading, writing = os.pipe()
    try:
        return os.read(reading, os.write(writing, (ctypes.c_char * octets).from_address(address)))
    except OSError as error:
        raise UnsupportedError("pymilter's context does not begin with a pointer") from error
    finally:
        os.close(reading)
        os.close(writing)


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
