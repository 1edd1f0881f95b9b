"""A clock for the steps of a training by transformers' Trainer or one made from it."""

import time
from typing import Any


def step_clock(seconds: list[float]) -> Any:
    """Return a callback that adds the seconds of each optimizer step, and prints them.

    What a time limit cuts off has said how far it came: Gemma 4's layers compile for minutes.
    """
    import torch
    from transformers import TrainerCallback

    def finished() -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()

    class StepClock(TrainerCallback):  # type: ignore[misc] # transformers is untyped
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.started = finished()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            seconds.append(finished() - self.started)
            print(f"step {len(seconds)}: {seconds[-1]:.2f} s", flush=True)

    return StepClock()
