"""llama.cpp's own server on a GGUF file, asked over loopback."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from titlegen.errors import VerifyError

if TYPE_CHECKING:
    import httpx

_NUM_CTX = 4096
_TIMEOUT_S = 600
_SHOWN_CHARS = 300


@contextmanager
def llama_server(path: Path) -> "Iterator[httpx.Client]":
    """Run llama.cpp's own server on a GGUF file, on a free loopback port, and yield a client of it.

    Raises:
        VerifyError: it cannot load the file.
    """
    import httpx
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(path)
    parameters.n_ctx = _NUM_CTX
    parameters.n_parallel = 1
    parameters.warmup = False
    parameters.port = 0
    # Its log goes to standard error unchanged, so that only errors are let through.
    parameters.verbosity = 0
    try:
        server = xllamacpp.Server(parameters)
    except RuntimeError as error:
        raise VerifyError(
            f"llama.cpp cannot load {path}, nor will Ollama: tensors may be missing, or memory; "
            "`llama-server --model` with this path says which"
        ) from error
    try:
        # Our own server: no proxy is asked. A client for each request would read all certificates for each.
        with httpx.Client(base_url=server.listening_address, timeout=_TIMEOUT_S, trust_env=False) as client:
            # Its loop answers this: a server that is ended before the loop runs would never end.
            ask(client, "/slots")
            yield client
    finally:
        del server


def ask(client: "httpx.Client", path: str, body: dict[str, Any] | None = None) -> Any:
    """Post a JSON object to the server, or get what is at a path, and return the answer.

    Raises:
        VerifyError: the server refuses it.
    """
    response = client.request("GET" if body is None else "POST", path, json=body)
    if response.is_error:
        raise VerifyError(
            f"llama.cpp refused {path}: {response.text[:_SHOWN_CHARS]}; shorten the articles with "
            "--data.max-content-tokens"
        )
    return response.json()
