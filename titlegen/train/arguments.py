"""The arguments of TRL's trainer: from the settings, the plan and the machine."""

import math
from pathlib import Path
from typing import Any

from titlegen.settings import TrainSettings
from titlegen.train.memory import Plan
from titlegen.train.ranks import Ranks


def steps_between_checkpoints(settings: TrainSettings, steps: int) -> int:
    """Return after how many steps a run of ``steps`` writes one: at least once on the way, however short it is."""
    return min(settings.save_steps, max(1, steps // 2))


def trainer_arguments(
    settings: TrainSettings,
    rows: int,
    has_val: bool,  # noqa: FBT001
    work: Path,
    plan: Plan,
    ranks: Ranks,
    *,
    trimmed: bool,
) -> Any:
    """Return the arguments of a trainer.

    Args:
        settings: hyper-parameters.
        rows: number of rows to learn from.
        has_val: whether there are rows for a validation loss.
        work: folder for checkpoints.
        plan: rows in one pass, passes in one step.
        ranks: this process and those that it trains with.
        trimmed: the loss is computed without what it does not need.
    """
    import torch
    from trl import SFTConfig

    cuda = torch.cuda.is_available()
    steps = math.ceil(math.ceil(rows / (plan.batch * plan.accumulation * ranks.count)) * settings.num_train_epochs)
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
        # The loss of an adapter that has learned already is measured before it trains further.
        eval_on_start=has_val and settings.init_adapter is not None,
        eval_steps=save_steps,
        prediction_loss_only=True,
        save_strategy="steps",
        save_steps=save_steps,
        save_total_limit=settings.save_total_limit,
        save_on_each_node=ranks.hosts > 1,
        ddp_backend=None if cuda or ranks.count == 1 else "gloo",
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
    if ranks.count > 1 and arguments.device.type == "cpu":
        # accelerate numbers processes on the CPU like cards, and torch loads no checkpoint to such a device.
        vars(arguments)["_setup_devices"] = arguments.distributed_state.device = torch.device("cpu")
    if arguments.n_gpu > 1:
        # One card trains; TRL refuses to copy the model to the others.
        arguments._n_gpu = 1  # noqa: SLF001 - the only way but to hide the others from the whole process
    return arguments
