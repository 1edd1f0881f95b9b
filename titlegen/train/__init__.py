"""Fit a LoRA adapter to the train split: one ``fit`` for both back ends, loss on the title only."""

import contextlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from titlegen.data import Example
from titlegen.errors import TrainError
from titlegen.manifest import write_atomically
from titlegen.settings import TrainSettings
from titlegen.train.backends import check_backend, load_for_training
from titlegen.train.encode import encode_examples
from titlegen.train.plot import write_loss_curve
from titlegen.train.trainer import LOG, build_trainer, peak_gib

__all__ = ["check_backend", "encode_examples", "fit"]

CURVE = "loss.svg"


def fit(
    train: Sequence[Example],
    val: Sequence[Example],
    base: Path,
    settings: TrainSettings,
    work: Path,
    directory: Path,
) -> dict[str, Any]:
    """Train an adapter on the base model and write it to ``directory``.

    Checkpoints go to ``work``; when it already holds one, training resumes from it with optimizer, schedule, random
    state and data position, so that the result equals that of an uninterrupted run. ``work`` is removed at the end.

    Args:
        train: examples to learn from.
        val: examples for the validation loss; the checkpoint with the lowest one is kept.
        base: directory of the base model.
        settings: hyper-parameters.
        work: folder for checkpoints, kept when training is interrupted.
        directory: fresh folder for the adapter, the log and the loss curve.

    Returns:
        Losses, steps, tokens a second and peak memory.

    Raises:
        TrainError: the machine cannot train with this back end, or the loss is not finite.
    """
    check_backend(settings)
    work.mkdir(parents=True, exist_ok=True)
    model, tokenizer = load_for_training(base, settings)
    rows = encode_examples(train, tokenizer, settings.max_length)
    val_rows = encode_examples(val, tokenizer, settings.max_length)
    trainer = build_trainer(model, tokenizer, rows, val_rows, settings, work)
    checkpoint = _newest_checkpoint(work)
    if checkpoint is None:
        (work / LOG).unlink(missing_ok=True)
    try:
        result = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except RuntimeError as error:
        if "out of memory" in str(error).lower():
            raise TrainError(_out_of_memory(settings)) from error
        raise
    trainer.model.save_pretrained(directory)
    # PEFT writes an empty model card; the real one belongs to the published model.
    (directory / "README.md").unlink(missing_ok=True)
    _forget_local_path(directory / "adapter_config.json", base)
    records = _read_log(work / LOG)
    shutil.copyfile(work / LOG, directory / LOG)
    write_loss_curve(records, directory / CURVE)
    losses = [record["loss"] for record in records if "loss" in record]
    evaluations = [record["eval_loss"] for record in records if "eval_loss" in record]
    shutil.rmtree(work)
    return {
        "steps": trainer.state.global_step,
        "resumed_from_step": _step(checkpoint) if checkpoint else 0,
        "first_loss": losses[0] if losses else None,
        "last_loss": losses[-1] if losses else None,
        "val_loss": min(evaluations) if evaluations else None,
        "train_rows": len(rows),
        "train_tokens": sum(len(row["input_ids"]) for row in rows),
        "shortened_rows": sum(row["shortened"] for row in rows),
        "train_s": round(float(result.metrics.get("train_runtime", 0.0)), 2),
        "peak_gib": peak_gib(),
        "device": str(trainer.args.device),
    }


def _newest_checkpoint(work: Path) -> Path | None:
    # trainer_state.json is written last, so a checkpoint without it was cut off.
    complete = [path for path in work.glob("checkpoint-*") if (path / "trainer_state.json").is_file()]
    return max(complete, key=_step, default=None)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _read_log(path: Path) -> list[dict[str, Any]]:
    """Read the log, keeping the last record of a step that was repeated after a resume."""
    records: dict[tuple[int, bool], dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        # A kill can cut the last line off.
        with contextlib.suppress(ValueError):
            record = json.loads(line)
            records[record["step"], "eval_loss" in record] = record
    return [records[key] for key in sorted(records)]


def _forget_local_path(config: Path, base: Path) -> None:
    """Replace the base model's path on this machine by its name: the adapter may be published."""
    fields = json.loads(config.read_text(encoding="utf-8"))
    if os.path.isabs(fields.get("base_model_name_or_path") or ""):  # noqa: PTH117 - also false for Hub names
        fields["base_model_name_or_path"] = base.name
    write_atomically(config, json.dumps(fields, indent=2, sort_keys=True) + "\n")


def _out_of_memory(settings: TrainSettings) -> str:
    return (
        f"out of memory with batch {settings.per_device_train_batch_size} and length {settings.max_length}; lower "
        "--train.per-device-train-batch-size (and raise --train.gradient-accumulation-steps by as much), lower "
        "--train.max-length, or set --train.gradient-checkpointing"
    )
