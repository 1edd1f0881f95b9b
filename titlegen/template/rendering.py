"""Rendering a template that was read."""

from collections.abc import Mapping, Sequence
from functools import partial

from titlegen.template import functions
from titlegen.template.nodes import Block, Call, Node, Statement, TemplateError, Text, Value

# Nodes and calls of one rendering: ranges inside of ranges would otherwise take for ever.
_MAX_STEPS = 100_000
_RESPONSE = Call(None, (Value(fields=("Response",)),))


class Rendering:
    """One pass over the nodes; ``output`` is the rendered text."""

    def __init__(self, values: Mapping[str, object], *, stops: bool) -> None:
        """Take the values of the fields, and whether ``.Response`` ends it."""
        self.output: list[str] = []
        self._stops = stops
        self._steps = 0
        self._scopes: list[dict[str, object]] = [{"$": values}]

    def run(self, nodes: Sequence[Node], dot: object) -> bool:
        """Render nodes; returns whether to go on.

        Raises:
            TemplateError: a value is not of the kind that the template takes it for, or it takes too many steps.
        """
        for node in nodes:
            self._count()
            if isinstance(node, Text):
                self.output.append(node.text)
            elif isinstance(node, Block):
                if not self._block(node, dot):
                    return False
            elif self._stops and node.call == _RESPONSE and node.variable is None:
                return False
            else:
                self._statement(node, dot)
        return True

    def _statement(self, node: Statement, dot: object) -> None:
        value = self._call(node.call, dot)
        if node.variable is None:
            self.output.append(functions.shown(value))
            return
        scopes = reversed(self._scopes)
        scope = self._scopes[-1] if node.declares else next(found for found in scopes if node.variable in found)
        scope[node.variable] = value

    def _block(self, node: Block, dot: object) -> bool:
        value = self._call(node.call, dot)
        if node.kind != "range":
            chosen = functions.is_true(value)
            return self._scoped(node.body if chosen else node.other, value if chosen and node.kind == "with" else dot)
        if value is not None and not isinstance(value, list):
            raise TemplateError(f"range can't iterate over {type(value).__name__}")
        if not value:
            return self._scoped(node.other, dot)
        for place, item in enumerate(value):
            given = (place, item)[-len(node.variables) :] if node.variables else ()
            if not self._scoped(node.body, item, dict(zip(node.variables, given, strict=True))):
                return False
        return True

    def _scoped(self, nodes: Sequence[Node], dot: object, variables: dict[str, object] | None = None) -> bool:
        self._scopes.append(variables or {})
        goes_on = self.run(nodes, dot)
        self._scopes.pop()
        return goes_on

    def _call(self, call: Call, dot: object) -> object:
        self._count()
        if call.name is None:
            return self._value(call.arguments[0], dot)
        return functions.call(call.name, [partial(self._value, value, dot) for value in call.arguments])

    def _value(self, value: Value, dot: object) -> object:
        if value.is_literal:
            return value.literal
        found = dot
        if value.call is not None:
            found = self._call(value.call, dot)
        elif value.variable is not None:
            found = next(scope[value.variable] for scope in reversed(self._scopes) if value.variable in scope)
        for name in value.fields:
            found = self._field(found, name)
        return found

    def _field(self, holder: object, name: str) -> object:
        if not isinstance(holder, Mapping):
            raise TemplateError(f"can't evaluate field {name} in type {type(holder).__name__}")
        # Ollama's values are a map, in which what is missing has no value; its messages are not.
        if name not in holder and holder is not self._scopes[0]["$"]:
            raise TemplateError(f"can't evaluate field {name} in a message")
        return holder.get(name)

    def _count(self) -> None:
        self._steps += 1
        if self._steps > _MAX_STEPS:
            raise TemplateError("the template takes too many steps")
