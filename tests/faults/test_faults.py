# SPDX-License-Identifier: GPL-3.0-or-later
"""Every message is accounted for, whatever fails. ``contrib/run-faults.py`` runs the same for longer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from faults.account import NEVER
from faults.scenarios import SCENARIOS
from faults.site import Site, site
from mta.base import MTA, UnavailableError
from mta.postfix import Postfix
from mta.sendmail import Sendmail

SECONDS = 1.2  # of each scenario


@pytest.fixture(scope="module", params=[Postfix, Sendmail], ids=["postfix", "sendmail"])
def place(request: pytest.FixtureRequest) -> Iterator[Site]:
    kind: type[MTA] = request.param
    try:
        kind.check()
    except UnavailableError as missing:
        pytest.skip(str(missing))
    with site(kind) as one:
        yield one


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_message_is_accounted_for(place: Site, name: str) -> None:
    scenario = SCENARIOS[name]
    found = place.run(scenario, SECONDS)
    odd = "\n".join(
        line for line in place.log.splitlines() if "action=accept" not in line and "action=reject" not in line
    )
    print(f"{dict(found)}\n{odd}")  # pytest shows it on a failure
    assert found["right"] > 0
    assert not NEVER & set(found)
    assert set(found) <= {"right", "refused"} | scenario.allowed
    assert "Traceback" not in place.log
    assert "bug=" not in place.log
