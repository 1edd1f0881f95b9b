"""Who may ask the desk, and what its pages may do: token, Host, Origin, size of a request, security headers."""

import asyncio
import contextlib
import hashlib
import hmac
import ipaddress
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from titlegen.errors import ConfigError

TOKEN_VARIABLE = "TITLEGEN_DESK_TOKEN"  # noqa: S105 - a name
COOKIE = "titlegen-desk"
MIN_TOKEN_CHARS = 16
MAX_BODY_BYTES = 6 * 2**20
# What a refused request still sends is read so far, and so long.
_DRAINED_BYTES, _DRAIN_S = 64 * 2**20, 10
# A guess takes this long, seconds.
_GUESS_S = 0.5
_COOKIE_S = 30 * 24 * 3600
_PUBLIC = frozenset({"/login", "/api/login", "/page/login.js", "/page/desk.css"})
_SAFE_METHODS = frozenset({"GET", "HEAD"})
_SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}


def content_policy(frame_ancestors: tuple[str, ...] = ()) -> str:
    """Return the Content-Security-Policy: files of our own, no inline script or style, text never becomes HTML."""
    ancestors = " ".join(frame_ancestors) or "'none'"
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "form-action 'self'; base-uri 'none'; require-trusted-types-for 'script'; trusted-types lit-html; "
        f"frame-ancestors {ancestors}"
    )


def check_exposure(host: str, token: str) -> None:
    """Raise where the desk would be open to others without a token, or with one that can be guessed.

    Raises:
        ConfigError: it would.
    """
    if token and (len(token) < MIN_TOKEN_CHARS or not token.isascii() or not token.isprintable()):
        raise ConfigError(
            f"{TOKEN_VARIABLE} has to be {MIN_TOKEN_CHARS} plain characters or more; make one with "
            "`python -c 'import secrets; print(secrets.token_urlsafe())'`"
        )
    if not token and not is_loopback(host):
        raise ConfigError(
            f"desk.host = {host!r} can be reached by others, so that the desk needs a token in {TOKEN_VARIABLE}; set "
            "one, or use 127.0.0.1"
        )


def is_loopback(host: str) -> bool:
    """Return whether a name or an address is this machine's own."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def cookie_value(token: str) -> str:
    """Return what a browser keeps in place of the token; another token makes it worthless."""
    return hmac.new(token.encode(), b"titlegen desk", hashlib.sha256).hexdigest()


def login_cookie(token: str, *, secure: bool, framed: bool) -> str:
    """Return the Set-Cookie header of a login.

    Args:
        token: the desk's.
        secure: whether the page came by TLS.
        framed: whether pages of other sites may have the desk in a frame. Browsers send it no cookie there but one that
            says ``SameSite=None``, which they take by TLS or from this machine alone. ``Partitioned`` keeps each such
            page's login to itself; requests of other origins are refused with any cookie.
    """
    # http.cookies knows Partitioned from Python 3.14 on.
    where = "SameSite=None; Secure; Partitioned" if framed else f"SameSite=Strict{'; Secure' if secure else ''}"
    return f"{COOKIE}={cookie_value(token)}; HttpOnly; Max-Age={_COOKIE_S}; Path=/; {where}"


async def pause_guess() -> None:
    """Let whoever guesses a token wait."""
    await asyncio.sleep(_GUESS_S)


class DeskGuard:
    """Middleware in front of everything: refuses, bounds, and puts the security headers on every answer."""

    def __init__(self, app: ASGIApp, *, host: str, token: str, frame_ancestors: tuple[str, ...] = ()) -> None:
        self._app = app
        self._token = token
        self._local_only = is_loopback(host)
        self._headers = _SECURITY_HEADERS | {"Content-Security-Policy": content_policy(frame_ancestors)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def put_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = [(name.lower().encode(), value.encode("latin-1")) for name, value in self._headers.items()]
                message["headers"] = [*message["headers"], *extra]
            await send(message)

        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self._refuse(scope, headers) or await self._refuse_stranger(scope, headers)
        if refusal is not None:
            await _drain(receive)
            await refusal(scope, receive, put_headers)
            return
        await self._app(scope, _bounded(receive), put_headers)

    def _refuse(self, scope: Scope, headers: Mapping[bytes, str]) -> Response | None:
        host = headers.get(b"host", "")
        # A page of the web whose name was made to mean this machine.
        if self._local_only and not is_loopback(_name_of(host)):
            return _error(403, "the desk answers to names of this machine only", "只接受本機的位址")
        if scope["method"] not in _SAFE_METHODS:
            origin, site = headers.get(b"origin"), headers.get(b"sec-fetch-site", "none")
            own = {f"http://{host}", f"https://{host}"}
            if (origin is not None and origin not in own) or site not in {"same-origin", "none"}:
                return _error(403, "a page of another origin may change nothing here", "拒絕來自其他網站的要求")
        try:
            length = int(headers.get(b"content-length", "0"))
        except ValueError:
            length = -1
        if not 0 <= length <= MAX_BODY_BYTES:
            return _error(413, f"at most {MAX_BODY_BYTES:,} bytes are read", "內容過大")
        return None

    async def _refuse_stranger(self, scope: Scope, headers: Mapping[bytes, str]) -> Response | None:
        if not self._token or scope["path"] in _PUBLIC or self._knows(headers):
            return None
        if b"authorization" in headers:
            await pause_guess()
        if scope["path"].startswith("/api/") or scope["method"] not in _SAFE_METHODS:
            return _error(401, f"give the token: Authorization: Bearer ${TOKEN_VARIABLE}", "請先登入")
        return Response(status_code=303, headers={"Location": "/login"})

    def _knows(self, headers: Mapping[bytes, str]) -> bool:
        scheme, _, given = headers.get(b"authorization", "").partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self._token.encode()):
            return True
        try:
            cookies = SimpleCookie(headers.get(b"cookie", ""))
        except CookieError:
            return False
        value = cookies[COOKIE].value if COOKIE in cookies else ""
        return hmac.compare_digest(value.encode(), cookie_value(self._token).encode())


def _name_of(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _error(status: int, message: str, message_zh: str) -> Response:
    return JSONResponse({"message": message, "message_zh": message_zh}, status, {"Connection": "close"})


class TooLargeError(Exception):
    """A request has more bytes than are read, and did not say so."""


async def _drain(receive: Receive) -> None:
    """Read what a client still sends, within bounds: it would see a reset connection in place of the answer."""
    left, more = _DRAINED_BYTES, True
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN_S):
            while more and left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                more = message.get("more_body", False)


def _bounded(receive: Receive) -> Receive:
    read = 0

    async def bounded() -> Message:
        nonlocal read
        message = await receive()
        read += len(message.get("body", b""))
        if read > MAX_BODY_BYTES:
            await _drain(receive)
            raise TooLargeError
        return message

    return bounded
