"""Where the model is served: an Ollama server that answers, one that is started, or the bundled stand-in."""

import shutil
import socket
import ssl
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from titlegen.daemon import start_daemon, stop_daemon
from titlegen.environment import check_remote
from titlegen.errors import ConfigError, ServeError
from titlegen.proxies import is_loopback
from titlegen.settings import ServeSettings
from titlegen.standins import ollama_command

OLLAMA = "Ollama"
OFFLINE = "the bundled offline server"
DAEMON = "server"
# Source: Ollama's default port, and the ports that its client gives a host with a scheme.
_OLLAMA_PORT = 11434
_SCHEME_PORTS = {"http": 80, "https": 443}
_PROBE_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Server:
    """A server that answers."""

    kind: str
    """``Ollama`` or ``the bundled offline server``."""
    host: str
    """Its address."""
    version: str
    started: bool
    """Whether it was started just now; it outlives the command that started it."""


def server_url(host: str) -> str:
    """Return the address that a client uses for OLLAMA_HOST, in any of the forms that Ollama takes.

    Raises:
        ConfigError: it is none of them.
    """
    text = host.strip() or "127.0.0.1"
    scheme, mark, rest = text.partition("://")
    if not mark:
        scheme, rest = "http", text
    try:
        parts = urlsplit(f"{scheme}://{rest}")
        port = parts.port or (_SCHEME_PORTS[scheme] if mark else _OLLAMA_PORT)
        name = parts.hostname or "127.0.0.1"
    except (ValueError, KeyError) as error:
        raise ConfigError(
            f"serve.host = {host!r} is no address of a server; write it as http://127.0.0.1:11434"
        ) from error
    # A client cannot connect to the address with which a server listens on every interface.
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(name, name)  # noqa: S104
    bracketed = f"[{name}]" if ":" in name else name
    return f"{scheme}://{bracketed}:{port}{parts.path.rstrip('/')}"


def http_options(url: str) -> dict[str, Any]:
    """Return the options of an HTTP client: no proxy stands between us and our own machine.

    Raises:
        ConfigError: the proxy that stands between us and another machine cannot be used.
    """
    check_remote(url)
    if not is_loopback(url):
        return {"trust_env": True}
    return {"trust_env": False} | ({"verify": _without_certificates()} if url.startswith("http:") else {})


@cache
def _without_certificates() -> ssl.SSLContext:
    """Return what refuses every certificate, for clients that see none: httpx reads all known ones for each client."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def connection_failure(error: BaseException) -> str:
    """Return why a server could not be reached; Ollama's client says to install Ollama instead."""
    cause = error.__context__ if type(error) is ConnectionError and error.__context__ else error
    return str(cause) or type(cause).__name__


def ensure_server(settings: ServeSettings, state_directory: Path) -> Server:
    """Return a server that answers at ``settings.host``, started when none does.

    On loopback, and with ``settings.start_offline``, that is ``ollama serve`` when the program is installed, else the
    bundled offline server. Its record and log are in ``state_directory``.

    Raises:
        ServeError: nothing answers and nothing can be started, or another program has the port.
    """
    url = server_url(settings.host)
    if (server := find_server(url)) is not None:
        return server
    _refuse_occupied(url)
    if not is_loopback(url):
        raise ServeError(
            f"no Ollama server answers at {url}; start it there, behind a proxy that asks for a password, or correct "
            "serve.host (or OLLAMA_HOST): the bundled server answers on loopback alone"
        )
    if not settings.start_offline:
        raise ServeError(f"no server answers at {url} and serve.start_offline is off; start `ollama serve` first")
    started = _start(url, state_directory)
    version = find_version(url)
    if version is None:
        raise ServeError(f"the server at {url} ended right after its start; see {state_directory / DAEMON}.log")
    return Server(_kind(version), url, version, started=started)


def stop_server(state_directory: Path) -> bool:
    """End the server that titlegen started; False when there was none."""
    return stop_daemon(DAEMON, state_directory)


def find_server(url: str) -> Server | None:
    """Return the server that answers at an address, None when none does."""
    version = find_version(url)
    return None if version is None else Server(_kind(version), url, version, started=False)


def find_version(url: str) -> str | None:
    """Return the version of the Ollama server at an address, None when none answers there."""
    import httpx

    try:
        response = httpx.get(f"{url}/api/version", timeout=_PROBE_TIMEOUT_S, **http_options(url))
        version = response.json()["version"]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError):
        return None
    return version if isinstance(version, str) else None


def _kind(version: str) -> str:
    return OFFLINE if "titlegen" in version else OLLAMA


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return str(parts.hostname), parts.port or _OLLAMA_PORT


def _refuse_occupied(url: str) -> None:
    """Raise when another program than an Ollama server listens there."""
    host, port = _address(url)
    try:
        socket.create_connection((host, port), timeout=_PROBE_TIMEOUT_S).close()
    except OSError:
        return
    if find_version(url) is not None:
        # Another command has just started one.
        return
    raise ServeError(
        f"port {port} of {host} is in use by a program that is not an Ollama server{_owner(port)}; stop it, or choose "
        f"another port with --serve.host http://127.0.0.1:{port + 1}"
    )


def _owner(port: int) -> str:
    import psutil

    try:
        for connection in psutil.net_connections("tcp"):
            if (
                connection.status == psutil.CONN_LISTEN
                and getattr(connection.laddr, "port", None) == port
                and connection.pid
            ):
                return f" ({psutil.Process(connection.pid).name()}, pid {connection.pid})"
    except psutil.Error:
        # Programs of other users cannot be read.
        return ""
    return ""


def _start(url: str, state_directory: Path) -> bool:
    """Start a server, or wait for one that another command is starting; returns whether this process started it."""
    host, port = _address(url)
    program = shutil.which("ollama")
    if program is not None:
        command = ["/usr/bin/env", f"OLLAMA_HOST={host}:{port}", program, "serve"]
    else:
        command = ollama_command(host, port, state_directory / "models")

    def answers(at: str) -> bool:
        return at == url and find_version(at) is not None

    _, started = start_daemon(DAEMON, command, url, state_directory, answers, stop="titlegen serve --stop")
    return started
