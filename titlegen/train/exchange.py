"""A pass as a module for the trainer and DistributedDataParallel: the trained parameters, and the loss of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from titlegen.train.encode import Batch
from titlegen.train.memory import Loss
from titlegen.train.ranks import ALONE, Ranks

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor, nn

# A resumed run must not repeat the dropout of its beginning; any large odd number keeps steps and ranks apart.
_STRIDE = 1_000_003


def wrap_alone(model: PeftModel, loss: Loss) -> nn.Module:
    """Return a module that computes the loss of a batch, for training by one process.

    transformers walks through all modules of what it trains four times a step, for modes, norms and gradients: through
    the thousands of an E4B with an adapter, while the GPU waits for the next pass.
    """
    return _pass_class()(model, loss, [p for p in model.parameters() if p.requires_grad], ALONE)


def wrap_pass(model: PeftModel, loss: Loss, example: Batch, ranks: Ranks) -> nn.Module:
    """Return a module that computes the loss of a batch and averages its gradients over the ranks.

    Args:
        model: the PEFT model, the same on every rank but for its adapter: rank 0's is taken over.
        loss: computes the loss of a batch, given the number of labels in the step.
        example: a small batch.
        ranks: this process and the others.
    """
    import torch
    from torch.nn.parallel import DistributedDataParallel

    trained = used_parameters(model, loss, example)
    if torch.cuda.is_available():
        # It cuts compiled graphs at the bounds of its buckets; ours are parts of layers.
        torch._dynamo.config.optimize_ddp = False  # noqa: SLF001 - documented, though its module is private
    module = _pass_class()(model, loss, trained, ranks)
    return DistributedDataParallel(module, gradient_as_bucket_view=True)


def used_parameters(model: PeftModel, loss: Loss, example: Batch) -> list[nn.Parameter]:
    """Return the trained parameters that the loss depends on.

    The others, such as adapters of projections that Gemma 3n's upper layers never read, would be waited for.
    """
    import torch

    compiled = getattr(loss, "compiled", None)
    if compiled is not None:
        # One small batch is not worth a graph of its own.
        loss.compiled = False  # type: ignore[attr-defined]
    try:
        torch.autograd.backward(loss(example))
        return [p for p in model.parameters() if p.requires_grad and p.grad is not None]
    finally:
        model.zero_grad(set_to_none=True)
        if compiled is not None:
            loss.compiled = compiled  # type: ignore[attr-defined]


def _pass_class() -> type[nn.Module]:
    import torch

    class Pass(torch.nn.Module):
        """Holds trained parameters alone: all others are the same on every rank, and may lie on the host."""

        def __init__(self, model: PeftModel, loss: Loss, trained: Sequence[nn.Parameter], ranks: Ranks) -> None:
            super().__init__()
            self.trained = torch.nn.ParameterList(trained)
            self._loss, self._ranks, self._passes = loss, ranks, 0
            # In a list, so that its parameters are not this module's.
            self._model = [model]

        def train(self, mode: bool = True) -> Pass:  # noqa: FBT001, FBT002 - torch's signature
            if self._model[0].training != mode:
                self._model[0].train(mode)
            return super().train(mode)

        def forward(self, inputs: Batch, num_items: Tensor | int | None) -> Tensor:
            self._passes += 1
            self._ranks.note(self._passes, "computing")
            loss = self._loss(inputs, num_items)
            self._ranks.note(self._passes, "exchanging")
            return loss

    return Pass


def seed_rank(seed: int, ranks: Ranks, step: int) -> None:
    """Give each rank, and each resumed run, dropout of its own."""
    import torch

    torch.manual_seed(seed + _STRIDE * (step * ranks.count + ranks.rank + 1))


def save_random_state(checkpoint: Path, ranks: Ranks) -> None:
    """Keep this rank's random state beside a checkpoint."""
    import torch

    state = {"count": ranks.count, "cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    checkpoint.mkdir(parents=True, exist_ok=True)
    path = _state_path(checkpoint, ranks)
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def load_random_state(checkpoint: Path, ranks: Ranks, seed: int) -> None:
    """Restore the random state of a checkpoint; one of another number of ranks has none that fits."""
    import torch

    path = _state_path(checkpoint, ranks)
    state = torch.load(path, weights_only=True) if path.is_file() else {}
    if state.get("count") != ranks.count:
        seed_rank(seed, ranks, int(checkpoint.name.rpartition("-")[2]))
        return
    torch.set_rng_state(state["cpu"])
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"])


def _state_path(checkpoint: Path, ranks: Ranks) -> Path:
    return checkpoint / f"rng_state_{ranks.rank}.pth"
