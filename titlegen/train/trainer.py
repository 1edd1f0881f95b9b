"""TRL's SFTTrainer with the loss on the title only, and a stop on a broken loss."""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from titlegen.errors import TrainError
from titlegen.settings import TrainSettings
from titlegen.train.loss import completion_loss
from titlegen.train.memory import Loss, Plan
from titlegen.train.progress import log_class, tensorboard_callback

# A loss this many times the first one has exploded; a healthy run falls.
_EXPLODED = 5.0


def build_trainer(
    model: Any,
    tokenizer: Any,
    rows: Sequence[dict[str, Any]],
    val_rows: Sequence[dict[str, Any]],
    settings: TrainSettings,
    work: Path,
    *,
    plan: Plan,
    loss: Loss | None = None,
) -> Any:
    """Return a trainer over encoded rows, ready for ``train()``; its checkpoints and log go to ``work``.

    Args:
        model: the PEFT model.
        tokenizer: its tokenizer.
        rows: encoded rows to learn from.
        val_rows: encoded rows of the validation loss; may be empty.
        settings: hyper-parameters; batch size and checkpointing come from ``plan``.
        work: folder for checkpoints and logs.
        plan: rows in one forward pass, passes in one step.
        loss: computes the loss of a batch, given the number of labels in the step; None: by the full model.
    """
    from transformers import EarlyStoppingCallback, PrinterCallback, ProgressCallback

    adapter = {parameter: parameter.data for parameter in model.parameters() if parameter.requires_grad}
    trainer = _trainer_class()(
        model=model,
        args=_arguments(settings, len(rows), bool(val_rows), work, plan, trimmed=loss is not None),
        data_collator=collator(tokenizer),
        train_dataset=_dataset(rows),
        eval_dataset=_dataset(val_rows) if val_rows else None,
        processing_class=tokenizer,
    )
    # TRL rounds the adapter of a 4-bit model to bfloat16, which Unsloth does not let it.
    for parameter, values in adapter.items():
        parameter.data = values
    # Gemma 3n's multimodal class says that it takes no count of labels; our loss does.
    trainer.model_accepts_loss_kwargs = True
    trainer.row_ids = [row["id"] for row in rows]
    trainer.batch_loss = loss or partial(completion_loss, model)
    # Both print to stdout, which belongs to results.
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(log_class()(trainer, work))
    if settings.tensorboard:
        trainer.add_callback(tensorboard_callback(work))
    if settings.early_stopping_patience and val_rows:
        trainer.add_callback(EarlyStoppingCallback(settings.early_stopping_patience))
    return trainer


def collator(tokenizer: Any) -> Any:
    """Return what makes a padded batch of encoded rows."""
    return _collator_class()(pad_token_id=tokenizer.pad_token_id)


def as_record(row: dict[str, Any], number: int) -> dict[str, Any]:
    """Return an encoded row as the collator takes it."""
    return {"input_ids": row["input_ids"], "labels": row["labels"], "row": number, "length": len(row["input_ids"])}


def _dataset(rows: Sequence[dict[str, Any]]) -> Any:
    from datasets import Dataset

    return Dataset.from_list([as_record(row, number) for number, row in enumerate(rows)])


def _arguments(
    settings: TrainSettings,
    rows: int,
    has_val: bool,  # noqa: FBT001
    work: Path,
    plan: Plan,
    *,
    trimmed: bool,
) -> Any:
    import torch
    from trl import SFTConfig

    cuda = torch.cuda.is_available()
    steps = math.ceil(math.ceil(rows / (plan.batch * plan.accumulation)) * settings.num_train_epochs)
    # At least one checkpoint on the way, however short the run.
    save_steps = min(settings.save_steps, max(1, steps // 2))
    arguments = SFTConfig(
        output_dir=str(work),
        # Unsloth's own default is another one.
        optim="adamw_torch_fused",
        # Rows come encoded and shortened: trl would cut a long one at the end, where the title is.
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        label_names=["labels"],
        per_device_train_batch_size=plan.batch,
        per_device_eval_batch_size=plan.batch,
        gradient_accumulation_steps=plan.accumulation,
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
        # How often the validation loss has risen in a row.
        restore_callback_states_from_checkpoint=True,
        load_best_model_at_end=has_val,
        metric_for_best_model="eval_loss" if has_val else None,
        train_sampling_strategy="group_by_length" if settings.group_by_length else "random",
        # The trimmed computation recomputes its own layers.
        gradient_checkpointing=plan.checkpointing and not trimmed,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        bf16=cuda,
        use_cpu=not cuda,
        dataloader_pin_memory=cuda,
        seed=settings.seed,
        disable_tqdm=True,
        report_to="none",
    )
    if arguments.n_gpu > 1:
        # One card trains; TRL refuses to copy the model to the others.
        arguments._n_gpu = 1  # noqa: SLF001 - the only way but to hide the others from the whole process
    return arguments


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
        batch_loss: Loss
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
            loss = self.batch_loss(inputs, num_items_in_batch if model.training else None)
            if model.training:
                self.tokens_seen += int(inputs["attention_mask"].sum())
                self._stop_on_broken(loss, numbers)
            return (loss, {}) if return_outputs else loss

        def get_batch_samples(
            self, epoch_iterator: Iterator[Any], num_batches: int, device: Any, *_: Any
        ) -> tuple[list[Any], Any]:
            """Return a step's batches and its number of labels; Unsloth leaves these out for some classes."""
            batches = list(islice(epoch_iterator, num_batches))
            return batches, self._get_num_items_in_batch(batches, device)

        def _stop_on_broken(self, loss: Any, numbers: Any) -> None:
            # One micro-batch's share of the step's mean loss, brought back to the size of a whole step. The last step
            # of an epoch may have fewer.
            value = float(loss.detach()) * self.current_gradient_accumulation_steps
            self.first_loss = value if self.first_loss is None else self.first_loss
            if math.isfinite(value) and value <= _EXPLODED * max(self.first_loss, 1.0):
                return
            ids = ", ".join(str(self.row_ids[number]) for number in numbers.tolist())
            raise TrainError(
                f"loss {value:.4g} at step {self.state.global_step} (first loss {self.first_loss:.4g}), batch of "
                f"articles {ids}; look at these articles, or lower --train.learning-rate"
            )

    return TitleTrainer
