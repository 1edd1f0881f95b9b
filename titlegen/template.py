"""The part of Go's text/template that a TEMPLATE for one prompt needs: fields, ``if`` and ``else``.

What is left out is refused when the template is read, never rendered otherwise than Ollama would.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

_MAX_CHARS = 100_000
_MAX_DEPTH = 40
_ACTION = re.compile(r"\{\{(-(?=\s))?(.*?)((?<=\s)-)?\}\}", re.DOTALL)
_FIELD = re.compile(r"\.[A-Za-z_]\w*")
_WORD = re.compile(r"[A-Za-z_]\w*")
_RESPONSE = "Response"


class TemplateError(ValueError):
    """The template cannot be read, or uses what is not known here; the text is Ollama's."""

    def __init__(self, text: str) -> None:
        super().__init__(f"template: :1: {text}")


@dataclass(frozen=True)
class _Node:
    """Text, a field, or an ``if`` over a field with both its branches."""

    text: str = ""
    field: str = ""
    branches: tuple[list["_Node"], list["_Node"]] | None = None


class Template:
    """A TEMPLATE that was read."""

    def __init__(self, text: str) -> None:
        """Read it.

        Raises:
            TemplateError: it is no template, or uses more than fields and ``if``.
        """
        if len(text) > _MAX_CHARS:
            raise TemplateError(f"{len(text)} characters are too many")
        self._nodes: list[_Node] = []
        # The lists that nodes are added to, the innermost block's last; and each block's other branch.
        self._open: list[list[_Node]] = [self._nodes]
        self._others: list[list[_Node] | None] = []
        position, trim_left = 0, False
        for match in _ACTION.finditer(text):
            literal = text[position : match.start()]
            literal = literal.lstrip() if trim_left else literal
            self._add(_Node(literal.rstrip() if match[1] else literal))
            self._read(match[2].strip())
            position, trim_left = match.end(), bool(match[3])
        rest = text[position:]
        if "{{" in rest:
            raise TemplateError("unclosed action")
        if self._others:
            raise TemplateError("unexpected EOF")
        self._add(_Node(rest.lstrip() if trim_left else rest))

    def render(self, values: Mapping[str, str]) -> str:
        """Render up to where the model goes on, at ``.Response`` or at the end.

        Args:
            values: of the fields, such as ``System`` and ``Prompt``.
        """
        output: list[str] = []
        _render(self._nodes, values, output)
        return "".join(output)

    def _add(self, node: _Node) -> None:
        self._open[-1].append(node)

    def _read(self, action: str) -> None:
        word, _, rest = action.partition(" ")
        if action.startswith("/*") and action.endswith("*/"):
            return
        if word == "if":
            if len(self._others) == _MAX_DEPTH:
                raise TemplateError("blocks are nested too deeply")
            body: list[_Node] = []
            other: list[_Node] = []
            self._add(_Node(field=_field(rest), branches=(body, other)))
            self._open.append(body)
            self._others.append(other)
        elif action == "end" and self._others:
            self._open.pop()
            self._others.pop()
        elif action == "else" and self._others and (unread := self._others[-1]) is not None:
            self._open[-1], self._others[-1] = unread, None
        elif word in {"end", "else"}:
            raise TemplateError(f"unexpected {{{{{action}}}}}")
        else:
            self._add(_Node(field=_field(action)))


def _field(text: str) -> str:
    text = text.strip()
    if _FIELD.fullmatch(text):
        return text[1:]
    if not text:
        raise TemplateError("missing value for command")
    if word := _WORD.match(text):
        # Go knows some of these; what they would render is not known here.
        raise TemplateError(f'function "{word[0]}" not defined')
    raise TemplateError(f"{text[:20]!r} is not supported by the bundled server; use Ollama")


def _render(nodes: list[_Node], values: Mapping[str, str], output: list[str]) -> bool:
    """Add what nodes render; returns whether to go on, not after ``.Response``."""
    for node in nodes:
        if node.branches is not None:
            if not _render(node.branches[0 if values.get(node.field) else 1], values, output):
                return False
        elif node.field == _RESPONSE:
            return False
        else:
            output.append(values.get(node.field, "<no value>") if node.field else node.text)
    return True
