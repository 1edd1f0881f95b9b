"""The inputs of TRL's preference loss: the final hidden states, trimmed, and log-probabilities on any machine."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from titlegen.train.packed import Packed
from titlegen.train.trim import CompletionTrim

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor
    from transformers import PreTrainedModel

# Logits of this many tokens are held at a time.
_HEAD_TOKENS = 512


def trim_backbone(model: PreTrainedModel | PeftModel, trim: CompletionTrim) -> None:
    """Let a model's decoder compute packed batches by the trimmed computation, and the others as before.

    TRL's fused head reads the final hidden states of the tokens that predict a title, and no others: where it does not
    look, they are zero.
    """
    causal_lm = model.get_base_model() if hasattr(model, "get_base_model") else model
    backbone = causal_lm.base_model
    whole = backbone.forward

    def forward(*arguments: Any, packed: Packed | None = None, **named: Any) -> Any:
        import torch

        if packed is None:
            return whole(*arguments, **named)
        rows, columns = named["input_ids"].shape
        # Weights and activations have one element type, and adapters are cast to it: autocast would only add casts.
        with torch.autocast(packed.ids.device.type, enabled=False):
            hidden = trim.states(packed)
        column = torch.arange(columns, device=hidden.device)
        ends, titles = packed.rows.bounds.diff()[:, None], packed.kept_rows.bounds.diff()[:, None]
        predicting = (column < ends) & (column >= ends - titles)
        dense = hidden.new_zeros(rows, columns, hidden.shape[-1])
        return SimpleNamespace(last_hidden_state=dense.masked_scatter(predicting[..., None], hidden))

    backbone.forward = forward


class LogProbabilities:
    """TRL's fused head in plain PyTorch, for machines without Triton, where TRL has none."""

    @staticmethod
    def apply(  # noqa: PLR0917 - TRL's signature
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        temperature: float,
        _chunk: int,
        softcap: float | None,
        scale: float,
        outputs: Sequence[str],
    ) -> tuple[Tensor, Tensor, None, Tensor, Tensor]:
        """Return log-probability, entropy, nothing, mean logit, and whether it is the likeliest, for each target (N,).

        Source: trl 1.15, trl/kernels/chunked_logprob.py.
        """
        import torch
        import torch.nn.functional as F  # noqa: N812 - torch's own convention
        from torch.utils.checkpoint import checkpoint

        if not set(outputs) <= {"log_probs", "entropy", "mean_logits", "is_top1"}:
            raise NotImplementedError(f"no {outputs} without Triton")

        def head(hidden: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
            logits = F.linear(hidden, weight.to(hidden.dtype), bias)
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32)) * scale
            if softcap is not None:
                logits = (logits / softcap).tanh() * softcap
            logits = logits / temperature
            logs = logits.log_softmax(-1)
            with torch.no_grad():
                entropy = -(logs.exp() * logs).sum(-1)
                facts = entropy, logits.mean(-1), logits.argmax(-1) == targets
            return logs.gather(-1, targets[:, None])[:, 0], *facts

        parts = zip(torch.split(hidden, _HEAD_TOKENS), torch.split(targets, _HEAD_TOKENS), strict=True)
        found = [checkpoint(head, *part, use_reentrant=False) for part in parts]
        logs, entropy, means, likeliest = (torch.cat(column) for column in zip(*found, strict=True))
        return logs, entropy, None, means, likeliest


def supply_head() -> None:
    """Give TRL a fused head where its own cannot run: without Triton, or without a compiler for Triton's launchers."""
    from trl.trainer import utils

    has_compiler = any(map(shutil.which, ("cc", "gcc", "clang")))
    if utils._ChunkedLogProbFunction is None or not has_compiler:  # noqa: SLF001 - the only place where TRL looks
        utils._ChunkedLogProbFunction = LogProbabilities  # noqa: SLF001
