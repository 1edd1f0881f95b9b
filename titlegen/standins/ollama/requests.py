"""Request bodies: read within limits, then checked field by field."""

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Any, TypeAlias

from starlette.requests import Request

Body: TypeAlias = dict[str, Any]
"""The fields of a request that are known, each of its type; ``keep_alive`` in seconds."""

Options: TypeAlias = Mapping[str, Any]
"""Those that are known, in the types that the engine wants."""

MAX_BODY_BYTES = 16 * 2**20
# A client that still sends when its connection is closed sees no answer.
_MOST_READ = 64 * 2**20
_SURROGATE = re.compile(r"[\ud800-\udfff]")

_JSON_NAMES = {str: "a text", int: "a whole number", bool: "true or false", dict: "an object", list: "a list"}

GENERATE = {
    "model": str,
    "prompt": str,
    "system": str,
    "stream": bool,
    "options": dict,
    "raw": bool,
    "logprobs": bool,
    "top_logprobs": int,
    "_debug_render_only": bool,
}
CREATE = {
    "model": str,
    "name": str,
    "from": str,
    "files": dict,
    "template": str,
    "system": str,
    "parameters": dict,
    "quantize": str,
    "stream": bool,
}
NAMED = {"model": str, "name": str}
COPY = {"source": str, "destination": str}
# Fields of Ollama that no verb, client or document of titlegen uses: refused, so that no answer differs from Ollama's.
_ABSENT = {
    "generate": ("template", "context", "format", "suffix", "images", "think"),
    "create": ("adapters", "license", "messages", "parser", "renderer", "requires"),
}

# Source: Ollama's api.Options; the names in its messages are Go's.
_INTEGERS = {"num_predict", "num_ctx", "num_keep", "num_batch", "num_gpu", "num_thread", "main_gpu"}
_INTEGERS |= {"top_k", "seed", "repeat_last_n"}
# Source: Go's int; larger ones do not fit.
_LARGEST = 2.0**63
_FLOATS = {"temperature", "top_p", "min_p", "typical_p", "repeat_penalty", "presence_penalty", "frequency_penalty"}

# Source: Go's time.ParseDuration.
_DURATION = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ms|s|m|h)")
_UNITS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_LONGEST_S = 1e9


class ApiError(Exception):
    """A request is answered with this status and ``{"error": text}``."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


async def read_body(request: Request, timeout_s: float) -> bytes:
    """Return the body of a request.

    Raises:
        ApiError: it is larger than the limit, or does not arrive in time.
    """
    body, size = bytearray(), 0
    try:
        async with asyncio.timeout(timeout_s):
            async for chunk in request.stream():
                size += len(chunk)
                if size <= MAX_BODY_BYTES:
                    body += chunk
                elif size > _MOST_READ:
                    break
    except TimeoutError as error:
        raise ApiError(408, f"the request body did not arrive within {timeout_s:g} s") from error
    if size > MAX_BODY_BYTES:
        raise ApiError(413, "http: request body too large")
    return bytes(body)


def parse_body(body: bytes, route: str, fields: Mapping[str, type]) -> Body:
    """Return a body's JSON object with the fields of a route; others are ignored, and null counts as missing.

    As in Go, a field's case does not matter, and what follows the object is not read.

    Raises:
        ApiError: 400, the body is empty, not JSON, a field has another type or is not offered here.
    """
    value = _read_json(body)
    if not isinstance(value, dict):
        raise ApiError(400, "the request body is no JSON object")
    value = {name.lower(): field for name, field in value.items()}
    found = {}
    for name, type_ in fields.items():
        if (field := value.get(name)) is None:
            continue
        if not isinstance(field, type_) or (type_ is int and isinstance(field, bool)):
            raise ApiError(400, f"{name} must be {_JSON_NAMES[type_]}")
        found[name] = plain(field) if isinstance(field, str) else field
    for name in _ABSENT.get(route, ()):
        if value.get(name):
            raise ApiError(400, f'"{name}" is not offered by the bundled server; use Ollama')
    found["keep_alive"] = parse_keep_alive(value.get("keep_alive"))
    return found


def _read_json(body: bytes) -> object:
    # As in Go: what is not UTF-8, and half a surrogate pair, becomes the replacement character.
    text = body.decode("utf-8", errors="replace").lstrip(" \t\r\n")
    if not text:
        raise ApiError(400, "missing request body")
    try:
        return json.JSONDecoder(parse_constant=_refuse_constant).raw_decode(text)[0]
    except (RecursionError, ValueError) as error:
        # Its own text may quote an article.
        where = f" at character {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        raise ApiError(400, f"the request body is no JSON{where}") from error


def plain(text: str) -> str:
    """Return a text that can be encoded: half a surrogate pair becomes the replacement character."""
    return _SURROGATE.sub("\ufffd", text)


def parse_keep_alive(value: object) -> float | None:
    """Return seconds, negative for ever, None when nothing was said.

    Raises:
        ApiError: 400, it is neither a number nor a duration such as 10m.
    """
    if value is None:
        return None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return -1.0 if value < 0 else float(min(value, _LONGEST_S))
    text = value if isinstance(value, str) else ""
    sign, digits = (-1.0, text[1:]) if text.startswith("-") else (1.0, text.removeprefix("+"))
    parts = _DURATION.findall(digits)
    if digits != "0" and (not parts or "".join(number + unit for number, unit in parts) != digits):
        raise ApiError(400, f"keep_alive = {json.dumps(value)[:40]} is no duration; use one such as 10m, or seconds")
    seconds = sign * sum(float(number) * _UNITS[unit] for number, unit in parts)
    return -1.0 if seconds < 0 else min(seconds, _LONGEST_S)


def check_options(options: Mapping[str, object]) -> Options:
    """Return the options that are known, in the types that the engine wants; unknown ones and null are left out.

    Raises:
        ApiError: 500, as in Ollama: an option has another type.
    """
    known = {name: value for name, value in options.items() if value is not None}
    found: dict[str, Any] = {}
    for name, value in known.items():
        if name in _INTEGERS:
            found[name] = int(_number(value, name, "of type integer"))
        elif name in _FLOATS:
            found[name] = float(_number(value, name, "of type float32"))
        elif name == "use_mmap" and not isinstance(value, bool):
            raise _wrong(name, "of type boolean")
        elif name == "stop":
            if not isinstance(value, list):
                raise _wrong(name, "of type array")
            if not all(isinstance(item, str) for item in value):
                raise _wrong(name, "of an array of strings")
            found[name] = [plain(item) for item in value if item]
    return found


def _number(value: object, name: str, kind: str) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not abs(value) < _LARGEST:
        raise _wrong(name, kind)
    return value


def _wrong(name: str, kind: str) -> ApiError:
    return ApiError(500, f'option "{name}" must be {kind}')


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
