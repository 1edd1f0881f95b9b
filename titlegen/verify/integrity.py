"""Integrity of a merged model directory: complete, and equal to base + (alpha / r) B A."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from titlegen.adapter import AdapterDeltas, match_targets
from titlegen.errors import ConfigError, TitlegenError, VerifyError
from titlegen.families import ModelFamily, family_of
from titlegen.files import digest_file
from titlegen.models import read_json, text_config
from titlegen.plural import count
from titlegen.tensors import INDEX, Tensors, opened, shard_files, weight_map
from titlegen.verify.check import Check, none_wrong
from titlegen.verify.config import check_config, what_is_compared

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor

# A sum over r products in float32, taken in another order, differs by a few units in the last place of the largest.
_SUM_ORDER = 4e-6
# Tolerance within which a share of the adapter's update names a known fault of a merge.
_NEAR = 0.1


def check_export(export: Path, base: Path | None = None, adapter: Path | None = None) -> list[Check]:
    """Check tensors, shards, configuration and tokenizer of an export against its base model and adapter.

    Without a base model only what holds for any model is checked; without an adapter, names, shapes and types but not
    the values of the tensors.
    """
    checks = [_check_shards(export)]
    if not checks[0].passed:
        return checks
    config = read_json(export / "config.json")
    text_config(config)
    try:
        family = family_of(config)
    except ConfigError as error:
        return [*checks, none_wrong("config.values", what_is_compared(base), [str(error)])]
    return [
        *checks,
        *(_check_tensors(export, base, adapter) if base else _check_finite(export)),
        _check_tokenizer(export, base, family),
        check_config(export, base, family),
    ]


def _check_shards(export: Path) -> Check:
    """Every shard can be opened to its end, and the index names each tensor in the shard that holds it."""
    wrong: list[str] = []
    found: dict[str, str] = {}
    try:
        shards = shard_files(export)
    except TitlegenError as error:
        return none_wrong("weights.shards", export.name, [str(error)])
    for shard in shards:
        try:
            with opened(shard) as file:
                for key in file.keys():  # noqa: SIM118 - not a dict
                    if key in found:
                        wrong.append(f"{key} stands in {found[key]} and in {shard.name}")
                    found[key] = shard.name
        except TitlegenError as error:
            wrong.append(str(error))
    if (export / INDEX).is_file() and not wrong:
        named = weight_map(export)
        wrong += [
            f"the index puts {key} into {named.get(key)}, it is in {found.get(key)}"
            for key in sorted(named.keys() | found.keys())
            if named.get(key) != found.get(key)
        ]
    return none_wrong(
        "weights.shards", f"{count(len(shards), 'shard')}, {count(len(found), 'tensor')} against the index", wrong
    )


def _check_finite(export: Path) -> list[Check]:
    tensors = Tensors(export)
    keys = list(tensors)
    infinite = [f"{key} holds NaN or Inf" for key in keys if not _is_finite(tensors, key)]
    return [none_wrong("weights.finite", f"{len(keys)} tensors", infinite)]


def _is_finite(tensors: Tensors, key: str) -> bool:
    import torch

    def is_finite(part: Tensor) -> bool:
        # NaN is carried into both, in a thirtieth of the time that looking at each element takes.
        return not part.numel() or bool(torch.isfinite(torch.stack(part.aminmax())).all())

    return all(is_finite(tensors.rows(key, part)) for part in tensors.parts(key))


def _check_tensors(export: Path, base: Path, adapter: Path | None) -> list[Check]:
    exported, original = Tensors(export), Tensors(base)
    deltas = AdapterDeltas(adapter) if adapter else None
    targets = match_targets(deltas.modules, list(original)) if deltas else {}
    declared = _declared_dtype(export)
    missing = [f"{key} is missing" for key in original if key not in exported]
    missing += [f"{key} is not in the base model" for key in exported if key not in original]
    shapes, infinite, untouched, merged = [], [], [], []
    worst = 0.0
    for key in original:
        if key not in exported:
            continue
        dtypes = exported.dtype(key), original.dtype(key)
        if exported.shape(key) != original.shape(key) or dtypes[0] not in {dtypes[1], declared}:
            shapes.append(
                f"{key} is {dtypes[0]} {exported.shape(key)}, base {dtypes[1]} {original.shape(key)}, "
                f"config.json says {declared}"
            )
        elif not _is_finite(exported, key):
            infinite.append(f"{key} holds NaN or Inf")
        elif key in targets and deltas:
            excess, reason = _compare_merged(exported, original, key, deltas.delta(targets[key]))
            worst = max(worst, excess)
            merged += [f"{key} {reason}"] if reason else []
        elif deltas and not _is_equal(exported, original, key):
            untouched.append(f"{key} differs from the base model, and the adapter has no update for it")
    keys = list(original)
    total = f"{len(keys)} tensors against {base.name}"
    checks = [
        none_wrong("weights.keys", total, missing),
        none_wrong("weights.shapes", total, shapes),
        none_wrong("weights.finite", f"{len(list(exported))} tensors", infinite),
    ]
    if deltas is None:
        return checks
    return [
        *checks,
        none_wrong("weights.untouched", f"{len(keys) - len(targets)} tensors without an adapter", untouched),
        Check(
            "weights.merged",
            f"{len(targets)} tensors against base + {deltas.scale:g} B A",
            f"{len(merged)} wrong, error {worst:.2f} of one rounding step",
            "0 wrong, error at most 1",
            not merged,
            "; ".join(merged[:3]),
        ),
    ]


def _declared_dtype(directory: Path) -> str | None:
    """Return the element type that a model's configuration states, as safetensors names it."""
    config = read_json(directory / "config.json")
    text = text_config(config)
    names = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
    return names.get(text.get("dtype") or config.get("dtype") or config.get("torch_dtype") or "")


def _is_equal(exported: Tensors, original: Tensors, key: str) -> bool:
    import torch

    for part in original.parts(key):
        found, expected = exported.rows(key, part), original.rows(key, part)
        if not torch.equal(found, expected.to(found.dtype)):
            return False
    return True


def _compare_merged(exported: Tensors, original: Tensors, key: str, delta: Tensor) -> tuple[float, str]:
    """Return the largest error in units of the allowed rounding, and what is wrong, if anything."""
    import torch

    if tuple(delta.shape) != tuple(exported.shape(key)):
        return 0.0, f"has shape {tuple(exported.shape(key))}, the adapter's update {tuple(delta.shape)}"
    largest, errors = delta.abs().max(), []
    for part in exported.parts(key):
        found = exported.rows(key, part)
        expected = original.rows(key, part).float() + delta[part]
        step = expected.abs().mul_(torch.finfo(found.dtype).eps)
        step += _SUM_ORDER * largest + torch.finfo(found.dtype).tiny
        errors.append(((found.float() - expected).abs_() / step).max())
    # With NaN among them it is NaN, as Python's own would not be.
    excess = float(torch.stack(errors).max())
    if excess <= 1:
        return excess, ""
    return excess, _diagnose(exported.get(key).float() - original.get(key).float(), delta)


def _diagnose(moved: Tensor, delta: Tensor) -> str:
    """Say what a tensor that moved away from the base model by ``moved`` holds instead of ``delta``."""
    size = delta.norm().clamp(min=1e-30)
    # Least squares: how many times the update is in there.
    share = float((moved * delta).sum() / size**2)
    rest = float((moved - share * delta).norm() / size)
    if rest < _NEAR:
        cause = {0: "the adapter is not merged", 2: "it is merged twice"}.get(
            round(share), f"merged with {share:.2f} times the adapter's alpha / r"
        )
    elif delta.shape[0] == delta.shape[1] and float((moved - delta.T).norm() / size) < _NEAR:
        cause = "the update is transposed"
    elif abs(share - 1) < _NEAR:
        cause = "merged into another base model, such as one rounded to 4 bits"
    else:
        cause = "an update of another run, or damage"
    return f"holds {share:.2f} times the adapter's update, and {rest:.2f} times its size of something else: {cause}"


def load_vocabulary(directory: Path) -> Tokenizer:
    """Return the tokenizer in a model directory, without transformers.

    Raises:
        VerifyError: the file is not one.
    """
    from tokenizers import Tokenizer

    path = directory / "tokenizer.json"
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises no narrower one
        raise VerifyError(f"{path} is not a tokenizer: {error}; fetch or export the model again") from error


def _check_tokenizer(export: Path, base: Path | None, family: ModelFamily) -> Check:
    """The tokenizer files are the base model's, and the vocabulary fits the embedding."""
    wrong = []
    for name in family.tokenizer_files:
        if not (export / name).is_file():
            wrong.append(f"{name} is missing; without it llama.cpp and Ollama read other tokens")
        elif base and not (base / name).is_file():
            wrong.append(f"{base.name} has no {name} to compare with")
        elif base and digest_file(export / name) != digest_file(base / name):
            wrong.append(f"{name} differs from the base model's")
    config = read_json(export / "config.json")
    vocab_size = text_config(config).get("vocab_size")
    if (export / "tokenizer.json").is_file():
        size = load_vocabulary(export).get_vocab_size()
        tensors = Tensors(export)
        rows = next((tensors.shape(key)[0] for key in tensors if key.endswith("embed_tokens.weight")), 0)
        # Gemma 3n's embedding has rows for image and audio tokens beyond the text vocabulary.
        if not isinstance(vocab_size, int) or not size <= vocab_size == rows:
            wrong.append(f"config.json says {vocab_size} tokens, the tokenizer has {size}, the embedding {rows}")
    return none_wrong("tokenizer.files", ", ".join(family.tokenizer_files), wrong)
