"""Integrity of a merged model directory: safe to load, complete, and equal to base + (alpha / r) B A."""

from pathlib import Path
from typing import Any

from titlegen.errors import TitlegenError
from titlegen.export import INDEX, AdapterDeltas, base_keys, base_tensors, match_targets, shard_files
from titlegen.manifest import digest_file
from titlegen.models import END_OF_TURN_ID, EOS_ID, check_safe, read_json
from titlegen.verify.check import Check, none_wrong

_PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".npy", ".npz", ".joblib"}
# Source: Ollama's safetensors importers (design of its convert package): other names are refused.
_IMPORTABLE = {"Gemma3ForCausalLM", "Gemma3nForConditionalGeneration"}
# Source: llama.cpp's gemma3 architecture, which fixes the pattern in code.
_FULL_EVERY = {"gemma3_text": 6}
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model")
# A sum over r products in float32, taken in another order, differs by a few units in the last place of the largest.
_SUM_ORDER = 4e-6


def check_foreign(directory: Path) -> list[Check]:
    """Check that a directory, whoever made it, can be loaded without running code or leaving it."""
    wrong = []
    root = directory.resolve()
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if path.is_symlink() and not path.resolve().is_relative_to(root):
            wrong.append(f"{name} is a link that leaves the directory")
        elif path.suffix in _PICKLES:
            wrong.append(f"{name} can hold pickled code")
        elif path.suffix == ".py":
            wrong.append(f"{name} is code")
    try:
        check_safe(directory)
    except TitlegenError as error:
        wrong.append(str(error))
    return [none_wrong("files.safe", f"{directory.name}: links, pickles, code, auto_map", wrong)]


def check_export(export: Path, base: Path, adapter: Path) -> list[Check]:
    """Check tensors, shards, configuration and tokenizer of an export against its base model and adapter."""
    checks = [_check_shards(export)]
    if not checks[0].passed:
        return checks
    return [
        *checks,
        *_check_tensors(export, base, adapter),
        _check_tokenizer(export, base),
        _check_config(export, base),
    ]


def _check_shards(export: Path) -> Check:
    """Every shard can be opened to its end, and the index names each tensor in the shard that holds it."""
    from safetensors import SafetensorError, safe_open

    wrong: list[str] = []
    found: dict[str, str] = {}
    try:
        shards = shard_files(export)
    except TitlegenError as error:
        return none_wrong("weights.shards", export.name, [str(error)])
    for shard in shards:
        try:
            with safe_open(shard, framework="pt") as file:
                for key in file.keys():  # noqa: SIM118 - not a dict
                    if key in found:
                        wrong.append(f"{key} stands in {found[key]} and in {shard.name}")
                    found[key] = shard.name
        except SafetensorError as error:
            wrong.append(f"{shard.name} is cut off or damaged ({error})")
    if (export / INDEX).is_file() and not wrong:
        named = read_json(export / INDEX)["weight_map"]
        wrong += [
            f"the index puts {key} into {named.get(key)}, it is in {found.get(key)}"
            for key in sorted(named.keys() | found.keys())
            if named.get(key) != found.get(key)
        ]
    return none_wrong("weights.shards", f"{len(shards)} shards, {len(found)} tensors against the index", wrong)


def _check_tensors(export: Path, base: Path, adapter: Path) -> list[Check]:
    import torch

    deltas = AdapterDeltas(adapter)
    exported = _TensorReader(export)
    base_names = [key for _, key in base_keys(base)]
    missing = [f"{key} is missing" for key in base_names if key not in exported.where]
    missing += [f"{key} is not in the base model" for key in exported.where if key not in set(base_names)]
    shapes, infinite, untouched, merged = [], [], [], []
    targets = match_targets(deltas.modules, base_names)
    worst = 0.0
    for key, original in base_tensors(base):
        if key not in exported.where:
            continue
        tensor = exported.get(key)
        if tensor.shape != original.shape or tensor.is_floating_point() != original.is_floating_point():
            shapes.append(
                f"{key} is {tensor.dtype} {tuple(tensor.shape)}, base {original.dtype} {tuple(original.shape)}"
            )
            continue
        if not bool(torch.isfinite(tensor).all()):
            infinite.append(f"{key} holds NaN or Inf")
            continue
        if key not in targets:
            if not torch.equal(tensor, original.to(tensor.dtype)):
                untouched.append(f"{key} differs from the base model, and the adapter has no update for it")
            continue
        excess, reason = _compare_merged(tensor, original, deltas.delta(targets[key]))
        worst = max(worst, excess)
        if reason:
            merged.append(f"{key} {reason}")
    total = f"{len(base_names)} tensors against {base.name}"
    return [
        none_wrong("weights.keys", total, missing),
        none_wrong("weights.shapes", total, shapes),
        none_wrong("weights.finite", f"{len(exported.where)} tensors", infinite),
        none_wrong("weights.untouched", f"{len(base_names) - len(targets)} tensors without an adapter", untouched),
        Check(
            "weights.merged",
            f"{len(targets)} tensors against base + {deltas.scale:g} B A",
            f"{len(merged)} wrong, error {worst:.2f} of one rounding step",
            "0 wrong, error at most 1",
            not merged,
            "; ".join(merged[:3]),
        ),
    ]


def _compare_merged(tensor: Any, original: Any, delta: Any) -> tuple[float, str]:
    """Return the largest error in units of the allowed rounding, and what is wrong, if anything."""
    import torch

    if delta.shape != tensor.shape:
        return 0.0, f"has shape {tuple(tensor.shape)}, the adapter's update {tuple(delta.shape)}"
    expected = original.float() + delta
    step = (
        torch.finfo(tensor.dtype).eps * expected.abs() + _SUM_ORDER * delta.abs().max() + torch.finfo(tensor.dtype).tiny
    )
    excess = float(((tensor.float() - expected).abs() / step).max())
    if excess <= 1:
        return excess, ""
    moved = tensor.float() - original.float()
    # Least squares: how many times the update is in there. 0: not merged, 2: merged twice, 0.5: half the alpha.
    share = float((moved * delta).sum() / (delta * delta).sum().clamp(min=1e-30))
    rest = float((moved - share * delta).norm() / delta.norm().clamp(min=1e-30))
    return excess, f"holds {share:.2f} times the adapter's update, and {rest:.2f} times its size of something else"


class _TensorReader:
    """Reads tensors of a model directory by key."""

    def __init__(self, directory: Path) -> None:
        from safetensors import safe_open

        self.where: dict[str, Any] = {}
        for shard in shard_files(directory):
            file: Any = safe_open(shard, framework="pt")
            self.where |= dict.fromkeys(file.keys(), file)

    def get(self, key: str) -> Any:
        return self.where[key].get_tensor(key)


def _check_tokenizer(export: Path, base: Path) -> Check:
    """The tokenizer files are the base model's, and the vocabulary fits the embedding."""
    from tokenizers import Tokenizer

    wrong = []
    for name in _TOKENIZER_FILES:
        if not (export / name).is_file():
            wrong.append(f"{name} is missing; without it llama.cpp and Ollama read other tokens")
        elif not (base / name).is_file():
            wrong.append(f"{base.name} has no {name} to compare with")
        elif digest_file(export / name) != digest_file(base / name):
            wrong.append(f"{name} differs from the base model's")
    config = read_json(export / "config.json")
    vocab_size = config.get("text_config", config).get("vocab_size")
    if (export / "tokenizer.json").is_file():
        size = Tokenizer.from_file(str(export / "tokenizer.json")).get_vocab_size()
        rows = next(tensor.shape[0] for key, tensor in base_tensors(export) if key.endswith("embed_tokens.weight"))
        # Gemma 3n's embedding has rows for image and audio tokens beyond the text vocabulary.
        if not size <= vocab_size == rows:
            wrong.append(f"config.json says {vocab_size} tokens, the tokenizer has {size}, the embedding {rows}")
    return none_wrong("tokenizer.files", ", ".join(_TOKENIZER_FILES), wrong)


def _check_config(export: Path, base: Path) -> Check:
    """The configuration is the base model's, plus what the importers of Ollama and llama.cpp read."""
    config, original = read_json(export / "config.json"), read_json(base / "config.json")
    text, original_text = config.get("text_config", config), original.get("text_config", original)
    wrong = []
    architectures = config.get("architectures") or []
    if not set(architectures) <= _IMPORTABLE or not architectures:
        wrong.append(f"architectures {architectures} is not importable; known: {sorted(_IMPORTABLE)}")
    rope = text.get("rope_parameters") or {}
    for kind, flat in (("full_attention", "rope_theta"), ("sliding_attention", "rope_local_base_freq")):
        nested = rope.get(kind, {}).get("rope_theta")
        if text.get(flat) is None or nested != text.get(flat):
            wrong.append(f"{flat} is {text.get(flat)}, rope_parameters.{kind}.rope_theta is {nested}")
    if config.get("eos_token_id") != [EOS_ID, END_OF_TURN_ID]:
        wrong.append(f"eos_token_id is {config.get('eos_token_id')}, [{EOS_ID}, {END_OF_TURN_ID}] is needed")
    generation = read_json(export / "generation_config.json") if (export / "generation_config.json").is_file() else {}
    if generation.get("eos_token_id") != [EOS_ID, END_OF_TURN_ID]:
        wrong.append(f"generation_config.json: eos_token_id is {generation.get('eos_token_id')}")
    period = _FULL_EVERY.get(text.get("model_type", ""))
    kinds = text.get("layer_types") or []
    if period and any((kind == "full_attention") != ((i + 1) % period == 0) for i, kind in enumerate(kinds)):
        wrong.append(f"llama.cpp takes every {period}th layer as a full one, layer_types does not")
    added = {
        "rope_theta",
        "rope_local_base_freq",
        "rope_parameters",
        "eos_token_id",
        "dtype",
        "torch_dtype",
        "text_config",
    }
    wrong += [
        f"{key} is {text.get(key)}, the base model's {original_text.get(key)}"
        for key in sorted((text.keys() | original_text.keys()) - added)
        if text.get(key) != original_text.get(key)
    ]
    return none_wrong("config.values", f"config.json against {base.name}", wrong)
