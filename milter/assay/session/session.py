# SPDX-License-Identifier: GPL-3.0-or-later
"""Floor 4: one SMTP connection as a milter sees it. Events in, verdicts out.

The session owns what belongs to the connection (the client, IPREV, SPF of HELO) and one transaction at a time. It
knows no milter library, no thread and no clock. A stage before the end of the message gives a verdict only where the
operator's policy acts at that stage; else it waits for nothing.
"""

from __future__ import annotations

from msgspec import Struct, field
from msgspec.structs import replace

from assay import policy
from assay.assessment import Assessment
from assay.memory import Memory
from assay.model.message import HeaderField
from assay.model.name import ReversePath
from assay.model.network import Networks
from assay.model.smtp import Address, Client, Envelope
from assay.policy import Action, Decision, Stage
from assay.policy.rules import listed
from assay.session.inquiries import Inquiries, NewDriver
from assay.session.origin import Origin
from assay.session.settings import Settings
from assay.session.transaction import Standing, Transaction, Verdict


class Clients(Struct, frozen=True):
    """Whose mail is not judged, or judged and spared.

    `daemon_names` are names of the MTA's own services that take mail from our users. `trusted_results` are networks of
    MTAs whose results in our name are ours. `exempt_senders` and
    `exempt_recipients` hold lower-case addresses and domains; their mail is evaluated and not acted on.
    """

    internal: Networks = field(default_factory=Networks)
    relays: Networks = field(default_factory=Networks)
    trusted_results: Networks = field(default_factory=Networks)
    daemon_names: frozenset[str] = frozenset()
    judge_authenticated: bool = False
    exempt_senders: frozenset[str] = frozenset()
    exempt_recipients: frozenset[str] = frozenset()

    def why_internal(self, address: Address | None, daemon: str, *, local: bool = True) -> str:
        """Why mail from here is not judged; empty where it is.

        :param local: what it means where there is no address: mail from the MTA's own host, or from nobody knows where.
        """
        if daemon in self.daemon_names:
            return f"daemon {daemon}"
        if address is None:
            return "no network client" if local else ""
        network = self.internal.find(address)
        return f"internal network {network}" if network is not None else ""

    def trusts_results(self, address: Address | None) -> bool:
        """Whether results in our name that come from here are ours (RFC 8601, 5)."""
        return address is not None and self.trusted_results.find(address) is not None

    def why_authenticated(self, authenticated: str) -> str:
        """Why mail under this login name is not judged; empty where it is."""
        return "authenticated" if authenticated and not self.judge_authenticated else ""

    def why_spared(self, sender: str) -> str:
        """Why failures of mail from this reverse-path are not acted on; empty where they are."""
        return "exempt sender" if sender and listed(sender, self.exempt_senders) else ""

    def why_favoured(self, recipient: str) -> str:
        """Why failures of a message to this recipient are not acted on; empty where they are."""
        return "exempt recipient" if listed(recipient, self.exempt_recipients) else ""


class Session:
    """One connection. Call the methods in SMTP's order; each fact may be missing."""

    def __init__(
        self, settings: Settings, clients: Clients, new_driver: NewDriver, memory: Memory | None = None
    ) -> None:
        """
        :param new_driver: called at each stage that asks something.
        :param memory: former evaluations, of all sessions with these settings; of this one alone if left out.
        """
        self._settings = settings
        self._memory = Memory() if memory is None else memory
        self._clients = clients
        self._new_driver = new_driver
        self._inquiries = Inquiries(new_driver)
        self._client = Client()
        self._internal = ""
        self._relay = False
        self._decided: dict[Stage, Decision] = {}  # by rules that said accept before MAIL
        self._set_name(settings.fallback_authserv_id)
        self._transaction: Transaction | None = None

    def _set_name(self, mta_name: str) -> None:
        self._authserv_id = self._settings.authserv_id or mta_name
        self._origin = Origin(self._settings, self._inquiries, self._memory, self._authserv_id)

    def connect(
        self, address: Address | None, name: str, *, mta_name: str = "", daemon: str = "", local: bool = True
    ) -> Verdict | None:
        """A client connected. Starts IPREV.

        :param address: None where there is no network client, such as mail from the MTA's own command line.
        :param name: what the MTA resolved for it, empty for unknown.
        :param mta_name: the MTA's own name (macro ``j``), which is the authserv-id unless one is configured.
        :param daemon: the name of the MTA's service that took the connection (macro ``{daemon_name}``).
        :param local: whether a client without an address is the MTA's own host, and not one that a proxy hides.
        """
        self._client = Client(address, name, daemon=daemon)
        if mta_name:
            self._set_name(mta_name)
        self._decided = {}
        self._internal = self._clients.why_internal(address, daemon, local=local)
        if self._internal:
            return None
        self._relay = address is not None and self._clients.relays.find(address) is not None
        if self._relay:
            return None
        self._origin.connected(self._client)
        return self._at_connection(Stage.CONNECT)

    def helo(self, name: str) -> Verdict | None:
        """HELO or EHLO was given, perhaps for the second time after STARTTLS. Starts SPF of the HELO identity."""
        self._client = self._client.greeted(name)
        self._decided.pop(Stage.HELO, None)
        if self._internal or self._relay:
            return None
        self._origin.greeted(self._client)
        return self._at_connection(Stage.HELO)

    def _at_connection(self, stage: Stage) -> Verdict | None:
        if not self._settings.policy.acts_at(stage) or Stage.CONNECT in self._decided:
            return None
        assessment = Assessment(
            self._client,
            Envelope(ReversePath("")),
            iprev=self._origin.iprev(),
            spf_helo=self._origin.spf_helo(),
        )
        verdict = self._refusal(assessment, stage)
        if verdict is not None and verdict.decision.final:
            self._decided[stage] = verdict.decision
        return verdict

    def mail(self, path: str, *, authenticated: str = "", smtputf8: bool = False, now: int) -> Verdict | None:
        """MAIL was given: a new envelope. Whether it is judged is decided here, anew for each message.

        :param path: the reverse-path, with or without angle brackets.
        :param authenticated: the SASL login name (RFC 4954), empty for none; AUTH may come between two messages.
        :param now: Unix time in seconds.
        """
        self.abort()
        reverse_path = ReversePath.parse(path)
        self._transaction = Transaction(
            self._settings,
            Inquiries(self._new_driver),
            self._memory,
            self._client,
            Envelope(reverse_path, authenticated=authenticated, smtputf8=smtputf8),
            self._origin,
            self._standing(reverse_path, authenticated),
            authserv_id=self._authserv_id,
            now=now,
        )
        self._transaction.decided = self._decided.get(Stage.CONNECT) or self._decided.get(Stage.HELO)
        return self._at_transaction(self._transaction, Stage.MAIL)

    def _standing(self, path: ReversePath, authenticated: str) -> Standing:
        strip = not self._clients.trusts_results(self._client.address)
        exempt = self._internal or self._clients.why_authenticated(authenticated)
        if exempt:
            return Standing(exempt=exempt, strip=strip)
        return Standing(
            spared=self._clients.why_spared(path.text),
            strip=strip,
            relay=self._relay,
            internal=self._clients.internal,
            relays=self._clients.relays,
        )

    def rcpt(self, path: str) -> Verdict | None:
        """A recipient was given."""
        transaction = self._transaction
        if transaction is None:
            return None
        recipient = path.strip("<>")
        verdict = None
        favoured = self._clients.why_favoured(recipient)
        if not favoured:
            verdict = self._at_transaction(transaction, Stage.RCPT, recipient)
            if verdict is not None and verdict.decision.final:
                favoured = verdict.decision.by
        if verdict is None or not verdict.action.refuses:
            transaction.recipient(path, favoured)
        return verdict

    def _at_transaction(self, transaction: Transaction, stage: Stage, recipient: str = "") -> Verdict | None:
        standing = transaction.standing
        if (
            not self._settings.policy.acts_at(stage)
            or standing.exempt
            or standing.relay
            or transaction.decided is not None
        ):
            return None
        assessment = transaction.so_far()
        if recipient:
            assessment = replace(assessment, envelope=replace(assessment.envelope, recipients=(recipient,)))
        verdict = self._refusal(assessment, stage, standing.spared)
        if verdict is not None and verdict.decision.final and stage is Stage.MAIL:
            transaction.decided = verdict.decision
        return verdict

    def _refusal(self, assessment: Assessment, stage: Stage, spared: str = "") -> Verdict | None:
        """The verdict of a stage before the end of the message: there is one only if somebody should hear of it."""
        facts = self._settings.policy.facts(assessment)
        decision = policy.decide(facts, self._settings.policy, stage)
        if decision == policy.ACCEPTED:
            return None
        acts = decision.action.refuses and not self._settings.dry_run and not spared
        action, reply = (decision.action, decision.reply) if acts else (Action.ACCEPT, None)
        if spared and decision.action.refuses:
            decision = decision.spared(spared)
        return Verdict(action, reply, (), decision, assessment, stage, facts)

    def header(self, one: HeaderField) -> None:
        """A header field arrived."""
        if self._transaction is not None:
            self._transaction.header(one)

    def end_of_header(self) -> None:
        """The header is complete."""
        if self._transaction is not None:
            self._transaction.end_of_header()

    def body(self, chunk: bytes) -> None:
        """A piece of the body arrived, with CRLF line ends, cut anywhere."""
        if self._transaction is not None:
            self._transaction.body(chunk)

    def end_of_message(self, *, queue_id: str, now: int, draw: float = 0.0) -> Verdict | None:
        """The message is complete: its verdict, or None where there was no MAIL.

        :param now: Unix time in seconds.
        :param draw: a number from 0 to below 1, drawn for this message; only a sampled DMARC policy looks at it.
        """
        transaction = self._transaction
        if transaction is None:
            return None
        try:
            return transaction.end_of_message(queue_id=queue_id, now=now, draw=draw)
        finally:
            self.abort()

    def abort(self) -> None:
        """The transaction is over, with a message or without (RSET, a second MAIL). The client stays."""
        if self._transaction is not None:
            self._transaction.cancel()
            self._transaction = None

    def close(self) -> None:
        """The connection is over."""
        self.abort()
        self._inquiries.cancel()
