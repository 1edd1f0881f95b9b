"""The progress and the log of a training: loss, speed, memory, time left."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sized
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from titlegen.errors import MissingDependencyError

if TYPE_CHECKING:
    from transformers import TrainerCallback, TrainerState

    from titlegen.train.shared import SharedSteps

LOG = "train.jsonl"
EVENTS = "tensorboard"
LogRecord: TypeAlias = dict[str, float]
"""A line of the log: what was measured at a step."""
_REDRAW_S = 0.5
_LOGGED = {"loss", "eval_loss", "learning_rate", "grad_norm", "rewards/accuracies", "rewards/margins"}


def peak_gib() -> float:
    """Return memory in GiB: the most that was allocated on a GPU, else what this process holds now."""
    import psutil
    import torch

    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 2**30, 2)
    return round(psutil.Process().memory_info().rss / 2**30, 2)


def log_class() -> type[TrainerCallback]:
    """Return the callback that keeps ``train.jsonl`` and a progress bar on stderr."""
    from tqdm import tqdm  # type: ignore[import-untyped]
    from transformers import TrainerCallback

    class Log(TrainerCallback):  # type: ignore[misc] # transformers is untyped
        """Appends each log record to ``train.jsonl``, with speed, memory and the time left."""

        def __init__(self, trainer: SharedSteps, work: Path) -> None:
            self.trainer, self.path = trainer, work / LOG
            self.started, self.first_step = time.monotonic(), 0
            self.bar: Any = None
            self.validated, self.shown_at = 0, 0.0

        def on_train_begin(self, _args: object, state: TrainerState, _control: object, **_: object) -> None:
            self.started, self.first_step = time.monotonic(), state.global_step
            self.bar = tqdm(total=state.max_steps, initial=state.global_step, unit="step", file=sys.stderr)

        def on_step_end(self, _args: object, _state: object, _control: object, **_: object) -> None:
            self.bar.update()

        def on_prediction_step(
            self,
            _args: object,
            _state: object,
            _control: object,
            eval_dataloader: Sized,
            **_: object,
        ) -> None:
            """Show a validation within the bar, which would stand still meanwhile."""
            batches, now = len(eval_dataloader), time.monotonic()
            self.validated = self.validated % batches + 1
            if now - self.shown_at >= _REDRAW_S or self.validated == batches:
                self.bar.set_postfix_str(f"validating, {self.validated} of {batches} batches")
                self.shown_at = now

        def on_train_end(self, _args: object, _state: object, _control: object, **_: object) -> None:
            self.bar.close()

        def on_log(self, _args: object, state: TrainerState, _control: object, logs: LogRecord, **_: object) -> None:
            if not {"loss", "eval_loss"} & logs.keys():
                # The summary at the end repeats what the results hold.
                return
            done = state.global_step - self.first_step
            elapsed = time.monotonic() - self.started
            record = {"step": state.global_step, "epoch": round(state.epoch or 0.0, 4)}
            record |= {key: value for key, value in logs.items() if key in _LOGGED}
            record |= {"elapsed_s": round(elapsed, 2), "peak_gib": peak_gib()}
            if done:
                record["eta_s"] = round(elapsed / done * (state.max_steps - state.global_step), 1)
                record["tokens_per_s"] = round(self.trainer.tokens_seen / elapsed, 1)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
            shown = ("loss", "eval_loss", "tokens_per_s", "peak_gib")
            self.bar.set_postfix({key: f"{record[key]:.4g}" for key in shown if key in record})

    return Log


def tensorboard_callback(work: Path) -> TrainerCallback:
    """Return the callback that writes TensorBoard events below ``work``.

    Raises:
        MissingDependencyError: TensorBoard is not installed.
    """
    from transformers.integrations import TensorBoardCallback

    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingDependencyError(
            "train.tensorboard needs TensorBoard; run: python -m pip install tensorboard"
        ) from error
    return TensorBoardCallback(SummaryWriter(log_dir=str(work / EVENTS)))
