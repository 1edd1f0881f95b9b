"""Write the result files of trainings, each whole, from what their roles measured: ``train_results.py OUT FAMILY``.

OUT holds what ``gpu_train.py`` and ``gpu_pipeline.py`` wrote, as ``gpu_all.sh`` names it: NAME.json, or NAME_1.json,
NAME_2.json for what had several turns. Each result whose roles are all there is written to OUT; of the others it is
said what is missing.
"""

import argparse
import json
import re
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

_OTHERS = ("plain", "unsloth")
# Operations of a token: counted by hand over the executed work without recomputing; see docs/performance.md.
_GFLOP_A_TOKEN = 9.07
_ROW = 2048
_COMMON = (
    "Random weights of the true size, LoRA r16, one card, each training in a process of its own, one after another as "
    "benchmarks/gpu_all.sh has them; where a variant had several turns, the figure is their mean. plain: transformers "
    "and PEFT, bf16, checkpointing, 4 rows of 2,048 tokens; unsloth: as it ships, compiled; titlegen: on such rows cut "
    "out of real text; titlegen_pts: on rows as in the PTS set. Tokens a second are those after warm-up, without "
    "checkpoints. loss_at_start: the trimmed loss of two rows before the first step, and the full model's. "
    "to_first_step_s counts from the call of fit; cold: in the first turn, or where said with an empty compile cache. "
)


class MissingRoleError(Exception):
    """A role that a result needs was not measured."""


@dataclass(frozen=True)
class Roles:
    """What was measured."""

    out: Path

    def one(self, name: str) -> dict[str, Any]:
        """Return what a role without turns wrote."""
        path = self.out / f"{name}.json"
        if not path.is_file():
            raise MissingRoleError(name)
        found: dict[str, Any] = json.loads(path.read_bytes())
        return found

    def turns(self, name: str) -> list[dict[str, Any]]:
        """Return the results of each turn of a role, its first turn first."""
        numbers = sorted(
            int(match[1]) for path in self.out.glob("*.json") if (match := re.fullmatch(rf"{name}_(\d+)", path.stem))
        )
        if not numbers:
            raise MissingRoleError(f"{name}_1")
        return [self.one(f"{name}_{number}") for number in numbers]

    def mean(self, name: str) -> float:
        """Return the mean speed of a role's turns, tokens a second."""
        return statistics.mean(found["tok_s"] for found in self.turns(name))

    def peak(self, name: str) -> float:
        """Return the most memory that a role's turns took, GiB."""
        return max(found["peak_gib"] or 0.0 for found in self.turns(name))

    def gemm_share(self) -> float:
        """Return titlegen's share of what the card reaches in a large product."""
        reached: float = _GFLOP_A_TOKEN * self.mean("titlegen") / 1000 / self.turns("plain")[0]["gemm_tflop_s"]
        return reached


def compare(roles: Roles, names: tuple[str, ...]) -> dict[str, Any]:
    """Return speeds, peaks, and how many times as fast titlegen is as the others, of the variants that ran."""
    turns = {}
    for name in names:
        try:
            turns[name] = roles.turns(name)
        except MissingRoleError:
            # Unsloth may not end in time, and only some variants may be asked for.
            continue
    if not turns.keys() - set(_OTHERS):
        raise MissingRoleError("titlegen_1")
    metrics: dict[str, Any] = {}
    for name, several in turns.items():
        metrics[f"tok_s_{name}"] = roles.mean(name)
        metrics[f"tok_s_{name}_turns"] = [found["tok_s"] for found in several]
        metrics[f"peak_gib_{name}"] = roles.peak(name)
        if name in _OTHERS:
            continue
        metrics[f"rows_{name}"] = several[-1]["plan"]["batch"]
        metrics[f"to_first_step_s_{name}"] = several[-1]["to_first_step_s"]
        metrics[f"to_first_step_cold_s_{name}"] = several[0]["to_first_step_s"]
        for key in ("loss_at_start", "full_loss_at_start", "fp8_error", "fp8_explained"):
            if key in several[-1]:
                metrics[f"{key}_{name}"] = several[-1][key]
        shape = name.removeprefix("titlegen")
        for other in set(_OTHERS) & turns.keys():
            metrics[f"ratio_vs_{other}{shape}"] = roles.mean(name) / roles.mean(other)
        if name.endswith("_fp8") and (exact := name.removesuffix("_fp8")) in turns:
            metrics[f"ratio{shape}"] = roles.mean(name) / roles.mean(exact)
    return dict(sorted(metrics.items()))


def in_turn(roles: Roles) -> dict[str, Any]:
    """Return the figures of ``speed`` and ``first``, and those in 24 GiB."""
    plain, compiled, pts = (roles.turns(name) for name in ("plain", "unsloth", "titlegen_pts"))
    small, cold = roles.one("limit_24"), roles.one("titlegen_pts_cold")
    load, load_cold = (found["parts_s"]["load"] for found in (pts[-1], cold))
    return compare(roles, ("plain", "unsloth", "titlegen", "titlegen_pts")) | {
        "tok_s_unsloth_compiled": roles.mean("unsloth"),
        "peak_gib_unsloth_compiled": roles.peak("unsloth"),
        "first_step_s_unsloth_compiled": compiled[0]["first_step_s"],
        "ratio_vs_plain_pts_busy": pts[-1]["tok_s"] / plain[-1]["tok_s"],
        "ratio_vs_unsloth_pts_busy": pts[-1]["tok_s"] / compiled[-1]["tok_s"],
        "pts_share_of_fixed": roles.mean("titlegen_pts") / roles.mean("titlegen"),
        "tok_s_24gib": small["tok_s"],
        "ratio_24gib_vs_plain": small["tok_s"] / roles.mean("plain"),
        "peak_gib_24gib": small["peak_gib"],
        "reserved_gib_24gib": small["reserved_gib"],
        "rows_24gib": small["plan"]["batch"],
        "to_first_step_s": pts[-1]["to_first_step_s"],
        "load_s": load,
        "to_first_step_without_load_s": pts[-1]["to_first_step_s"] - load,
        "to_first_step_cold_s": cold["to_first_step_s"],
        "to_first_step_cold_without_load_s": cold["to_first_step_s"] - load_cold,
        "gemm_tflop_s": plain[0]["gemm_tflop_s"],
        "gemm_share": roles.gemm_share(),
    }


def whole(roles: Roles) -> dict[str, Any]:
    """Return the figures that ``titlegen plan`` uses: every variant's speed and peak."""
    variants = {"plain": "plain", "unsloth": "unsloth_eager", "unsloth_compiled": "unsloth", "titlegen": "titlegen"}
    variants |= {"titlegen_pts": "titlegen_pts"}
    low, own, compiled = roles.one("low_memory"), roles.turns("titlegen")[-1], roles.turns("unsloth")
    return (
        {f"tok_s_{key}": roles.mean(name) for key, name in variants.items()}
        | {f"peak_gib_{key}": roles.peak(name) for key, name in variants.items()}
        | {
            "tok_s_titlegen_low_memory": low["tok_s"],
            "peak_gib_titlegen_low_memory": low["peak_gib"],
            "first_step_s": own["to_first_step_s"],
            "first_step_s_unsloth": roles.turns("unsloth_eager")[-1]["first_step_s"],
            "first_step_s_unsloth_compiled_warm": compiled[-1]["first_step_s"],
            "useful_token_share": own["mean_row"] / _ROW,
            "loss_at_start": own["loss_at_start"],
            "full_loss_at_start": own["full_loss_at_start"],
            "gemm_tflop_s": roles.turns("plain")[0]["gemm_tflop_s"],
            "resume_largest_loss_difference": roles.one("resume_e4b")["metrics"]["largest_difference"],
        }
    )


def faster(roles: Roles) -> dict[str, Any]:
    """Return the figures of rows as in the PTS set in short; ``titlegen plan`` uses the first steps."""
    cold = roles.one("titlegen_pts_cold")
    return {
        "ratio_vs_plain": roles.mean("titlegen_pts") / roles.mean("plain"),
        "ratio_vs_unsloth": roles.mean("titlegen_pts") / roles.mean("unsloth"),
        "seconds_1400x3": roles.one("long_1400x3")["process_s"],
        "first_step_cold_s": cold["to_first_step_s"] - cold["parts_s"]["load"],
        "first_step_warm_s": roles.turns("titlegen_pts")[-1]["to_first_step_s"],
        "peak_gib_low_memory": roles.one("low_memory")["peak_gib"],
        "gemm_share": roles.gemm_share(),
    }


def small(roles: Roles) -> dict[str, Any]:
    """Return the figures of ``small``: less memory than a large card has."""
    low, wide, limited = (roles.one(name) for name in ("low_memory", "low_memory_32_rows", "limit_13"))
    recomputed = roles.turns("recomputed_8x2048")
    return {
        "tok_s_recomputed_8x2048": recomputed[0]["tok_s"],
        "tok_s_recomputed_8x2048_again": recomputed[-1]["tok_s"],
        "peak_gib_recomputed_8x2048": roles.peak("recomputed_8x2048"),
        "tok_s_low_memory": low["tok_s"],
        "peak_gib_low_memory": low["peak_gib"],
        "load_peak_gib": low["load_peak_gib"],
        "tok_s_low_memory_32_rows": wide["tok_s"],
        "peak_gib_low_memory_32_rows": wide["peak_gib"],
        "tok_s_13gib": limited["tok_s"],
        "ratio_13gib_vs_unsloth": limited["tok_s"] / roles.mean("unsloth"),
        "peak_gib_13gib": limited["peak_gib"],
        "reserved_gib_13gib": limited["reserved_gib"],
        "seconds_1400x3": roles.one("long_1400x3")["process_s"],
    }


def fp8(roles: Roles) -> dict[str, Any]:
    """Return the figures of large weights in FP8 beside 16 bits."""
    roles.turns("titlegen_pts_fp8")
    return compare(roles, ("titlegen", "titlegen_fp8", "titlegen_pts", "titlegen_pts_fp8"))


_SPEED = partial(compare, names=(*_OTHERS, "titlegen", "titlegen_pts"))
RESULTS: dict[str, Callable[[Roles], dict[str, Any]]] = {
    "train_e4b_speed": _SPEED,
    "train_e4b_in_turn": in_turn,
    "train_e4b": whole,
    "train_e4b_small": small,
    "faster": faster,
    "train_e4b_fp8": fp8,
}
# What the notes of each say beside the common part.
NOTES = {
    "train_e4b_in_turn": (
        "busy: the last turn alone. 24gib: torch limited to 24 GiB, rows as in the PTS set. to_first_step_s: "
        "titlegen_pts's last turn, whose compile cache is filled. gemm_share: 9.07 GFLOP a token "
        "counted by hand over the executed work times tok_s_titlegen, over the 8192 x 8192 x 8192 bf16 "
        "product of the same run."
    ),
    "train_e4b": (
        "unsloth here: not compiled; unsloth_compiled_warm: its last turn, in a process that finds the "
        "compiled. first_step_s: to_first_step_s of titlegen's last turn. resume: the largest difference of "
        "losses in resume_e4b. low_memory: 4 rows as in the PTS set at a time."
    ),
    "train_e4b_small": (
        "13gib: torch limited to 13 GiB, full rows. recomputed_8x2048: low_memory with 8 full rows at a time, "
        "twice. low_memory: 4 rows as in the PTS set at a time; 32_rows: 32 of them. seconds_1400x3: 1,400 "
        "rows as in the PTS set, 3 epochs, from process start to saved adapter, compile cache filled, no data "
        "stage."
    ),
    "faster": (
        "Ratios: rows as in the PTS set, padding dropped, against the others' full rows. seconds_1400x3: as "
        "in train_e4b_small. first_step_cold_s: with an empty compile cache, without loading; warm: from the "
        "call of fit."
    ),
    "train_e4b_fp8": (
        "fp8: with --train.fp8; ratio_fp8 and ratio_pts_fp8: times the speed with 16-bit copies of the "
        "weights. fp8_error: relative error of the final hidden states of two rows; fp8_explained: that of "
        "random errors of the size of rounding in the same products."
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("family")
    arguments = parser.parse_args()
    results = RESULTS
    if arguments.family != "gemma3n":
        own = f"train_{arguments.family}_e4b"
        results = {own: _SPEED, f"{own}_fp8": fp8}
    for name, figures in results.items():
        try:
            metrics = figures(Roles(arguments.out))
        except MissingRoleError as missing:
            print(f"{name}: not written, for {missing} was not measured")
            continue
        text = json.dumps(describe(arguments.out, name, metrics, _COMMON + NOTES.get(name, "")), indent=1) + "\n"
        (arguments.out / f"{name}.json").write_text(text, encoding="utf-8")
        sys.stdout.write(text)


def describe(out: Path, name: str, metrics: dict[str, Any], notes: str) -> dict[str, Any]:
    """Return a result as benchmarks/results has it, with the device of a role that was measured."""
    some = json.loads(min(out.glob("titlegen_*.json")).read_bytes())
    report = {
        "name": name,
        "device": some.get("device", "CPU"),
        "date": datetime.now(UTC).date().isoformat(),
        "versions": some["versions"],
        "metrics": {key: round(value, 4) if isinstance(value, float) else value for key, value in metrics.items()},
        "notes": notes,
    }
    attention = out / "attention_512.json"
    if attention.is_file():
        report["attention_512"] = json.loads(attention.read_bytes())["ways"]
    return report


if __name__ == "__main__":
    main()
