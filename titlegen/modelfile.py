"""Modelfiles: written for a model with the prompt that it was trained on, and read, whoever wrote them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from titlegen.encodings import read_at_most
from titlegen.errors import ConfigError
from titlegen.prompt import SYSTEM, PromptFormat
from titlegen.settings import ServeSettings

_TRIPLE = '"""'
_UNSAFE = re.compile(r"[\x00-\x1f\x7f]")
_MAX_BYTES = 2**20
_COMMAND = re.compile(r"(?P<name>[A-Za-z]+)[ \t]+(?P<value>.*)", re.DOTALL)
_PARAMETER = re.compile(r"(?P<name>\w+)\s+(?P<value>.*)", re.DOTALL)
# The instruction that replaces TEMPLATE with a prompt of Ollama's own.
_OWN_PROMPT = "RENDERER"


def render_modelfile(source: str, settings: ServeSettings, prompt: PromptFormat, system: str = SYSTEM) -> str:
    """Return the Modelfile for a source, with the prompt that the model was trained on.

    Raises:
        ConfigError: a value would end its own quotes.
    """
    if _UNSAFE.search(source) or source != source.strip() or not source:
        raise ConfigError(f"FROM cannot name {source!r}; give a path or a model name without control characters")
    lines = [
        f"FROM {source}",
        f"TEMPLATE {_quote('the template', prompt.template)}",
        f"SYSTEM {_quote('the system text', system)}",
    ]
    for name, value in prompt.parameters(settings.temperature, settings.num_ctx, settings.num_predict).items():
        lines += [f"PARAMETER {name} {_plain(item)}" for item in (value if isinstance(value, list) else [value])]
    return "\n".join(lines) + "\n"


def _quote(what: str, text: str) -> str:
    """Return a value in the quotes of a Modelfile, in which no character has another meaning but the quotes."""
    if _TRIPLE in text or "\x00" in text:
        raise ConfigError(f'{what} holds """ or a null byte, which a Modelfile cannot hold; take it out')
    if text.endswith('"'):
        raise ConfigError(f"{what} ends in a quotation mark, which a Modelfile takes for its own; take it out")
    return f"{_TRIPLE}{text}{_TRIPLE}"


def _plain(value: object) -> str:
    text = str(value)
    if _UNSAFE.search(text) or '"' in text or text != text.strip():
        raise ConfigError(f"a Modelfile parameter cannot be {text!r}; take quotes and control characters out")
    return text


@dataclass(frozen=True)
class Modelfile:
    """What a Modelfile says about the prompt."""

    template: str | None
    system: str
    stops: tuple[str, ...]
    renderer: str | None


def read_modelfile(path: Path) -> Modelfile:
    """Read a Modelfile as Ollama does.

    Raises:
        ConfigError: it cannot be read, or is none.
    """
    try:
        raw = read_at_most(path, _MAX_BYTES)
    except OSError as error:
        raise ConfigError(f"--modelfile {path} cannot be read: {error.strerror}; correct the path") from error
    if len(raw) > _MAX_BYTES:
        raise ConfigError(f"--modelfile {path} has more than {_MAX_BYTES} bytes; no Modelfile is so large, give one")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"--modelfile {path} is no UTF-8 text; give a Modelfile") from error
    commands = list(_commands(text.replace("\r\n", "\n"), path))
    if "FROM" not in {name for name, _ in commands}:
        raise ConfigError(f"--modelfile {path} has no FROM line; give a Modelfile")
    # The last one of a kind counts.
    last = dict(commands)
    parameters = [match for name, value in commands if name == "PARAMETER" and (match := _PARAMETER.fullmatch(value))]
    stops = tuple(_unquoted(match["value"]) for match in parameters if match["name"] == "stop")
    return Modelfile(last.get("TEMPLATE"), last.get("SYSTEM", ""), stops, last.get(_OWN_PROMPT))


def _commands(text: str, path: Path) -> Iterator[tuple[str, str]]:
    """Yield each instruction, in capitals, with its value, which quotes may lead over several lines."""
    lines = iter(text.split("\n"))
    for line in lines:
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _COMMAND.fullmatch(line.strip("\r"))
        if match is None:
            raise ConfigError(f"--modelfile {path}: the line {line[:60]!r} is no instruction; correct it")
        name, value = match["name"].upper(), match["value"].lstrip()
        head, quoted = _parameter_head(value) if name == "PARAMETER" else ("", value)
        for quotes in ('"""', '"'):
            if quoted.startswith(quotes):
                while not (len(quoted) >= 2 * len(quotes) and quoted.rstrip().endswith(quotes)):
                    following = next(lines, None)
                    if following is None:
                        raise ConfigError(f"--modelfile {path}: the quotes of {name} are never closed; close them")
                    quoted += f"\n{following}"
                break
        yield name, head + quoted if head else _unquoted(quoted)


def _parameter_head(value: str) -> tuple[str, str]:
    name, _, rest = value.partition(" ")
    return f"{name} ", rest.lstrip()


def _unquoted(value: str) -> str:
    for quotes in ('"""', '"'):
        trimmed = value.rstrip()
        if len(trimmed) >= 2 * len(quotes) and trimmed.startswith(quotes) and trimmed.endswith(quotes):
            return trimmed[len(quotes) : -len(quotes)]
    return value.strip()
