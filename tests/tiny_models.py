"""Tiny random models of every family: an adapter, tame attention, weights that no layer reads, and faults in a copy."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from corpus import TARGETS


def write_random_adapter(model: Any, directory: Path, *, deviation: float) -> None:
    """Write an adapter for a model with random, non-zero A and B, as PEFT saves it."""
    import torch
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS, task_type="CAUSAL_LM"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=deviation)
    model.save_pretrained(directory)


def randomise(model: Any, *, deviation: float) -> None:
    """Give a model random matrices, and queries and keys that are small."""
    import torch

    for parameter in model.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=deviation)
    for layer in model.model.layers:
        # The attention scale is 1: with wilder queries, rounding alone makes two runs look unrelated.
        layer.self_attn.q_norm.weight.data.fill_(0.3)
        if hasattr(layer.self_attn, "k_norm"):
            layer.self_attn.k_norm.weight.data.fill_(0.3)


def add_unread_weights(directory: Path, hidden: int, heads: Mapping[int, int]) -> None:
    """Add the k/v weights of layers that share others', as published checkpoints have them; transformers drops them.

    Args:
        directory: the saved model.
        hidden: width of the model.
        heads: width of a head by layer.
    """
    import torch
    from safetensors.torch import load_file, save_file

    weights = load_file(directory / "model.safetensors")
    for index, width in heads.items():
        attention = f"model.layers.{index}.self_attn."
        weights |= {
            f"{attention}k_proj.weight": torch.zeros(width, hidden),
            f"{attention}v_proj.weight": torch.zeros(width, hidden),
            f"{attention}k_norm.weight": torch.ones(width),
        }
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})


def edit_json(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a JSON file in place."""
    value = json.loads(path.read_bytes())
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")


def edit_weights(directory: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the tensors of a saved model in place."""
    from safetensors.torch import load_file, save_file

    path = directory / "model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file({key: value.contiguous() for key, value in weights.items()}, path, metadata={"format": "pt"})
