"""Seconds a step on the CPU: Gemma 3 270M with every logit, as TRL has it, against the trimmed computation.

``python benchmarks/cpu_train.py BASE OUT.json [--rounds N]``; the two are interleaved, on the same batches.
"""

import argparse
import json
import statistics
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("base", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    import torch

    from titlegen.settings import load_settings
    from titlegen.train.backends import load_for_training
    from titlegen.train.trim import CompletionTrim

    model, _ = load_for_training(arguments.base, load_settings(profile="quickstart").train)
    model.train()
    trim = CompletionTrim(model)
    for module in model.modules():
        # With the same loss on both sides, so that only the work differs.
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    seconds: dict[str, list[float]] = {"plain": [], "trimmed": []}
    losses: dict[str, list[float]] = {"plain": [], "trimmed": []}
    generator = torch.Generator().manual_seed(0)
    for _ in range(arguments.rounds):
        ids = torch.randint(200, 200_000, (4, 280), generator=generator)
        labels = ids.clone()
        labels[:, :-20] = -100
        batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
        for name, compute in (("plain", lambda b: model(**b, use_cache=False).loss), ("trimmed", trim)):
            started = time.perf_counter()
            loss = compute(batch)
            loss.backward()
            seconds[name].append(time.perf_counter() - started)
            losses[name].append(loss.item())
            model.zero_grad()
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    report = {
        "name": "train_cpu",
        "device": f"CPU, {torch.get_num_threads()} threads",
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {name: metadata.version(name) for name in ("torch", "transformers", "peft")},
        "metrics": {
            "cpu_ratio_vs_trl": medians["plain"] / medians["trimmed"],
            "plain_s": medians["plain"],
            "trimmed_s": medians["trimmed"],
            "largest_loss_difference": max(abs(a - b) for a, b in zip(losses["plain"], losses["trimmed"], strict=True)),
        },
        "notes": f"rows of 280 tokens, 20 of them title, batch 4, {arguments.rounds} interleaved rounds",
    }
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
