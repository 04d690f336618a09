# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the keys that sign are published: known from the background, never asked while a message waits.

A message finds what is known of its keys at once. If that is old or nothing, a lookup is started whose result later
messages find. A key counts as missing only if the DNS said so: while nothing is known, or the DNS does not answer, it
signs (RFC 6376 has no word for a signer in doubt, and a failed lookup must not make mail fail).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

from assay.caches import ENTRY, Cache, Entry, measure
from assay.inquiry import ANYBODY, Inquiry, Outcome, Urgency
from assay.keys import Signing
from assay.model.name import Domain
from assay.protocol import dkim
from assay.session.inquiries import NewDriver

#: Seconds until a key is looked up again. Our choice: a record that somebody removes is noticed within minutes, and an
#: hour of mail costs twelve questions a key and worker. The nameservers' caches decide how old an answer is.
AGAIN = 300
#: Keys that are looked up at start. Our choice: more would delay the first questions of a busy MTA.
PREPARED = 50
#: Seconds that a lookup may take before another is started.
PATIENCE = 60


class Publications:
    """What is known about the keys of one worker. Any thread may ask."""

    __slots__ = ("_known", "_new_driver", "_tell")

    def __init__(self, new_driver: NewDriver, tell: Callable[[str], None] = lambda _: None) -> None:
        """
        :param tell: called, in any thread, with a line for the log when a key is found to be missing, or there again.
        """
        self._known: Cache[str, bool] = Cache("own keys")
        self._new_driver = new_driver
        self._tell = tell

    def prepare(self, signing: Signing, now: int) -> None:
        """Look up the keys that sign before the first message, as far as they are few. Returns at once."""
        signatories = (signatory for table in signing.tables for signatory in table.signatories)
        keys = ((signatory.domain, key) for signatory in signatories for key in signatory.keys)
        for domain, key in islice(keys, PREPARED):
            self.missing(domain, key, now)

    def of(self, domain: Domain, keys: Sequence[dkim.SigningKey], now: int) -> tuple[dkim.SigningKey, ...]:
        """Those of a domain's keys that the DNS is not known to lack. Returns at once.

        :param now: Unix time in seconds.
        """
        return tuple([key for key in keys if not self.missing(domain, key, now)])

    def missing(self, domain: Domain, key: dkim.SigningKey, now: int) -> bool:
        """Whether the DNS is known not to publish a key. Returns at once.

        :param now: Unix time in seconds.
        """
        name = dkim.key_name(domain, key.selector)
        entry = self._known.find(name)
        if entry is None or not now < entry.expires <= now + AGAIN:  # or the clock was put back
            self._keep(name, entry is not None and entry.value, now + PATIENCE)
            self._new_driver().start(self._look(name, domain, key, now), ANYBODY, Urgency.AHEAD)
            entry = self._known.find(name)  # the resolver may have had the answer
        return entry is not None and entry.value

    def _look(self, name: str, domain: Domain, key: dkim.SigningKey, now: int) -> Inquiry[None]:
        question = dkim.key_question(domain, key.selector)
        (answer,) = yield [question]
        if answer.outcome is Outcome.TEMPFAIL:
            return
        lookup = dkim.read_answer(question, answer)
        ours = dkim.parse_key(dkim.record_of(key.private).encode())
        missing = not any(
            isinstance(published, dkim.Key) and isinstance(ours, dkim.Key) and dkim.same_key(published, ours)
            for published in lookup.keys
        )
        before = self._known.find(name)
        if missing is not (before is not None and before.value):
            self._tell(_notice(name, lookup) if missing else f"the DNS publishes the key at {name} again")
        self._keep(name, missing, now + AGAIN)

    def _keep(self, name: str, missing: bool, expires: int) -> None:
        self._known.keep(name, Entry(missing, ENTRY + measure(name), expires))


def _notice(name: str, lookup: dkim.KeyLookup) -> str:
    match lookup.outcome:
        case Outcome.NXDOMAIN:
            what = "the name does not exist"
        case Outcome.NODATA:
            what = "no TXT record at the name"
        case _:
            faults = [key.reason for key in lookup.keys if isinstance(key, dkim.KeyFault)]
            what = faults[0] if faults and len(faults) == len(lookup.keys) else "another key"
    return f"mail is signed with a key that the DNS does not publish at {name}: {what}; see: assay keys check"
