"""A model directory in transformers: its tokenizer, its model, and the titles that ``generate`` writes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from titlegen.models import family_at, load_tokenizer, uncollected
from titlegen.tensors import Tensors

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from torch import Tensor
    from transformers import PreTrainedModel

MAX_NEW_TOKENS = 48
# Room for activations beside the weights.
_GPU_RESERVE = 1.2


class Written(NamedTuple):
    """What ``generate`` of transformers wrote behind prompts."""

    rows: list[list[int]]
    """Tokens of each title, padded behind its end to the longest."""
    logits: tuple[Tensor, ...]
    """For each step (rows, vocabulary); empty unless asked for."""


def load_model(
    directory: Path, adapter: Path | None = None, *, dtype: torch.dtype | str = "auto"
) -> PreTrainedModel | PeftModel:
    """Load a model, with an adapter over it when there is one, on the GPU where there is one, in evaluation mode.

    Args:
        directory: model directory; code that it brings is not run.
        adapter: directory of a PEFT adapter.
        dtype: element type of the weights; by default the one that they are stored in.
    """
    with uncollected():
        import torch
        from transformers import AutoModelForCausalLM

    device = "cuda" if torch.cuda.is_available() else "cpu"
    # Straight to its device: an E4B is not held in the machine's memory first.
    model: PreTrainedModel | PeftModel = AutoModelForCausalLM.from_pretrained(
        directory, dtype=dtype, device_map=device, trust_remote_code=False
    )
    if adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter)
    return model.eval()


def least_rounding(directory: Path) -> torch.dtype:
    """Return float32, or bfloat16 where a GPU has no room for a directory's model in that."""
    import torch

    if not torch.cuda.is_available():
        return torch.float32
    tensors = Tensors(directory)
    needed = 4 * _GPU_RESERVE * sum(math.prod(tensors.shape(key)) for key in tensors)
    return torch.float32 if needed < torch.cuda.mem_get_info()[0] else torch.bfloat16


def write_tokens(
    model: PreTrainedModel | PeftModel,
    prompts: Sequence[Sequence[int]],
    *,
    padding: int,
    stop: Sequence[int] | None = None,
    max_new_tokens: int = MAX_NEW_TOKENS,
    temperature: float = 0.0,
    with_logits: bool = False,
) -> Written:
    """Return what ``generate`` of transformers writes behind the tokens of prompts, with the whole model.

    Args:
        model: a causal LM.
        prompts: tokens of each prompt, with the first that the model expects.
        padding: token that fills the shorter prompts up, and the shorter titles.
        stop: tokens that end a title; None for those of the model's own generation configuration.
        max_new_tokens: of a title.
        temperature: 0 for the likeliest tokens, else they are drawn with torch's own generator.
        with_logits: return the logits too.
    """
    import torch

    width = max(map(len, prompts))
    # On the left, so that every row ends where its title has to begin.
    ids = [[padding] * (width - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    sampling: dict[str, float | None] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    if temperature > 0:
        sampling = {"do_sample": True, "temperature": temperature, "top_p": 1.0, "top_k": 0}
    with torch.inference_mode():
        output = model.generate(
            input_ids=torch.tensor(ids, device=model.device),
            attention_mask=torch.tensor(mask, device=model.device),
            max_new_tokens=max_new_tokens,
            pad_token_id=padding,
            return_dict_in_generate=True,
            output_logits=with_logits,
            **({} if stop is None else {"eos_token_id": list(stop)}),
            **sampling,
        )
    return Written(output.sequences[:, width:].tolist(), tuple(output.logits or ()))


def greedy_title(directory: Path, article: str) -> str:
    """Return the greedy title of an article as whoever loads a directory gets it: its own element type and stops."""
    tokenizer, model = load_tokenizer(directory), load_model(directory)
    prompt = tokenizer(family_at(directory).prompt.render(article), add_special_tokens=False)["input_ids"]
    (written,) = write_tokens(model, [prompt], padding=tokenizer.pad_token_id).rows
    return str(tokenizer.decode(written, skip_special_tokens=True)).strip()
