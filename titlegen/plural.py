"""Counts with their nouns, as people write them."""


def count(number: int, noun: str) -> str:
    """Return a number with its noun: ``1 article``, ``1,200 articles``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
