"""The part of Go's text/template that Ollama's TEMPLATE lines use: fields, if, range, comparisons."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_MAX_CHARS = 100_000
_MAX_DEPTH = 40
_ACTION = re.compile(r"\{\{(-(?=\s))?(.*?)((?<=\s)-)?\}\}", re.DOTALL)
_TOKEN = re.compile(r'\s*(\$?(?:\.[A-Za-z_]\w*)+|\$|\.|"(?:[^"\\\n]|\\.)*"|`[^`]*`|-?\d+|[A-Za-z_]\w*|[()])')
_ESCAPES = {"n": "\n", "t": "\t", '"': '"', "\\": "\\"}
_FUNCTIONS: dict[str, Callable[[list[Any]], Any]] = {
    "eq": lambda values: values[0] in values[1:],
    "ne": lambda values: values[0] != values[1],
    "and": lambda values: next((value for value in values if not value), values[-1]),
    "or": lambda values: next((value for value in values if value), values[-1]),
    "not": lambda values: not values[0],
    "len": lambda values: len(values[0]) if isinstance(values[0], (str, list)) else 0,
}


class TemplateError(ValueError):
    """The template cannot be parsed, or uses what the offline server does not know."""

    def __init__(self, text: str) -> None:
        super().__init__(f"template error: template: :1: {text}")


@dataclass(frozen=True)
class _Call:
    """A field (``path``), a literal, or a function with its arguments."""

    function: str
    arguments: tuple["_Call", ...] = ()
    value: Any = None


@dataclass(frozen=True)
class _Node:
    """Text, an action, or a block with a body and an else branch."""

    kind: str
    text: str = ""
    call: _Call | None = None
    body: tuple["_Node", ...] = ()
    other: tuple["_Node", ...] = ()


class Template:
    """A parsed TEMPLATE."""

    def __init__(self, text: str) -> None:
        """Parse.

        Raises:
            TemplateError: the template is not one.
        """
        if len(text) > _MAX_CHARS:
            raise TemplateError(f"{len(text)} characters are too many")
        self._nodes = _Parser(text).parse()
        self._uses_messages = _uses(self._nodes, "Messages")
        if not self._uses_messages and not _uses(self._nodes, "Response"):
            self._nodes = (*self._nodes, _Node("action", call=_Call("field", value=("Response",))))

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Render a conversation up to where the model has to go on.

        Messages are mappings with ``role`` (system, user, assistant) and ``content``. A template without
        ``.Messages`` is rendered once a turn, the last time only up to ``.Response``, as Ollama does it.
        """
        merged = _merge(messages)
        system = "\n\n".join(message["Content"] for message in merged if message["Role"] == "system")
        if self._uses_messages:
            return _execute(self._nodes, {"System": system, "Messages": merged, "Response": ""})
        turns: list[str] = []
        turn = {"System": "", "Prompt": "", "Response": ""}
        for message in merged:
            role = message["Role"]
            if turn["Response"] or (role == "system" and turn["Prompt"]):
                turns.append(_execute(self._nodes, turn))
                turn = {"System": "", "Prompt": "", "Response": ""}
            turn[{"system": "System", "assistant": "Response"}.get(role, "Prompt")] = message["Content"]
        return "".join(turns) + _execute(_cut(self._nodes)[0], turn)


def _merge(messages: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    merged: list[dict[str, str]] = []
    for message in messages:
        if merged and merged[-1]["Role"] == message["role"]:
            merged[-1]["Content"] += "\n\n" + message["content"]
        else:
            merged.append({"Role": message["role"], "Content": message["content"]})
    return merged


class _Parser:
    def __init__(self, text: str) -> None:
        self._pieces: list[tuple[str, str]] = []
        position, trim_left = 0, False
        for match in _ACTION.finditer(text):
            literal = text[position : match.start()]
            literal = literal.lstrip() if trim_left else literal
            self._add_text(literal.rstrip() if match[1] else literal)
            action = match[2].strip()
            if not (action.startswith("/*") and action.endswith("*/")):
                self._pieces.append(("action", action))
            position, trim_left = match.end(), bool(match[3])
        rest = text[position:]
        if "{{" in rest:
            raise TemplateError("unclosed action")
        self._add_text(rest.lstrip() if trim_left else rest)
        self._next = 0

    def _add_text(self, text: str) -> None:
        if text:
            self._pieces.append(("text", text))

    def parse(self) -> tuple[_Node, ...]:
        nodes, end = self._block(0)
        if end:
            raise TemplateError(f"unexpected {{{{{end}}}}}")
        return nodes

    def _block(self, depth: int) -> tuple[tuple[_Node, ...], str]:
        """Parse up to the end of a block; returns its nodes and the action that ended it, empty at the text's end."""
        if depth > _MAX_DEPTH:
            raise TemplateError("blocks are nested too deeply")
        nodes: list[_Node] = []
        while self._next < len(self._pieces):
            kind, text = self._pieces[self._next]
            self._next += 1
            word, _, rest = text.partition(" ")
            if kind == "text":
                nodes.append(_Node("text", text))
            elif word in {"if", "range"}:
                nodes.append(self._control(word, rest, depth))
            elif word in {"end", "else"}:
                return tuple(nodes), text
            else:
                nodes.append(_Node("action", call=_parse_call(text)))
        return tuple(nodes), ""

    def _control(self, word: str, condition: str, depth: int) -> _Node:
        call = _parse_call(condition)
        body, end = self._block(depth + 1)
        other: tuple[_Node, ...] = ()
        if end.startswith("else if ") and word == "if":
            other = (self._control("if", end.removeprefix("else if "), depth + 1),)
            return _Node("if", call=call, body=body, other=other)
        if end == "else":
            other, end = self._block(depth + 1)
        if end != "end":
            raise TemplateError("unexpected EOF" if not end else f"unexpected {{{{{end}}}}}")
        return _Node(word, call=call, body=body, other=other)


def _parse_call(text: str) -> _Call:
    tokens: list[str] = []
    position = 0
    text = text.strip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise TemplateError(f"{text[position : position + 20]!r} is not supported by the offline server")
        tokens.append(match[1])
        position = match.end()
    if not tokens:
        raise TemplateError("missing value for command")
    call = _command(tokens, 0)
    if tokens:
        raise TemplateError(f"unexpected {tokens[0]!r} in command")
    return call


def _command(tokens: list[str], depth: int) -> _Call:
    if depth > _MAX_DEPTH:
        raise TemplateError("parentheses are nested too deeply")
    if tokens and tokens[0] in _FUNCTIONS:
        function = tokens.pop(0)
        arguments = []
        while tokens and tokens[0] != ")":
            arguments.append(_operand(tokens, depth))
        if len(arguments) < (2 if function in {"eq", "ne"} else 1):
            raise TemplateError(f"wrong number of args for {function}")
        return _Call(function, tuple(arguments))
    return _operand(tokens, depth)


def _operand(tokens: list[str], depth: int) -> _Call:
    if not tokens:
        raise TemplateError("missing value for command")
    word = tokens.pop(0)
    if word == "(":
        call = _command(tokens, depth + 1)
        if not tokens or tokens.pop(0) != ")":
            raise TemplateError("unclosed left paren")
        return call
    if word[0] == "`":
        return _Call("literal", value=word[1:-1])
    if word[0] == '"':
        return _Call("literal", value=re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[0]), word[1:-1]))
    if word in {"true", "false"}:
        return _Call("literal", value=word == "true")
    if word.lstrip("-").isdigit():
        return _Call("literal", value=int(word))
    if word[0] in ".$":
        names = tuple(name for name in word.lstrip("$").split(".") if name)
        return _Call("root" if word[0] == "$" else "field", value=names)
    raise TemplateError(f'function "{word}" not defined')


def _execute(nodes: Sequence[_Node], root: Any) -> str:
    return "".join(_run(nodes, root, root))


def _run(nodes: Sequence[_Node], root: Any, dot: Any) -> list[str]:
    output: list[str] = []
    for node in nodes:
        if node.call is None:
            output.append(node.text)
            continue
        value = _evaluate(node.call, root, dot)
        if node.kind == "action":
            output.append(_print(value))
        elif node.kind == "if":
            output += _run(node.body if value else node.other, root, dot)
        elif isinstance(value, list) and value:
            for item in value:
                output += _run(node.body, root, item)
        else:
            output += _run(node.other, root, dot)
    return output


def _evaluate(call: _Call, root: Any, dot: Any) -> Any:
    if call.function == "literal":
        return call.value
    if call.function in {"field", "root"}:
        value = root if call.function == "root" else dot
        for name in call.value:
            value = value.get(name) if isinstance(value, Mapping) else None
        return value
    values = [_evaluate(argument, root, dot) for argument in call.arguments]
    return _FUNCTIONS[call.function](values)


def _print(value: Any) -> str:
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


def _uses(nodes: Sequence[_Node], field: str) -> bool:
    return any(
        (node.call is not None and _mentions(node.call, field)) or _uses(node.body, field) or _uses(node.other, field)
        for node in nodes
    )


def _mentions(call: _Call, field: str) -> bool:
    named = call.function in {"field", "root"} and field in call.value
    return named or any(_mentions(argument, field) for argument in call.arguments)


def _cut(nodes: Sequence[_Node]) -> tuple[tuple[_Node, ...], bool]:
    """Return the nodes before the first ``{{ .Response }}``, and whether there was one."""
    kept: list[_Node] = []
    for node in nodes:
        if node.kind == "action" and node.call is not None and _mentions(node.call, "Response"):
            return tuple(kept), True
        body, found = _cut(node.body)
        other, found_other = _cut(node.other) if not found else ((), False)
        kept.append(_Node(node.kind, node.text, node.call, body, other))
        if found or found_other:
            return tuple(kept), True
    return tuple(kept), False
