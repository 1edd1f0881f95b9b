"""Seconds a step on the CPU: TRL's SFTTrainer with the model's own loss, and titlegen's training of the same rows.

``python benchmarks/cpu_train.py OUT.json [--steps N] [--rounds N]``; the embedded base model and corpus, the
quickstart's settings, the same rows in the same order from the same adapter; all take turns.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from machine import write_report
from step_clock import step_clock

from titlegen.train.encode import EncodedRow


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    import torch

    from titlegen.data import load_split
    from titlegen.data.prepare import prepare
    from titlegen.families.gemma3 import PROMPT
    from titlegen.models import resolve_base
    from titlegen.settings import load_settings
    from titlegen.train.backends import load_for_training
    from titlegen.train.encode import encode_examples

    settings = load_settings(profile="quickstart")
    base = resolve_base(settings.model)
    # In the same order for both: batches of like lengths are ours alone.
    train = settings.train.model_copy(update={"group_by_length": False, "logging_steps": 1})
    model, tokenizer = load_for_training(base, train)
    start = {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}
    with tempfile.TemporaryDirectory() as folder:
        prepare(settings.data, base / "tokenizer.json", Path(folder))
        examples = load_split(Path(folder), "train")[: arguments.steps * train.per_device_train_batch_size]
    rows = encode_examples(examples, tokenizer, PROMPT, train.max_length)
    builds: dict[str, Callable[..., Any]] = {
        "trl": partial(_plain, checkpointing=True),
        "trl_no_checkpointing": partial(_plain, checkpointing=False),
        "titlegen": _ours,
    }
    seconds: dict[str, list[float]] = {name: [] for name in builds}
    losses: dict[str, list[float]] = {}
    for _ in range(arguments.rounds):
        for name, build in builds.items():
            with torch.no_grad():
                for key, value in model.named_parameters():
                    if key in start:
                        value.copy_(start[key])
            with tempfile.TemporaryDirectory() as folder:
                times, losses[name] = _run(build(model, tokenizer, rows, train, Path(folder)))
            # The first step warms up.
            seconds[name] += times[1:]
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    metrics = {
        "cpu_ratio_vs_trl": medians["trl"] / medians["titlegen"],
        "cpu_ratio_vs_trl_no_checkpointing": medians["trl_no_checkpointing"] / medians["titlegen"],
        **{f"{name}_s": value for name, value in medians.items()},
        "largest_loss_difference": max(abs(a - b) for a, b in zip(losses["trl"], losses["titlegen"], strict=True)),
    }
    report = {
        "metrics": {name: float(f"{value:.3g}") for name, value in metrics.items()},
        "losses": losses,
        "notes": f"medians of a step of {train.per_device_train_batch_size} articles of the embedded corpus, "
        f"{len(rows)} rows of {statistics.mean(len(row['input_ids']) for row in rows):.0f} tokens on average, "
        f"{arguments.rounds} rounds in turn, random order in all. TRL with the model's own loss, as its kernel needs a "
        "GPU; it recomputes activations by default.",
    }
    write_report(arguments.out, report, "torch", "transformers", "trl", "peft", name="train_cpu")


def _plain(model: Any, tokenizer: Any, rows: list[EncodedRow], train: Any, work: Path, *, checkpointing: bool) -> Any:
    """Return TRL's trainer for rows that are tokens already.

    Its own loss is a Triton kernel since 1.15, which no CPU runs; before that it was the model's, with every logit.
    """
    from datasets import Dataset
    from transformers import Trainer
    from trl import SFTConfig, SFTTrainer

    from titlegen.train.encode import IGNORED

    class PlainTrainer(SFTTrainer):  # type: ignore[misc] # trl is untyped
        compute_loss = Trainer.compute_loss

    records = [
        {"input_ids": row["input_ids"], "completion_mask": [int(label != IGNORED) for label in row["labels"]]}
        for row in rows
    ]
    arguments = SFTConfig(
        output_dir=str(work),
        max_length=train.max_length,
        completion_only_loss=True,
        per_device_train_batch_size=train.per_device_train_batch_size,
        learning_rate=train.learning_rate,
        lr_scheduler_type=train.lr_scheduler_type,
        warmup_steps=train.warmup_ratio,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        num_train_epochs=1,
        gradient_checkpointing=checkpointing,
        bf16=False,
        use_cpu=True,
        seed=train.seed,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    return PlainTrainer(
        model=model, args=arguments, train_dataset=Dataset.from_list(records), processing_class=tokenizer
    )


def _ours(model: Any, tokenizer: Any, rows: list[EncodedRow], train: Any, work: Path) -> Any:
    from titlegen.train.memory import Plan
    from titlegen.train.trainer import build_trainer
    from titlegen.train.trim import CompletionTrim

    plan = Plan(batch=train.per_device_train_batch_size, accumulation=1, checkpointing=False)
    return build_trainer(model, tokenizer, rows, [], train, work, plan=plan, loss=CompletionTrim(model))


def _run(trainer: Any) -> tuple[list[float], list[float]]:
    """Return the seconds and the loss of each step."""
    times: list[float] = []
    trainer.add_callback(step_clock(times))
    trainer.train()
    return times, [record["loss"] for record in trainer.state.log_history if "loss" in record]


if __name__ == "__main__":
    main()
