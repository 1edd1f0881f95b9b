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

GENERATE = {
    "model": str,
    "prompt": str,
    "suffix": str,
    "system": str,
    "template": str,
    "context": list,
    "stream": bool,
    "raw": bool,
    "truncate": bool,
    "options": dict,
    "logprobs": bool,
    "top_logprobs": int,
    "images": list,
    "_debug_render_only": bool,
}
CHAT = {
    "model": str,
    "messages": list,
    "stream": bool,
    "truncate": bool,
    "options": dict,
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

# Source: Ollama's api.Options; the names in its messages are Go's.
_INTEGERS = {"num_predict", "num_ctx", "num_keep", "num_batch", "num_gpu", "num_thread", "main_gpu"}
_INTEGERS |= {"top_k", "seed", "repeat_last_n"}
# Source: Go's int; larger ones do not fit.
_LARGEST = 2.0**63
_FLOATS = {"temperature", "top_p", "min_p", "typical_p", "repeat_penalty", "presence_penalty", "frequency_penalty"}

# Source: Go's time.ParseDuration.
_DURATION = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


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

    Raises:
        ApiError: 400, the body is empty, not JSON, or a field has another type.
    """
    if not body.strip():
        raise ApiError(400, "missing request body")
    try:
        # As in Go: what is not UTF-8, and half a surrogate pair, becomes the replacement character.
        value = json.loads(body.decode("utf-8", errors="replace"), parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ApiError(400, "exceeded max depth") from error
    except json.JSONDecodeError as error:
        at_end = error.pos >= len(error.doc.rstrip())
        shown = error.doc[error.pos : error.pos + 1]
        raise ApiError(400, "unexpected EOF" if at_end else f"invalid character {shown!r}: {error.msg}") from error
    except ValueError as error:
        raise ApiError(400, str(error)) from error
    if not isinstance(value, dict):
        name = "null" if value is None else _JSON_NAMES[type(value)]
        raise ApiError(400, f"json: cannot unmarshal {name} into Go value of type api.{kind}")
    found = {}
    for name, type_ in fields.items():
        if (field := value.get(name)) is None:
            continue
        if not isinstance(field, type_) or (type_ is int and isinstance(field, bool)):
            raise ApiError(
                400,
                f"json: cannot unmarshal {_JSON_NAMES[type(field)]} into Go struct field {kind}.{name} "
                f"of type {_GO_NAMES.get(type_, 'int')}",
            )
        found[name] = plain(field) if isinstance(field, str) else field
    found["keep_alive"] = parse_keep_alive(value.get("keep_alive"))
    found |= {name: value[name] for name in ("think", "format") if value.get(name)}
    if "format" in found:
        # Keys and values of a schema are texts, too.
        found["format"] = json.loads(plain(json.dumps(found["format"], ensure_ascii=False)))
    return found


def plain(text: str) -> str:
    """Return a text that can be encoded: half a surrogate pair becomes the replacement character."""
    return _SURROGATE.sub("\ufffd", text)


def parse_messages(messages: list[Any]) -> list[dict[str, str]]:
    """Return chat messages with their role and content.

    Raises:
        ApiError: 400, one is no message.
    """
    found = []
    for message in messages:
        if not isinstance(message, dict) or not all(isinstance(message.get(k, ""), str) for k in ("role", "content")):
            raise ApiError(400, "json: cannot unmarshal value into Go struct field ChatRequest.messages")
        role = message.get("role", "")
        if role not in {"system", "user", "assistant", "tool"}:
            raise ApiError(400, f'invalid role: {role}, role must be one of ["system", "user", "assistant", "tool"]')
        found.append({"role": role, "content": plain(message.get("content", ""))})
    return found


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
        raise ApiError(400, f"invalid keep_alive: {value!r}")
    sign, digits = (-1.0, value[1:]) if value.startswith("-") else (1.0, value.removeprefix("+"))
    if digits == "0":
        return 0.0
    if re.fullmatch(r"[0-9.]+", digits):
        raise ApiError(400, f'time: missing unit in duration "{value}"')
    parts = _DURATION.findall(digits)
    if not parts or "".join(number + unit for number, unit in parts) != digits:
        raise ApiError(400, f'time: invalid duration "{value}"')
    seconds = sign * sum(float(number) * _UNITS[unit] for number, unit in parts)
    return -1.0 if seconds < 0 else min(seconds, 1e9)


def check_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that are known, in the types that the engine wants; unknown ones are left out.

    Raises:
        ApiError: 500, as in Ollama: an option has another type.
    """
    found: dict[str, Any] = {}
    for name, value in options.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _LARGEST
        if name in _INTEGERS:
            if not number:
                raise ApiError(500, f'option "{name}" must be of type integer')
            found[name] = int(value)
        elif name in _FLOATS:
            if not number:
                raise ApiError(500, f'option "{name}" must be of type float32')
            found[name] = float(value)
        elif name == "stop":
            if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
                raise ApiError(500, 'option "stop" must be of an array of strings')
            found[name] = [plain(item) for item in value if item]
    return found


def check_format(form: Any) -> None:
    """Check what an answer is to look like: nothing, ``json`` or a JSON schema.

    Raises:
        ApiError: 500, as in Ollama: it is something else, or holds a number that is none.
    """
    if not form or form == "json":
        return
    if not isinstance(form, dict):
        shown = json.dumps(json.dumps(form, ensure_ascii=False), ensure_ascii=False)
        raise ApiError(500, f'invalid format: {shown}; expected "json" or a valid JSON Schema object')
    try:
        json.dumps(form, allow_nan=False)
    except ValueError as error:
        raise ApiError(500, "invalid JSON schema in format") from error


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"invalid character {name[0]!r} looking for beginning of value")
