"""A server's answer within bounds: whoever answers may send without end, all at once or a byte at a time."""

import json
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx

# A title of a few hundred bytes comes in parts, or with the tokens of its prompt; lists of models are shorter.
_MOST_BYTES = 16 * 2**20


def read_lines(response: "httpx.Response", most_s: float) -> Iterator[bytes]:
    """Yield the lines of an answer as they come, those that are empty left out.

    Args:
        response: of ``stream``, not read yet.
        most_s: from the answer's head to its end, seconds.

    Raises:
        ValueError: it has more bytes than an answer of Ollama would.
        httpx.ReadTimeout: it has not ended in time.
    """
    begun: list[bytes] = []
    for chunk in _chunks(response, most_s):
        first, *others = chunk.split(b"\n")
        begun.append(first)
        if others:
            # Joined once, however many parts a line comes in.
            *lines, last = [b"".join(begun), *others]
            begun = [last]
            yield from filter(bytes.strip, lines)
    if rest := b"".join(begun).strip():
        yield rest


def read_json(response: "httpx.Response", most_s: float) -> Any:
    """Return what an answer holds; arguments and errors as for :func:`read_lines`, which also is no JSON's."""
    return parse_json(b"".join(_chunks(response, most_s)))


def parse_json(text: bytes) -> Any:
    """Return what a text holds.

    Raises:
        ValueError: it is no JSON, or nested on purpose.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("the answer is nested too deeply") from error


def read_text(response: "httpx.Response", most_s: float) -> str:
    """Return an answer's text, such as the message of an error; arguments and errors as for :func:`read_lines`."""
    return b"".join(_chunks(response, most_s)).decode(errors="replace")


def _chunks(response: "httpx.Response", most_s: float) -> Iterator[bytes]:
    import httpx

    read, deadline = 0, time.monotonic() + most_s
    for chunk in response.iter_bytes():
        read += len(chunk)
        if read > _MOST_BYTES:
            raise ValueError(f"the answer has more than {_MOST_BYTES:,} bytes")
        yield chunk
        if time.monotonic() > deadline:
            raise httpx.ReadTimeout(f"the answer did not end within {most_s:g} s", request=response.request)
