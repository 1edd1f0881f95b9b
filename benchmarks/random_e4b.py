"""An E4B of either family, or a Gemma 3 270M, with random weights: as large as published, or narrow to try a script."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

FAMILIES = ("gemma3n", "gemma4")
_NARROW: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2}
_NARROW |= {"num_key_value_heads": 1, "head_dim": 32}
# Six layers, for several trainings in a row on a CPU.
TINY = _NARROW | {"num_hidden_layers": 6, "num_kv_shared_layers": 2, "laurel_rank": 8, "hidden_size_per_layer_input": 8}
TINY |= {"activation_sparsity_pattern": [0.95] * 2 + [0.0] * 4}
TINY |= {"layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2}
_IDS = {"bos_token_id": 2, "eos_token_id": [1, 106], "pad_token_id": 0}
# Source: google/gemma-4-E4B-it, config.json.
_GEMMA_4 = {
    "hidden_size": 2560,
    "intermediate_size": 10_240,
    "num_hidden_layers": 42,
    "num_kv_shared_layers": 18,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 256,
    "global_head_dim": 512,
    "sliding_window": 512,
    "final_logit_softcapping": 30.0,
    "max_position_embeddings": 131_072,
    "hidden_size_per_layer_input": 256,
}
# Source: google/gemma-3-270m, config.json.
_270M = {
    "hidden_size": 640,
    "intermediate_size": 2048,
    "num_hidden_layers": 18,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "query_pre_attn_scalar": 256,
    "sliding_window": 512,
    "vocab_size": 262_144,
}
# What Gemma 3's tokenizer calls the marks that stand in these places of Gemma 4's.
_MARKS = {"<start_of_turn>": "<|turn>", "<end_of_turn>": "<turn|>"}


class Unread(NamedTuple):
    """Weights of a layer that takes another's keys: published, and read by no one."""

    name: str
    shape: tuple[int, ...]


def text_config(family: str, *, small: bool = False) -> Any:
    """Return the text configuration of a family's E4B."""
    from transformers import Gemma3nTextConfig, Gemma4TextConfig

    if family == "gemma3n":
        return Gemma3nTextConfig(**(_NARROW if small else {}), **_IDS)
    narrow = _NARROW | {"global_head_dim": 64, "hidden_size_per_layer_input": 32} if small else {}
    return Gemma4TextConfig(**(_GEMMA_4 | narrow), **_IDS)


def text_config_270m(*, small: bool = False) -> Any:
    """Return the configuration of Gemma 3 270M."""
    from transformers import Gemma3TextConfig

    return Gemma3TextConfig(**(_270M | (_NARROW if small else {})), **_IDS)


def random_model(config: Any) -> Any:
    """Return a text model with random weights in bfloat16, on the GPU if there is one."""
    import torch
    from transformers import Gemma3ForCausalLM, Gemma3nForCausalLM, Gemma4ForCausalLM

    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    classes: dict[str, Any] = {
        "gemma3_text": Gemma3ForCausalLM,
        "gemma3n_text": Gemma3nForCausalLM,
        "gemma4_text": Gemma4ForCausalLM,
    }
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = classes[config.model_type](config)
    for name, parameter in model.named_parameters():
        if "q_norm" in name or "k_norm" in name:
            # These do not scale their dot products: undamped random ones make attention a lottery.
            parameter.data.fill_(0.3)
    # No title of the published weights has the tokens for images and sound; transformers' text model cannot read them.
    model.model.embed_tokens.weight.data[getattr(config, "vocab_size_per_layer_input", config.vocab_size) :] = 0
    return model


def unread_weights(config: Any) -> Iterator[Unread]:
    """Yield what the published checkpoint has for the layers that share keys, and transformers does not save."""
    for layer in range(config.num_hidden_layers - config.num_kv_shared_layers, config.num_hidden_layers):
        own = config.per_layer_config[layer] if config.model_type == "gemma4_text" else config
        attention, width = f"model.layers.{layer}.self_attn.", own.num_key_value_heads * own.head_dim
        yield Unread(f"{attention}k_proj.weight", (width, config.hidden_size))
        yield Unread(f"{attention}v_proj.weight", (width, config.hidden_size))
        yield Unread(f"{attention}k_norm.weight", (own.head_dim,))


def copy_tokenizer(source: Path, directory: Path, family: str) -> None:
    """Put the files of Gemma 3's tokenizer, and a chat template, beside a model; for Gemma 4 with its turn marks."""
    for path in sorted(source.iterdir()):
        if path.name.startswith(("tokenizer", "chat_template")):
            shutil.copyfile(path, directory / path.name)
    if family == "gemma3n":
        return
    from titlegen.families.gemma4 import PROMPT

    (directory / "tokenizer.model").unlink(missing_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        text = (directory / name).read_text(encoding="utf-8")
        for old, new in _MARKS.items():
            text = text.replace(json.dumps(old), json.dumps(new))
        (directory / name).write_text(text, encoding="utf-8")
    (directory / "chat_template.jinja").write_text(PROMPT.chat_template, encoding="utf-8")
