"""TRL's SFTTrainer with the loss on the title only, and a stop on a broken loss.

The CPU does not wait for the GPU within a step, but for embeddings that lie on the host: a pass is launched while the
one before it runs. So a batch's shapes are known before it is copied to the GPU, and a loss is looked at when it has
arrived.
"""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from titlegen.errors import TrainError
from titlegen.settings import TrainSettings
from titlegen.train.loss import completion_loss
from titlegen.train.memory import Loss, Plan
from titlegen.train.packed import pack
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
        loss: computes the loss of a packed batch, given the number of labels in the step; None: by the full model.
    """
    from transformers import EarlyStoppingCallback, PrinterCallback, ProgressCallback

    adapter = {parameter: parameter.data for parameter in model.parameters() if parameter.requires_grad}
    trainer = _trainer_class()(
        model=model,
        args=_arguments(settings, len(rows), bool(val_rows), work, plan, trimmed=loss is not None),
        data_collator=collator(tokenizer, packed=loss is not None),
        train_dataset=_dataset(rows),
        eval_dataset=_dataset(val_rows) if val_rows else None,
        processing_class=tokenizer,
    )
    # TRL rounds the adapter of a 4-bit model to bfloat16, which Unsloth does not let it.
    for parameter, values in adapter.items():
        parameter.data = values
    # Gemma 3n's multimodal class says that it takes no count of labels; our loss does.
    trainer.model_accepts_loss_kwargs = True
    trainer.rows = rows
    trainer.batch_loss = loss or partial(completion_loss, model)
    # Both print to stdout, which belongs to results.
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    # Before anything is written down.
    trainer.add_callback(_check_class()(trainer))
    trainer.add_callback(log_class()(trainer, work))
    if settings.tensorboard:
        trainer.add_callback(tensorboard_callback(work))
    if settings.early_stopping_patience and val_rows:
        trainer.add_callback(EarlyStoppingCallback(settings.early_stopping_patience))
    return trainer


def collator(tokenizer: Any, *, packed: bool = False) -> Any:
    """Return what makes a padded batch of encoded rows, and packs it where that is asked for."""
    collate = _collator_class()(pad_token_id=tokenizer.pad_token_id)
    collate.packed = packed
    return collate


def steps_between_checkpoints(settings: TrainSettings, steps: int) -> int:
    """Return after how many steps a run of ``steps`` writes one: at least once on the way, however short it is."""
    return min(settings.save_steps, max(1, steps // 2))


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
    save_steps = steps_between_checkpoints(settings, steps)
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
        # What has learned already is worth knowing before it goes on.
        eval_on_start=has_val and settings.init_adapter is not None,
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
        accelerator_config={"non_blocking": cuda},
        seed=settings.seed,
        disable_tqdm=True,
        report_to="none",
    )
    if arguments.n_gpu > 1:
        # One card trains; TRL refuses to copy the model to the others.
        arguments._n_gpu = 1  # noqa: SLF001 - the only way but to hide the others from the whole process
    return arguments


def _collator_class() -> Any:
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    class RowCollator(DataCollatorForLanguageModeling):  # type: ignore[misc] # trl is untyped
        """Keeps each row's number beside its tokens, so that a broken batch can be named."""

        packed = False

        def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
            batch: dict[str, Any] = super().torch_call(examples)
            if self.packed:
                batch["packed"] = pack(batch)
            return batch | {"row": [example["row"] for example in examples]}

    return RowCollator


class _Arriving:
    """A number on its way from the GPU."""

    def __init__(self, value: Any) -> None:
        import torch

        self._value = value.detach().to("cpu", non_blocking=True)
        self._event: Any = None
        if value.is_cuda:
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record()

    def has_arrived(self) -> bool:
        return self._event is None or bool(self._event.query())

    def wait(self) -> float:
        if self._event is not None:
            self._event.synchronize()
        return float(self._value)


@dataclass(frozen=True)
class _MicroBatch:
    """One pass, whose loss is still to be looked at."""

    loss: _Arriving
    """Its share of the step's mean loss."""
    accumulation: int
    """Passes of its step; the last one of an epoch may have fewer."""
    step: int
    rows: list[int]


def _check_class() -> Any:
    from transformers import TrainerCallback

    class Check(TrainerCallback):  # type: ignore[misc] # transformers is untyped
        """Waits for every loss before one is logged, or a checkpoint is written that it would have spoilt."""

        def __init__(self, trainer: Any) -> None:
            self.trainer = trainer

        def on_step_end(self, _args: Any, _state: Any, control: Any, **_: Any) -> None:
            if control.should_log or control.should_evaluate or control.should_save:
                self.trainer.stop_on_broken(wait=True)

    return Check


def _trainer_class() -> Any:
    # Unsloth replaces trl's class when it is imported, so ours is made only now.
    from trl import SFTTrainer

    class TitleTrainer(SFTTrainer):  # type: ignore[misc] # trl is untyped
        """SFTTrainer whose loss needs logits for the title's tokens only."""

        rows: Sequence[dict[str, Any]] = ()
        batch_loss: Loss
        tokens_seen = 0
        first_loss: float | None = None

        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            self._unchecked: deque[_MicroBatch] = deque()

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
                self.tokens_seen += sum(len(self.rows[number]["input_ids"]) for number in numbers)
                passes, step = self.current_gradient_accumulation_steps, self.state.global_step
                self._unchecked.append(_MicroBatch(_Arriving(loss), passes, step, numbers))
                self.stop_on_broken(wait=False)
            return (loss, {}) if return_outputs else loss

        def get_batch_samples(
            self, epoch_iterator: Iterator[Any], num_batches: int, device: Any, *_: Any
        ) -> tuple[list[Any], Any]:
            """Return a step's batches and its number of labels; Unsloth leaves these out for some classes."""
            batches = list(islice(epoch_iterator, num_batches))
            return batches, self._get_num_items_in_batch(batches, device)

        def stop_on_broken(self, *, wait: bool) -> None:
            """Look at the losses that have arrived, or at all; raise ``TrainError`` at a broken one."""
            while self._unchecked and (wait or self._unchecked[0].loss.has_arrived()):
                done = self._unchecked.popleft()
                value = done.loss.wait() * done.accumulation
                self.first_loss = value if self.first_loss is None else self.first_loss
                if math.isfinite(value) and value <= _EXPLODED * max(self.first_loss, 1.0):
                    continue
                ids = ", ".join(str(self.rows[number]["id"]) for number in done.rows)
                raise TrainError(
                    f"loss {value:.4g} at step {done.step} (first loss {self.first_loss:.4g}), batch of "
                    f"articles {ids}; look at these articles, or lower --train.learning-rate"
                )

    return TitleTrainer
