# SPDX-License-Identifier: GPL-3.0-or-later
"""A certification authority for the tests, and the certificates that it issues."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from functools import cached_property
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAY = datetime.timedelta(days=1)


class CertificateAuthority:
    """Issues certificates into files of a directory."""

    def __init__(self, folder: Path, name: str = "test authority") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._issued = 0

    @cached_property
    def certificate(self) -> Path:
        """Its own certificate, which its users trust."""
        now = datetime.datetime.now(datetime.UTC)
        builder = self._builder(self._name, self._key, now - _DAY, now + _DAY)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        path = self._folder / f"{self._name.rfc4514_string()[3:]}.pem"
        path.write_bytes(
            builder.add_extension(usage, critical=True)
            .sign(self._key, hashes.SHA256())
            .public_bytes(serialization.Encoding.PEM)
        )
        return path

    def issue(self, names: Sequence[str] = (), *, expired: bool = False) -> tuple[Path, Path]:
        """A certificate for host names and addresses; the files of the certificate and of its key."""
        self._issued += 1
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        begin, end = (now - 3 * _DAY, now - _DAY) if expired else (now - _DAY, now + _DAY)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")])
        alternatives = [_alternative(name) for name in names]
        builder = self._builder(subject, key, begin, end)
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        stem = self._folder / f"{self._name.rfc4514_string()[3:]} {self._issued}"
        paths = stem.with_suffix(".crt"), stem.with_suffix(".key")
        paths[0].write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        paths[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return paths

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, begin: datetime.datetime, end: datetime.datetime
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(end)
        )


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)
