#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the files for ``contrib/try.sh``: a zone with a new DKIM key, a configuration, and four messages to judge.

    sample.py FOLDER

- ``true.eml``: signed by its author's domain, to be sent from the address that the domain's SPF record names;
- ``forwarded.eml``: the same, with a forged Authentication-Results field on top;
- ``changed.eml``: the same, with a word of its body changed on the way;
- ``forged.eml``: claims the same author and has no signature.
"""

from __future__ import annotations

import argparse
import base64
import textwrap
from pathlib import Path

import dkim
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

HERE = Path(__file__).parent
SELECTOR = "try"
DOMAIN = "example.com"
CHARACTER_STRING = 255  # octets; RFC 1035, 3.3: a longer TXT record is several strings

MESSAGE = b"""\
From: Alice <alice@example.com>
To: bob@example.org
Subject: lunch
Date: Fri, 1 Jan 2027 12:00:00 +0000
Message-ID: <lunch@example.com>

Let us meet at noon.
"""

LIE = b"Authentication-Results: mx.example.org;\r\n\tspf=pass smtp.mailfrom=example.com\r\n"


def main() -> None:
    """Write all files."""
    parser = argparse.ArgumentParser(description="Write a zone, a configuration and messages for contrib/try.sh.")
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    key = rsa.generate_private_key(65537, 2048)
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    record = f"v=DKIM1; k=rsa; p={base64.b64encode(public).decode()}"
    strings = " ".join(f'"{part}"' for part in textwrap.wrap(record, CHARACTER_STRING, break_on_hyphens=False))
    zone = (HERE / "zone").read_text() + f"{SELECTOR}._domainkey.{DOMAIN}. TXT {strings}\n"
    (folder / "zone").write_text(zone)
    (folder / "assay.toml").write_text((HERE / "assay.toml").read_text().replace("@FOLDER@", str(folder)))
    private = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    wire = MESSAGE.replace(b"\n", b"\r\n")
    true = dkim.sign(wire, SELECTOR.encode(), DOMAIN.encode(), private, canonicalize=(b"relaxed", b"relaxed")) + wire
    (folder / "true.eml").write_bytes(true)
    (folder / "forwarded.eml").write_bytes(LIE + true)
    (folder / "changed.eml").write_bytes(true.replace(b"noon", b"midnight"))
    (folder / "forged.eml").write_bytes(wire)


if __name__ == "__main__":
    main()
