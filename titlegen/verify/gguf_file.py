"""A GGUF file against the merged model it was made from: metadata and every tensor."""

import re
from pathlib import Path
from typing import Any

from titlegen.export import base_tensors
from titlegen.models import BOS_ID, EOS_ID, read_json
from titlegen.prompt import BOS, END_OF_TURN, START_OF_TURN
from titlegen.verify.check import Check, none_wrong

_CONTROL = 3  # Source: gguf.TokenType.CONTROL
# Gemma 3's converter stores norms as 1 + weight; Gemma 3n's does not.
_NORM_SHIFT = {"gemma3": 1.0, "gemma3n": 0.0}
# Source: ggml's quantisation: a Q8_0 block of 32 has steps of max / 127, kept in float16; F16 and BF16 round once.
_BLOCK = 32
_Q8_STEP = 0.5 / 127 + 2.0**-11
_F16_STEP, _F16_SMALLEST = 2.0**-11, 2.0**-24
_BF16_STEP = 2.0**-8


def check_gguf(path: Path, export: Path) -> list[Check]:
    """Check a GGUF file's metadata and tensors against the export.

    A tensor passes when every element is within half a step of the file's quantisation type of the exported value.
    Types without a closed bound here (the K-quants) are checked for their names and shapes alone, and counted.
    """
    import gguf

    try:
        reader = gguf.GGUFReader(path)
    except (ValueError, IndexError, OSError) as error:
        return [none_wrong("gguf.readable", path.name, [f"{path.name} is cut off or not GGUF ({error})"])]
    fields = {name: field.contents() for name, field in reader.fields.items()}
    return [_check_metadata(path.name, fields, export), *_check_tensors(path.name, reader, fields, export)]


def _check_metadata(name: str, fields: dict[str, Any], export: Path) -> Check:
    from tokenizers import Tokenizer

    config = read_json(export / "config.json")
    text = config.get("text_config", config)
    architecture = "gemma3n" if "3n" in text["model_type"] else "gemma3"
    vocabulary = Tokenizer.from_file(str(export / "tokenizer.json")).get_vocab(with_added_tokens=True)
    tokens = fields.get("tokenizer.ggml.tokens") or []
    template = export / "chat_template.jinja"
    expected = {
        "general.architecture": architecture,
        f"{architecture}.block_count": text["num_hidden_layers"],
        f"{architecture}.embedding_length": text["hidden_size"],
        f"{architecture}.rope.freq_base": text["rope_theta"],
        f"{architecture}.attention.sliding_window": text["sliding_window"],
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_space_prefix": False,
        "tokenizer.ggml.bos_token_id": BOS_ID,
        "tokenizer.ggml.eos_token_id": EOS_ID,
    }
    if architecture == "gemma3n":
        expected[f"{architecture}.attention.shared_kv_layers"] = text["num_kv_shared_layers"]
    if template.is_file():
        expected["tokenizer.chat_template"] = template.read_text(encoding="utf-8")
    wrong = [
        f"{key} is {fields.get(key)!r}, expected {value!r}"[:200]
        for key, value in expected.items()
        if fields.get(key) != value
    ]
    kinds = fields.get("tokenizer.ggml.token_type") or []
    plain = [
        token
        for token in (BOS, START_OF_TURN, END_OF_TURN)
        if token in tokens and kinds[tokens.index(token)] != _CONTROL
    ]
    if plain:
        wrong.append(f"{', '.join(plain)} not stored as control tokens; the server would read them as text")
    if len(tokens) != text["vocab_size"]:
        wrong.append(f"the file has {len(tokens)} tokens, config.json says {text['vocab_size']}")
    other = [
        i
        for token, i in vocabulary.items()
        if i < len(tokens) and tokens[i].replace("▁", " ") != token.replace("▁", " ")
    ]
    if other:
        first = min(other)
        wrong.append(f"{len(other)} tokens differ from tokenizer.json, first id {first}: {tokens[first]!r}")
    return none_wrong(
        "gguf.metadata", f"{name}: {len(expected)} fields and {len(tokens)} tokens against the export", wrong
    )


def _check_tensors(name: str, reader: Any, fields: dict[str, Any], export: Path) -> list[Check]:
    import gguf
    import numpy as np

    architecture = str(fields.get("general.architecture"))
    if architecture not in _NORM_SHIFT:
        return [none_wrong("gguf.tensors", name, [f"architecture {architecture!r} is not known here"])]
    kinds = {"gemma3": gguf.MODEL_ARCH.GEMMA3, "gemma3n": gguf.MODEL_ARCH.GEMMA3N}
    names = gguf.get_tensor_name_map(kinds[architecture], int(fields[f"{architecture}.block_count"]))
    stored = {tensor.name: tensor for tensor in reader.tensors}
    wrong, named, unbounded, worst = [], set(), 0, 0.0
    for key, value in base_tensors(export):
        target, index = _gguf_name(key, names)
        if target is None or target not in stored:
            # Towers of a multimodal checkpoint have no place in a text GGUF.
            if (
                "_tower" not in key
                and "embed_vision" not in key
                and "embed_audio" not in key
                and key != "lm_head.weight"
            ):
                wrong.append(f"{key} is not in the file")
            continue
        named.add(target)
        tensor = stored[target]
        data = gguf.dequantize(tensor.data, tensor.tensor_type)
        data = data if index is None else data[index]
        expected = value.float().numpy()
        if architecture == "gemma3" and "norm" in key:
            expected = expected + _NORM_SHIFT[architecture]
        # Gemma 3n's embedding is padded with rows for image and audio tokens.
        if data.ndim == 2 and data.shape[0] > expected.shape[0] and "embed_tokens" in key:  # noqa: PLR2004
            data = data[: expected.shape[0]]
        if data.size != expected.size:
            wrong.append(f"{target} has shape {data.shape}, the export {expected.shape}")
            continue
        bound = _bound(expected, tensor.tensor_type.name)
        if bound is None:
            unbounded += 1
            continue
        excess = float(np.max(np.abs(data.reshape(expected.shape) - expected) / bound))
        worst = max(worst, excess)
        if not excess <= 1:
            wrong.append(f"{target} is {excess:.3g} times the rounding of {tensor.tensor_type.name} off")
    wrong += [
        f"{target} is not in the export" for target in stored if target not in named and "rope_freqs" not in target
    ]
    compared = f"{name}: {len(named)} tensors against the export" + (
        f", {unbounded} without a bound" if unbounded else ""
    )
    bound_text = "0 wrong, error at most 1 rounding step"
    figure = f"{len(wrong)} wrong, error {worst:.2f} of a rounding step"
    return [Check("gguf.tensors", compared, figure, bound_text, not wrong, "; ".join(wrong[:3]))]


def _gguf_name(key: str, names: Any) -> tuple[str | None, int | None]:
    """Return a tensor's name in the GGUF file, and its index when the converter stacks it with others."""
    plain = key.replace("model.language_model.", "model.").replace("language_model.model.", "model.")
    stacked = re.fullmatch(r"(model\.altup_(?:unembed_)?projections)\.(\d+)\.weight", plain)
    if stacked:
        stem = names.get_name(stacked[1])
        return (None if stem is None else f"{stem}.weight"), int(stacked[2])
    stem = names.get_name(plain.removesuffix(".weight"))
    return (None if stem is None else f"{stem}.weight"), None


def _bound(value: Any, kind: str) -> Any:
    """Return the largest error of each element under a quantisation type, or None for types without a closed bound."""
    import numpy as np

    magnitude = np.abs(value)
    if kind == "F32":
        return 1e-6 * magnitude + 1e-12
    if kind == "F16":
        return _F16_STEP * magnitude + _F16_SMALLEST
    if kind == "BF16":
        return _BF16_STEP * magnitude + 1e-38
    if kind == "Q8_0" and value.shape[-1] % _BLOCK == 0:
        blocks = magnitude.reshape(*value.shape[:-1], -1, _BLOCK)
        bound = np.repeat(blocks.max(axis=-1), _BLOCK, axis=-1).reshape(value.shape)
        return 1.01 * _Q8_STEP * bound + 127 * _F16_SMALLEST / 2
    return None
