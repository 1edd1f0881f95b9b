"""LoRA adapters on disk, and the tensors of a base model that they change."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from titlegen.errors import ExportError
from titlegen.models import read_json
from titlegen.tensors import Tensors, opened

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
# Key of the safetensors file's own metadata, so that it goes wherever the adapter goes.
_BASE_DIGEST = "base_digest"


class AdapterDeltas:
    """The low-rank updates of a PEFT adapter directory."""

    def __init__(self, adapter: Path) -> None:
        """Open the adapter.

        Raises:
            ExportError: it is missing, or is not a plain LoRA adapter.
        """
        path = adapter / WEIGHTS
        if not path.is_file() or not (adapter / CONFIG).is_file():
            raise ExportError(f"{adapter} holds no adapter ({WEIGHTS}, {CONFIG}); run `titlegen train` first")
        config = read_json(adapter / CONFIG)
        unsupported = [
            name
            for name in ("use_dora", "use_rslora", "fan_in_fan_out", "modules_to_save", "rank_pattern", "alpha_pattern")
            if config.get(name)
        ]
        if config.get("peft_type") != "LORA" or config.get("bias", "none") != "none" or unsupported:
            found = ", ".join(unsupported) or f"peft_type {config.get('peft_type')!r}, bias {config.get('bias')!r}"
            raise ExportError(f"{adapter} is not a plain LoRA adapter ({found}); only plain LoRA can be merged")
        self.rank, self.alpha = (_positive(config, name, adapter) for name in ("r", "lora_alpha"))
        self.scale = self.alpha / self.rank
        self.base_name = str(config.get("base_model_name_or_path") or "")
        self._path = path
        with opened(path) as file:
            keys = set(file.keys())
            self.base_digest: str | None = (file.metadata() or {}).get(_BASE_DIGEST)
        suffix_a, suffix_b = ".lora_A.weight", ".lora_B.weight"
        self._keys = {_module(key, suffix_a): key for key in keys if key.endswith(suffix_a)}
        odd = [key for key in keys if not key.endswith((suffix_a, suffix_b))]
        lone = [key for key in self._keys.values() if key.removesuffix(suffix_a) + suffix_b not in keys]
        if odd or lone or not self._keys:
            named = (odd or lone or ["(nothing)"])[0]
            raise ExportError(
                f"{path} does not hold pairs of lora_A and lora_B: {named}; "
                "train again, or give the folder of a whole adapter"
            )
        self.modules = sorted(self._keys)

    def delta(self, module: str) -> Tensor:
        """Return (alpha / r) B A of a module: (out_features, in_features) float32."""
        a, b = self.factors(module)
        return self.scale * (b @ a)

    def factors(self, module: str) -> tuple[Tensor, Tensor]:
        """Return A (r, in_features) and B (out_features, r) of a module, float32."""
        key = self._keys[module]
        with opened(self._path) as file:
            return file.get_tensor(key).float(), file.get_tensor(key.replace(".lora_A.", ".lora_B.")).float()


def _module(key: str, suffix: str) -> str:
    return key.removesuffix(suffix).removeprefix("base_model.model.")


def _positive(config: Mapping[str, object], name: str, adapter: Path) -> float:
    value = config.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ExportError(f"{adapter / CONFIG} has {name} {value!r}; a number above 0 is needed")
    return float(value)


def match_targets(modules: list[str], keys: list[str]) -> dict[str, str]:
    """Map base tensor keys to the adapter modules that change them.

    A checkpoint and a loaded model can differ in the prefix before ``layers.``, so that part is not compared.

    Raises:
        ExportError: a module has no tensor, or more than one.
    """
    by_tail: dict[str, list[str]] = {}
    for key in keys:
        by_tail.setdefault(tail_of(key), []).append(key)
    targets = {}
    for module in modules:
        exact = f"{module}.weight"
        found = [exact] if exact in keys else by_tail.get(tail_of(exact), [])
        # A multimodal checkpoint also has towers with layers of like names.
        found = [key for key in found if "_tower" not in key] if len(found) > 1 else found
        if len(found) != 1:
            raise ExportError(
                f"the adapter changes {module!r}, which the base model has {len(found)} times; "
                "the adapter was trained on another base model"
            )
        targets[found[0]] = module
    return targets


def digest_base(base: Path) -> str:
    """Return a digest of a model's tensors, which tells checkpoints of the same shape apart.

    It covers each tensor's name, element type, shape and first row: training and merging change nearly every row, and
    reading all of Gemma 3n would take half a minute.
    """
    import torch

    tensors, digest = Tensors(base), hashlib.sha256()
    for key in sorted(tensors):
        shape = tensors.shape(key)
        values = tensors.rows(key, slice(0, 1)) if len(shape) > 1 else tensors.get(key)
        digest.update(f"{key} {tensors.dtype(key)} {shape}\n".encode())
        digest.update(values.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def sign_adapter(adapter: Path, base: Path) -> None:
    """Write into an adapter's file which weights it was trained on."""
    from safetensors.torch import load_file

    _rewrite(adapter / WEIGHTS, load_file(adapter / WEIGHTS), digest_base(base))


def round_adapter(adapter: Path) -> None:
    """Round an adapter's values to bfloat16, which halves its file."""
    import torch
    from safetensors.torch import load_file

    digest = AdapterDeltas(adapter).base_digest
    weights = {key: value.to(torch.bfloat16) for key, value in load_file(adapter / WEIGHTS).items()}
    _rewrite(adapter / WEIGHTS, weights, digest)


def _rewrite(path: Path, weights: dict[str, Tensor], base_digest: str | None) -> None:
    from safetensors.torch import save_file

    # safetensors writes several entries in random order, and equal runs would differ in their bytes; so there is one.
    metadata = {_BASE_DIGEST: base_digest} if base_digest else {"format": "pt"}
    temporary = path.with_name(f".{path.name}.tmp")
    save_file(weights, temporary, metadata=metadata)
    # safetensors makes the file readable by its owner alone; a server or container may run as another user.
    temporary.chmod(0o644)
    temporary.replace(path)


def tail_of(key: str) -> str:
    """Return a name from ``layers.`` on: what stands before differs between a checkpoint and a loaded model."""
    _, mark, tail = key.partition("layers.")
    return mark + tail if mark else key
