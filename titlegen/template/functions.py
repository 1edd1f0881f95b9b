"""Functions of Go's templates that compare and count, and how values are shown."""

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from titlegen.template.nodes import TemplateError

_NO_VALUE = "<no value>"
# How many arguments each takes at least.
LEAST_ARGUMENTS = {
    "and": 1,
    "or": 1,
    "not": 1,
    "eq": 2,
    "ne": 2,
    "lt": 2,
    "le": 2,
    "gt": 2,
    "ge": 2,
    "len": 1,
    "slice": 1,
    "index": 1,
}


def is_true(value: object) -> bool:
    """Return whether a value counts as true: not false, zero, empty or missing."""
    return bool(value)


def shown(value: object) -> str:
    """Return how a value is printed.

    Raises:
        TemplateError: it is a list or a map, whose form is not known here.
    """
    if value is None:
        return _NO_VALUE
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int):
        return str(value)
    raise TemplateError(f"can't show a value of type {type(value).__name__}")


def call(name: str, arguments: Sequence[Callable[[], object]]) -> object:
    """Return a function's value; its arguments are evaluated when they are needed.

    Raises:
        TemplateError: an argument is not of a kind that it takes.
    """
    if name in {"and", "or"}:
        result = None
        for argument in arguments:
            result = argument()
            if is_true(result) is (name == "or"):
                break
        return result
    values = [argument() for argument in arguments]
    if name == "not":
        return not is_true(values[0])
    if name in {"eq", "ne"}:
        equal = any(_same(values[0], other) for other in values[1:])
        return equal if name == "eq" else not equal
    if name in {"lt", "le", "gt", "ge"}:
        return _ordered(name, values[0], values[1])
    first, *places = values
    if name == "len":
        if not isinstance(first, str | list | Mapping):
            raise TemplateError(f"len of type {type(first).__name__}")
        # Go counts bytes.
        return len(first.encode()) if isinstance(first, str) else len(first)
    return _part(name, first, places)


def _same(one: object, other: object) -> bool:
    if type(one) is not type(other) and None not in {one, other}:
        raise TemplateError("incompatible types for comparison")
    if isinstance(one, list | Mapping):
        raise TemplateError("non-comparable type")
    return bool(one == other)


def _ordered(name: str, one: object, other: object) -> bool:
    compare: Callable[[Any, Any], bool] = getattr(operator, name)
    if type(one) is not type(other) or not isinstance(one, str | int) or isinstance(one, bool):
        raise TemplateError("incompatible types for comparison")
    return compare(one, other)


def _part(name: str, whole: object, places: Sequence[object]) -> object:
    """Return a slice, or an item, of a list or text."""
    numbers = [place for place in places if isinstance(place, int) and not isinstance(place, bool)]
    if not isinstance(whole, str | list) or len(numbers) < len(places):
        raise TemplateError(f"{name} of type {type(whole).__name__}")
    if any(not 0 <= place <= len(whole) for place in numbers):
        raise TemplateError(f"{name}: index out of range")
    if name == "slice":
        first, last = [*numbers, *(0, len(whole))[len(places) :]][:2]
        return whole[first:last]
    for place in numbers:
        if not isinstance(whole, list) or place >= len(whole):
            raise TemplateError("index: index out of range")
        whole = whole[place]
    return whole
