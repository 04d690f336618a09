# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may see the page: users with the token, and users that a trusted reverse proxy names.

After a login by token the browser has a session: an expiry and a random number, signed with a key that is derived from
the token. So sessions survive a restart, and a new token ends them all.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from enum import Enum
from ipaddress import IPv4Address, IPv6Address, ip_network

from msgspec import Struct

from assay.config.web import LOCAL, WebSection
from assay.model.network import Networks
from assay.model.smtp import Address, parse_address

COOKIE = "assay_session"
SESSION_SECONDS = 12 * 3600  # our choice: a day at work
MAX_ENDED = 1000  # sessions that were ended by a logout and are not over yet; of more, the oldest come back to life
MAX_USER = 100  # characters of a name from a proxy

WINDOW_SECONDS = 60.0
MAX_FAILURES = 5  # of one client in the window
MAX_ALL_FAILURES = 100  # of all clients in the window
MAX_FAILING_CLIENTS = 1000  # whose failures are remembered
_PREFIX = 64  # bits of an IPv6 address that are one client's

#: Who connects: an address, or None over a unix socket.
Peer = Address | None


class Login(Enum):
    """How an attempt to log in ended."""

    DONE = "done"
    WRONG = "wrong"
    TOO_MANY = "too many"


class Throttle:
    """Counts failed attempts. Beyond the bounds no attempt is looked at, right or wrong."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._all: deque[float] = deque(maxlen=MAX_ALL_FAILURES)
        self._by_client: OrderedDict[str, deque[float]] = OrderedDict()

    def wait(self, client: str) -> float:
        """Seconds until a client may try again; 0 if it may now."""
        now = self._clock()
        return max(
            _wait(self._all, MAX_ALL_FAILURES, now), _wait(self._by_client.get(client, deque()), MAX_FAILURES, now)
        )

    def failed(self, client: str) -> None:
        """Count a failure."""
        now = self._clock()
        self._all.append(now)
        self._by_client.setdefault(client, deque(maxlen=MAX_FAILURES)).append(now)
        self._by_client.move_to_end(client)
        if len(self._by_client) > MAX_FAILING_CLIENTS:
            self._by_client.popitem(last=False)


def _wait(failures: deque[float], most: int, now: float) -> float:
    return max(0.0, failures[0] + WINDOW_SECONDS - now) if len(failures) == most else 0.0


class Proxies(Struct, frozen=True):
    """The reverse proxies that are believed."""

    networks: Networks = Networks()
    local: bool = False

    @classmethod
    def of(cls, section: WebSection) -> Proxies:
        """Those of the configuration, which has checked them."""
        texts = section.trusted_proxies
        return cls(Networks.parse(text for text in texts if text != LOCAL), LOCAL in texts)

    def has(self, peer: Peer) -> bool:
        """Whether this peer is one."""
        return self.local if peer is None else self.networks.find(peer) is not None

    def client(self, peer: Peer, forwarded: str) -> str:
        """The client for the throttle: the peer, or whom a trusted proxy names.

        :param forwarded: its X-Forwarded-For. The proxy appends to what its client sent, so only the last counts.
        """
        address = peer
        if forwarded and self.has(peer):
            address = parse_address(forwarded.rpartition(",")[2].strip()) or peer
        match address:
            case None:
                return LOCAL
            case IPv4Address():
                return str(address)
            case IPv6Address():
                return str(ip_network((address, _PREFIX), strict=False))


class Access:
    """Decides who may see the page."""

    def __init__(
        self,
        token: str,
        user_header: str,
        proxies: Proxies,
        *,
        throttle: Throttle | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """
        :param token: empty if there is no login by one.
        :param user_header: in which a trusted proxy names the user; empty for none.
        """
        self.by_token = bool(token)
        self.proxies = proxies
        self._user_header = user_header.lower()
        self._digest = _digest(token)
        self._key = hmac.digest(token.encode(), b"assay page session", "sha256")
        # A user that a proxy names has no session: without a token the key must not be known outside.
        self._form_key = hmac.digest(token.encode() or secrets.token_bytes(32), b"assay page form", "sha256")
        self._throttle = throttle or Throttle()
        self._clock = clock
        self._ended: OrderedDict[str, int] = OrderedDict()

    def user(self, peer: Peer, headers: Mapping[str, str], cookie: str) -> str:
        """The user who asks, as the page names it; empty if it may not see the page.

        :param headers: of the request, names in lower case.
        :param cookie: of the session.
        """
        if self._user_header and self.proxies.has(peer) and (name := headers.get(self._user_header, "").strip()):
            return name[:MAX_USER]
        return "token" if self.by_token and self._is_valid(cookie) else ""

    def log_in(self, attempt: str, client: str) -> Login:
        """Try a token.

        :param client: of `Proxies.client`.
        """
        if self._throttle.wait(client):
            return Login.TOO_MANY
        # The digests have one length, so that the comparison tells nothing of the token.
        if self.by_token and hmac.compare_digest(_digest(attempt), self._digest):
            return Login.DONE
        self._throttle.failed(client)
        return Login.WRONG

    def wait(self, client: str) -> int:
        """Whole seconds until a client may try again."""
        return int(self._throttle.wait(client)) + 1

    def session(self) -> str:
        """A new session, for a cookie."""
        body = f"{int(self._clock()) + SESSION_SECONDS}.{secrets.token_urlsafe(16)}"
        return f"{body}.{self._sign(body)}"

    def form_token(self, user: str, cookie: str) -> str:
        """What a form that changes something has to bring along: only pages of this user and session have it.

        :param user: of `user`.
        :param cookie: of the session; empty if a proxy names the user.
        """
        return hmac.new(self._form_key, f"{user}\n{cookie}".encode("utf-8", "replace"), "sha256").hexdigest()

    def is_form_token(self, token: str, user: str, cookie: str) -> bool:
        """Whether a form comes from a page of this user and session."""
        return hmac.compare_digest(self.form_token(user, cookie).encode(), token.encode("utf-8", "replace"))

    def log_out(self, cookie: str) -> None:
        """End a session before its time."""
        if not self._is_valid(cookie):
            return
        self._ended[cookie] = int(cookie.partition(".")[0])
        if len(self._ended) > MAX_ENDED:
            self._ended.popitem(last=False)

    def _is_valid(self, cookie: str) -> bool:
        body, _, signature = cookie.rpartition(".")
        if not body or not hmac.compare_digest(self._sign(body).encode(), signature.encode("utf-8", "replace")):
            return False
        return int(body.partition(".")[0]) > self._clock() and cookie not in self._ended

    def _sign(self, body: str) -> str:
        return hmac.new(self._key, body.encode("utf-8", "replace"), "sha256").hexdigest()


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()
