"""LoRA adapters on disk: what they change, and which tensors of a base model that is."""

from pathlib import Path
from typing import Any

from titlegen.errors import ExportError
from titlegen.models import read_json
from titlegen.tensors import opened


class AdapterDeltas:
    """The low-rank updates of a PEFT adapter directory."""

    def __init__(self, adapter: Path) -> None:
        """Open the adapter.

        Raises:
            ExportError: it is missing, or is not a plain LoRA adapter.
        """
        path = adapter / "adapter_model.safetensors"
        if not path.is_file() or not (adapter / "adapter_config.json").is_file():
            raise ExportError(f"{adapter} holds no adapter (adapter_model.safetensors); run `titlegen train` first")
        config = read_json(adapter / "adapter_config.json")
        unsupported = [
            name
            for name in ("use_dora", "use_rslora", "fan_in_fan_out", "modules_to_save", "rank_pattern", "alpha_pattern")
            if config.get(name)
        ]
        if config.get("peft_type") != "LORA" or config.get("bias", "none") != "none" or unsupported:
            found = ", ".join(unsupported) or f"peft_type {config.get('peft_type')!r}, bias {config.get('bias')!r}"
            raise ExportError(f"{adapter} is not a plain LoRA adapter ({found}); only plain LoRA can be merged")
        self.scale = float(config["lora_alpha"]) / float(config["r"])
        self._path = path
        with opened(path) as file:
            keys = set(file.keys())
        suffix_a, suffix_b = ".lora_A.weight", ".lora_B.weight"
        self._keys = {_module(key, suffix_a): key for key in keys if key.endswith(suffix_a)}
        odd = [key for key in keys if not key.endswith((suffix_a, suffix_b))]
        lone = [key for key in self._keys.values() if key.removesuffix(suffix_a) + suffix_b not in keys]
        if odd or lone or not self._keys:
            named = (odd or lone or ["(nothing)"])[0]
            raise ExportError(f"{path} does not hold pairs of lora_A and lora_B: {named}")
        self.modules = sorted(self._keys)

    def delta(self, module: str) -> Any:
        """Return (alpha / r) B A of a module: (out_features, in_features) float32."""
        key = self._keys[module]
        with opened(self._path) as file:
            a = file.get_tensor(key).float()
            b = file.get_tensor(key.replace(".lora_A.", ".lora_B.")).float()
        return self.scale * (b @ a)


def _module(key: str, suffix: str) -> str:
    return key.removesuffix(suffix).removeprefix("base_model.model.")


def match_targets(modules: list[str], keys: list[str]) -> dict[str, str]:
    """Map base tensor keys to the adapter modules that change them.

    A checkpoint and a loaded model can differ in the prefix before ``layers.``, so that part is not compared.

    Raises:
        ExportError: a module has no tensor, or more than one.
    """
    by_tail: dict[str, list[str]] = {}
    for key in keys:
        by_tail.setdefault(_tail(key), []).append(key)
    targets = {}
    for module in modules:
        exact = f"{module}.weight"
        found = [exact] if exact in keys else by_tail.get(_tail(exact), [])
        # A multimodal checkpoint also has towers with layers of like names.
        found = [key for key in found if "_tower" not in key] if len(found) > 1 else found
        if len(found) != 1:
            raise ExportError(
                f"the adapter changes {module!r}, which the base model has {len(found)} times; "
                "the adapter was trained on another base model"
            )
        targets[found[0]] = module
    return targets


def _tail(key: str) -> str:
    _, mark, tail = key.partition("layers.")
    return mark + tail if mark else key
