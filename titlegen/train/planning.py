"""The trial passes behind a plan: batch and recomputing for this model on this machine."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from titlegen.files import write_atomically
from titlegen.settings import TrainSettings
from titlegen.train.encode import Batch, TrainingRow
from titlegen.train.loss import completion_loss
from titlegen.train.memory import (
    Activations,
    Loss,
    Plan,
    candidates,
    first_that_fits,
    measure_activations,
    measured,
    smallest,
    with_activations,
)
from titlegen.train.ranks import ALONE, Ranks
from titlegen.train.trim import CompletionTrim

if TYPE_CHECKING:
    from peft import PeftModel

PLAN = "plan.json"

Rows = Sequence[TrainingRow]
MakeBatch = Callable[[Rows], Batch]


def plan_batches(
    model: PeftModel,
    rows: Rows,
    settings: TrainSettings,
    trim: CompletionTrim | None,
    make_batch: MakeBatch,
    work: Path,
    *,
    ranks: Ranks = ALONE,
) -> Plan:
    """Choose batch size and recomputing: those of the run that is resumed, else the fastest that fits.

    Args:
        model: the PEFT model.
        rows: encoded rows of the train split.
        settings: hyper-parameters.
        trim: the trimmed computation, when it is used.
        make_batch: makes a padded batch on the model's device.
        work: folder that keeps the choice for a resume on as many cards.
        ranks: this process and those that it trains with; the card with the least memory decides.
    """
    import torch

    stored = work / PLAN
    # Rank 0's result, since all ranks need the same plan.
    known: Plan | None = ranks.gather(_read_plan(stored, ranks.count))[0]
    if known is not None:
        return known
    plans = candidates(settings, ranks.count)
    if not torch.cuda.is_available():
        # Host memory is not measured: the settings' own batch, every activation kept unless told otherwise.
        (own,) = candidates(settings.model_copy(update={"auto_batch": False}), ranks.count)
        plan = replace(own, checkpointing=settings.gradient_checkpointing is True or settings.low_memory)
    else:
        longest = sorted(rows, key=lambda row: len(row["input_ids"]), reverse=True)
        model.train()
        if trim is not None and settings.gradient_checkpointing == "auto" and not settings.low_memory:
            activations = measure_activations(partial(_pass, model, longest, trim, make_batch))
            activations = smallest(ranks.gather(activations))
            if activations is not None:
                plans = with_activations(plans, activations, [len(row["input_ids"]) for row in rows])
        plan = plans[0]
        if len(plans) > 1 or plan.activations:
            plan = first_that_fits(plans, measured(partial(_try, model, longest, trim, make_batch)), ranks)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    if ranks.leads:
        write_atomically(stored, json.dumps(asdict(plan) | {"ranks": ranks.count}) + "\n")
    return plan


def _read_plan(path: Path, ranks: int) -> Plan | None:
    """Return the plan of the run that is resumed; None without one for as many cards."""
    if not path.is_file():
        return None
    fields = json.loads(path.read_bytes())
    activations = fields.pop("activations")
    # Earlier releases knew one card.
    if fields.pop("ranks", 1) != ranks:
        return None
    return Plan(**fields, activations=Activations(**activations) if activations else None)


def _pass(
    model: PeftModel, longest: Rows, trim: CompletionTrim, make_batch: MakeBatch, tokens: int, share: float
) -> int:
    """Run the trimmed computation forward and backward over about so many tokens; return how many it had."""
    chosen: list[TrainingRow] = []
    total = 0
    computed: list[int] = []

    def keep(tokens: int) -> float:
        computed.append(tokens)
        return share

    # From the middle of the lengths, so that the trial resembles the training.
    for row in longest[len(longest) // 2 :] or longest:
        chosen.append(row)
        total += len(row["input_ids"])
        if total >= tokens:
            break
    trim.kept_share = keep
    _backward(model, trim, make_batch(chosen))
    # Fewer than the rows have, for their common beginning is computed once.
    return computed[-1]


def _try(model: PeftModel, longest: Rows, trim: CompletionTrim | None, make_batch: MakeBatch, plan: Plan) -> None:
    """Run a pass over the longest rows as the plan has it."""
    loss: Loss = trim or partial(completion_loss, model)
    if trim is not None:
        trim.kept_share = plan.kept_share
    elif plan.checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    _backward(model, loss, make_batch(longest[: plan.batch]))


def _backward(model: PeftModel, loss: Loss, batch: Batch) -> None:
    import torch

    try:
        torch.autograd.backward(loss(batch))
    finally:
        model.zero_grad(set_to_none=True)
