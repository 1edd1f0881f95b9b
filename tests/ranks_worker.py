"""Stands for ``titlegen.train.worker`` in tests: the same work, on tiny models and with faults at chosen places.

``python tests/ranks_worker.py FAULT FILE``: FAULT names a function below, ``none`` for no fault.
"""

import math
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from titlegen import cards
from titlegen.train import worker
from titlegen.train.trim import CompletionTrim

torch.set_num_threads(1)


def on_pass(rank: int, number: int, act: Callable[[Any], Any]) -> None:
    """Let a rank do something with the loss of its pass of this number."""
    compute, seen = CompletionTrim.__call__, [0]

    def broken(self: CompletionTrim, inputs: dict[str, Any], num_items: Any = None) -> Any:
        loss = compute(self, inputs, num_items)
        # Without a number of labels it is the self-check or an evaluation.
        seen[0] += num_items is not None
        return act(loss) if (cards.rank(), seen[0]) == (rank, number) and num_items is not None else loss

    CompletionTrim.__call__ = broken  # type: ignore[method-assign]


def die(value: Any = None) -> Any:
    """End without a word."""
    os.kill(os.getpid(), signal.SIGKILL)
    return value


def exhaust(_: Any) -> Any:
    """Run out of memory as a card does."""
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")


def killed_in_forward() -> None:
    on_pass(1, 5, die)


def tell_card(loss: Any) -> Any:
    """Write down which cards this rank sees."""
    path = Path(sys.argv[2]).with_name(f"seen{cards.rank()}")
    path.write_text(os.environ["CUDA_VISIBLE_DEVICES"], encoding="ascii")
    return loss


def killed_in_exchange() -> None:
    def later(loss: Any) -> Any:
        # The gradient comes by while the backward pass runs.
        loss.register_hook(die)
        return loss

    for rank in range(2):
        on_pass(rank, 1, tell_card)
    on_pass(1, 5, later)


def killed_in_checkpoint() -> None:
    save = torch.save

    def dying(value: Any, path: Any, **options: Any) -> None:
        if "checkpoint-6" in str(path) and cards.rank() == 0:
            die()
        save(value, path, **options)

    torch.save = dying  # type: ignore[assignment]


def out_of_memory() -> None:
    on_pass(1, 5, exhaust)


def not_a_number() -> None:
    on_pass(1, 5, lambda loss: loss * math.nan)


def wait(seconds: float, loss: Any) -> Any:
    """Return a loss late."""
    time.sleep(seconds)
    return loss


def hung() -> None:
    on_pass(1, 5, partial(wait, 600))


def slow() -> None:
    """Take long enough to be interrupted."""
    for number in range(1, 40):
        on_pass(1, number, partial(wait, 0.5))


def none() -> None:
    """Nothing is wrong."""


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    worker.main(Path(sys.argv[2]))
