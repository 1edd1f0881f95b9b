"""TRL's SFTTrainer with the loss on the title only, a log with speed and memory, and a stop on a broken loss."""

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from titlegen.errors import TrainError
from titlegen.settings import TrainSettings
from titlegen.train.loss import completion_loss

LOG = "train.jsonl"
# A loss this many times the first one has exploded; a healthy run falls.
_EXPLODED = 5.0
_LOGGED = {"loss", "eval_loss", "learning_rate", "grad_norm"}


def build_trainer(
    model: Any,
    tokenizer: Any,
    rows: Sequence[dict[str, Any]],
    val_rows: Sequence[dict[str, Any]],
    settings: TrainSettings,
    work: Path,
) -> Any:
    """Return a trainer over encoded rows, ready for ``train()``; its checkpoints and log go to ``work``."""
    trainer = _trainer_class()(
        model=model,
        args=_arguments(settings, len(rows), bool(val_rows), work),
        data_collator=_collator_class()(pad_token_id=getattr(tokenizer, "tokenizer", tokenizer).pad_token_id),
        train_dataset=_dataset(rows),
        eval_dataset=_dataset(val_rows) if val_rows else None,
        processing_class=tokenizer,
    )
    trainer.row_ids = [row["id"] for row in rows]
    trainer.add_callback(_log_class()(trainer, work / LOG))
    return trainer


def peak_gib() -> float:
    """Return the peak memory of the device, GiB: allocated on a GPU, else of this process."""
    import psutil
    import torch

    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 2**30, 2)
    return round(psutil.Process().memory_info().rss / 2**30, 2)


def _dataset(rows: Sequence[dict[str, Any]]) -> Any:
    from datasets import Dataset

    return Dataset.from_list(
        [
            {"input_ids": row["input_ids"], "labels": row["labels"], "row": number, "length": len(row["input_ids"])}
            for number, row in enumerate(rows)
        ]
    )


def _arguments(settings: TrainSettings, rows: int, has_val: bool, work: Path) -> Any:  # noqa: FBT001
    import torch
    from trl import SFTConfig

    cuda = torch.cuda.is_available()
    effective_batch = settings.per_device_train_batch_size * settings.gradient_accumulation_steps
    steps = math.ceil(math.ceil(rows / effective_batch) * settings.num_train_epochs)
    # At least one checkpoint on the way, however short the run.
    save_steps = min(settings.save_steps, max(1, steps // 2))
    return SFTConfig(
        output_dir=str(work),
        # Rows come encoded and shortened: trl would cut a long one at the end, where the title is.
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        label_names=["labels"],
        per_device_train_batch_size=settings.per_device_train_batch_size,
        per_device_eval_batch_size=settings.per_device_train_batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        learning_rate=settings.learning_rate,
        num_train_epochs=settings.num_train_epochs,
        lr_scheduler_type=settings.lr_scheduler_type,
        warmup_steps=settings.warmup_ratio,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        logging_steps=settings.logging_steps,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        eval_strategy="steps" if has_val else "no",
        eval_steps=save_steps,
        prediction_loss_only=True,
        save_strategy="steps",
        save_steps=save_steps,
        save_total_limit=settings.save_total_limit,
        load_best_model_at_end=has_val,
        metric_for_best_model="eval_loss" if has_val else None,
        train_sampling_strategy="group_by_length" if settings.group_by_length else "random",
        gradient_checkpointing=settings.gradient_checkpointing,
        bf16=cuda,
        use_cpu=not cuda,
        dataloader_pin_memory=cuda,
        seed=settings.seed,
        report_to="none",
    )


def _collator_class() -> Any:
    import torch
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    class RowCollator(DataCollatorForLanguageModeling):  # type: ignore[misc] # trl is untyped
        """Keeps each row's number beside its tokens, so that a broken batch can be named."""

        def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
            numbers = torch.tensor([example["row"] for example in examples])
            return {**super().torch_call(examples), "row": numbers}

    return RowCollator


def _trainer_class() -> Any:
    # Unsloth replaces trl's class when it is imported, so ours is made only now.
    from trl import SFTTrainer

    class TitleTrainer(SFTTrainer):  # type: ignore[misc] # trl is untyped
        """SFTTrainer whose loss needs logits for the title's tokens only."""

        row_ids: Sequence[str] = ()
        tokens_seen = 0
        first_loss: float | None = None

        def compute_loss(
            self,
            model: Any,
            inputs: dict[str, Any],
            return_outputs: bool = False,  # noqa: FBT001, FBT002 - transformers' signature
            num_items_in_batch: Any = None,
        ) -> Any:
            numbers = inputs.pop("row")
            loss = completion_loss(model, inputs, num_items_in_batch if model.training else None)
            if model.training:
                self.tokens_seen += int(inputs["attention_mask"].sum())
                self._stop_on_broken(loss, numbers)
            return (loss, {}) if return_outputs else loss

        def _stop_on_broken(self, loss: Any, numbers: Any) -> None:
            # One micro-batch's share of the step's mean loss, brought back to the size of a whole step.
            value = float(loss.detach()) * self.args.gradient_accumulation_steps
            self.first_loss = value if self.first_loss is None else self.first_loss
            if math.isfinite(value) and value <= _EXPLODED * max(self.first_loss, 1.0):
                return
            ids = ", ".join(str(self.row_ids[number]) for number in numbers.tolist())
            raise TrainError(
                f"loss {value:.4g} at step {self.state.global_step} (first loss {self.first_loss:.4g}), batch of "
                f"articles {ids}; look at these articles, or lower --train.learning-rate"
            )

    return TitleTrainer


def _log_class() -> Any:
    from transformers import TrainerCallback

    class Log(TrainerCallback):  # type: ignore[misc] # transformers is untyped
        """Appends each log record to ``train.jsonl``, with speed, memory and the time left."""

        def __init__(self, trainer: Any, path: Path) -> None:
            self.trainer, self.path = trainer, path
            self.started, self.first_step = time.monotonic(), 0

        def on_train_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
            self.started, self.first_step = time.monotonic(), state.global_step

        def on_log(self, _args: Any, state: Any, _control: Any, logs: dict[str, Any], **_: Any) -> None:
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

    return Log
