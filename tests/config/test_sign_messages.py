# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with keys, tables and settings for signing: one sentence with the place and the fix."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from assay.cli.serve import read_for_serving
from assay.config import ConfigError
from signing import pem, rsa_key

ROW = "[[sign.domain]]\ndomain = 'example.org'\n"
ONE = ROW + "selectors = ['s']\nkey_files = ['DIR/good']\n"
TABLES = "[sign]\nkey_table = 'file:DIR/KeyTable'\nsigning_table = 'refile:DIR/table'\n"

#: DIR is the directory of the file.
ROWS = {
    "sections without keys": (ROW, "sign.domain 1.key_directory: write it, or selectors and key_files"),
    "selectors without keys": (ROW + "selectors = ['s']\n", "sign.domain 1.key_directory: write it, or selectors and"),
    "keys and a directory": (
        ROW + "selectors = ['s']\nkey_files = ['DIR/good']\nkey_directory = 'DIR'\n",
        "sign.domain 1.key_directory: write it, or selectors and key_files: one of the two",
    ),
    "a selector without a key": (
        ROW + "selectors = ['s', 't']\nkey_files = ['DIR/good']\n",
        "sign.domain 1.key_files: 1 file for 2 selectors; write one for each",
    ),
    "a domain that is none": (
        "[[sign.domain]]\ndomain = 'a..b'\nselectors = ['s']\nkey_files = ['DIR/good']\n",
        "sign.domain 1.domain: 'a..b' is not a domain: empty label",
    ),
    "a selector that is no label": (
        ROW + "selectors = ['s t']\nkey_files = ['DIR/good']\n",
        "sign.domain 1.selectors: 's t' is not a selector: label with a character",
    ),
    "a selector twice": (
        ROW + "selectors = ['s', 't', 'S']\nkey_files = ['DIR/good', 'DIR/good', 'DIR/good']\n",
        "sign.domain 1.selectors: 's' is there twice; a selector names one key",
    ),
    "the identity of another domain": (
        ONE + "identity = 'joe@example.net'\n",
        "sign.domain 1.identity: 'joe@example.net' is never at or below example.org, as RFC 6376, 3.5 requires; write",
    ),
    "an identity that is none": (ONE + "identity = 'joe%'\n", "sign.domain 1.identity: 'joe%' is never at or below"),
    "a domain twice": (ONE + ONE, "sign.domain 2.domain: 'example.org' is already in sign.domain 1; write its keys"),
    "an unknown key": (ONE + "selctors = 1\n", "unknown key sign.domain 1.selctors; did you mean selectors?"),
    "a section for one domain": ("[sign.domain]\n", "sign.domain is an array of tables; write [[sign.domain]]"),
    "no such file": (ONE.replace("good", "none"), "sign.domain 1.key_files: DIR/none: cannot be read: No such file"),
    "a key for everybody": (ONE.replace("good", "open"), "sign.domain 1.key_files: DIR/open: anyone can read it"),
    "broken PEM": (ONE.replace("good", "broken"), "sign.domain 1.key_files: DIR/broken: not a private key in PEM"),
    "a password": (ONE.replace("good", "locked"), "sign.domain 1.key_files: DIR/locked: not a private key in PEM with"),
    "a short key": (ONE.replace("good", "short"), "sign.domain 1.key_files: DIR/short: RSA key of 1016 bits"),
    "another type": (ONE.replace("good", "curve"), "sign.domain 1.key_files: DIR/curve: neither an RSA nor an Ed25519"),
    "an empty file": (ONE.replace("good", "empty"), "sign.domain 1.key_files: DIR/empty: the file is empty"),
    "no key in the directory": (
        ROW + "selectors = ['s']\nkey_directory = 'DIR'\n",
        "sign.domain 1.key_directory: DIR has no s.pem and no s.private",
    ),
    "a directory that cannot be looked at": (
        ROW + f"selectors = ['s']\nkey_directory = '/{'d' * 300}'\n",
        f"sign.domain 1.key_directory: /{'d' * 300}: cannot be read: File name too long",
    ),
    "the directory of another domain": (
        ROW + "key_directory = 'DIR'\n",
        "sign.domain 1.key_directory: DIR has the keys of example.com; name the directory of example.org",
    ),
    "canonicalization": (
        "[sign]\ncanonicalization = 'relaxed'\n",
        "sign.canonicalization: 'relaxed' is not a canonicalization; write relaxed/relaxed",
    ),
    "canonicalization of a domain": (
        ONE + "canonicalization = 'simple/nofws'\n",
        "sign.domain 1.canonicalization: 'simple/nofws' is not a canonicalization",
    ),
    "From is not signed": ("[sign]\nfields = ['Subject']\n", "sign.fields: RFC 6376, 5.4 requires From; add it"),
    "a field that changes": (
        "[sign]\nfields = ['From', 'Received']\n",
        "sign.fields: 'Received' changes or is removed in transit (RFC 6376, 5.4); remove it",
    ),
    "a field that is none": (
        "[sign]\noversigned_fields = ['To;']\n",
        "sign.oversigned_fields: 'To;' is not a header field name; write a name such as Subject",
    ),
    "one table": ("[sign]\nkey_table = 'DIR/KeyTable'\n", "sign.signing_table: missing; the two tables are used"),
    "the other table": ("[sign]\nsigning_table = 'DIR/table'\n", "sign.key_table: missing; the two tables are used"),
    "several signatures of nothing": (
        "[sign]\nmultiple_signatures = true\n",
        "sign.multiple_signatures: is never used; set signing_table",
    ),
    "a row of the SigningTable": (
        TABLES,
        "sign.signing_table: DIR/table:2: the KeyTable has no key named 'other'",
    ),
    "a row of the KeyTable": (
        TABLES.replace("KeyTable", "table"),
        "sign.key_table: DIR/table:2: 'other' is not DOMAIN:SELECTOR:PATH",
    ),
    "a key of the KeyTable": (
        TABLES.replace("KeyTable", "KeyTable2"),
        "sign.key_table: DIR/KeyTable2:1: DIR/broken: not a private key",
    ),
    "a table that is missing": (
        TABLES.replace("DIR/KeyTable", "DIR/none"),
        "sign.key_table: DIR/none: cannot be read: No such file or directory",
    ),
    "a table in Latin-1": (
        TABLES.replace("DIR/KeyTable", "DIR/Latin-1"),
        "sign.key_table: DIR/Latin-1: line 1 is not UTF-8 text",
    ),
    "a data set of another kind": (
        TABLES.replace("file:DIR/KeyTable", "ldap://x"),
        "sign.key_table: 'ldap://x': data sets of the kind ldap: are not supported; write file: or refile:",
    ),
    "senders": ("[sign]\nsenders = 'DIR/senders'\n" + ONE, "sign.senders: DIR/senders:2: 'joe' has no domain; write"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    curve = generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    good = pem(rsa_key())
    locked = good.replace(b"KEY-----\n", b"KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n", 1)
    contents = {
        "good": good,
        "open": good,
        "broken": good[:200],
        "locked": locked,
        "short": SHORT,
        "curve": curve,
        "empty": b"\n",
        "keys.json": b'{"domain": "example.com", "keys": []}',
        "KeyTable": f"org example.org:s:{tmp_path}/good\n".encode(),
        "KeyTable2": f"org example.org:s:{tmp_path}/broken\n".encode(),
        "table": b"# a comment\n*@example.org other\n",
        "Latin-1": b"\xe9 org\n",
        "senders": b"# who as whom\njoe\n",
    }
    for name, content in contents.items():
        path = tmp_path / name
        path.touch(0o600)
        path.write_bytes(content)
    (tmp_path / "open").chmod(0o644)
    return tmp_path


#: Of 1016 bits. It is written out because cryptography makes none below 1024.
SHORT = b"""\
-----BEGIN RSA PRIVATE KEY-----
MIICVgIBAAKBgADczEM/206M0IxNJT3PfztueiYN3slHu/MO0j3cmR/Iu56pMr5J
lvzSgGe90iUtZqxsSw6VngWB1N7qHL6x/pb0mpy/ZXI8uv5Ux63qnsdinju+BNjp
eEdzC0ZWfRBUw+IK1k3OzGBwHwaxVSCJgqdeWoH8mHBJarVt/D1ljF3NAgMBAAEC
fy02dp7g3ZjgK5qwgZO3zge1Y417jWPvDLqAOsKtaGDGaprjFSwkiujf+l5YZdyC
JdSXGglxLleDq5HtCO+R3nlohx/GrM7R/+wul0tcT2m8H2o50nlQiATvbvKnFQ2i
HFcgfuVkWlj2MyR5AsatVLKheZq1mxkSFqnvJHNrvdECQA+RkOG5pNL9K1wlBg+6
aAbVPvf2QhEFFLdaBbkjMs335XATlv3CTQ0ad9gJwHEAb04JkHIbbBcUoHPCMaYm
tbMCQA4up3GqpY3HnXDEKcN5aurwuEi9/7Ql8/u4zwjTHjf9n31xpAJ/qkqDhqIf
quEvq4MwR+niKTq1Alvchyid3n8CQAewbU4O0kkioPexkXzTI+28BI2TIq4lREYK
QClgKQdxF/ByvHA4NrXyDJ62skUdYdu4/Y5d3NTJazXBA6R8GeECQADW5BRHPGtK
4Fe3VJ18R0bGnrG3hTX9dRZ2FtL34/b+bP04x7NaKRMl+8cGxs9zSdyG9Aq01ynh
YtVbFSjjRzMCQAfr7PpOLJXSwUB6olyCaHO4j/ZUAmhJALfckJZ4bY2osZ8BmX7X
O63cyvr81uWEbp6uq5KRu36+GV0g8T/fldo=
-----END RSA PRIVATE KEY-----
"""


@pytest.mark.parametrize(("text", "message"), ROWS.values(), ids=ROWS)
def test_the_message_names_the_place_and_the_fix(folder: Path, text: str, message: str) -> None:
    path = folder / "assay.toml"
    path.write_text(text.replace("DIR", str(folder)))
    with pytest.raises(ConfigError) as caught:
        read_for_serving(path)
    assert message.replace("DIR", str(folder)) in str(caught.value)


def test_a_key_that_is_good_is_taken(folder: Path) -> None:
    path = folder / "assay.toml"
    path.write_text(ONE.replace("DIR", str(folder)))
    configuration, _ = read_for_serving(path)
    assert json.dumps([row.domain for row in configuration.sign.domain]) == '["example.org"]'
