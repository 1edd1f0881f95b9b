"""The batch size and the share of activations that are kept, by the GPU's memory."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from titlegen.errors import TrainError
from titlegen.plural import count
from titlegen.settings import TrainSettings
from titlegen.train.encode import Batch
from titlegen.train.ranks import ALONE, Ranks

if TYPE_CHECKING:
    from torch import Tensor

# Share of the free memory that activations may take; the rest is for fragments, the optimizer and the head.
_BUDGET_SHARE = 0.82
# Memory in use beyond this share leaves nothing for the optimizer.
_FULL = 0.96
# A pass takes as long as the slower of launching and running it. In tokens that a GPU could run meanwhile: launching
# with every activation kept, and what recomputing them all adds; it adds this share to running, too.
# Source: docs/performance.md, "Smaller cards" (H100, Gemma 3n E4B).
_LAUNCHING, _RELAUNCHING, _RERUNNING = 8_000, 12_000, 0.4
# Tokens of the trial passes for each GiB that this process can have: enough that one layer's own needs do not stand for
# all layers'.
_TRIAL_TOKENS_PER_GIB = 50


def gpu_memory() -> tuple[float, float]:
    """Return what this process can still take of the GPU's memory, and what it may have in all, bytes.

    A limit that torch was given (``PYTORCH_ALLOC_CONF=per_process_memory_fraction:0.5``) counts as the card's size, for
    cards that are shared.
    """
    import torch

    device, allowed = torch.cuda.current_device(), gpu_limit()
    return min(torch.cuda.mem_get_info(device)[0], allowed - torch.cuda.memory_reserved(device)), allowed


def gpu_limit() -> float:
    """Return how much of the GPU's memory this process may have, bytes, without taking any for asking."""
    import torch

    device = torch.cuda.current_device()
    return torch.cuda.get_device_properties(device).total_memory * torch.cuda.get_per_process_memory_fraction(device)


@dataclass(frozen=True)
class Activations:
    """The measured needs of activations and their budget, in bytes."""

    budget: float
    kept: float
    """Per token, with every layer's activations kept."""
    recomputed: float
    """Per token, with every layer's activations recomputed."""

    def kept_share(self, tokens: int) -> float:
        """Return the largest share of the layers that can keep their activations for this many tokens, 0 to 1."""
        spare = self.budget - tokens * self.recomputed
        return min(1.0, max(0.0, spare / (tokens * max(self.kept - self.recomputed, 1.0))))


@dataclass(frozen=True)
class Plan:
    """One optimizer step: ``batch`` rows at a time, ``accumulation`` times."""

    batch: int
    accumulation: int
    checkpointing: bool
    """Recompute activations in the backward pass."""
    activations: Activations | None = None
    """Where given, only those layers are recomputed whose activations do not fit."""

    def kept_share(self, tokens: int) -> float:
        """Return the share of the layers that keep their activations for a batch of so many tokens."""
        if not self.checkpointing:
            return 1.0
        return self.activations.kept_share(tokens) if self.activations else 0.0


class Loss(Protocol):
    """Computes the loss of a batch, given the number of labels in the whole step."""

    def __call__(self, inputs: Batch, num_items: Tensor | int | None = None) -> Tensor:
        """Return a scalar tensor."""


def candidates(settings: TrainSettings, ranks: int = 1) -> list[Plan]:
    """Return the plans that the settings allow, the largest batch first; all have the same effective batch.

    Args:
        settings: hyper-parameters.
        ranks: cards that a step's rows are divided among.

    Raises:
        TrainError: they cannot be divided; the message names the numbers.
    """
    effective = settings.per_device_train_batch_size * settings.gradient_accumulation_steps
    if effective % ranks:
        raise TrainError(indivisible(settings, ranks))
    own = effective // ranks
    sizes = [size for size in range(own, 0, -1) if own % size == 0]
    if settings.low_memory or not settings.auto_batch:
        # The setting asks for little memory, whatever the card has.
        sizes = [size for size in sizes if size <= settings.per_device_train_batch_size]
    if not settings.auto_batch:
        sizes = sizes[:1]
    checkpointing = settings.gradient_checkpointing is not False or settings.low_memory
    return [Plan(size, own // size, checkpointing) for size in sizes]


def indivisible(settings: TrainSettings, ranks: int) -> str:
    """Return the message for a step's rows that cannot be divided among so many cards."""
    batch, accumulation = settings.per_device_train_batch_size, settings.gradient_accumulation_steps
    effective = batch * accumulation
    divisors = ", ".join(str(number) for number in range(1, effective + 1) if effective % number == 0)
    return (
        f"a step's {count(effective, 'row')} ({batch} x {accumulation}) cannot be divided among {ranks} cards; take a "
        f"number of cards that divides {effective} ({divisors}) with --train.devices, or other values of "
        "--train.per-device-train-batch-size and --train.gradient-accumulation-steps"
    )


def with_activations(plans: Sequence[Plan], activations: Activations, lengths: Sequence[int]) -> list[Plan]:
    """Return the plans with partial recomputing, the fastest first: the more rows, the more is to be recomputed.

    Those that would leave the budget with everything recomputed come last, the smallest of them first.

    Args:
        plans: what is allowed.
        activations: what was measured.
        lengths: tokens of each row.
    """
    mean = sum(lengths) / len(lengths)

    def rank(plan: Plan) -> tuple[bool, float]:
        if activations.recomputed * max(lengths) * plan.batch > activations.budget:
            return True, plan.batch
        tokens = mean * plan.batch
        recomputed = 1 - activations.kept_share(int(tokens))
        return False, max(_LAUNCHING + _RELAUNCHING * recomputed, tokens * (1 + _RERUNNING * recomputed)) / tokens

    return [replace(plan, activations=activations) for plan in sorted(plans, key=rank)]


def measure_activations(step: Callable[[int, float], int]) -> Activations | None:
    """Measure what activations need in two passes forward and backward; None: too much to keep any.

    Args:
        step: runs a pass over about so many tokens keeping a share of the activations; returns the tokens it had.
    """
    import torch

    available = gpu_memory()[0] + torch.cuda.memory_reserved()
    needs: list[float] = []
    for share in (0.0, 1.0):
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        try:
            with torch.random.fork_rng(devices=[torch.cuda.current_device()]):
                tokens = step(int(available / 2**30 * _TRIAL_TOKENS_PER_GIB), share)
        except torch.OutOfMemoryError:
            if not needs:
                raise
            return None
        # Memory that loading left may still be freed in the first pass, and would make it look smaller.
        held = min(before, torch.cuda.memory_allocated())
        needs.append((torch.cuda.max_memory_allocated() - held) / tokens)
    budget = _BUDGET_SHARE * (available - torch.cuda.memory_allocated())
    return Activations(budget, kept=needs[1], recomputed=needs[0])


def smallest(found: Sequence[Activations | None]) -> Activations | None:
    """Return the measurement that holds on every card; None where one has no room for any activations."""
    known = [each for each in found if each is not None]
    if len(known) < len(found):
        return None
    return Activations(
        budget=min(each.budget for each in known),
        kept=max(each.kept for each in known),
        recomputed=max(each.recomputed for each in known),
    )


def first_that_fits(plans: Iterable[Plan], attempt: Callable[[Plan], None], ranks: Ranks = ALONE) -> Plan:
    """Return the first plan whose ``attempt`` runs out of memory on no card.

    Raises:
        TrainError: none fits; the message names the smallest that was tried.
    """
    import torch

    tried: list[int] = []
    for plan in plans:
        tried.append(plan.batch)
        fits = True
        try:
            attempt(plan)
        except torch.OutOfMemoryError:
            fits = False
        if all(ranks.gather(fits)):
            return plan
    raise TrainError(
        f"out of memory even with {count(min(tried, default=0), 'row')} at a time and recomputed activations; lower "
        "--train.max-length, or set --train.low-memory"
    )


def measured(step: Callable[[Plan], None]) -> Callable[[Plan], None]:
    """Return an attempt that runs ``step`` and also fails when it leaves almost no memory free."""
    import torch

    def attempt(plan: Plan) -> None:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        # Dropout in the trial must not change the training that follows.
        with torch.random.fork_rng(devices=[torch.cuda.current_device()]):
            step(plan)
        if torch.cuda.max_memory_reserved() > _FULL * gpu_memory()[1]:
            raise torch.OutOfMemoryError("almost no memory left")

    return attempt
