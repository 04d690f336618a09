# SPDX-License-Identifier: GPL-3.0-or-later
"""Send a day of mail to two hosts with one database, let the reports go out while things fail, and add up.

    python contrib/run-reports.py [--domains 300] [--messages 6000] [--seconds 300] [--seed N]

This is the large form of tests/mta/test_reports.py. While the reports go out, for the given time at least, one of
these happens every few seconds: the relay, the processes that send or the database are killed. Of twenty domains, the
report to one is refused, one is deferred until it is given up, and one comes back. The end says whether each report
arrived once, with what was sent, or is listed as given up. Needs root and what contrib/fetch.sh unpacks.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from mta import night as nights
from mta.night import Day, Night, messages, reads_elsewhere, said
from mta.postfix import Postfix
from mta.sendmail import Sendmail
from postgresql import Postgresql

PART = 20  # one domain in so many refuses, is deferred, or bounces
PAUSE = (2.0, 8.0)  # seconds between two faults
PATIENCE = 600.0  # seconds, for what has to come to an end


def day_of(domains: int, sent: int, chance: random.Random) -> Day:
    """The domains, and what becomes of the reports to some of them."""
    own = [f"d{number}.example" for number in range(domains) if not reads_elsewhere(number)]
    part = max(1, domains // PART)
    chosen = chance.sample(own, 3 * part)
    groups = [frozenset(chosen[at : at + part]) for at in range(0, len(chosen), part)]
    return Day(domains, *groups, variety=max(2, 2 * sent // (domains * len(nights.KINDS)) - 1))


class Faults:
    """What fails, and how often it did."""

    def __init__(self, night: Night, relay: Postfix, server: Postgresql, chance: random.Random) -> None:
        self._night = night
        self._relay = relay
        self._server = server
        self._chance = chance
        self.happened: Counter[str] = Counter()

    def happen(self) -> None:
        """One of them."""
        what = self._chance.choice(("relay killed", "senders killed", "senders killed", "database killed"))
        match what:
            case "relay killed":
                self._relay.kill()
                time.sleep(self._chance.uniform(0.0, 3.0))
                self._relay.start()
            case "senders killed":
                self._night.kill_reporters()
            case _:
                self._server.kill()
                time.sleep(self._chance.uniform(0.0, 3.0))
                self._server.start()
        self.happened[what] += 1


def run(options: argparse.Namespace) -> bool:
    """Do it, print what became of the reports, and return whether all is accounted for."""
    chance = random.Random(options.seed)  # noqa: S311  # repeatable
    day = day_of(options.domains, options.messages, chance)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="assay-reports-")))
        server = stack.enter_context(Postgresql())
        night = Night(day, folder, server, Sendmail, stack)
        mail = list(messages(day))
        expected = Counter(key for *_, key in mail)
        chance.shuffle(mail)
        refused = night.send(mail)
        print(f"{len(mail)} messages of {day.domains} domains: {refused.total()} were refused", flush=True)
        night.end_the_day()
        relay = night.relay()
        faults = Faults(night, relay, server, chance)
        night.report()
        night.wait(lambda: night.sql("SELECT count(*) FROM reports") == str(day.domains), "no report was planned")
        began = time.monotonic()
        while time.monotonic() < began + options.seconds or not night.only_deferred_wait():
            if time.monotonic() > began + options.seconds + PATIENCE:
                print(f"still waiting: {sorted(night.domains('waiting') - day.deferring)}")
                return False
            time.sleep(chance.uniform(*PAUSE))
            if time.monotonic() < began + options.seconds:
                faults.happen()
                night.only_deferred_wait()  # what has just failed is tried again
        night.let_deferred_end()
        night.kill_reporters()
        night.wait(lambda: not night.domains("waiting"), "a report was not given up")
        night.wait(lambda: not night.domains("sent") & day.bouncing, "a bounce was not taken")
        states = {state: night.domains(state) for state in ("sent", "given up", "refused", "bounced")}
        relay.wait_until(lambda: states["sent"] <= set(said(relay.messages())[1]), PATIENCE)
        found, times = said(relay.messages())
    given_up = states["given up"]
    print(f"faults: {dict(faults.happened)}")
    print(f"reports: { {state: len(domains) for state, domains in states.items()} }")
    both = len(set(times) & given_up)
    print(f"arrived: {times.total()} reports about {found.total()} messages, {both} though given up")
    wrong = {
        "came twice": {domain for domain, number in times.items() if number > 1},
        "neither arrived nor listed": set(day.names) - set(times) - given_up - states["refused"] - states["bounced"],
        "arrived though it was refused or came back": set(times) - states["sent"] - given_up,
        "does not say what was sent": {
            key[0] for key in found.keys() | expected.keys() if key[0] in times and found[key] != expected[key]
        },
        "refused for no reason": states["refused"] - day.refusing,
        "came back for no reason": states["bounced"] - day.bouncing,
    }
    for what, domains in wrong.items():
        if domains:
            print(f"{what}: {', '.join(sorted(domains))}")
    return not any(wrong.values())


def main() -> int:
    parser = argparse.ArgumentParser(description="Account for every report while something fails.")
    parser.add_argument("--domains", type=int, default=300)
    parser.add_argument("--messages", type=int, default=6000, help="about how many")
    parser.add_argument("--seconds", type=float, default=300.0, help="how long things fail")
    parser.add_argument("--seed", type=int, default=time.time_ns() % (1 << 32))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    nights.PATIENCE = PATIENCE
    return 0 if run(options) else 1


if __name__ == "__main__":
    sys.exit(main())
