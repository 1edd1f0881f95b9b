"""Reading a template: actions into nodes."""

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

from titlegen.template.functions import LEAST_ARGUMENTS
from titlegen.template.nodes import Block, Call, Node, Statement, TemplateError, Text, Value

_MAX_CHARS = 100_000
_MAX_DEPTH = 40
_OPEN = re.compile(r"\{\{(-(?=\s))?")
# An action up to its end, whose braces may stand in a text or a remark, too.
_ACTION = re.compile(r"""((?:/\*.*?\*/|"(?:[^"\\\n]|\\.)*"|`[^`]*`|(?!\}\}).)*?)((?<=\s)-)?\}\}""", re.DOTALL)
_FIELDS = r"(?:\.[A-Za-z_]\w*)"
_TOKEN = re.compile(
    rf"""\s+|(?P<string>"(?:[^"\\\n]|\\.)*"|`[^`]*`)|(?P<number>-?\d+)(?![\w.])|(?P<variable>\$\w*{_FIELDS}*)"""
    rf"""|(?P<field>{_FIELDS}+)|(?P<close>\){_FIELDS}*)|(?P<word>[A-Za-z_]\w*)|(?P<sign>:=|=|\||\(|,|\.)"""
)
_Kind = Literal["if", "with", "range"]
_BLOCKS: dict[str, _Kind] = {"if": "if", "with": "with", "range": "range"}
_KEYWORDS = frozenset({"if", "else", "end", "range", "with", "define", "template", "block", "break", "continue"})
_LITERALS = {"true": True, "false": False, "nil": None}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\"}
_MESSAGES = "Messages"
# What a trim marker takes away.
_SPACE = " \t\r\n"


class _Token(NamedTuple):
    kind: str
    text: str


class _Open(NamedTuple):
    """A block whose end is still to come."""

    block: Block
    in_other: bool
    shares_end: bool
    """Whether the end of this block is that of the block around it: ``else if``."""


class Parser:
    """Parses a template; ``nodes`` is its content."""

    def __init__(self, text: str) -> None:
        """Read it.

        Raises:
            TemplateError: it is no template, or uses what is not known here.
        """
        if len(text) > _MAX_CHARS:
            raise TemplateError(f"{len(text)} characters are too many")
        self.nodes: list[Node] = []
        self.uses_messages = False
        self._open: list[_Open] = []
        # Variables that are known, block by block; $ is all values.
        self._known: list[set[str]] = [{"$"}]
        position, trim_left = 0, False
        while opening := _OPEN.search(text, position):
            literal = text[position : opening.start()]
            literal = literal.lstrip(_SPACE) if trim_left else literal
            self._add(Text(literal.rstrip(_SPACE) if opening[1] else literal))
            action = _ACTION.match(text, opening.end())
            if action is None:
                raise TemplateError("unclosed action")
            self._read(action[1].strip())
            position, trim_left = action.end(), bool(action[2])
        if self._open:
            raise TemplateError("unexpected EOF")
        rest = text[position:]
        self._add(Text(rest.lstrip(_SPACE) if trim_left else rest))

    def _add(self, node: Node) -> None:
        target = self.nodes
        if self._open:
            block, in_other, _ = self._open[-1]
            target = block.other if in_other else block.body
        target.append(node)

    def _read(self, action: str) -> None:
        if action.startswith("/*") and action.endswith("*/"):
            return
        tokens = _tokens(action)
        if not tokens:
            raise TemplateError("missing value for command")
        word = tokens[0].text if tokens[0].kind == "word" else ""
        if word in _BLOCKS:
            self._begin(_BLOCKS[word], tokens[1:], shares_end=False)
        elif word == "end" and len(tokens) == 1 and self._open:
            while self._close().shares_end:
                pass
        elif word == "else" and self._open and not self._open[-1].in_other and tokens[1:2] in ([], [("word", "if")]):
            self._open[-1] = self._open[-1]._replace(in_other=True)
            self._known[-1] = set()
            if len(tokens) > 1:
                self._begin("if", tokens[2:], shares_end=True)
        elif word in _KEYWORDS:
            raise TemplateError(f"unexpected {{{{{action}}}}}")
        else:
            self._add(self._statement(tokens))

    def _statement(self, tokens: Sequence[_Token]) -> Statement:
        names, declares, rest = _assignment(tokens, most=1)
        call = self._pipeline(rest)
        if declares:
            self._known[-1].update(names)
        for name in names:
            self._check(name)
        return Statement(call, names[0] if names else None, declares=declares)

    def _begin(self, kind: _Kind, tokens: Sequence[_Token], *, shares_end: bool) -> None:
        if len(self._open) == _MAX_DEPTH:
            raise TemplateError("blocks are nested too deeply")
        names, declares, rest = _assignment(tokens, most=2 if kind == "range" else 0)
        block = Block(kind, self._pipeline(rest), names)
        if names and not declares:
            raise TemplateError("a range declares its variables")
        self._add(block)
        self._open.append(_Open(block, in_other=False, shares_end=shares_end))
        self._known.append(set(names))

    def _close(self) -> _Open:
        self._known.pop()
        return self._open.pop()

    def _pipeline(self, tokens: Sequence[_Token]) -> Call:
        pipeline = _Pipeline(tokens)
        call = pipeline.read()
        if pipeline.rest:
            raise TemplateError(f"unexpected {pipeline.rest[0].text!r} in command")
        for name in pipeline.variables:
            self._check(name)
        self.uses_messages |= pipeline.uses_messages
        return call

    def _check(self, name: str) -> None:
        if not any(name in names for names in self._known):
            raise TemplateError(f"undefined variable {name!r}")


class _Pipeline:
    """Reads commands, each of which is the last argument of the next."""

    def __init__(self, tokens: Sequence[_Token]) -> None:
        self.rest = list(tokens)
        self.variables: set[str] = set()
        self.uses_messages = False
        self._depth = 0

    def read(self) -> Call:
        call = self._command(())
        while self._next() == ("sign", "|"):
            self.rest.pop(0)
            call = self._command((Value(call=call),))
        return call

    def _next(self) -> _Token:
        return self.rest[0] if self.rest else _Token("end", "")

    def _command(self, piped: tuple[Value, ...]) -> Call:
        if self._next().kind in {"end", "close"} or self._next() == ("sign", "|"):
            raise TemplateError("missing value for command")
        name = None
        if self._next().kind == "word" and self._next().text not in _LITERALS:
            name = self.rest.pop(0).text
            if name not in LEAST_ARGUMENTS:
                # Go knows some of these; they are not implemented here.
                raise TemplateError(f'function "{name}" not defined')
        arguments: list[Value] = []
        while self._next().kind not in {"end", "close"} and self._next() != ("sign", "|"):
            arguments.append(self._operand())
        arguments += piped
        if name is None and len(arguments) != 1:
            raise TemplateError("can't give argument to non-function")
        if name is not None and len(arguments) < LEAST_ARGUMENTS[name]:
            raise TemplateError(f"wrong number of args for {name}: got {len(arguments)}")
        return Call(name, tuple(arguments))

    def _operand(self) -> Value:
        kind, text = self.rest.pop(0)
        if kind == "string":
            return Value(literal=_unquote(text), is_literal=True)
        if kind == "number":
            return Value(literal=int(text), is_literal=True)
        if kind == "word" and text in _LITERALS:
            return Value(literal=_LITERALS[text], is_literal=True)
        if (kind, text) == ("sign", "."):
            return Value()
        if (kind, text) == ("sign", "("):
            return self._in_brackets()
        if kind not in {"field", "variable"}:
            raise TemplateError(f"{text[:20]!r} is not supported by the bundled server; use Ollama")
        first, *fields = text.split(".")
        self.uses_messages |= fields[:1] == [_MESSAGES]
        if kind == "variable":
            self.variables.add(first)
        return Value(variable=first if kind == "variable" else None, fields=tuple(fields))

    def _in_brackets(self) -> Value:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise TemplateError("brackets are nested too deeply")
        call = self.read()
        self._depth -= 1
        if self._next().kind != "close":
            raise TemplateError("unclosed left paren")
        _, *fields = self.rest.pop(0).text.split(".")
        return Value(call=call, fields=tuple(fields))


def _tokens(action: str) -> list[_Token]:
    tokens, position = [], 0
    while position < len(action):
        match = _TOKEN.match(action, position)
        if match is None:
            raise TemplateError(f"{action[position:][:20]!r} is not supported by the bundled server; use Ollama")
        if match.lastgroup is not None:
            tokens.append(_Token(match.lastgroup, match[0]))
        position = match.end()
    return tokens


def _assignment(tokens: Sequence[_Token], most: int) -> tuple[tuple[str, ...], bool, Sequence[_Token]]:
    """Return the variables in front of ``:=`` or ``=``, whether they are new, and what is behind it."""
    at = next((i for i, token in enumerate(tokens) if token in {("sign", ":="), ("sign", "=")}), None)
    if at is None:
        return (), False, tokens
    head = tokens[:at]
    names = tuple(token.text for token in head[::2])
    plain = all(token.kind == "variable" and "." not in token.text and token.text != "$" for token in head[::2])
    if not plain or not 0 < len(names) <= most or any(token != ("sign", ",") for token in head[1::2]):
        raise TemplateError(f"unexpected {tokens[at].text!r} in command")
    return names, tokens[at].text == ":=", tokens[at + 1 :]


def _unquote(text: str) -> str:
    if text[0] == "`":
        return text[1:-1]
    return re.sub(r"\\(.)", _unescape, text[1:-1], flags=re.DOTALL)


def _unescape(match: re.Match[str]) -> str:
    if match[1] not in _ESCAPES:
        raise TemplateError(f"unknown escape {match[0]!r}")
    return _ESCAPES[match[1]]
