"""Fit a LoRA adapter to the train split: one ``fit`` for both back ends, loss on the title only."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from titlegen.control import with_controls
from titlegen.data import Example, load_split
from titlegen.errors import TrainError
from titlegen.files import write_atomically
from titlegen.models import family_at
from titlegen.plural import count
from titlegen.results import Trained
from titlegen.runs import say
from titlegen.settings import TrainSettings
from titlegen.tensors import read_ahead
from titlegen.train.backends import check_backend, check_environment, load_for_training
from titlegen.train.devices import choose_devices, find_cards
from titlegen.train.encode import Batch, TrainingRow, check_tokenizer, encode_examples
from titlegen.train.fp8 import check_compiled
from titlegen.train.fp8_check import use_fp8
from titlegen.train.init_adapter import digest_init_adapter, resolve_init_adapter
from titlegen.train.kept import newest_checkpoint, read_log, save_adapter, step_of
from titlegen.train.launch import train_on
from titlegen.train.loss import check_trim
from titlegen.train.parts import Parts
from titlegen.train.planning import PLAN, MakeBatch, plan_batches
from titlegen.train.plot import smooth_loss, write_loss_curve
from titlegen.train.progress import EVENTS, LOG, peak_gib
from titlegen.train.ranks import ALONE, TIMEOUT_S, Ranks
from titlegen.train.shared import as_record
from titlegen.train.trainer import build_trainer, collator
from titlegen.train.trim import CompletionTrim, can_trim
from titlegen.train.weights import prepare_weights
from titlegen.train.work import Work

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "check_backend",
    "check_environment",
    "digest_init_adapter",
    "encode_examples",
    "fit",
    "padded_batch",
    "resolve_init_adapter",
    "train_adapter",
    "trimmed_loss",
]

CURVE = "loss.svg"
# Compiling wins its own time back from this many tokens on; see docs/performance.md.
COMPILE_TOKENS = 1_000_000


def train_adapter(
    prepared: Path, base: Path, settings: TrainSettings, work: Path, directory: Path, key: str
) -> Trained:
    """Train on the cards that the settings ask for; arguments and results as for :func:`fit`.

    Args:
        prepared: folder of the prepared data.
        base: directory of the base model.
        settings: hyper-parameters.
        work: folder for checkpoints.
        directory: fresh folder for the adapter.
        key: digest of everything that the result depends on.

    Raises:
        ConfigError: there are too few cards, or a step cannot be divided among them.
        TrainError: the machine cannot train, or training stopped.
    """
    read_ahead(base)
    # Before torch is imported to look at the cards: it reads the order of their memory then.
    check_backend(settings)
    devices = choose_devices(settings, *find_cards())
    if devices.alone:
        train, val = (load_split(prepared, split) for split in ("train", "val"))
        return fit(train, val, base, settings, work, directory)
    say(f"train: {count(devices.count, 'rank')} on this host ({devices.why})")
    given = Work(
        prepared=prepared.absolute(),
        base=base.absolute(),
        settings=settings,
        work=work.absolute(),
        directory=directory.absolute(),
        key=key,
        timeout_s=TIMEOUT_S,
    )
    return train_on(devices, given)


def fit(
    train: Sequence[Example],
    val: Sequence[Example],
    base: Path,
    settings: TrainSettings,
    work: Path,
    directory: Path,
    *,
    ranks: Ranks = ALONE,
) -> Trained:
    """Train an adapter on the base model and write it to ``directory``.

    Checkpoints go to ``work``; when it already holds one, training resumes from it with optimizer, schedule, random
    state and data position, so that the result equals that of an uninterrupted run. A checkpoint of another number of
    ranks will do; dropout alone is then another. ``work`` is removed at the end, unless other ranks still use it.

    Args:
        train: examples to learn from.
        val: examples for the validation loss; the checkpoint with the lowest one is kept.
        base: directory of the base model.
        settings: hyper-parameters.
        work: folder for checkpoints, kept when training is interrupted.
        directory: fresh folder for the adapter, the log and the loss curve.
        ranks: this process and those that it trains with; the first of each host writes.

    Returns:
        What was found out; the steps alone where this rank does not write.

    Raises:
        TrainError: the machine cannot train with this back end, or the loss is not finite.
    """
    check_backend(settings)
    work.mkdir(parents=True, exist_ok=True)
    try:
        return _fit(train, val, base, settings, work, directory, ranks=ranks)
    except RuntimeError as error:
        text = str(error).lower()
        # CUDA's message and the CPU's.
        if "out of memory" in text or "can't allocate memory" in text:
            raise TrainError(_out_of_memory(settings)) from error
        # torch.save's message on a full disk.
        if "unexpected pos" in text or "pytorchstreamwriter" in text:
            free = shutil.disk_usage(work).free / 2**30
            raise TrainError(
                f"cannot write a checkpoint to {work} ({free:.1f} GiB free): {error}; free some disk space or choose "
                "another disk with --output, then run the same command again"
            ) from error
        raise


def _fit(
    train: Sequence[Example],
    val: Sequence[Example],
    base: Path,
    settings: TrainSettings,
    work: Path,
    directory: Path,
    *,
    ranks: Ranks,
) -> Trained:
    parts = Parts()
    parts.end("before")
    model, tokenizer = load_for_training(base, settings)
    parts.end("load")
    load_peak_gib = peak_gib()
    checkpoint = newest_checkpoint(work, ranks)
    if checkpoint is None and ranks.leads:
        # Without a checkpoint nothing binds a new run to what an old one found: the card may have more room now.
        for name in (LOG, PLAN):
            (work / name).unlink(missing_ok=True)
    train = with_controls(train, settings.control_share, settings.seed)
    family = family_at(base)
    check_tokenizer(tokenizer, family)
    rows = encode_examples(train, tokenizer, family.prompt, settings.max_length)
    val_rows = encode_examples(val, tokenizer, family.prompt, settings.max_length)
    tokens = sum(len(row["input_ids"]) for row in rows)
    parts.end("encode")
    make_batch = partial(padded_batch, model, tokenizer)
    trim, facts = trimmed_loss(model, make_batch, rows, settings, tokens)
    parts.end("check")
    plan = plan_batches(model, rows, settings, trim, make_batch, work, ranks=ranks)
    parts.end("plan")
    if trim is not None:
        trim.kept_share = plan.kept_share
        if settings.fp8:
            check_compiled(trim)
    trainer = build_trainer(model, tokenizer, rows, val_rows, settings, work, plan=plan, loss=trim, ranks=ranks)
    parts.end("prepare")
    result = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    trainer.stop_on_broken(wait=True)
    peaks = ranks.gather(peak_gib())
    parts.end("train")
    if not ranks.leads:
        return Trained(steps=trainer.state.global_step, first_loss=None, last_loss=None, val_loss=None)
    save_adapter(trainer.model, base, directory)
    records = read_log(work / LOG)
    write_atomically(directory / LOG, "".join(json.dumps(record) + "\n" for record in records))
    write_loss_curve(records, directory / CURVE)
    if settings.tensorboard:
        shutil.copytree(work / EVENTS, directory / EVENTS)
    losses = [loss for _, loss in smooth_loss(records)]
    evaluations = {record["step"]: record["eval_loss"] for record in records if "eval_loss" in record}
    before = evaluations.pop(0, None)
    if ranks.count == 1:
        shutil.rmtree(work)
    parts.end("save")
    seconds = float(result.metrics.get("train_runtime", 0.0))
    return Trained(
        steps=trainer.state.global_step,
        resumed_from_step=step_of(checkpoint) if checkpoint else 0,
        first_loss=losses[0] if losses else None,
        last_loss=losses[-1] if losses else None,
        val_loss_at_start=before,
        val_loss=min(evaluations.values(), default=None),
        train_rows=len(rows),
        train_tokens=tokens,
        shortened_rows=sum(row["shortened"] for row in rows),
        left_out_share=round(
            sum(row["left_out_chars"] for row in rows) / max(1, sum(len(example.content) for example in train)), 4
        ),
        left_out_by=("train.max_length", settings.max_length),
        train_s=round(seconds, 2),
        parts_s=parts.seconds,
        tokens_per_s=round(trainer.tokens_seen / seconds, 1) if seconds else None,
        load_peak_gib=load_peak_gib,
        peak_gib=max(peaks),
        devices=ranks.count,
        device=str(trainer.args.device),
        plan=asdict(plan),
        init_adapter=settings.init_adapter,
        **facts,
        # Known at the end: a layer that cannot be compiled is found when it runs.
        compiled=trim is not None and trim.compiled,
    )


def padded_batch(model: PeftModel, tokenizer: PreTrainedTokenizerBase, rows: Sequence[TrainingRow]) -> Batch:
    """Return encoded rows as a padded batch on a model's device."""
    device = next(parameter for parameter in model.parameters() if parameter.requires_grad).device
    batch = collator(tokenizer)([as_record(row, number) for number, row in enumerate(rows)])
    return {key: value.to(device) for key, value in batch.items() if key != "row"}


def trimmed_loss(
    model: PeftModel, make_batch: MakeBatch, rows: Sequence[TrainingRow], settings: TrainSettings, tokens: int
) -> tuple[CompletionTrim | None, dict[str, Any]]:
    """Return the trimmed computation, checked against the full model, and the facts about it for the results."""
    import torch

    if not settings.completion_trim or not can_trim(model):
        return None, {"completion_trim": False}
    weights = prepare_weights(model, low_memory=settings.low_memory)
    compiled = settings.compile
    if compiled == "auto":
        long = tokens * settings.num_train_epochs >= COMPILE_TOKENS
        compiled = torch.cuda.is_available() and (long or settings.fp8)
    trim = CompletionTrim(model, compiled=compiled)
    # Two rows of different lengths, so that a fault in the padding shows.
    ordered = sorted(rows, key=lambda row: len(row["input_ids"]))
    batch = make_batch([ordered[0], ordered[len(ordered) // 2]])
    trimmed, full = check_trim(trim, model, batch)
    facts = {"completion_trim": True, "loss_at_start": trimmed, "full_loss_at_start": full, "frozen_weights": weights}
    if settings.fp8:
        found = use_fp8(trim, model, batch)
        facts |= {"loss_at_start": found.loss, "fp8_error": found.error, "fp8_explained": found.explained}
        facts["frozen_weights"] = f"float8_e4m3fn and {weights}"
    return trim, facts


def _out_of_memory(settings: TrainSettings) -> str:
    return (
        f"out of memory at a peak of {peak_gib()} GiB with batch {settings.per_device_train_batch_size} and length "
        f"{settings.max_length}; lower --train.per-device-train-batch-size (and raise "
        "--train.gradient-accumulation-steps by as much; --train.auto-batch does both), lower --train.max-length, or "
        "set --train.gradient-checkpointing true or --train.low-memory"
    )
