# SPDX-License-Identifier: GPL-3.0-or-later
"""``docs/start.md`` is correct: typed from top to bottom on a private Debian machine, it leads to stamped mail.

Every block is run as it is written, in order. A heading ``### Postfix`` or ``### Sendmail`` begins what is for that MTA
only, up to the next heading. What the word behind ``sh`` means:

- ``terminal``: a second terminal, until the section that ends it.
- ``other``: another host, which is here the machine's public address (`mta.machine`).
- ``nothing``: not run; there is no journal.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mta.base import UnavailableError
from mta.machine import Machine

PAGE = Path(__file__).parents[2] / "docs" / "start.md"
MTAS = ("postfix", "sendmail")
REFUSAL = "5.7.1 DMARC: message fails the policy of example.com"


def blocks(mta: str) -> Iterator[tuple[str, str, str]]:
    """(section, kind, text) of each block that is for this MTA, in order."""
    for section in re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:]:
        for part in re.split(r"^### ", section, flags=re.MULTILINE):
            if part.partition("\n")[0].lower() in {*MTAS} - {mta}:
                continue
            for kind, text in re.findall(r"^```(.*?)\n(.*?)^```$", part, re.MULTILINE | re.DOTALL):
                yield section.partition("\n")[0], kind, text


def section(name: str, mta: str, kind: str = "sh") -> str:
    """The blocks of one kind of one section, joined."""
    found = "".join(text for of, which, text in blocks(mta) if (of, which.removeprefix("sh ")) == (name, kind))
    assert found, f"docs/start.md has no {kind} in {name!r}"
    return found


@pytest.fixture(scope="module", params=MTAS)
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    try:
        Machine.check()
    except UnavailableError as missing:
        pytest.skip(str(missing))
    with Machine(request.param) as running:
        yield running


def test_the_page_leads_to_stamped_mail(machine: Machine) -> None:
    mta = machine.mta
    for name in ("Install", "Configure", "Run it by hand"):
        said = machine.run(section(name, mta))
        assert "warning" not in said.lower().replace("pip as the 'root' user", "")
    with machine.running(section("Run it by hand", mta, "terminal"), "serving on"):
        assert "assay config check: warning" not in machine.run(section("Attach the MTA", mta))
        see_a_stamped_message(machine, 1)
    assert re.search(r"\(4\d\d, b'4\.", send(machine, fails=True)), "while no daemon runs, the MTA defers"
    machine.run(section("Keep it running", mta))
    see_a_stamped_message(machine, 2)
    assert "Failed" not in machine.logs()

    # What next: first a dry run, then not.
    dry, real = (text for of, kind, text in blocks(mta) if (of, kind) == ("What next", "sh"))
    machine.run(dry)
    machine.wait_for(lambda: "reloaded" in machine.logs())
    see_a_stamped_message(machine, 3)
    machine.wait_for(lambda: 'dry_run="reject by dmarc.reject"' in machine.logs())
    machine.run(real)
    machine.wait_for(lambda: machine.logs().count("reloaded") == 2)
    assert f"(550, b'{REFUSAL}')" in send(machine, fails=True)
    assert f"`550 {REFUSAL}`" in PAGE.read_text()


def send(machine: Machine, *, fails: bool = False) -> str:
    return machine.run(section("Send a message", machine.mta, "other"), fails=fails)


def see_a_stamped_message(machine: Machine, number: int) -> None:
    """Send the message of the page, and see the fields that it shows."""
    send(machine)
    look = section("Send a message", machine.mta)
    seen: list[str] = []

    def delivered() -> bool:
        with contextlib.suppress(AssertionError):  # grep found nothing so far
            seen[:] = machine.run(look).split("Authentication-Results: ")[1:]
        return len(seen) >= number

    machine.wait_for(delivered, "the message")
    shown = section("Send a message", machine.mta, "text")
    assert f"Authentication-Results: {seen[-1]}" == shown


def test_the_kinds_of_blocks_are_known() -> None:
    kinds = set(re.findall(r"^```(.+)$", PAGE.read_text(), re.MULTILINE))
    assert kinds == {"sh", "sh terminal", "sh other", "sh nothing", "text"}
