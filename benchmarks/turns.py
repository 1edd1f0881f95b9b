"""The time of functions that take turns: a machine that is busy for a while slows all of them down."""

import statistics
import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Turns(Generic[K]):
    """Seconds of each function by its name, in the order of its calls."""

    def __init__(self) -> None:
        self.seconds: dict[K, list[float]] = {}

    def __call__(self, name: K, function: Callable[[], T]) -> T:
        """Call a function and keep how long it took; what a GPU does counts as far as the function waits for it."""
        started = time.perf_counter()
        result = function()
        self.seconds.setdefault(name, []).append(time.perf_counter() - started)
        return result

    def medians(self, warm_up: int) -> dict[K, float]:
        """Return the median of the seconds of each, without those of the first calls."""
        return {name: statistics.median(seconds[warm_up:]) for name, seconds in self.seconds.items()}
