"""Gemma 3n, whose E4B the specification names. Prompt, tokens, positions and licence are Gemma 3's."""

from collections.abc import Mapping
from typing import Any

from titlegen.families import gemma3
from titlegen.families.family import ModelFamily
from titlegen.families.gemma3n_decoder import Gemma3nDecoder
from titlegen.families.size import ModelSize, linear_sides

# Source: the model's config.json; all parameters as its page on the Hub counts them.
_E4B = ModelSize(
    title="Gemma 3n E4B",
    names=("unsloth/gemma-3n-E4B-it", "google/gemma-3n-E4B-it"),
    layers=35,
    parameters=7.85e9,
    text_parameters=6.87e9,
    stored_bytes=2,
    largest_tensor=262_144 * 35 * 256,
    linear=linear_sides(layers=35, own_kv=20, hidden=2048, attention=2048, kv=512, feed_forward=16_384),
    cache_bytes=20 * 2 * 512 * 2,
    on_gpu=True,
)


def _gguf_fields(text: Mapping[str, Any]) -> dict[str, object]:
    return gemma3.gguf_fields(text) | {"attention.shared_kv_layers": text.get("num_kv_shared_layers")}


FAMILY = ModelFamily(
    name="gemma3n",
    title="Gemma 3n",
    model_types=frozenset({"gemma3n_text"}),
    architectures=frozenset({"Gemma3nForConditionalGeneration"}),
    tokens=gemma3.TOKENS,
    prompt=gemma3.PROMPT,
    tokenizer_files=("tokenizer.json", "tokenizer.model"),
    rope=gemma3.ROPE,
    full_every=None,
    towers="(audio|vision)_tower",
    # The mixing of its streams has too few weights to gain anything.
    not_quantised=("lm_head", r".*\.altup\."),
    decoder=Gemma3nDecoder,
    gguf_norm_shift=0.0,
    gguf_tokenizer="llama",
    gguf_fields=_gguf_fields,
    gguf_defaults=gemma3.FAMILY.gguf_defaults,
    gguf_stacked=r"(model\.altup_(?:unembed_)?projections)\.(\d+)\.weight",
    sizes=(_E4B,),
    renamed={
        "google/gemma-3n-4b": "google/gemma-3n-E4B-it or unsloth/gemma-3n-E4B-it",
        "gemma-3n-4b": "google/gemma-3n-E4B-it or unsloth/gemma-3n-E4B-it",
        "google/gemma-3n-E4B": "google/gemma-3n-E4B-it (the instruction-tuned weights carry the chat tokens)",
    },
    # The specification's name for the base model, and the one that the library has.
    renamed_in_ollama={"gemma3n:4b": "gemma3n:e4b"},
    licence=gemma3.LICENCE,
)
