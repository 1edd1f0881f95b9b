"""The results of merging, converting and verifying."""

from collections.abc import Sequence
from dataclasses import dataclass

from titlegen.results.base import Result


class Merged(Result):
    """Counts of the merged model."""

    tensors: int
    merged_tensors: int
    shards: Sequence[str] = ()
    parameters: int = 0
    content_tokens: int | None = None
    """Budget of an article, in training and in serving."""


class ConvertedFiles(Result):
    """Types of the GGUF files."""

    types: list[str]


@dataclass(frozen=True)
class Check:
    """One fact that was verified."""

    name: str
    """Identifier, such as ``weights.merged``."""
    compared: str
    """What was compared with what, and how much of it."""
    figure: str
    """What was found."""
    bound: str
    """What it must be."""
    passed: bool
    detail: str = ""
    """The first things that are wrong; empty when nothing is."""


class Verified(Result):
    """The checks of an export."""

    checks: Sequence[Check] = ()
    titles: Sequence[str] = ()
    """Greedy titles of the merged model for the first articles, to compare a server's with."""
