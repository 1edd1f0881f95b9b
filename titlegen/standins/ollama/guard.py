"""Access to a server on loopback: for programs and pages of this machine, and no page of the web."""

import ipaddress
import logging
import socket
import time
from urllib.parse import urlsplit

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("titlegen.standins")

_FORBIDDEN, _NO_CONTENT = 403, 204
_LOGGED_CHARS = 100
_LOCAL_SUFFIXES = (".localhost", ".local", ".internal")
_LOCAL_SCHEMES = {"app", "file", "tauri", "vscode-webview", "vscode-file"}
_LOCAL_HOSTS = {"localhost", "127.0.0.1", "0.0.0.0"}  # noqa: S104 - pages come from there, nothing listens there
_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS",
    "Access-Control-Allow-Headers": "Authorization,Content-Type,User-Agent,Accept,X-Requested-With",
    "Access-Control-Max-Age": "43200",
}


class LoopbackGuard:
    """Middleware: answers only to names and pages of this machine, and logs each request.

    As in Ollama, pages that this machine serves have access, by CORS headers. Neither queries nor bodies are
    logged: they hold articles.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        status = 0
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host, origin = headers.get(b"host", ""), headers.get(b"origin", "")
        foreign = origin not in {"", f"http://{host}", f"https://{host}"}

        async def watch(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            if message["type"] == "http.response.start" and foreign and status != _FORBIDDEN:
                message["headers"] = [*message["headers"], (b"access-control-allow-origin", origin.encode("latin-1"))]
                message["headers"].append((b"vary", b"Origin"))
            await send(message)

        app: ASGIApp = self._app
        if not _is_local(host) or (foreign and not _is_local_page(origin)):
            app = Response(status_code=_FORBIDDEN)
        elif foreign and scope["method"] == "OPTIONS":
            app = Response(status_code=_NO_CONTENT, headers=_PREFLIGHT)
        try:
            await app(scope, receive, watch)
        finally:
            elapsed_ms = 1000 * (time.monotonic() - started)
            # Not decoded: a decoded one could hold a line break.
            path = scope["raw_path"][:_LOGGED_CHARS].decode("latin-1")
            log.info("%s %s %d %.0f ms", scope["method"], path, status, elapsed_ms)


def _is_local(host: str) -> bool:
    """Return whether a Host header names this machine or network. Source: Ollama's server/routes.go, allowedHost."""
    try:
        name = (urlsplit(f"//{host}").hostname or "") if host else ""
    except ValueError:
        return False
    if not name:
        return host == ""
    if name in {"localhost", socket.gethostname().lower()} or name.endswith(_LOCAL_SUFFIXES):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return address.is_loopback or address.is_private or address.is_unspecified


def _is_local_page(origin: str) -> bool:
    """Return whether a page is this machine's. Source: Ollama's envconfig, AllowedOrigins."""
    try:
        parts = urlsplit(origin)
        host = parts.hostname
    except ValueError:
        return False
    return parts.scheme in _LOCAL_SCHEMES or (parts.scheme in {"http", "https"} and host in _LOCAL_HOSTS)
