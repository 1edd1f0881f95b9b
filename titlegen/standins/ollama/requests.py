"""Request bodies: read within limits, then checked field by field with the answers that Ollama gives."""

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

MAX_BODY_BYTES = 16 * 2**20
_SURROGATE = re.compile(r"[\ud800-\udfff]")

_GO_NAMES = {str: "string", bool: "bool", dict: "map[string]interface {}", list: "[]interface {}"}
_JSON_NAMES = {str: "string", bool: "bool", dict: "object", list: "array", int: "number", float: "number"}
# What Python's reader misses at a character, and how Go's says so.
_GO_ERRORS = {
    "Expecting property name": "looking for beginning of object key string",
    "Illegal trailing comma": "looking for beginning of object key string",
    "Expecting value": "looking for beginning of value",
    "Expecting ':'": "after object key",
    "Expecting ','": "after object key:value pair",
    "Invalid control character": "in string literal",
    "Invalid \\": "in string escape code",
}

GENERATE = {
    "model": str,
    "prompt": str,
    "suffix": str,
    "system": str,
    "stream": bool,
    "truncate": bool,
    "options": dict,
    "images": list,
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
SHOW = {"model": str, "name": str, "system": str, "verbose": bool}
NAMED = {"model": str, "name": str}
COPY = {"source": str, "destination": str}
# What Ollama has and no verb, client or document of ours asks for: refused, so that no answer is another than Ollama's.
_ABSENT = {
    "GenerateRequest": ("raw", "template", "context", "format", "logprobs", "top_logprobs"),
    "CreateRequest": ("adapters", "license", "messages", "parser", "renderer", "requires"),
}

# Source: Ollama's api.Options; the names in its messages are Go's.
_INTEGERS = {"num_predict", "num_ctx", "num_keep", "num_batch", "num_gpu", "num_thread", "main_gpu"}
_INTEGERS |= {"top_k", "seed", "repeat_last_n"}
# Source: Go's int; larger ones do not fit.
_LARGEST = 2.0**63
_FLOATS = {"temperature", "top_p", "min_p", "typical_p", "repeat_penalty", "presence_penalty", "frequency_penalty"}

# Source: Go's time.ParseDuration.
_DURATION = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)([^0-9.]+)")
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_THINK_LEVELS = ("high", "medium", "low", "max")


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
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > MAX_BODY_BYTES:
        raise ApiError(413, "http: request body too large")
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    raise ApiError(413, "http: request body too large")
    except TimeoutError as error:
        raise ApiError(408, f"the request body did not arrive within {timeout_s:g} s") from error
    return bytes(body)


def parse_body(body: bytes, kind: str, fields: Mapping[str, type]) -> dict[str, Any]:
    """Return a body's JSON object with the fields of ``kind``; others are ignored, and null counts as missing.

    As in Go, a field's case does not matter, and what follows the object is not read.

    Raises:
        ApiError: 400, the body is empty, not JSON, a field has another type or is not offered here.
    """
    value = _read_json(body)
    if not isinstance(value, dict):
        name = "null" if value is None else _JSON_NAMES[type(value)]
        raise ApiError(400, f"json: cannot unmarshal {name} into Go value of type api.{kind}")
    value = {name.lower(): field for name, field in value.items()}
    found = {}
    for name, type_ in fields.items():
        if (field := value.get(name)) is None:
            continue
        if not isinstance(field, type_):
            go_name = "map[string]string" if name == "files" else _GO_NAMES[type_]
            found_name = f"json: cannot unmarshal {_JSON_NAMES[type(field)]} into Go struct field {kind}.{name}"
            raise ApiError(400, f"{found_name} of type {go_name}")
        found[name] = plain(field) if isinstance(field, str) else field
    for name in _ABSENT.get(kind, ()):
        if value.get(name):
            raise ApiError(400, f'"{name}" is not offered by the bundled server; use Ollama')
    found["keep_alive"] = parse_keep_alive(value.get("keep_alive"))
    found["think"] = _parse_think(value.get("think"))
    return found


def _read_json(body: bytes) -> Any:
    # As in Go: what is not UTF-8, and half a surrogate pair, becomes the replacement character.
    text = body.decode("utf-8", errors="replace").lstrip(" \t\r\n")
    if not text:
        raise ApiError(400, "missing request body")
    try:
        return json.JSONDecoder(parse_constant=_refuse_constant).raw_decode(text)[0]
    except RecursionError as error:
        raise ApiError(400, "exceeded max depth") from error
    except json.JSONDecodeError as error:
        shown = text[error.pos : error.pos + 1]
        missed = next((go for said, go in _GO_ERRORS.items() if error.msg.startswith(said)), error.msg)
        at_end = not shown.strip(" \t\r\n") or error.msg.startswith("Unterminated")
        raise ApiError(400, "unexpected EOF" if at_end else f"invalid character {shown!r} {missed}") from error
    except ValueError as error:
        raise ApiError(400, str(error)) from error


def plain(text: str) -> str:
    """Return a text that can be encoded: half a surrogate pair becomes the replacement character."""
    return _SURROGATE.sub("\ufffd", text)


def parse_keep_alive(value: Any) -> float | None:
    """Return seconds, negative for ever, None when nothing was said.

    Raises:
        ApiError: 400, it is neither a number nor a duration such as 10m.
    """
    if value is None:
        return None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return -1.0 if value < 0 else float(min(value, 1e9))
    if not isinstance(value, str):
        raise ApiError(400, f"Unsupported type: '{_GO_NAMES[type(value)]}'")
    sign, digits = (-1.0, value[1:]) if value.startswith("-") else (1.0, value.removeprefix("+"))
    if digits == "0":
        return 0.0
    if re.fullmatch(r"[0-9.]+", digits):
        raise ApiError(400, f'time: missing unit in duration "{value}"')
    parts = _DURATION.findall(digits)
    if not parts or "".join(number + unit for number, unit in parts) != digits:
        raise ApiError(400, f'time: invalid duration "{value}"')
    for _, unit in parts:
        if unit not in _UNITS:
            raise ApiError(400, f'time: unknown unit "{unit}" in duration "{value}"')
    seconds = sign * sum(float(number) * _UNITS[unit] for number, unit in parts)
    return -1.0 if seconds < 0 else min(seconds, 1e9)


def _parse_think(value: Any) -> bool:
    """Return whether the model is to think before it answers.

    Raises:
        ApiError: 400, it is neither a truth value nor a level.
    """
    levels = f"{', '.join(json.dumps(level) for level in _THINK_LEVELS)}, true, or false"
    if value is not None and not isinstance(value, (bool, str)):
        raise ApiError(400, f"think must be a boolean or string ({levels})")
    if isinstance(value, str) and value and value not in _THINK_LEVELS:
        raise ApiError(400, f"invalid think value: {json.dumps(plain(value), ensure_ascii=False)} (must be {levels})")
    return bool(value)


def check_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that are known, in the types that the engine wants; unknown ones and null are left out.

    Raises:
        ApiError: 500, as in Ollama: an option has another type.
    """
    known = {name: value for name, value in options.items() if value is not None}
    found: dict[str, Any] = {}
    for name, value in known.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _LARGEST
        if name in _INTEGERS:
            found[name] = int(_must(number, name, "of type integer") and value)
        elif name in _FLOATS:
            found[name] = float(_must(number, name, "of type float32") and value)
        elif name == "use_mmap":
            _must(isinstance(value, bool), name, "of type boolean")
        elif name == "stop":
            _must(isinstance(value, list), name, "of type array")
            _must(all(isinstance(item, str) for item in value), name, "of an array of strings")
            found[name] = [plain(item) for item in value if item]
    return found


def _must(holds: bool, name: str, kind: str) -> bool:  # noqa: FBT001 - what has to hold
    if not holds:
        raise ApiError(500, f'option "{name}" must be {kind}')
    return True


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"invalid character {name[0]!r} looking for beginning of value")
