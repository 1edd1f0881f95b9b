"""A new process for code that must not see a library that this one has loaded."""

import multiprocessing
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def without(library: str, function: Callable[P, R]) -> Callable[P, R]:
    """Return a function that runs in a new process where a library is loaded in this one.

    Unsloth replaces classes of transformers and TRL when it is imported, for good, and holds memory of the GPU.
    """
    if library not in sys.modules:
        return function

    def run(*arguments: Any, **named: Any) -> R:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            return pool.submit(function, *arguments, **named).result()

    return run
