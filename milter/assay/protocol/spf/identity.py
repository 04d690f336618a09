# SPDX-License-Identifier: GPL-3.0-or-later
"""The two identities of a transaction that SPF checks (RFC 7208, 2.3 and 2.4).

What is said here is which domain and which sender an identity stands for, and when there is nothing to check. The
check itself is `check_host`.
"""

from __future__ import annotations

from msgspec.structs import replace

from assay.inquiry import Inquiry
from assay.memory import Memory
from assay.model.name import Domain, InvalidNameError, ReversePath
from assay.model.smtp import Address
from assay.protocol.spf.check import DEFAULT_LIMITS, check_host, is_multi_label
from assay.protocol.spf.evaluation import Evaluation, Identity, Limits, Result


def check_helo(
    address: Address,
    helo: str,
    *,
    limits: Limits = DEFAULT_LIMITS,
    receiver: str = "unknown",
    now: int = 0,
    narrate: bool = False,
    memory: Memory | None = None,
) -> Inquiry[Evaluation]:
    """Check the HELO identity (RFC 7208, 2.3).

    :param helo: the argument of HELO or EHLO as it was sent.
    :param receiver: our own host name for ``%{r}``.
    :param now: Unix time for ``%{t}``.
    :param narrate: whether `Evaluation.steps` is wanted.
    :param memory: where former checks are found and this one is kept.
    """
    domain, fault = _helo_domain(helo)
    if domain is None:
        return (yield from _none(Identity.HELO, f"postmaster@{helo}", fault))

    def check() -> Inquiry[Evaluation]:
        return check_host(
            address,
            domain.name,
            f"postmaster@{domain}",
            helo,
            identity=Identity.HELO,
            limits=limits,
            receiver=receiver,
            now=now,
            narrate=narrate,
        )

    if memory is None or narrate:
        return (yield from check())
    return (yield from memory.again((Identity.HELO, domain.name, address.packed, limits), check, _is_anybodys))


def check_mail_from(
    address: Address,
    helo: str,
    reverse_path: ReversePath,
    *,
    limits: Limits = DEFAULT_LIMITS,
    receiver: str = "unknown",
    now: int = 0,
    narrate: bool = False,
    best_guess: bytes = b"",
    memory: Memory | None = None,
) -> Inquiry[Evaluation]:
    """Check the MAIL FROM identity (RFC 7208, 2.4). For the other parameters see `check_helo`.

    The null reverse-path stands for postmaster at the HELO name, and the evaluation then tells that domain.

    :param best_guess: a record to use for a domain that exists and has none, version included; empty for no guess. RFC
        7208 knows no such thing, so the evaluation is marked as `Evaluation.guessed`.
    """
    local_part, domain, fault = _mail_from(helo, reverse_path)
    if domain is None:
        return (yield from _none(Identity.MAILFROM, reverse_path.text or f"postmaster@{helo}", fault))
    sender = f"{local_part or 'postmaster'}@{domain}"  # RFC 7208, 4.3

    def check() -> Inquiry[Evaluation]:
        return check_host(
            address, domain.name, sender, helo, limits=limits, receiver=receiver, now=now, narrate=narrate
        )

    if memory is None or narrate:
        found = yield from check()
    else:
        key = (Identity.MAILFROM, domain.name, address.packed, limits)
        found = yield from memory.again(key, check, _is_anybodys)
        if found.sender != sender:
            found = replace(found, sender=sender)
    if not best_guess or found.result is not Result.NONE or not found.domain_exists:
        return found
    guess = yield from check_host(
        address,
        domain.name,
        sender,
        helo,
        limits=limits,
        receiver=receiver,
        now=now,
        narrate=narrate,
        record=best_guess,
    )
    reason = f"best guess, for {domain} has no record: {guess.reason}"
    # What an exp= of ours says would be taken for the domain's words.
    return replace(guess, guessed=True, reason=reason, explanation="", steps=found.steps + guess.steps)


def _is_anybodys(evaluation: Evaluation) -> bool:
    """Whether it is the same for every sender at this domain and client: what sender and HELO say is seen by macros."""
    return not evaluation.uses_macros


def _none(identity: Identity, sender: str, fault: str) -> Inquiry[Evaluation]:
    """The answer where there is no domain to ask about (RFC 7208, 4.3)."""
    return Evaluation(Result.NONE, identity, None, sender, reason=fault)
    yield  # an inquiry that asks nothing is a generator all the same


def _helo_domain(helo: str) -> tuple[Domain | None, str]:
    """The domain that a HELO argument names, or why it names none (RFC 7208, 2.3)."""
    if not helo:
        return None, "no HELO name"
    if not helo.isascii():  # RFC 8616, 4: HELO has A-labels
        return None, "HELO name is not ASCII"
    try:
        domain = Domain.parse(helo)
    except InvalidNameError as error:
        return None, f"HELO is no domain name: {error}"
    if not is_multi_label(domain.name):  # RFC 7208, 2.3 and 4.3
        return None, "HELO is no fully qualified domain name"
    return domain, ""


def _mail_from(helo: str, reverse_path: ReversePath) -> tuple[str, Domain | None, str]:
    """The local part and the domain that a reverse-path stands for, or why there is none (RFC 7208, 2.4)."""
    if reverse_path.is_null:  # RFC 7208, 2.4
        domain, fault = _helo_domain(helo)
        return "postmaster", domain, fault
    if reverse_path.mailbox is not None:
        local_part, domain = reverse_path.mailbox.local_part, reverse_path.mailbox.domain
    else:
        # No mailbox, but often there is a domain all the same, and only that decides (RFC 7208, 4.3).
        local_part, _, text = reverse_path.text.rpartition("@")
        try:
            domain = Domain.parse(text)
        except InvalidNameError as error:
            return "", None, f"MAIL FROM has no usable domain: {error}"
    if not is_multi_label(domain.name):
        return "", None, "MAIL FROM has no fully qualified domain name"
    return local_part, domain, ""
