"""Make one file of figures of trainings that took turns: ``python benchmarks/in_turn.py OUT NAME``.

OUT holds what ``gpu_train.py`` wrote for each turn, such as ``plain_1.json`` and ``plain_2.json``; OUT/NAME.json gets
the mean of the turns and the ratios, and what OUT/attention_512.json says of kernels, where it is.
"""

import argparse
import json
import re
import statistics
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_TURN = re.compile(r"(plain|unsloth|titlegen|titlegen_pts)_(\d+)")
_OTHERS = ("plain", "unsloth")
_NOTES = (
    "Random weights of the true size, LoRA r16, one card, each training in a process of its own, one after another as "
    "benchmarks/gpu_all.sh has them; where a variant had several turns, the figure is their mean. plain: transformers "
    "and PEFT, bf16, checkpointing, 4 rows of 2,048 tokens; unsloth: as it ships, compiled; titlegen: on such rows cut "
    "out of real text; titlegen_pts: on rows as in the PTS set. Tokens a second are those after warm-up, without "
    "checkpoints. loss_at_start: the trimmed loss of two rows before the first step, and the full model's. "
    "to_first_step_s counts from the call of fit; cold: in the first turn, which may have compiled."
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("name")
    arguments = parser.parse_args()
    turns = read_turns(arguments.out)
    if not turns:
        raise SystemExit(f"{arguments.out} holds no result of a turn, such as plain_1.json; run gpu_all.sh before")
    last = turns[max(turns)][-1]
    report = {
        "name": arguments.name,
        "device": last.get("device", "CPU"),
        "date": datetime.now(UTC).date().isoformat(),
        "versions": last["versions"],
        "metrics": {name: round(value, 4) for name, value in compare(turns).items()},
        "turns": {name: [found["tok_s"] for found in several] for name, several in turns.items()},
        "notes": _NOTES,
    }
    attention = arguments.out / "attention_512.json"
    if attention.is_file():
        report["attention_512"] = json.loads(attention.read_bytes())["ways"]
    text = json.dumps(report, indent=1) + "\n"
    (arguments.out / f"{arguments.name}.json").write_text(text, encoding="utf-8")
    sys.stdout.write(text)


def read_turns(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the results of each variant, its first turn first."""
    found: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for path in folder.glob("*.json"):
        if match := _TURN.fullmatch(path.stem):
            found.setdefault(match[1], []).append((int(match[2]), json.loads(path.read_bytes())))
    return {
        name: [result for _, result in sorted(several, key=lambda turn: turn[0])] for name, several in found.items()
    }


def compare(turns: dict[str, list[dict[str, Any]]]) -> dict[str, float]:
    """Return speeds, peaks, and how many times as fast titlegen is as the others."""
    metrics: dict[str, float] = {}
    for name, several in turns.items():
        metrics[f"tok_s_{name}"] = statistics.mean(found["tok_s"] for found in several)
        metrics[f"peak_gib_{name}"] = max(found["peak_gib"] or 0.0 for found in several)
        if name not in _OTHERS:
            metrics[f"rows_{name}"] = several[-1]["plan"]["batch"]
            metrics[f"to_first_step_s_{name}"] = several[-1]["to_first_step_s"]
            metrics[f"to_first_step_cold_s_{name}"] = several[0]["to_first_step_s"]
            for key in ("loss_at_start", "full_loss_at_start"):
                metrics[f"{key}_{name}"] = several[-1][key]
    for other in set(_OTHERS) & turns.keys():
        for name in turns.keys() - set(_OTHERS):
            shape = name.removeprefix("titlegen")
            metrics[f"ratio_vs_{other}{shape}"] = metrics[f"tok_s_{name}"] / metrics[f"tok_s_{other}"]
    return dict(sorted(metrics.items()))


if __name__ == "__main__":
    main()
