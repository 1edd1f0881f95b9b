"""The beginning that all prompts of a model share: read once, so that a title depends on its article alone.

An engine keeps what it has read of the prompt before, and reads of the next one only what is new. How much that is
decides in what portions tokens are computed, portions round differently, and near-ties fall otherwise: the same article
asked for again gets another title now and then (benchmarks/results/same_title.json). So the engine goes back to the
shared beginning after every answer. It is read in the same two portions whenever it is read, and the rest of every
prompt in one.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypedDict


class Timings(TypedDict, total=False):
    """What the engine measured."""

    cache_n: int
    """Tokens of the prompt that it held already."""
    prompt_ms: float
    predicted_ms: float


class Event(TypedDict, total=False):
    """What an engine says while it answers, as far as it is read; the last one has everything."""

    content: str
    stop: bool
    stop_type: str
    truncated: bool
    completion_probabilities: list[dict[str, Any]]
    tokens_evaluated: int
    tokens_predicted: int
    timings: Timings


Post = Callable[[str, Mapping[str, object]], Awaitable[Event]]


class Opening:
    """What an engine with one slot holds between two answers."""

    def __init__(self, post: Post) -> None:
        """Take the engine's own POST."""
        self._post = post
        self._text: str | None = None
        self._tokens = 0

    async def hold(self, text: str) -> None:
        """Let the engine hold this beginning and nothing else, unless it does already.

        Raises:
            EngineError: the engine does not answer.
        """
        if text == self._text:
            return
        self._text = None
        if not text:
            return
        found = await self._read(text, cached=False)
        self._tokens = found["tokens_evaluated"]
        # The last token is read again whenever the engine goes back to here, and so it is now.
        await self._read(text, cached=True)
        self._text = text

    async def go_back(self, last: Event | None) -> None:
        """Let the engine hold the beginning again.

        Args:
            last: the last event of an answer; None for one that was broken off.

        Raises:
            EngineError: the engine does not answer.
        """
        text, self._text = self._text, None
        if text is None or last is None or last.get("truncated"):
            return
        # Where the prompt began otherwise, what is held now was read in other portions.
        if last.get("timings", {}).get("cache_n", 0) < self._tokens - 1:
            return
        await self._read(text, cached=True)
        self._text = text

    async def _read(self, text: str, *, cached: bool) -> Event:
        return await self._post("/completion", {"prompt": text, "n_predict": 0, "cache_prompt": cached})
