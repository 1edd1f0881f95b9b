"""The server's management calls, and which failures are temporary."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from titlegen.errors import ServeError
from titlegen.retries import retry
from titlegen.serve.server import connection_failure, http_options, server_url
from titlegen.settings import ServeSettings

if TYPE_CHECKING:
    import ollama

CONNECT_TIMEOUT_S = 10.0
FOR_EVER = -1
# Creating quantises, and loading reads, many GB; a longer wait is in vain.
_LONG_TIMEOUT_S = 1800.0
# A server answers a request to unload before the model is unloaded.
_UNLOAD_TIMEOUT_S, _POLL_S = 30.0, 0.05
# Source: RFC 9110: the request timed out, and too many requests.
_PASSING_STATUSES = frozenset({408, 429})
_GATEWAY_STATUSES = frozenset({502, 503, 504})

Say = Callable[[str], None]


def is_temporary(error: Exception) -> bool:
    """Return whether a failure is temporary: an error of the server (5xx), a lost connection, a timeout.

    The message is no guide: Ollama's versions call a dead runner `unexpected EOF`, `llama-server process no longer
    running` or `has terminated`.
    """
    import httpx
    import ollama

    if isinstance(error, ollama.ResponseError):
        return error.status_code >= httpx.codes.INTERNAL_SERVER_ERROR or error.status_code in _PASSING_STATUSES
    return isinstance(error, (ConnectionError, httpx.TransportError))


def is_unavailable(error: Exception) -> bool:
    """Return whether a failure means that no server is there or that it is busy, so that no article gets an answer."""
    import httpx
    import ollama

    if isinstance(error, ollama.ResponseError):
        return error.status_code in _GATEWAY_STATUSES
    return isinstance(error, (ConnectionError, httpx.TransportError)) and not is_late(error)


def is_late(error: Exception) -> bool:
    """Return whether a server that was reached did not answer in time."""
    import httpx

    return isinstance(error, (httpx.ReadTimeout, httpx.WriteTimeout))


class Connection:
    """The server's management calls, through Ollama's own client."""

    def __init__(self, url: str, retries: int) -> None:
        """Open the connections; the server is not asked yet."""
        import httpx
        import ollama

        self.url = url
        self._retries = retries
        timeout = httpx.Timeout(_LONG_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        self.ollama = ollama.Client(host=url, timeout=timeout, **http_options(url))
        self.http = httpx.Client(base_url=url, timeout=timeout, **http_options(url))

    def close(self) -> None:
        """Close the connections."""
        self.ollama.close()
        self.http.close()

    def digests(self) -> dict[str, str]:
        """Return the digest of each model that the server has, by name."""
        return {str(entry.model): str(entry.digest) for entry in self.ollama.list().models}

    def upload(self, path: Path, digest: str, say: Say) -> str:
        """Send a file unless the server has it: posting a blob that is there breaks the connection.

        Raises:
            ServeError: the file changed while it was sent.
        """
        name = f"sha256:{digest}"

        def send() -> str:
            if self.http.head(f"/api/blobs/{name}").is_success:
                return name
            say(f"deploy: uploading {path.name} ({path.stat().st_size / 2**20:.0f} MiB)")
            sent: str = self.ollama.create_blob(path)
            return sent

        # A full disk (500) stays full, and the file is too large to send in vain.
        if retry(send, is_unavailable, self._retries) != name:
            raise ServeError(f"{path} changed while it was uploaded; run the command again")
        return name

    def load(self, name: str) -> None:
        """Load a model for as long as the server runs."""
        self.ollama.generate(model=name, keep_alive=FOR_EVER)

    def unload(self, name: str) -> bool:
        """End the runner of a model, also where another name of it was loaded; returns whether it has gone.

        A server keeps the name under which a model was loaded until it is unloaded, whatever the model is called since.
        It stays where others go on asking for it.
        """
        digests = self.digests()
        digest = digests.get(name) or digests.get(f"{name}:latest")
        if digest is None:
            return True
        self.ollama.generate(model=name, keep_alive=0)
        deadline = time.monotonic() + _UNLOAD_TIMEOUT_S
        while any(entry.digest == digest for entry in self.ollama.ps().models):
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        return True

    def remove(self, name: str) -> None:
        """Delete a model, when there is one."""
        import ollama

        with contextlib.suppress(ollama.ResponseError):
            self.ollama.delete(name)


@contextlib.contextmanager
def connect(settings: ServeSettings) -> Iterator[Connection]:
    """Open a connection for management calls; its errors become one line.

    Raises:
        ServeError: the server refused, or cannot be reached.
    """
    import httpx
    import ollama

    connection = Connection(server_url(settings.host), settings.retries)
    try:
        yield connection
    except ollama.ResponseError as error:
        raise ServeError(
            f"{connection.url} refused: {shorten(error)}; what it served before, it still serves"
        ) from error
    except (ConnectionError, httpx.TransportError) as error:
        raise ServeError(
            f"the connection to {connection.url} broke ({connection_failure(error)}); start the server again and "
            "repeat the command: what it served before, it still has"
        ) from error
    finally:
        connection.close()


def shorten(error: ollama.ResponseError) -> str:
    """Return a server's message in one line of up to 300 characters: a proxy answers with a page."""
    return " ".join(str(error.error).split())[:300]
