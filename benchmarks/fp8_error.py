"""How far rounding to FP8 moves the final hidden states of a random E4B, and how far rounding should: on a CPU.

``python benchmarks/fp8_error.py [--family gemma3n] [--small]``; layers as wide and as many as published, a vocabulary
of 4,096, in 12 GiB of memory. For Gemma 3n also without its sparse gates.
"""

import argparse
from typing import Any

import torch
from gpu_train import SMALL_LARGE
from machine import write_result
from random_e4b import FAMILIES, random_model, text_config

from titlegen.train import fp8
from titlegen.train.fp8_check import relative_error, use_fp8
from titlegen.train.packed import pack
from titlegen.train.trim import CompletionTrim

_VOCABULARY, _LENGTHS, _TITLE = 4096, (100, 150), 20
_NOTES = (
    "bfloat16, random weights, layers of the published widths and number, a vocabulary of 4,096; two rows of 100 and "
    "150 random tokens, the last 20 labelled. error: relative error of the final hidden states with the feed-forward "
    "layers in FP8; explained: with random errors of the size of rounding in the same products of the model in 16 "
    "bits; error_first_layer: with the first layer alone in FP8. dense: without sparse gates. Products of the codes in "
    "bfloat16. benchmarks/fp8_error.py."
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--family", default="gemma3n", choices=FAMILIES)
    parser.add_argument("--small", action="store_true", help="of the narrow model, to try this script")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        fp8.multiply = multiply
    if arguments.small:
        fp8.LARGE = SMALL_LARGE
    config = text_config(arguments.family, small=arguments.small)
    config.vocab_size = config.vocab_size_per_layer_input = _VOCABULARY
    name = f"fp8_error_{arguments.family}"
    write_result(name, errors(config), _NOTES, "torch", "transformers")
    if any(getattr(config, "activation_sparsity_pattern", None) or ()):
        config.activation_sparsity_pattern = [0.0] * config.num_hidden_layers
        dense = {f"{key}_dense": value for key, value in errors(config).items()}
        write_result(name, dense, _NOTES, "torch", "transformers")


def multiply(
    left: torch.Tensor, left_scales: torch.Tensor, right: torch.Tensor, right_scales: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    """Return what :func:`titlegen.train.fp8.multiply` does, by bfloat16, which holds every code: ten times as fast."""
    product = left.to(torch.bfloat16) @ right.to(torch.bfloat16)
    return (product.float() * left_scales * right_scales).to(dtype)


def errors(config: Any) -> dict[str, float]:
    """Return the errors of a random model in FP8."""
    model = random_model(config).requires_grad_(requires_grad=False)
    torch.set_default_dtype(torch.float32)
    trim, inputs = CompletionTrim(model), batch()
    packed = pack(inputs)
    with torch.no_grad():
        whole = trim.states(packed).float()
        first = [found for found in fp8.large_projections(model) if found.place.startswith("layer 0:")]
        for parent, name, linear, _ in first:
            setattr(parent, name, fp8.in_fp8(linear))
        error = relative_error(trim.states(packed), whole)
        for parent, name, linear, _ in first:
            setattr(parent, name, linear)
    found = use_fp8(trim, model, inputs)
    return {"error": found.error, "explained": found.explained, "error_first_layer": error}


def batch() -> dict[str, torch.Tensor]:
    """Return two rows of random tokens."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, _VOCABULARY, (len(_LENGTHS), max(_LENGTHS)), generator=generator)
    lengths = torch.tensor(_LENGTHS)[:, None]
    place = torch.arange(max(_LENGTHS))
    mask = (place < lengths).long()
    titles = (place >= lengths - _TITLE) & mask.bool()
    return {"input_ids": ids * mask, "attention_mask": mask, "labels": ids.masked_fill(~titles, -100)}


if __name__ == "__main__":
    main()
