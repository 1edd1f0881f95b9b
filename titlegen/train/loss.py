"""The loss by the full model on the title's tokens alone, and the check of the trimmed loss against it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from titlegen.errors import TrainError
from titlegen.train.encode import IGNORED, Batch
from titlegen.train.trim import CompletionTrim, text_model

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor
    from transformers import PreTrainedModel

# Largest relative difference from the full model's loss that rounding explains, by element type.
_TOLERANCE = {"float64": 1e-6, "float32": 1e-4, "bfloat16": 2e-2, "float16": 1e-2}


def completion_loss(model: PreTrainedModel | PeftModel, inputs: Batch, num_items: Tensor | int | None = None) -> Tensor:
    """Return the loss of a batch, computing logits only where a label is.

    Equal to the full model's loss; the head over a vocabulary of 262,144 is most of a small Gemma's work, and only
    one token in fifteen has a label.

    Args:
        model: a causal LM, or a PEFT model around one.
        inputs: ``input_ids``, ``attention_mask`` and ``labels``: (batch, seq) int64, -100 where masked.
        num_items: number of labels in the whole optimizer step; the sum is divided by it. None: the batch's own.

    Returns:
        A scalar float32 tensor.
    """
    import torch.nn.functional as F  # noqa: N812 - torch's own convention

    causal_lm = model.get_base_model() if hasattr(model, "get_base_model") else model
    labels = inputs["labels"]
    hidden = causal_lm.model(
        input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False
    ).last_hidden_state
    predicts = labels[:, 1:] != IGNORED
    logits = causal_lm.lm_head(hidden[:, :-1][predicts]).float()
    cap = getattr(causal_lm.config.get_text_config(), "final_logit_softcapping", None)
    if cap is not None:
        logits = (logits / cap).tanh() * cap
    targets = labels[:, 1:][predicts]
    total = F.cross_entropy(logits, targets, reduction="sum")
    return total / (targets.numel() if num_items is None else num_items)


def check_trim(trim: CompletionTrim, model: PreTrainedModel | PeftModel, inputs: Batch) -> tuple[float, float]:
    """Compare the trimmed loss of a batch with the full model's, dropout off.

    Returns:
        Both losses: trimmed, full.

    Raises:
        TrainError: they differ by more than rounding, or are not finite.
    """
    import torch

    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            trimmed = float(trim(inputs))
            full = float(completion_loss(model, inputs))
    finally:
        model.train(training)
    if not math.isfinite(full):
        raise TrainError(f"the untrained model's loss is {full}; check the base model's weights")
    # Not a layer's: those in 4 bits have no parameters but their adapters', which are held in float32.
    dtype = str(text_model(model).embed_tokens.weight.dtype).removeprefix("torch.")
    tolerance = _TOLERANCE.get(dtype, max(_TOLERANCE.values()))
    if not abs(trimmed - full) <= tolerance * max(1.0, abs(full)):
        raise TrainError(
            f"the trimmed loss {trimmed:.6g} differs from the full model's {full:.6g} by more than rounding in {dtype} "
            "explains; set --train.no-completion-trim and report this model"
        )
    return trimmed, full
