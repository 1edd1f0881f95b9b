"""Overrides of a trainer that let several ranks share a step's rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from titlegen.settings import TrainSettings
from titlegen.train.encode import IGNORED, Batch, EncodedRow, NumberedRow, TrainingRow
from titlegen.train.exchange import load_random_state, save_random_state, seed_rank, wrap_alone, wrap_pass
from titlegen.train.memory import Loss
from titlegen.train.ranks import Ranks
from titlegen.train.steps import StepSampler, load_batches, share_batches

if TYPE_CHECKING:
    from datasets import Dataset
    from peft import PeftModel
    from torch import Tensor, nn
    from torch.utils.data import DataLoader
    from transformers import TrainerControl, TrainerState, TrainingArguments
    from transformers.trainer_callback import CallbackHandler
    from transformers.trainer_utils import EvalLoopOutput


def as_record(row: TrainingRow, number: int) -> NumberedRow:
    """Return an encoded row as the collator takes it."""
    return {"input_ids": row["input_ids"], "labels": row["labels"], "row": number, "length": len(row["input_ids"])}


class SharedSteps:
    """Mixin before transformers' ``Trainer``; with one rank its steps are unchanged."""

    rows: Sequence[EncodedRow] = ()
    batch_loss: Loss
    ranks: Ranks
    settings: TrainSettings
    sampler: StepSampler
    tokens_seen = 0
    # The trainer's own.
    args: TrainingArguments
    state: TrainerState
    control: TrainerControl
    callback_handler: CallbackHandler
    model: PeftModel
    train_dataset: Dataset
    eval_dataset: Dataset
    data_collator: Callable[[Sequence[NumberedRow]], Batch]

    def get_train_dataloader(self) -> DataLoader[Batch]:
        """Return this rank's passes of an epoch."""
        return load_batches(self.train_dataset, self.sampler, self.data_collator, self.args)

    def get_eval_dataloader(self, eval_dataset: Dataset | None = None) -> DataLoader[Batch]:
        """Return this rank's batches of rows of like length."""
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        share = share_batches(rows["length"], self.args.per_device_eval_batch_size, self.ranks)
        return load_batches(rows, share, self.data_collator, self.args)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Batch], num_batches: int, *_: object
    ) -> tuple[list[Batch], int]:
        """Return this rank's batches of a step, and the number of labels that all ranks have in it."""
        batches = list(islice(epoch_iterator, num_batches))
        labels, tokens = self.sampler.totals(batches[0]["row"][0])
        self.tokens_seen += tokens
        return batches, labels

    def pass_loss(self, model: nn.Module, inputs: Batch, numbers: Sequence[int], labels: int) -> Tensor:
        """Return the loss of a pass: its share of the step's mean, over all ranks."""
        loss: Tensor = model(inputs, labels)
        if self.ranks.count == 1:
            return loss
        # Gradients are averaged over the ranks, and so is the loss that is logged: both are to be sums.
        return loss * (self.ranks.count if self.sampler.owns(numbers[0]) else 0)

    def floating_point_ops(self, _inputs: Batch) -> int:
        """Count nothing: no one reads it, and transformers walks through the whole model in every pass for it."""
        return 0

    def scale_of(self, numbers: Sequence[int]) -> float | None:
        """Return what a pass' loss is multiplied by to be the mean of its own labels; None: they count elsewhere."""
        if not self.sampler.owns(numbers[0]):
            return None
        labels, _ = self.sampler.totals(numbers[0])
        return labels / self.sampler.labels(numbers) / self.ranks.count

    def evaluation_loop(
        self, dataloader: DataLoader[Batch], *_: object, metric_key_prefix: str = "eval", **__: object
    ) -> EvalLoopOutput:
        """Return the mean loss of all titles' tokens, whichever rows stand together, on whichever rank."""
        import torch
        from transformers.trainer_utils import EvalLoopOutput

        self.model.eval()
        self.callback_handler.eval_dataloader = dataloader
        total = torch.zeros(2, dtype=torch.float64, device=self.args.device)
        for batch in dataloader:
            labels = (batch["labels"][:, 1:] != IGNORED).sum()
            with torch.no_grad():
                total += torch.stack([self.batch_loss(batch) * labels, labels])
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        loss, labels = map(sum, zip(*self.ranks.gather(total.tolist()), strict=True))
        return EvalLoopOutput(None, None, {f"{metric_key_prefix}_loss": loss / labels}, len(dataloader.dataset))  # type: ignore[arg-type]

    def _wrap_model(
        self,
        model: nn.Module,
        training: bool = True,  # noqa: FBT001, FBT002 - transformers' signature
        dataloader: DataLoader[Batch] | None = None,
    ) -> nn.Module:
        if not training:
            return super()._wrap_model(model, training, dataloader)  # type: ignore[misc, no-any-return] # the trainer's
        if self.ranks.count == 1:
            return wrap_alone(self.model, self.batch_loss)
        shortest = min(range(len(self.rows)), key=lambda number: len(self.rows[number]["input_ids"]))
        batch = self.data_collator([as_record(self.rows[shortest], shortest)])
        example = {key: value.to(self.args.device) for key, value in batch.items() if key != "row"}
        wrapped = wrap_pass(self.model, self.batch_loss, example, self.ranks)
        seed_rank(self.settings.seed, self.ranks, 0)
        return wrapped

    def _save_rng_state(self, output_dir: str) -> None:
        if self.ranks.count == 1:
            super()._save_rng_state(output_dir)  # type: ignore[misc] # the trainer's
        else:
            save_random_state(Path(output_dir), self.ranks)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        if self.ranks.count == 1 and (Path(checkpoint) / "rng_state.pth").is_file():
            super()._load_rng_state(checkpoint)  # type: ignore[misc] # the trainer's
        else:
            load_random_state(Path(checkpoint), self.ranks, self.settings.seed)
