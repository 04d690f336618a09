# SPDX-License-Identifier: GPL-3.0-or-later
"""From fields that programs may read differently, generated from a seed.

Each names a victim and an attacker, either of whom a reader could take for the author. `TEMPLATES` are forms known to
have misled readers; the others are random combinations of the grammar's tokens.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

VICTIM, ATTACKER = b"victim.example", b"evil.example"

_TRUE, _FALSE = b"a@" + ATTACKER, b"ceo@" + VICTIM

TEMPLATES = (
    b'"CEO\\" <ceo@victim.example> "\' <a@evil.example>',
    b'"CEO\\" <ceo@victim.example> \\"" <a@evil.example>',
    b"\"'ceo@victim.example' via list\" <a@evil.example>",
    b"ceo@victim.example <a@evil.example>",
    b"<ceo@victim.example> <a@evil.example>",
    b"ceo@victim.example, <a@evil.example>",
    b"<@victim.example:a@evil.example>",
    b"<ceo@victim.example:a@evil.example>",
    b'"ceo@victim.example"@evil.example',
    b'"ceo@victim.example> "@evil.example',
    b'"<ceo@victim.example>,"@evil.example',
    b"a@evil.example (<ceo@victim.example>)",
    b"(\\) <ceo@victim.example> (\\) a@evil.example",
    b'"\\\\" <ceo@victim.example> "\\\\" <a@evil.example>',
    b"a@victim.example .evil.example",
    b"a@victim.example (c).evil.example",
    b"a@victim.example..evil.example",
    b"ceo%victim.example@evil.example",
    b"victim.example!ceo@evil.example",
    b"ceo@victim.example: a@evil.example;",
    b'"ceo@victim.example": a@evil.example;',
    b'"x" "ceo@victim.example" <a@evil.example>',
    b'"x"\'"<ceo@victim.example>"\' <a@evil.example>',
    b'a <a@evil.example> "ceo@victim.example"',
    b"a@evil.example;ceo@victim.example",
    b"<ceo@victim.example <a@evil.example>",
    b'"ceo@victim.example <a@evil.example>',
    b"=?utf-8?q?ceo=40victim.example?= <a@evil.example>",
    b"=?utf-8?q?ceo=40victim.example?=@evil.example",
    b'\xff"ceo@victim.example" <a@evil.example>',
    b'"\xc3\xa9\\" <ceo@victim.example> "x <a@evil.example>',
    b'"\x81\\" <ceo@victim.example> "\' <a@evil.example>',
    b"ceo@victim example, <a@evil.example>",
    b"ceo@vic tim.example, <a@evil.example>",
    b"ceo@victim>.example, <a@evil.example>",
    b"ceo@victim).example, <a@evil.example>",
    b"victim.example!ceo, <a@evil.example>",
    b"ceo%victim.example, <a@evil.example>",
    b"ceo%victim. example, <a@evil.example>",
    b"ceo@\x81j, <a@evil.example>",
    b"=:\\victim.example! <a@evil.example>",
    b'%"!victim.example <a@evil.example>',
    b'victim.example":" !", <a@evil.example',
    b'victim.example":\xe9[" !", <a@evil.example',
    b'victim. example":\xe9[" ]!", <a@evil.example',
    b"(%..>victim.example)\\.evil.example",
    b"ceo%=victim.example, <a:@\\evil.example>",
    b"!\x81\r\n   ; victim.example! <a@evil.example>",
    b'\\"=?utf-8?q?ceo=40victim.example?>=[@evil.example',
)

WORDS = (
    *(
        b'"',
        b'"',
        b'"',
        b"\\",
        b"\\",
        b'\\"',
        b"\\\\",
        b"'",
        b"(",
        b")",
        b"<",
        b">",
        b"<",
        b">",
        b",",
        b";",
        b":",
        b"@",
        b".",
    ),
    *(
        b" ",
        b" ",
        b" ",
        b"\t",
        b"\r\n ",
        b"CEO",
        b"x",
        b"[",
        b"]",
        b"=",
        b"!",
        b"%",
        b"|",
        b"=?u?q?x?=",
        b"\xc3\xa9",
        b"\xe9",
        b"\x81",
    ),
    *(b"ceo@", VICTIM, _FALSE, b"<" + _FALSE + b">", b'"' + _FALSE + b'"', b"(" + _FALSE + b")", b"@" + VICTIM + b":"),
)
_ENDS = (
    b" <" + _TRUE + b">",
    b" <" + _TRUE + b">",
    _TRUE,
    b" <" + _TRUE + b"> ",
    b"." + ATTACKER,
    b" <" + _TRUE,
    b'"@' + ATTACKER,
    b"",
)


def forms(seed: int, count: int) -> Iterator[bytes]:
    """`count` values of a From field, the templates first."""
    yield from TEMPLATES[:count]
    dice = random.Random(seed)  # noqa: S311 - it must be reproducible
    for _ in range(count - len(TEMPLATES)):
        yield _form(dice)


def _form(dice: random.Random) -> bytes:
    if dice.random() < 0.4:  # a known form with one part changed
        form = bytearray(dice.choice(TEMPLATES))
        for _ in range(dice.randint(1, 3)):
            at = dice.randrange(len(form) + 1)
            form[at : at + dice.choice((0, 0, 1))] = dice.choice(WORDS)
        return bytes(form)
    return b"".join(dice.choice(WORDS) for _ in range(dice.randint(2, 9))) + dice.choice(_ENDS)
