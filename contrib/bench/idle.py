# SPDX-License-Identifier: GPL-3.0-or-later
"""Milters of pymilter that do nothing, to know what the protocol alone costs.

    idle.py SOCKET {replies|none|hash}

*replies* answers every event, as pymilter does by default. *none* negotiates that it answers none but the last. *hash*
does the same and hashes the body with SHA-256. Each adds one field at the end of the message.
"""

from __future__ import annotations

import hashlib
import sys
from typing import Any

import Milter

_QUIET = (
    Milter.P_NR_CONN
    | Milter.P_NR_HELO
    | Milter.P_NR_MAIL
    | Milter.P_NR_RCPT
    | Milter.P_NR_HDR
    | Milter.P_NR_EOH
    | Milter.P_NR_BODY
    | Milter.P_NODATA
    | Milter.P_NOUNKNOWN
    | Milter.P_HDR_LEADSPC
)


def main() -> None:
    path, kind = sys.argv[1:]
    answer = Milter.CONTINUE if kind == "replies" else Milter.NOREPLY

    def negotiate(context: Any, options: list[int]) -> int:
        options[0] &= Milter.ADDHDRS
        options[1] &= _QUIET if kind != "replies" else Milter.P_NODATA | Milter.P_NOUNKNOWN
        options[2] = options[3] = 0
        return int(Milter.CONTINUE)

    def event(_context: Any, *_arguments: Any) -> int:
        return int(answer)

    def end_of_header(context: Any) -> int:
        context.setpriv(hashlib.sha256())
        return int(answer)

    def body(context: Any, chunk: bytes) -> int:
        context.getpriv().update(chunk)
        return int(answer)

    def end_of_message(context: Any) -> int:
        context.addheader("X-Idle", context.getpriv().hexdigest() if kind == "hash" else "nothing", 0)
        return int(Milter.CONTINUE)

    def close(context: Any) -> int:
        context.setpriv(None)
        return int(Milter.CONTINUE)

    for install in (
        Milter.set_connect_callback,
        Milter.set_helo_callback,
        Milter.set_envfrom_callback,
        Milter.set_envrcpt_callback,
        Milter.set_header_callback,
    ):
        install(event)
    Milter.set_eoh_callback(end_of_header if kind == "hash" else event)
    Milter.set_body_callback(body if kind == "hash" else event)
    Milter.set_eom_callback(end_of_message)
    Milter.set_close_callback(close)
    Milter.set_flags(Milter.ADDHDRS)
    Milter.register("idle", negotiate=negotiate)
    Milter.setconn(f"local:{path}")
    Milter.main()


if __name__ == "__main__":
    main()
