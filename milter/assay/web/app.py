# SPDX-License-Identifier: GPL-3.0-or-later
"""Answers requests: who may see what, in which form, with which header fields.

All pages are read-only and answer GET. Only the login, the logout and the suppression of reports are POST; they are
accepted from pages of this origin alone, and the last needs a token that only pages of the same session have.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any
from urllib.parse import parse_qs, quote

from msgspec import Struct
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from assay import __version__
from assay.log import Log
from assay.log.text import quote as quoted
from assay.model.smtp import parse_address
from assay.model.wording import counted
from assay.store.feeding import UnavailableError
from assay.web import export, suppressing
from assay.web.access import COOKIE, SESSION_SECONDS, Access, Login, Peer
from assay.web.headers import SafeHeaders
from assay.web.pages import PAGES, PageEntry
from assay.web.parts import Remark, Tone, WebPage
from assay.web.render import STATIC, Frame, NavigationEntry, Renderer
from assay.web.site import NotFoundError, Site, WebQuery

MAX_FORM = 4096  # octets of a form that is sent
MAX_ARGUMENTS = 50  # of an address, that go into those of the exports
MAX_BACK = 1000  # characters of the address that a form leads back to; of a longer one the path
_TYPES = {".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}
_SUFFIXES = {
    ".csv": ("text/csv; charset=utf-8", export.as_csv),
    ".json": ("application/json", export.as_json),
}
_START = "/overview"


class Door(Struct, frozen=True):
    """The application, apart from its routes."""

    site: Site
    access: Access
    log: Log
    renderer: Renderer

    async def page(self, request: Request, *, place: PageEntry, suffix: str) -> Response:
        """A page, or one of its tables."""
        began = time.monotonic()
        user = self._user(request)
        if not user:
            if suffix:
                return PlainTextResponse("log in first\n", 401)
            return RedirectResponse(f"/login?next={quote(_here(request), safe='')}", 303)
        query = WebQuery(place.path, request.query_params, request.path_params.get("item", ""))
        try:
            page = await run_in_threadpool(place.view, self.site, query)
        except NotFoundError as error:
            raise HTTPException(404, str(error)) from error
        except UnavailableError as error:
            raise HTTPException(503, f"the store cannot be read now: {error}") from error
        except Exception as error:
            self.log.error(f"page {place.path}: {error!r}")
            raise HTTPException(500) from error
        if suffix:
            return self._table(page, query, suffix)
        frame = self._frame(user, place.path, request, began)
        return Response(
            await run_in_threadpool(self.renderer.page, page, frame), page.status, media_type="text/html; charset=utf-8"
        )

    def _table(self, page: WebPage, query: WebQuery, suffix: str) -> Response:
        wanted = query.text("table")
        tables = {table.name: table for table in page.tables}
        table = tables.get(wanted) if wanted else next(iter(tables.values()), None)
        if table is None:
            raise HTTPException(404, f"this page has no table of that name; it has: {', '.join(tables) or 'none'}")
        content_type, write = _SUFFIXES[suffix]
        headers = {}
        if table.further:
            path, _, arguments = table.further.partition("?")
            headers["link"] = f'<{path}{suffix}?{arguments}&table={table.name}>; rel="next"'
        name = f"{query.path.strip('/').replace('/', '-')}-{table.name}{suffix}"
        headers["content-disposition"] = f'attachment; filename="{name}"'
        return Response(write(table), headers=headers, media_type=content_type)

    async def login_form(self, request: Request) -> Response:
        """The form to log in."""
        if self._user(request):
            return RedirectResponse(_local(request.query_params.get("next", "")), 303)
        return self._login_page(request, "", 200)

    async def log_in(self, request: Request) -> Response:
        """Take the token of the form."""
        self._check_origin(request)
        client = self._client(request)
        token = (await _form(request)).get("token", "").strip()
        match self.access.log_in(token, client):
            case Login.TOO_MANY:
                wait = self.access.wait(client)
                response = self._login_page(request, f"Too many attempts. Wait {counted(wait, 'second')}.", 429)
                response.headers["retry-after"] = str(wait)
                return response
            case Login.WRONG:
                self.log.warning(f"page: wrong token from {client}")
                return self._login_page(request, "That is not the token.", 403)
        self.log.info(f"page: login from {client}")
        response = RedirectResponse(_local(request.query_params.get("next", "")), 303)
        response.set_cookie(
            COOKIE,
            self.access.session(),
            max_age=SESSION_SECONDS,
            secure=self._is_https(request),
            httponly=True,
            samesite="strict",
        )
        return response

    async def log_out(self, request: Request) -> Response:
        """End the session."""
        self._check_origin(request)
        self.access.log_out(request.cookies.get(COOKIE, ""))
        response = RedirectResponse("/login", 303)
        response.delete_cookie(COOKIE, secure=self._is_https(request), httponly=True, samesite="strict")
        return response

    async def suppress(self, request: Request) -> Response:
        """Suppress reports to a destination, or send them again."""
        user, cookie = self._user(request), request.cookies.get(COOKIE, "")
        if not user:
            raise HTTPException(403, "log in first")
        self._check_origin(request)
        form = await _form(request)
        if not self.access.is_form_token(form.get("token", ""), user, cookie):
            self.log.warning(
                f"page: a form without the token of its session was refused; it came from {self._client(request)}"
            )
            raise HTTPException(403, "this form is from an older session; reload its page")
        try:
            done = await run_in_threadpool(suppressing.change, self.site, form, user)
        except suppressing.ChangeError as error:
            raise HTTPException(400, str(error)) from error
        except UnavailableError as error:
            raise HTTPException(503, f"the store cannot be written now: {error}") from error
        self.log.info(f"page: {done}; asked for by {quoted(user)} from {self._client(request)}")
        return RedirectResponse(_local(form.get("back", "")), 303)

    async def failed(self, request: Request, error: Exception) -> Response:
        """What went wrong, as a page for whoever may see pages."""
        status = error.status_code if isinstance(error, HTTPException) else 500
        text = error.detail if isinstance(error, HTTPException) and status != 500 else _BROKEN
        title = _TITLES.get(status, "Error")
        user = self._user(request)
        headers = error.headers if isinstance(error, HTTPException) else None
        if not user or request.url.path.endswith(tuple(_SUFFIXES)):
            return PlainTextResponse(f"{title}: {text}\n", status, headers=headers)
        page = WebPage(title, (Remark(f"{text}.", tone=Tone.BAD),), status=status)
        html = self.renderer.page(page, self._frame(user, "", request, time.monotonic()))
        return Response(html, status, headers=headers, media_type="text/html; charset=utf-8")

    def _login_page(self, request: Request, fault: str, status: int) -> Response:
        html = self.renderer.login(fault, self._frame("", "/login", request, time.monotonic()))
        return Response(html, status, media_type="text/html; charset=utf-8")

    def _frame(self, user: str, here: str, request: Request, began: float) -> Frame:
        entries = tuple(NavigationEntry(place.path, place.title) for place in PAGES if place.title) if user else ()
        path = request.url.path
        arguments = [pair for pair in request.query_params.multi_items() if pair[0] != "table"][:MAX_ARGUMENTS]
        return Frame(
            host=self.site.host,
            version=__version__,
            user=user,
            by_token=self.access.by_token,
            entries=entries,
            here=here,
            export=lambda table, suffix: _address(path + suffix, [*arguments, ("table", table)]),
            form_token=self.access.form_token(user, request.cookies.get(COOKIE, "")) if user else "",
            address=_here(request) if len(_here(request)) <= MAX_BACK else path,
            seconds=lambda: time.monotonic() - began,
        )

    def _user(self, request: Request) -> str:
        return self.access.user(_peer(request), _single(request), request.cookies.get(COOKIE, ""))

    def _client(self, request: Request) -> str:
        # A proxy may append a field of its own to what its client sent, so the last value of the last one counts.
        forwarded = request.headers.getlist("x-forwarded-for")
        return self.access.proxies.client(_peer(request), ",".join(forwarded))

    def _is_https(self, request: Request) -> bool:
        """Whether the browser speaks TLS, as a trusted proxy says."""
        said = request.headers.get("x-forwarded-proto", "")
        return self.access.proxies.has(_peer(request)) and said.strip().lower() == "https"

    def _check_origin(self, request: Request) -> None:
        """Refuse a form of another site (CSRF). Browsers say where a form is from; a program need not."""
        site = request.headers.get("sec-fetch-site", "")
        origin = request.headers.get("origin", "")
        if site:
            allowed = site in ("same-origin", "none")
        else:
            # An origin is a scheme and an authority, no more.
            allowed = not origin or origin.partition("://")[2] == request.headers.get("host", "")
        if not allowed:
            self.log.warning(f"page: a form of another site was refused; its origin: {quoted(origin or site)}")
            raise HTTPException(403, "this form is from another site")


_TITLES = {
    400: "Not done",
    403: "Forbidden",
    404: "Not found",
    405: "Not allowed",
    413: "Too large",
    500: "Error",
    503: "No store",
}
_BROKEN = "This page could not be made; the log says why"


def make_app(site: Site, access: Access, log: Log) -> SafeHeaders:
    """The application."""
    door = Door(site, access, log, Renderer())
    routes = [
        Route("/", lambda _: RedirectResponse(_START, 303), methods=["GET"]),
        Route("/login", door.login_form, methods=["GET"]),
        Route("/login", door.log_in, methods=["POST"]),
        Route("/logout", door.log_out, methods=["POST"]),
        Route(suppressing.PATH, door.suppress, methods=["POST"]),
    ]
    for file in sorted(STATIC.iterdir()):
        content = file.read_bytes()
        routes.append(Route(f"/static/{file.name}", partial(_static, content, _TYPES[file.suffix]), methods=["GET"]))
    for place in PAGES:
        for suffix in (*_SUFFIXES, ""):
            item = "/{item:str}" if place.items else ""
            made = partial(door.page, place=place, suffix=suffix)
            routes.append(Route(f"{place.path}{item}{suffix}", made, methods=["GET"]))
    handlers: dict[Any, Any] = {HTTPException: door.failed}
    app = Starlette(routes=routes, exception_handlers=handlers)
    # To a path that ends in a slash it would answer with an address made of the Host field, which the client chooses.
    app.router.redirect_slashes = False
    return SafeHeaders(app)


async def _static(content: bytes, content_type: str, _: Request) -> Response:
    return Response(content, headers={"cache-control": "max-age=3600"}, media_type=content_type)


async def _form(request: Request) -> Mapping[str, str]:
    """The fields of a form, sent as application/x-www-form-urlencoded."""
    body = b""
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_FORM:
                raise HTTPException(413, f"a form has at most {MAX_FORM} octets")
    except ClientDisconnect as error:
        raise HTTPException(400, "the connection ended within the form") from error
    return {name: values[0] for name, values in parse_qs(body.decode("ascii", "replace")).items()}


def _single(request: Request) -> Mapping[str, str]:
    """The header fields that occur once. Of several with one name, a client may have added one to the proxy's."""
    times = Counter(request.headers.keys())
    return {name: value for name, value in request.headers.items() if times[name] == 1}


def _peer(request: Request) -> Peer:
    return None if request.client is None else parse_address(request.client.host)


def _local(path: str) -> str:
    """Where to go after the login: a page of ours, whatever the address says."""
    allowed = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if allowed else _START


def _here(request: Request) -> str:
    return request.url.path + (f"?{request.url.query}" if request.url.query else "")


def _address(path: str, arguments: list[tuple[str, str]]) -> str:
    return path + "?" + "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in arguments)
