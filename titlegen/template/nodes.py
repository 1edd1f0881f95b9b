"""The nodes of a parsed template."""

from dataclasses import dataclass, field
from typing import Literal


class TemplateError(ValueError):
    """The template cannot be read, or uses what is not known here; the text is Ollama's."""

    def __init__(self, text: str) -> None:
        super().__init__(f"template: :1: {text}")


@dataclass(frozen=True)
class Value:
    """A literal; or the fields of the dot, of a variable, or of what a call in brackets returns."""

    literal: object = None
    is_literal: bool = False
    variable: str | None = None
    call: "Call | None" = None
    fields: tuple[str, ...] = ()


@dataclass(frozen=True)
class Call:
    """A function with its arguments; without a name, its one argument."""

    name: str | None
    arguments: tuple[Value, ...]


@dataclass(frozen=True)
class Text:
    """The text outside of the actions."""

    text: str


@dataclass(frozen=True)
class Statement:
    """A value that is shown, or kept in a variable."""

    call: Call
    variable: str | None = None
    declares: bool = False
    """Whether the variable is a new one, of this block."""


@dataclass(frozen=True)
class Block:
    """An ``if``, ``with`` or ``range`` with both its branches."""

    kind: Literal["if", "with", "range"]
    call: Call
    variables: tuple[str, ...] = ()
    """Of a range: the place and the item, or the item alone."""
    body: list["Node"] = field(default_factory=list)
    other: list["Node"] = field(default_factory=list)


Node = Text | Statement | Block
