"""Cross-entropy on the title's tokens alone, without logits for the prompt: the full model, for any architecture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from titlegen.train.encode import IGNORED, Batch

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor
    from transformers import PreTrainedModel


def completion_loss(model: PreTrainedModel | PeftModel, inputs: Batch, num_items: Tensor | None = None) -> Tensor:
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
