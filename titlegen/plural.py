"""Counts and lists as people write them."""

from collections.abc import Sequence


def count(number: int, noun: str) -> str:
    """Return a number with its noun: ``1 article``, ``1,200 articles``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def listed(names: Sequence[str], most: int, separator: str = ", ") -> str:
    """Return the first names, and how many more there are: ``a, b and 3 more``."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return separator.join(names[:most]) + more


def shortened(text: str, chars: int) -> str:
    """Return a text, or its first characters with an ellipsis behind them."""
    return text if len(text) <= chars else f"{text[:chars]}…"
