# SPDX-License-Identifier: GPL-3.0-or-later
"""Take the steps that are due for one domain's keys: look, decide, act, save, and again until nothing is left to do.

Each step is saved by one rename before the next begins. What has an effect outside (a key file, the DNS) comes before
its rename and can be repeated, so a run that dies anywhere is continued by the next.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence

from msgspec import Struct

from assay.keyring.directory import Directory, KeyringError
from assay.keyring.material import make, to_pem, type_of
from assay.keyring.publisher import Publisher, PublishError
from assay.keys.published import Publication, ServerAnswer, compare, still_there
from assay.keys.rotation import Act, KeyRing, KeyState, KeyStep, KeyType, Schedule, Waiting, due, new_selector, take
from assay.model.name import Domain
from assay.protocol import dkim

#: Rounds of one run: made, published, seen and active, and one that finds nothing left. Beyond it is a bug.
_MAX_ROUNDS = 10

#: What the authoritative servers answer for the TXT records of a name.
AskAll = Callable[[str], Sequence[ServerAnswer]]


#: The steps that an operator asks for, given the keys as they are.
First = Callable[[KeyRing], Sequence[KeyStep]]


def no_steps(_: KeyRing) -> Sequence[KeyStep]:
    """The operator asks for nothing."""
    return ()


class Report(Struct, frozen=True):
    """What a run did for a domain, and what it left.

    `taken`: steps with an effect. `by_hand`: steps that only the operator can take. `failed`: why a step failed.
    """

    ring: KeyRing
    taken: tuple[KeyStep, ...]
    by_hand: tuple[KeyStep, ...]
    waiting: tuple[Waiting, ...]
    failed: tuple[str, ...]
    publications: Mapping[str, Publication]


def key_name(ring: KeyRing, selector: str) -> str:
    """Where the record of a key of a ring is."""
    return dkim.key_name(Domain(ring.domain), Domain(selector))


def look(ring: KeyRing, ask: AskAll, below: Container[str] = ()) -> dict[str, Publication]:
    """What the DNS says about each key of a ring whose record matters.

    :param below: the selectors of keys that sign with an i= in a subdomain.
    """
    found = {}
    records = {key.selector: key.record for key in ring.keys}
    for key in ring.keys:
        if key.state is KeyState.RETIRED and key.gone:
            continue
        answers = ask(key_name(ring, key.selector))
        if key.state is KeyState.RETIRED:
            found[key.selector] = Publication(still_there(answers))
        else:
            others = {selector: record for selector, record in records.items() if selector != key.selector}
            found[key.selector] = compare(key.record, answers, signs_below=key.selector in below, others=others)
    return found


class _Run:
    """One run over one directory."""

    def __init__(self, directory: Directory, bits: int, publisher: Publisher, now: int) -> None:
        self.directory = directory
        self.bits = bits
        self.publisher = publisher
        self.now = now
        self.ring = directory.load()
        self.taken: list[KeyStep] = []
        self.by_hand: list[KeyStep] = []
        self.failed: list[str] = []
        self._tried: set[tuple[Act, KeyType, str]] = set()

    def take(self, step: KeyStep) -> bool:
        """Take a step; whether anything changed."""
        tried = (step.act, step.type, step.selector)
        if tried in self._tried:  # it failed, or the servers do not show yet what was published
            return False
        self._tried.add(tried)
        try:
            if step.act in (Act.PUBLISH, Act.WITHDRAW):
                return self._change_dns(step)
            record = ""
            if step.act is Act.CREATE:
                step, record = self._create(step)
            elif step.act is Act.ACTIVATE:
                self._prove(step.selector)
        except (PublishError, KeyringError) as error:
            self.failed.append(str(error))
            return False
        self.ring = take(self.ring, step, self.now, record)
        self.directory.save(self.ring)
        self.directory.clean(self.ring)
        self.taken.append(step)
        return True

    def _change_dns(self, step: KeyStep) -> bool:
        key = self.ring.find(step.selector)
        if key is None:
            return False
        change = self.publisher.publish if step.act is Act.PUBLISH else self.publisher.withdraw
        (self.taken if change(key_name(self.ring, key.selector), key.record) else self.by_hand).append(step)
        return step in self.taken

    def _create(self, step: KeyStep) -> tuple[KeyStep, str]:
        """Make the key file. One that a dead run left under the selector is taken: nobody has seen its key."""
        selector = step.selector or new_selector(self.ring, step.type, self.now)
        path = self.directory.key_file(selector)
        if path.exists():
            private = self.directory.load_private(selector)
            if type_of(private) is not step.type:
                raise KeyringError(f"{path}: a {type_of(private)} key that belongs to no selector; remove it")
        else:
            private = make(step.type, self.bits)
            self.directory.save_key(selector, to_pem(private))
        record = dkim.record_of(private)
        if fault := dkim.prove(private, record):
            raise KeyringError(f"{path}: {fault}; remove it")
        return KeyStep(step.act, step.type, selector, step.why), record

    def _prove(self, selector: str) -> None:
        """Check that the key file is there and fits, before it is the one that signs."""
        key = self.ring.find(selector)
        if key is not None:
            self.directory.private(key)


def advance(
    directory: Directory,
    schedule: Schedule,
    ask: AskAll,
    publisher: Publisher,
    now: int,
    *,
    bits: int = 2048,
    first: First = no_steps,
) -> Report:
    """Take all steps that are due.

    :param ask: asks the authoritative servers.
    :param now: seconds since 1970.
    :param bits: of new RSA keys.
    :param first: the steps that the operator asks for, before all others. It may refuse.
    :raises KeyringError: the directory cannot be used.
    :raises OSError: a file cannot be written; what was done before is kept.
    """
    with directory.locked():
        run = _Run(directory, bits, publisher, now)
        directory.clean(run.ring)
        for step in first(run.ring):
            run.take(step)
        publications: dict[str, Publication] = {}
        waiting: tuple[Waiting, ...] = ()
        for _ in range(_MAX_ROUNDS):
            publications = look(run.ring, ask)
            seen = {selector: publication.sight for selector, publication in publications.items()}
            steps, waiting = due(run.ring, schedule, seen, now)
            changed = [run.take(step) for step in steps]
            if not any(changed):
                break
        return Report(run.ring, tuple(run.taken), tuple(run.by_hand), waiting, tuple(run.failed), publications)


def adopt(directory: Directory, selector: str, private: dkim.PrivateKey, now: int) -> None:
    """Put a key that exists under its selector; it becomes pending, so it signs once it is seen to be published.

    Call it with the directory locked. Repeated, it changes nothing.

    :raises KeyringError: the selector belongs or belonged to another key, or the key cannot be used.
    """
    ring = directory.load()
    record = dkim.record_of(private)
    known = ring.find(selector)
    if known is not None:
        if known.record == record:
            return
        raise KeyringError(f"{directory.state}: {selector} is the selector of another key; use another one")
    if fault := dkim.prove(private, record):
        raise KeyringError(f"the key of {selector} cannot be used: {fault}")
    directory.save_key(selector, to_pem(private))
    step = KeyStep(Act.CREATE, type_of(private), selector, "imported")
    directory.save(take(ring, step, now, record))
