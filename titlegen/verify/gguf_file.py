"""A GGUF file against the merged model it was made from: metadata and every tensor."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

from titlegen.families import ModelFamily
from titlegen.gguf_reader import GgufError, GgufHeader, read_header
from titlegen.models import family_at, read_json, text_config
from titlegen.prompt import PromptFormat
from titlegen.tensors import Tensors
from titlegen.verify.check import Check, none_wrong
from titlegen.verify.integrity import load_vocabulary

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from gguf import GGMLQuantizationType, TensorNameMap
    from torch import Tensor

_CONTROL = 3  # Source: gguf.TokenType.CONTROL
_F16_SMALLEST = 2.0**-24
# Half a step of each type: a share of the value's size, and what is lost near zero. Source: ggml's quantisation: F16
# and BF16 round once; a Q8_0 block of 32 has steps of max / 127, kept in float16.
_BLOCK = 32
_STEPS = {
    "F32": (1e-6, 1e-12),
    "F16": (2.0**-11, _F16_SMALLEST),
    "BF16": (2.0**-8, 2e-38),
    "Q8_0": (1.01 * (0.5 / 127 + 2.0**-11), 127 * _F16_SMALLEST / 2),
}
# The types of a K-quant are chosen by a search, so that no element's error has a bound; the error's root mean square
# has, as a share of the tensor's: a uniform grid over a normal distribution of 32 values, and half as much again.
_RMS_BOUNDS = {"Q4_0": 0.14, "Q4_1": 0.12, "Q4_K": 0.12, "Q5_0": 0.07, "Q5_1": 0.06, "Q5_K": 0.06, "Q6_K": 0.03}
_MATRIX = 2


def check_gguf(path: Path, export: Path) -> list[Check]:
    """Check a GGUF file's metadata and tensors against the export.

    A tensor passes when every element is within half a step of its quantisation type of the exported value; for the
    types of K-quants, when the root mean square of the errors is within the type's share of that of the values. Other
    types are checked for their names and shapes alone, and counted.
    """
    try:
        header = read_header(path)
    except (GgufError, OSError) as error:
        return [none_wrong("gguf.readable", path.name, [f"{path.name} is cut off or not GGUF ({error})"])]
    family = family_at(export)
    return [_check_metadata(path.name, header, export, family), _check_tensors(path.name, header, export, family)]


def _check_metadata(name: str, header: GgufHeader, export: Path, family: ModelFamily) -> Check:
    config = read_json(export / "config.json")
    text = text_config(config)
    # Optional in the file: llama.cpp has the same values in its code, and finds the end of a turn by its text.
    defaults: dict[str, object] = {"tokenizer.ggml.eot_token_id": family.tokens.end_of_turn}
    defaults |= {f"{family.name}.{key}": value for key, value in family.gguf_defaults.items()}
    fields = defaults | header.fields
    expected = {"general.architecture": family.name} | {
        **{f"{family.name}.{key}": value for key, value in family.gguf_fields(text).items()},
        "tokenizer.ggml.model": family.gguf_tokenizer,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_space_prefix": False,
        "tokenizer.ggml.bos_token_id": family.tokens.bos,
        "tokenizer.ggml.eos_token_id": family.tokens.eos,
        "tokenizer.ggml.eot_token_id": family.tokens.end_of_turn,
    }
    template = export / "chat_template.jinja"
    if template.is_file():
        expected["tokenizer.chat_template"] = template.read_text(encoding="utf-8")
    wrong = [
        f"{key} is {fields.get(key)!r}, expected {value!r}"[:200]
        for key, value in expected.items()
        if fields.get(key) != value
    ]
    tokens = header.strings("tokenizer.ggml.tokens")
    kinds = header.numbers("tokenizer.ggml.token_type")
    wrong += _token_faults(tokens, kinds, text.get("vocab_size"), export, family.prompt)
    return none_wrong(
        "gguf.metadata", f"{name}: {len(expected)} fields and {len(tokens)} tokens against the export", wrong
    )


def _token_faults(
    tokens: list[str], kinds: list[int], vocab_size: object, export: Path, prompt: PromptFormat
) -> list[str]:
    wrong = []
    if len(kinds) != len(tokens):
        return [f"the file has {len(tokens)} tokens and {len(kinds)} token types"]
    marks = [
        token
        for token in (prompt.bos, prompt.start_of_turn, prompt.end_of_turn)
        if token in tokens and kinds[tokens.index(token)] != _CONTROL
    ]
    if marks:
        wrong.append(f"{', '.join(marks)} not stored as control tokens; the server would read them as text")
    if len(tokens) != vocab_size:
        wrong.append(f"the file has {len(tokens)} tokens, config.json says {vocab_size}")
    vocabulary = load_vocabulary(export).get_vocab(with_added_tokens=True)
    other = [
        i
        for token, i in vocabulary.items()
        if i < len(tokens) and tokens[i] != token and tokens[i].replace("▁", " ") != token.replace("▁", " ")
    ]
    if other:
        first = min(other)
        wrong.append(f"{len(other)} tokens differ from tokenizer.json, first id {first}: {tokens[first]!r}")
    return wrong


def _check_tensors(name: str, header: GgufHeader, export: Path, family: ModelFamily) -> Check:
    import gguf

    if header.architecture != family.name:
        wrong_family = f"architecture {header.architecture!r} is not {family.title}'s, {family.name!r}"
        return none_wrong("gguf.tensors", name, [wrong_family])
    (kind_of_model,) = (kind for kind, text in gguf.MODEL_ARCH_NAMES.items() if text == family.name)
    names = gguf.get_tensor_name_map(kind_of_model, header.number("block_count"))
    shapes = {tensor["name"]: tensor["shape"] for tensor in header.tensors}
    tensors = Tensors(export)
    wrong, named, unbounded, worst = [], set(), 0, 0.0
    for key in tensors:
        target, index = _gguf_name(key, names, family.gguf_stacked)
        if target is None or target not in shapes:
            if not family.is_left_out(key):
                wrong.append(f"{key} is not in the file")
            continue
        named.add(target)
        if not _is_shape_of(shapes[target], tensors.shape(key), index, key):
            wrong.append(f"{target} has shape {shapes[target][::-1]}, the export {list(tensors.shape(key))}")
            continue
        shift = family.gguf_norm_shift if "norm" in key else 0.0
        kind, excess = _excess(header, target, tensors, key, index or 0, shift)
        if excess is None:
            unbounded += 1
            continue
        worst = max(worst, excess)
        if not excess <= 1:
            wrong.append(f"{target} is {excess:.3g} times the rounding of {kind} off")
    wrong += [f"{found} is not in the export" for found in shapes if found not in named and "rope_freqs" not in found]
    compared = f"{name}: {len(named)} tensors against the export" + (
        f", {unbounded} without a bound" if unbounded else ""
    )
    bound = "0 wrong, error at most 1 rounding step"
    figure = f"{len(wrong)} wrong, error {worst:.2f} of a rounding step"
    return Check("gguf.tensors", compared, figure, bound, not wrong, "; ".join(wrong[:3]))


def _is_shape_of(stored: list[int], shape: tuple[int, ...], index: int | None, key: str) -> bool:
    """Return whether a stored shape, innermost first, is an exported one, or holds it."""
    found = tuple(reversed(stored))
    if index is not None:
        return len(found) == len(shape) + 1 and index < found[0] and found[1:] == shape
    # Gemma 3n's embedding is padded with rows for image and audio tokens.
    if "embed_tokens" in key and len(found) == len(shape) == _MATRIX:
        return found[0] >= shape[0] and found[1] == shape[1]
    return found == shape


def _excess(
    header: GgufHeader, target: str, tensors: Tensors, key: str, index: int, shift: float
) -> tuple[str, float | None]:
    """Return the stored type, and the largest error in units of what that type allows; None without a bound."""
    data, stored = header.stored(target)
    kind, shape = stored.name, tensors.shape(key)
    if kind not in _STEPS and kind not in _RMS_BOUNDS:
        return kind, None
    first = index * shape[0] if len(shape) == _MATRIX else 0
    worst, squared_error, squared_size = 0.0, 0.0, 0.0
    for part in tensors.parts(key):
        expected = tensors.rows(key, part).float().reshape(-1, shape[-1]) + shift
        start = first + (part.start or 0)
        found = _dequantise(data[start : start + expected.shape[0]], stored).reshape(expected.shape)
        error = found.sub_(expected).abs_()
        if kind in _STEPS:
            worst = max(worst, _steps(error, expected.abs_(), kind))
        else:
            squared_error += float(error.square().sum())
            squared_size += float(expected.square().sum())
    if kind in _RMS_BOUNDS:
        worst = math.sqrt(squared_error / max(squared_size, 1e-30)) / _RMS_BOUNDS[kind]
    return kind, worst


def _steps(error: Tensor, size: Tensor, kind: str) -> float:
    """Return the largest error in units of half a step."""
    if kind == "Q8_0":
        error, size = error.reshape(-1, _BLOCK).amax(dim=1), size.reshape(-1, _BLOCK).amax(dim=1)
    relative, absolute = _STEPS[kind]
    largest = float((error / (relative * size + absolute)).max())
    return math.inf if math.isnan(largest) else largest


def _dequantise(data: npt.NDArray[np.uint8], kind: GGMLQuantizationType) -> Tensor:
    """Return stored rows as float32."""
    import gguf
    import numpy as np
    import torch

    plain = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    # A copy, as the map is read-only.
    if kind.name in plain:
        return torch.from_numpy(np.array(data)).view(plain[kind.name]).float()
    # The package works on sixteen rows at a time; blocks do not know of rows, so that one long one costs less.
    return torch.from_numpy(gguf.dequantize(np.array(data).reshape(1, -1), kind))


def _gguf_name(key: str, names: TensorNameMap, stacks: str | None) -> tuple[str | None, int | None]:
    """Return a tensor's name in the GGUF file, and its index when the converter stacks it with others."""
    plain = key.replace("model.language_model.", "model.").replace("language_model.model.", "model.")
    if stacks and (stacked := re.fullmatch(stacks, plain)):
        stem = names.get_name(stacked[1])
        return (None if stem is None else f"{stem}.weight"), int(stacked[2])
    stem = names.get_name(plain.removesuffix(".weight"))
    return (None if stem is None else f"{stem}.weight"), None
