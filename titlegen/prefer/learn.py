"""Preference training: from pairs to an adapter, with checkpoints."""

import json
import math
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from titlegen.errors import TrainError
from titlegen.files import write_atomically
from titlegen.models import family_at
from titlegen.prefer.pairs import Pair
from titlegen.prefer.trainer import as_training_row, build_trainer, encode_pairs, score_reference
from titlegen.results import Learned
from titlegen.settings import PreferSettings, TrainSettings
from titlegen.train import padded_batch, trimmed_loss
from titlegen.train.backends import check_backend, load_for_training
from titlegen.train.kept import newest_checkpoint, read_log, save_adapter
from titlegen.train.planning import PLAN, plan_batches
from titlegen.train.progress import LOG, peak_gib


def learn(
    pairs: Sequence[Pair],
    base: Path,
    adapter: Path,
    settings: PreferSettings,
    *,
    train: TrainSettings,
    work: Path,
    directory: Path,
) -> Learned:
    """Train an adapter further on pairs, and write it to ``directory``; an interrupted call resumes.

    Args:
        pairs: preferences.
        base: directory of the base model.
        adapter: the SFT adapter: where training starts, and the reference.
        settings: objective and its parameters.
        train: settings that made the adapter; rows, memory and shape of the adapter are theirs.
        work: folder for checkpoints; it is removed at the end.
        directory: fresh folder for the adapter and the log.

    Returns:
        What was found out; the tokens are those of both titles of a pair, each with its article.

    Raises:
        TrainError: the machine cannot train, or the loss is not finite.
    """
    work.mkdir(parents=True, exist_ok=True)
    # Unsloth replaces TRL's trainers; the trimmed computation needs nothing of it.
    # It learns from small differences of two losses, so nothing of them is rounded away.
    train = train.model_copy(update={"backend": "peft", "init_adapter": str(adapter), "fp8": False})
    rows_at_a_time = math.gcd(train.per_device_train_batch_size, settings.batch_size)
    train = train.model_copy(
        update={
            "per_device_train_batch_size": rows_at_a_time,
            "gradient_accumulation_steps": settings.batch_size // rows_at_a_time,
        }
    )
    check_backend(train)
    model, tokenizer = load_for_training(base, train)
    rows = encode_pairs(pairs, tokenizer, family_at(base).prompt, train.max_length, settings.seed)
    checkpoint = newest_checkpoint(work)
    if checkpoint is None:
        for name in (LOG, PLAN):
            (work / name).unlink(missing_ok=True)
    as_rows = [as_training_row(row) for row in rows]
    tokens = sum(len(row["input_ids"]) for row in as_rows)
    make_batch = partial(padded_batch, model, tokenizer)
    budget = train.model_copy(update={"num_train_epochs": settings.num_train_epochs})
    trim, facts = trimmed_loss(model, make_batch, as_rows, budget, tokens)
    plan = plan_batches(model, as_rows, train, trim, make_batch, work)
    if trim is not None:
        trim.kept_share = plan.kept_share
    trainer = build_trainer(model, tokenizer, rows, settings, train, work, plan=plan, trim=trim)
    score_reference(trainer, settings)
    result = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    records = read_log(work / LOG)
    if any(not math.isfinite(record.get("loss", 0.0)) for record in records):
        raise TrainError(
            f"the loss of preference training is not finite (beta {settings.beta}, learning rate "
            f"{settings.learning_rate}); lower --prefer.learning-rate"
        )
    save_adapter(trainer.model, base, directory)
    write_atomically(directory / LOG, "".join(json.dumps(record) + "\n" for record in records))
    shutil.rmtree(work)
    seconds = float(result.metrics.get("train_runtime", 0.0))
    return Learned(
        steps=trainer.state.global_step,
        resumed_from_step=int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0,
        pairs=len(rows),
        train_s=round(seconds, 2),
        tokens_per_s=round(trainer.tokens_seen / seconds, 1) if seconds else None,
        peak_gib=peak_gib(),
        compiled=trim is not None and trim.compiled,
        last=records[-1] if records else {},
        **facts,
    )
