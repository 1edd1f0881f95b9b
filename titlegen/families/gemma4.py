"""Gemma 4, the sizes with per-layer embeddings: E4B, and E2B like it."""

import re
from collections.abc import Mapping
from typing import Any

from titlegen.families.family import Licence, ModelFamily, Rope, TokenIds
from titlegen.families.gemma4_decoder import Gemma4Decoder
from titlegen.families.size import ModelSize
from titlegen.prompt import PromptFormat

BOS, START_OF_TURN, END_OF_TURN = "<bos>", "<|turn>", "<turn|>"
# Source: google/gemma-4-E4B-it, tokenizer.json and generation_config.json: <|turn> is 105, <turn|> 106.
TOKENS = TokenIds(pad=0, eos=1, bos=2, unk=3, end_of_turn=106)
_HEAD_DIM, _GLOBAL_HEAD_DIM = 256, 512

# Source: the chat template of google/gemma-4-E4B-it with thinking off: no <|think|> opens the system turn, and nothing
# follows the model's mark. Larger sizes open an empty thought there, which E2B and E4B take for the begin of one.
PROMPT = PromptFormat(
    bos=BOS,
    start_of_turn=START_OF_TURN,
    end_of_turn=END_OF_TURN,
    opening="",
    before_system=f"{START_OF_TURN}system\n",
    after_system=f"{END_OF_TURN}\n",
    before_text=f"{START_OF_TURN}user\n",
    after_text=f"{END_OF_TURN}\n{START_OF_TURN}model\n",
    chat_template=(
        "{{ bos_token }}{% for message in messages %}"
        "{{ '<|turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n' }}"
        "{{ message['content'] | trim + '<turn|>\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|turn>model\n' }}{% endif %}"
    ),
    # <|turn>, <turn|>, <|think|>, <|"|>, <|tool_call>, <bos>, <unused12>, [multimodal], ...
    control=re.compile(
        r"<(?=\|[a-z_\"]{1,20}\|?>|[a-z_]{1,20}\|>|/?(?:bos|eos|pad|unk|mask|unused\d+)>)|\[(?=(?:multimodal|@BOS@)\])",
        re.IGNORECASE,
    ),
)

LICENCE = Licence(
    hub_id="apache-2.0",
    notice="""\
The weights in this directory are a modification of Gemma 4, copyright Google, which is licensed under the Apache
License, Version 2.0: https://www.apache.org/licenses/LICENSE-2.0. They were changed by fine-tuning. titlegen's own code
is under the same licence.
""",
    card="""\
[Apache License 2.0](https://www.apache.org/licenses/LICENSE-2.0), like Gemma 4, of which this is a modification.""",
)

# Source: the model's config.json: 42 layers, every sixth one full, the last 18 without keys of their own; hidden 2,560,
# feed-forward 10,240, 8 heads and 2 key heads of 256, of 512 in full layers. With towers about 8 billion parameters.
_SLIDING, _FULL, _OWN_SLIDING, _OWN_FULL = 35, 7, 20, 4
_HIDDEN, _FEED_FORWARD, _HEADS, _KEY_HEADS = 2560, 10_240, 8, 2
_OUTER = _SLIDING * (_HIDDEN + _HEADS * _HEAD_DIM) + _FULL * (_HIDDEN + _HEADS * _GLOBAL_HEAD_DIM)
_INNER = _OWN_SLIDING * (_HIDDEN + _KEY_HEADS * _HEAD_DIM) + _OWN_FULL * (_HIDDEN + _KEY_HEADS * _GLOBAL_HEAD_DIM)
_MLP = (_SLIDING + _FULL) * (_HIDDEN + _FEED_FORWARD)
E4B = ModelSize(
    title="Gemma 4 E4B",
    names=("google/gemma-4-E4B-it", "unsloth/gemma-4-E4B-it"),
    layers=_SLIDING + _FULL,
    parameters=8.0e9,
    text_parameters=7.52e9,
    stored_bytes=2,
    largest_tensor=262_144 * (_SLIDING + _FULL) * 256,
    linear={
        **dict.fromkeys(("q_proj", "o_proj"), _OUTER),
        **dict.fromkeys(("k_proj", "v_proj"), _INNER),
        **dict.fromkeys(("gate_proj", "up_proj", "down_proj"), _MLP),
    },
    cache_bytes=2 * 2 * _KEY_HEADS * (_OWN_SLIDING * _HEAD_DIM + _OWN_FULL * _GLOBAL_HEAD_DIM),
    on_gpu=True,
    measured_as="Gemma 3n E4B",
)


def _global_head_dim(text: Mapping[str, Any]) -> int:
    """Return the head dimension of full layers, from either form of a configuration."""
    if isinstance(given := text.get("global_head_dim"), int):
        return given
    kinds = text.get("layer_types") or []
    own = text.get("per_layer_config") or {}
    for index, kind in enumerate(kinds):
        if kind == "full_attention" and isinstance(found := (own.get(str(index)) or {}).get("head_dim"), int):
            return found
    return _GLOBAL_HEAD_DIM


def _also_written(text: Mapping[str, Any]) -> dict[str, object]:
    """Return what llama.cpp's converter reads and transformers 5 writes as ``per_layer_config``."""
    return {"global_head_dim": _global_head_dim(text)}


def _refusal(config: Mapping[str, Any]) -> str | None:
    text = config.get("text_config", config)
    model_type = str(text.get("model_type")) if isinstance(text, Mapping) else ""
    use = "give google/gemma-4-E4B-it or google/gemma-4-E2B-it with --model.base"
    if model_type.startswith("gemma4_unified"):
        return f"Gemma 4 12B Unified has another architecture, with no layers that share keys; {use}"
    if model_type not in FAMILY.model_types:
        return None
    if text.get("enable_moe_block") or text.get("num_experts"):
        return f"Gemma 4 26B-A4B is a mixture of experts, and titlegen's adapters reach none of them; {use}"
    if text.get("attention_k_eq_v") or not text.get("hidden_size_per_layer_input"):
        return f"a Gemma 4 without per-layer embeddings, such as 31B, takes its keys for values in full layers; {use}"
    return None


def _gguf_fields(text: Mapping[str, Any]) -> dict[str, object]:
    rope = FAMILY.rope_parameters(text)
    kinds = text.get("layer_types") or []
    width, shared = text.get("intermediate_size"), text.get("num_kv_shared_layers") or 0
    widths: object = width
    if text.get("use_double_wide_mlp") and isinstance(width, int):
        widths = [width * (2 if index >= len(kinds) - shared else 1) for index in range(len(kinds))]
    return {
        "block_count": text.get("num_hidden_layers"),
        "embedding_length": text.get("hidden_size"),
        "embedding_length_per_layer_input": text.get("hidden_size_per_layer_input"),
        "feed_forward_length": widths,
        "attention.head_count": text.get("num_attention_heads"),
        "attention.head_count_kv": text.get("num_key_value_heads"),
        "attention.key_length": _global_head_dim(text),
        "attention.key_length_swa": text.get("head_dim"),
        "attention.shared_kv_layers": shared,
        "attention.sliding_window": text.get("sliding_window"),
        "attention.sliding_window_pattern": [kind == "sliding_attention" for kind in kinds],
        "final_logit_softcapping": text.get("final_logit_softcapping"),
        "rope.freq_base": rope["full_attention"]["rope_theta"],
        "rope.freq_base_swa": rope["sliding_attention"]["rope_theta"],
    }


FAMILY = ModelFamily(
    name="gemma4",
    title="Gemma 4",
    model_types=frozenset({"gemma4_text"}),
    architectures=frozenset({"Gemma4ForCausalLM", "Gemma4ForConditionalGeneration"}),
    tokens=TOKENS,
    prompt=PROMPT,
    tokenizer_files=("tokenizer.json",),
    rope={
        "full_attention": Rope(
            parameters={"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1_000_000.0}
        ),
        "sliding_attention": Rope(parameters={"rope_type": "default", "rope_theta": 10_000.0}),
    },
    also_written=_also_written,
    full_every=None,
    towers="(audio|vision)_tower",
    # The head is tied to the embeddings.
    not_quantised=("lm_head",),
    decoder=Gemma4Decoder,
    gguf_norm_shift=0.0,
    gguf_tokenizer="gemma4",
    gguf_fields=_gguf_fields,
    gguf_defaults={},
    gguf_stacked=None,
    sizes=(E4B,),
    renamed={
        "google/gemma-4-4b": "google/gemma-4-E4B-it",
        "google/gemma-4-4b-it": "google/gemma-4-E4B-it",
        "gemma-4-4b": "google/gemma-4-E4B-it",
        "google/gemma-4-E4B": "google/gemma-4-E4B-it (the instruction-tuned weights carry the chat tokens)",
    },
    renamed_in_ollama={"gemma4:4b": "gemma4:e4b"},
    refusal=_refusal,
    licence=LICENCE,
)
