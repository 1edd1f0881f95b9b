"""Losses of training steps by two computations of one model, from the same adapter on the same rows, two seeds each:

    python benchmarks/gpu_curves.py OUT --name NAME --model DIRECTORY --articles FILE [--fp8] [--steps N] [--small]

transformers' own loss and the trimmed one, or with --fp8 the trimmed one by 16-bit copies of the frozen weights and
with the large ones in FP8. Writes OUT/NAME.json.
"""

import argparse
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from gpu_train import SMALL_LARGE, make_examples
from machine import write_report
from random_e4b import FAMILIES

# Every logit of more rows takes the plain computation beyond 80 GiB.
ROWS = 2
_NOTES = (
    "Losses of steps of 2 rows as in the PTS set, LoRA r16, dropout 0.05, by {}, with two seeds each, which decide the "
    "dropout; same rows, same adapter at the start. apart: one seed, two computations; seeds_apart: two seeds, one "
    "computation. Absolute differences, over steps and pairs. benchmarks/gpu_curves.py."
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--family", default="gemma3n", choices=FAMILIES)
    parser.add_argument("--articles", type=Path, required=True, help="JSONL with content and title")
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--fp8", action="store_true")
    parser.add_argument("--small", action="store_true", help="of the narrow model, to try this script")
    arguments = parser.parse_args()
    arguments.shape = "pts"
    losses, more = curves(arguments)
    metrics = compare(losses) | more
    report = {
        "metrics": {name: round(value, 4) for name, value in metrics.items()},
        "losses": {name: [round(loss, 4) for loss in curve] for name, curve in losses.items()},
        "notes": _NOTES.format(
            "the trimmed computation with 16-bit copies of the frozen weights, and with the large ones in FP8"
            if arguments.fp8
            else "the trimmed computation and transformers' own loss under autocast"
        ),
    }
    write_report(arguments.out / f"{arguments.name}.json", report, "torch", "transformers", "peft")


def curves(arguments: argparse.Namespace) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Return the losses of each computation and seed, named as ``trimmed_0``, and further figures."""
    import torch

    from titlegen.models import family_at
    from titlegen.settings import load_settings
    from titlegen.train import encode_examples, fp8, padded_batch, prepare_weights
    from titlegen.train.backends import load_for_training
    from titlegen.train.fp8_check import use_fp8
    from titlegen.train.trim import CompletionTrim

    device = "cuda" if torch.cuda.is_available() else "cpu"
    change = {"backend": "peft"} | ({"load_in_4bit": False, "max_length": 160} if arguments.small else {})
    settings = load_settings(profile=f"{arguments.family}-e4b").train.model_copy(update=change)
    model, tokenizer = load_for_training(arguments.model, settings)
    prompt = family_at(arguments.model).prompt
    rows = encode_examples(make_examples(arguments), tokenizer, prompt, settings.max_length)
    chosen = [[rows[(ROWS * step + i) % len(rows)] for i in range(ROWS)] for step in range(arguments.steps)]
    batches = [padded_batch(model, tokenizer, pair) for pair in chosen]

    def plain(inputs: dict[str, Any]) -> Any:
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            return model(**inputs, use_cache=False).loss

    def both(name: str, loss_of: Callable[[dict[str, Any]], Any]) -> dict[str, list[float]]:
        return {f"{name}_{seed}": train(model, start, batches, loss_of, settings, seed) for seed in (0, 1)}

    start = {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}
    if not arguments.fp8:
        return both("plain", plain) | both("trimmed", CompletionTrim(model)), {}
    prepare_weights(model, low_memory=False)
    trim = CompletionTrim(model)
    losses = both("trimmed", trim)
    if arguments.small:
        fp8.LARGE = SMALL_LARGE
    found = use_fp8(trim, model, batches[0])
    return losses | both("fp8", trim), {"fp8_error": found.error, "fp8_explained": found.explained}


def train(
    model: Any,
    start: dict[str, Any],
    batches: list[dict[str, Any]],
    loss_of: Callable[[dict[str, Any]], Any],
    settings: Any,
    seed: int,
) -> list[float]:
    """Return the losses of steps from an adapter; the seed decides the dropout alone."""
    import torch

    with torch.no_grad():
        for name, value in model.named_parameters():
            if name in start:
                value.copy_(start[name])
    torch.manual_seed(seed)
    trained = [value for value in model.train().parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=0.0, fused=True)
    losses = []
    for inputs in batches:
        loss = loss_of(inputs)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, settings.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses


def compare(losses: dict[str, list[float]]) -> dict[str, float]:
    """Return how far apart two computations are, and two seeds of one."""
    names = sorted({name.rpartition("_")[0] for name in losses})
    pairs = {
        "apart": [(f"{one}_{seed}", f"{other}_{seed}") for one, other in pairwise(names) for seed in (0, 1)],
        "seeds_apart": [(f"{name}_0", f"{name}_1") for name in names],
    }
    found = {
        key: [abs(a - b) for one, other in several for a, b in zip(losses[one], losses[other], strict=True)]
        for key, several in pairs.items()
    }
    means = {f"{key}_mean": sum(values) / len(values) for key, values in found.items()}
    return means | {f"{key}_largest": max(values) for key, values in found.items()}


if __name__ == "__main__":
    main()
