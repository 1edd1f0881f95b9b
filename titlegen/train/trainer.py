"""TRL's SFTTrainer with the loss on the title only, and a stop on a broken loss.

The CPU does not wait for the GPU within a step, but for embeddings that lie on the host: a pass is launched while the
one before it runs. So a batch's shapes are known before it is copied to the GPU, and a loss is looked at when it has
arrived.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from titlegen.environment import one_thread
from titlegen.errors import TrainError
from titlegen.settings import TrainSettings
from titlegen.train.arguments import trainer_arguments
from titlegen.train.encode import Batch, EncodedRow, NumberedRow
from titlegen.train.loss import completion_loss
from titlegen.train.memory import Loss, Plan
from titlegen.train.packed import pack
from titlegen.train.progress import log_class, tensorboard_callback
from titlegen.train.ranks import ALONE, Ranks
from titlegen.train.shared import SharedSteps, as_record
from titlegen.train.steps import Rows, StepSampler

if TYPE_CHECKING:
    from datasets import Dataset
    from peft import PeftModel
    from torch import Tensor, nn
    from transformers import (
        PreTrainedTokenizerBase,
        Trainer,
        TrainerCallback,
        TrainerControl,
    )
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

# A loss this many times the first one has exploded; a healthy run falls.
_EXPLODED = 5.0


def build_trainer(  # noqa: PLR0913 - a training is made of these
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[EncodedRow],
    val_rows: Sequence[EncodedRow],
    settings: TrainSettings,
    work: Path,
    *,
    plan: Plan,
    loss: Loss | None = None,
    ranks: Ranks = ALONE,
) -> Trainer:
    """Return a trainer over encoded rows, ready for ``train()``; its checkpoints and log go to ``work``.

    Args:
        model: the PEFT model.
        tokenizer: its tokenizer.
        rows: encoded rows to learn from.
        val_rows: encoded rows of the validation loss; may be empty.
        settings: hyper-parameters; batch size and checkpointing come from ``plan``.
        work: folder for checkpoints and logs.
        plan: rows in one forward pass, passes in one step.
        loss: computes the loss of a packed batch, given the number of labels in the step; None: by the full model.
        ranks: this process and those that it trains with.
    """
    from transformers import EarlyStoppingCallback, PrinterCallback, ProgressCallback

    adapter = {parameter: parameter.data for parameter in model.parameters() if parameter.requires_grad}
    trainer = _trainer_class()(
        model=model,
        args=trainer_arguments(settings, len(rows), bool(val_rows), work, plan, ranks, trimmed=loss is not None),
        data_collator=collator(tokenizer, packed=loss is not None),
        train_dataset=_dataset(rows),
        eval_dataset=_dataset(val_rows) if val_rows else None,
        processing_class=tokenizer,
    )
    # TRL rounds the adapter of a 4-bit model to bfloat16, which Unsloth does not let it.
    for parameter, values in adapter.items():
        parameter.data = values
    # Each checkpoint would have it, 40 MB that take half a second.
    trainer.processing_class = None
    # Gemma 3n's multimodal class says that it takes no count of labels; our loss does.
    trainer.model_accepts_loss_kwargs = True
    trainer.rows = rows
    trainer.batch_loss = loss or partial(completion_loss, model)
    trainer.ranks, trainer.settings = ranks, settings
    trainer.sampler = StepSampler(
        Rows.of(rows),
        batch=plan.batch,
        accumulation=plan.accumulation,
        seed=settings.seed,
        group_by_length=settings.group_by_length,
        rank=ranks.rank,
        ranks=ranks.count,
    )
    # Both print to stdout, which belongs to results.
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    # Checked before anything is written.
    trainer.add_callback(_check_class()(trainer))
    if ranks.leads:
        trainer.add_callback(log_class()(trainer, work))
    if settings.tensorboard and ranks.leads:
        trainer.add_callback(tensorboard_callback(work))
    if settings.early_stopping_patience and val_rows:
        trainer.add_callback(EarlyStoppingCallback(settings.early_stopping_patience))
    return trainer


def collator(tokenizer: PreTrainedTokenizerBase, *, packed: bool = False) -> DataCollatorForLanguageModeling:
    """Return the collator: it makes a padded batch of encoded rows, and packs it when asked to."""
    collate = _collator_class()(pad_token_id=tokenizer.pad_token_id)
    collate.packed = packed
    return collate


def _dataset(rows: Sequence[EncodedRow]) -> Dataset:
    from datasets import Dataset

    return Dataset.from_list([as_record(row, number) for number, row in enumerate(rows)])


def _collator_class() -> type[DataCollatorForLanguageModeling]:
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    class RowCollator(DataCollatorForLanguageModeling):  # type: ignore[misc] # trl is untyped
        """Keeps each row's number beside its tokens, so that a broken batch can be named."""

        packed = False

        @one_thread()
        def torch_call(self, examples: list[NumberedRow]) -> Batch:
            batch: Batch = super().torch_call(examples)
            if self.packed:
                batch["packed"] = pack(batch)
            return batch | {"row": [example["row"] for example in examples]}

    return RowCollator


class _Arriving:
    """A number on its way from the GPU."""

    def __init__(self, value: Tensor) -> None:
        import torch

        self._value = value.detach().to("cpu", non_blocking=True)
        self._event: torch.cuda.Event | None = None
        if value.is_cuda:
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record()

    def has_arrived(self) -> bool:
        return self._event is None or bool(self._event.query())  # type: ignore[no-untyped-call]

    def wait(self) -> float:
        if self._event is not None:
            self._event.synchronize()
        return float(self._value)


@dataclass(frozen=True)
class _MicroBatch:
    """One pass, whose loss is still to be looked at."""

    loss: _Arriving
    """The loss of its gradients."""
    scale: float
    """The factor to the mean loss of its own labels, whose number differs between passes."""
    step: int
    rows: list[int]


def _check_class() -> type[TrainerCallback]:
    from transformers import TrainerCallback

    class Check(TrainerCallback):  # type: ignore[misc] # transformers is untyped
        """Waits for every loss before one is logged, or a checkpoint of a broken one would be written."""

        def __init__(self, trainer: Trainer) -> None:
            self.trainer = trainer

        def on_step_end(self, _args: object, _state: object, control: TrainerControl, **_: object) -> None:
            if control.should_log or control.should_evaluate or control.should_save:
                self.trainer.stop_on_broken(wait=True)
                # Another rank's loss may be the broken one.
                self.trainer.ranks.wait()

    return Check


def _trainer_class() -> type[Trainer]:
    # Unsloth replaces trl's class when it is imported, so ours is made only now.
    from trl import SFTTrainer

    class TitleTrainer(SharedSteps, SFTTrainer):  # type: ignore[misc] # trl is untyped
        """SFTTrainer whose loss needs logits for the title's tokens only."""

        first_loss: float | None = None

        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            self._unchecked: deque[_MicroBatch] = deque()

        def compute_loss(
            self,
            model: nn.Module,
            inputs: Batch,
            return_outputs: bool = False,  # noqa: FBT001, FBT002 - transformers' signature
            num_items_in_batch: Any = None,
        ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
            numbers = inputs.pop("row")
            loss = self.pass_loss(model, inputs, numbers, num_items_in_batch)
            if (scale := self.scale_of(numbers)) is not None:
                self._unchecked.append(_MicroBatch(_Arriving(loss), scale, self.state.global_step, numbers))
            self.stop_on_broken(wait=False)
            return (loss, {}) if return_outputs else loss

        def stop_on_broken(self, *, wait: bool) -> None:
            """Look at the losses that have arrived, or at all; raise ``TrainError`` at a broken one."""
            while self._unchecked and (wait or self._unchecked[0].loss.has_arrived()):
                done = self._unchecked.popleft()
                value = done.loss.wait() * done.scale
                self.first_loss = value if self.first_loss is None else self.first_loss
                if math.isfinite(value) and value <= _EXPLODED * max(self.first_loss, 1.0):
                    continue
                ids = ", ".join(str(self.rows[number]["id"]) for number in done.rows)
                raise TrainError(
                    f"loss {value:.4g} at step {done.step} (first loss {self.first_loss:.4g}), batch of "
                    f"articles {ids}; look at these articles, or lower --train.learning-rate"
                )

    return TitleTrainer
