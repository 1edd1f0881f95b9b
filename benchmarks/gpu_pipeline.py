"""The stages of the GPU profile, through the command line, on one NVIDIA card: what they take and what comes out.

Run the roles one after another on one machine: ``python benchmarks/gpu_pipeline.py ROLE OUT [options]``.

    quality   Gemma 3 270M fine-tuned on real articles (--articles) with each of LABELS: OUT/train_270m.json
    resume    ``titlegen train`` of E4B (--model), killed after its first checkpoint and run again: OUT/resume_e4b.json

``quality`` goes on from what it has measured already, in OUT/quality.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from machine import write_report

from titlegen.runs import Folder

ROOT = Path(__file__).resolve().parents[1]
_POLL_S = 0.2
# Back end, then what is not as by default; those with a number also score the best of so many titles an article.
LABELS = {
    "unsloth": 1,
    "peft": 1,
    "unsloth-16bit": 1,
    "unsloth, learning rate 1e-3": 1,
    "unsloth-16bit, lr 5e-4, batch 8, no dropout": 1,
    "unsloth-16bit, lr 1e-3, batch 16, r 64": 1,
    "unsloth-16bit, lr 2e-4, batch 8, r 128, no dropout": 1,
    "unsloth-16bit, lr 5e-4, batch 8, r 64, dropout 0.1": 1,
    "unsloth-16bit, lr 1e-3, batch 16": 1,
    "unsloth-16bit, lr 3e-4, batch 16, r 256": 1,
    "unsloth-16bit, lr 2e-3": 1,
    "unsloth-16bit, lr 1e-3, batch 8, r 32, weight decay 0.1": 1,
    "unsloth, both in 4 bits": 1,
    "peft, both in 4 bits": 1,
    "unsloth-16bit, candidates": 32,
    "unsloth-16bit, lr 3e-4, batch 16, r 64, dropout 0.1": 32,
    "unsloth-16bit, lr 5e-4, batch 8, r 64, dropout 0.1, again": 16,
    "unsloth-16bit, lr 1e-3, batch 16, r 64, again": 16,
    "unsloth-16bit, lr 1e-3, batch 16, r 64, another seed": 16,
    "unsloth-16bit, lr 7e-4, batch 16, r 64, alpha 128, dropout 0.1, weight decay 0.1": 16,
    "unsloth-16bit, compiled": 1,
}
_OPTIONS = {"lr": "learning-rate", "learning rate": "learning-rate", "r": "lora-r", "alpha": "lora-alpha"}
_OPTIONS |= {"dropout": "lora-dropout", "weight decay": "weight-decay"}
_ROWS = 4
_NOTES = {
    "train_270m": "Gemma 3 270M, {rows} articles, split by time (5% validation, the last 10% test), 3 epochs, "
    "effective batch 32 and learning rate 2e-4 unless said, not compiled unless said, by `titlegen evaluate` with "
    "--profile gemma3n-e4b; alpha = r from r 32 on. unsloth and both in 4 bits: 4-bit weights; unsloth-16bit and "
    "peft: bfloat16. "
    "of_candidates: of so many titles drawn for each article the best by `generate --n`'s ranking, which knows no "
    "reference. benchmarks/gpu_pipeline.py quality.",
    "resume_e4b": "`titlegen train --profile gemma3n-e4b` on a Gemma 3n E4B with random weights and {rows} articles, "
    "killed (SIGKILL) behind the checkpoint of step 5 and run again, against a run that was not. largest_difference: "
    "of the losses of both, over all steps; GPU sums are in no fixed order. benchmarks/gpu_pipeline.py resume.",
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=sorted(ROLES))
    parser.add_argument("out", type=Path)
    parser.add_argument("--articles", type=Path, required=True, help="JSONL with content, title and date")
    parser.add_argument("--model", default="embedded", help="base model directory")
    parser.add_argument("--rows", type=int, default=2000, help="rows of the articles to use")
    parser.add_argument("--labels", nargs="+", default=list(LABELS), help="for quality: some of them")
    parser.add_argument("--work", type=Path, default=Path("outputs"))
    parser.add_argument("--set", nargs="*", default=[], help="further options of titlegen, without their dashes")
    arguments = parser.parse_args()
    name, role = ROLES[arguments.role]
    result = role(arguments)
    packages = ("torch", "transformers", "peft", "trl", "unsloth", "bitsandbytes")
    found = {**result, "notes": _NOTES[name].format(rows=f"{arguments.rows:,}")}
    write_report(arguments.out / f"{name}.json", found, *filter(_installed, packages))


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def options_of(label: str) -> list[str]:
    """Return the options of titlegen that a label stands for."""
    first, *items = label.split(", ")
    backend, _, precision = first.partition("-")
    in_4bit = "both in 4 bits" in items or (backend == "unsloth" and precision != "16bit")
    options = ["--train.backend", backend, "--train.load-in-4bit" if in_4bit else "--train.no-load-in-4bit"]
    options += ["--train.compile", str("compiled" in items).lower()]
    for item in items:
        if match := re.fullmatch(r"(\D+) ([\d.e-]+)", item):
            key, value = match.groups()
            if key == "batch":
                options += ["--train.per-device-train-batch-size", str(_ROWS)]
                options += ["--train.gradient-accumulation-steps", str(int(value) // _ROWS)]
                continue
            options += [f"--train.{_OPTIONS[key]}", value]
            if key == "r" and "alpha" not in label:
                options += ["--train.lora-alpha", value]
        elif item == "no dropout":
            options += ["--train.lora-dropout", "0"]
        elif item == "another seed":
            options += ["--train.seed", "1"]
        elif item not in {"again", "candidates", "compiled", "both in 4 bits"}:
            raise SystemExit(f"what does {item!r} of {label!r} stand for?")
    return options


class Run:
    """One command of titlegen."""

    def __init__(self, verb: str, arguments: argparse.Namespace, output: Path, *options: str) -> None:
        extra = [f"--{option}" if "=" not in option else f"--{option.replace('=', ' ', 1)}" for option in arguments.set]
        command = [sys.executable, "-m", "titlegen.cli", verb, "--profile", "gemma3n-e4b", "--output", str(output)]
        command += ["--model.base", arguments.model, "--data.source", str(arguments.articles), "--data.split", "time"]
        command += ["--data.limit", str(arguments.rows), *options, *" ".join(extra).split()]
        self.log = output.with_suffix(f".{verb}.log")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.started = time.monotonic()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)  # noqa: S603

    def wait(self, allowed: tuple[int, ...] = (0,)) -> float:
        """Return the seconds that the command took."""
        code = self.process.wait()
        if code not in allowed:
            tail = self.log.read_text(encoding="utf-8", errors="replace")[-3000:]
            raise SystemExit(f"exit code {code}\n{tail}")
        return round(time.monotonic() - self.started, 1)

    def kill(self) -> None:
        """End the command and its children like a power cut does."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def _read(path: Path) -> Any:
    return json.loads(path.read_bytes())


def _log(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def quality(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train as each label says, and score what it writes; what was measured before is not measured again."""
    kept = arguments.out / "quality"
    kept.mkdir(exist_ok=True)
    found = {}
    for label in arguments.labels:
        path = kept / (re.sub(r"[^\w.-]+", "_", label) + ".json")
        if not path.is_file():
            path.write_text(json.dumps(_measure(label, arguments), ensure_ascii=False), encoding="utf-8")
        found[label] = _read(path)
    metrics: dict[str, Any] = dict(found)
    for name, one, other in (
        ("4bit", *(f"{way}, both in 4 bits" for way in ("unsloth", "peft"))),
        ("16bit", "unsloth-16bit", "peft"),
    ):
        if {one, other} <= found.keys():
            metrics[f"val_loss_difference_{name}"] = abs(found[one]["val_loss"] - found[other]["val_loss"])
    if best := found.get("unsloth-16bit, candidates"):
        metrics |= {f"{key}_of_32": best["of_candidates"][key] for key in ("rougeL", "ratio")}
        metrics["rougeL_greedy"] = best["rougeL"]
    if compiled := found.get("unsloth-16bit, compiled"):
        metrics["train_s_compiled"] = compiled["train_s"]
    # Titles stay in WORK: their references are other people's text.
    return {"metrics": metrics}


def _measure(label: str, arguments: argparse.Namespace) -> dict[str, Any]:
    output = arguments.work / re.sub(r"\W+", "_", label)
    options = ["--data.val-share", "0.05", "--data.test-share", "0.1", *options_of(label)]
    options += ["--data.max-content-tokens", "768", "--train.max-length", "1024", "--train.logging-steps", "10"]
    options += ["--evaluate.target", "merged", "--evaluate.no-base-model", "--evaluate.batch-size", "100"]
    # Exit code 1: a gate failed; the scores are what is asked for.
    Run("evaluate", arguments, output, *options).wait(allowed=(0, 1))
    directory = output / "gemma3n-e4b"
    training = _read(directory / Folder.ADAPTER / "manifest.json")["results"]
    losses = [record["loss"] for record in _log(directory / Folder.ADAPTER / "train.jsonl") if "loss" in record]
    scored = _scored(directory / Folder.REPORT)
    found = {key: training[key] for key in ("val_loss", "tokens_per_s", "peak_gib", "train_s")} | {
        **scored,
        "loss_at_step_1": losses[0],
        "untuned_loss_trimmed": training["loss_at_start"],
        "untuned_loss_full": training["full_loss_at_start"],
        "splits": _read(directory / Folder.DATA / "manifest.json")["results"]["splits"],
    }
    if (candidates := LABELS[label]) > 1:
        options += ["--evaluate.candidates", str(candidates)]
        seconds = Run("evaluate", arguments, output, *options).wait(allowed=(0, 1))
        scored = _scored(directory / Folder.REPORT)
        found["of_candidates"] = {"candidates": candidates, "seconds": seconds, **scored}
    return found


def _scored(directory: Path) -> dict[str, Any]:
    report = _read(directory / "report.json")
    scores, lead1 = report["scores"], report["baselines"]["lead1"]["rougeL"]
    names = ("rougeL", "bleu1", "title_only_rate", "length_rate", "number_support")
    return {name: scores[name]["value"] for name in names if name in scores} | {
        "lead1_rougeL": lead1,
        "ratio": scores["rougeL"]["value"] / lead1,
        "rougeL_interval": [scores["rougeL"]["low"], scores["rougeL"]["high"]],
    }


def resume(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train to the end, and again with a kill after the first checkpoint; the loss curves must be the same."""
    options = ["--data.val-share", "0.05", "--data.test-share", "0.05", "--train.logging-steps", "1"]
    options += ["--train.save-steps", "5", "--data.min-content-chars", "50"]
    killed = arguments.work / "resume"
    run = Run("train", arguments, killed, *options)
    checkpoints = killed / "gemma3n-e4b" / Folder.CHECKPOINTS
    while run.process.poll() is None and not list(checkpoints.glob("*/checkpoint-5/trainer_state.json")):
        time.sleep(_POLL_S)
    time.sleep(2)
    steps_before = max(
        (record["step"] for path in checkpoints.glob("*/train.jsonl") for record in _log(path)), default=0
    )
    run.kill()
    again = Run("train", arguments, killed, *options)
    seconds = again.wait()
    whole = Run("train", arguments, arguments.work / "whole", *options)
    whole_seconds = whole.wait()
    curves = {}
    for name in ("resume", "whole"):
        directory = arguments.work / name / "gemma3n-e4b" / Folder.ADAPTER
        curves[name] = {
            record["step"]: record["loss"] for record in _log(directory / "train.jsonl") if "loss" in record
        }
    shared = sorted(set(curves["resume"]) & set(curves["whole"]))
    results = _read(killed / "gemma3n-e4b" / Folder.ADAPTER / "manifest.json")["results"]
    metrics = {
        "killed_after_step": steps_before,
        "resumed_from_step": results["resumed_from_step"],
        "steps": results["steps"],
        "seconds_after_the_kill": seconds,
        "seconds_without_a_kill": whole_seconds,
        "largest_difference": max(abs(curves["resume"][step] - curves["whole"][step]) for step in shared),
        "adapter_bytes": (killed / "gemma3n-e4b" / Folder.ADAPTER / "adapter_model.safetensors").stat().st_size,
        **{key: results[key] for key in ("first_loss", "last_loss", "val_loss", "peak_gib", "plan")},
        "untuned_loss_trimmed": results["loss_at_start"],
        "untuned_loss_full": results["full_loss_at_start"],
        "rows": results["train_rows"],
        "tokens": results["train_tokens"],
    }
    return {"metrics": metrics, "losses": curves}


ROLES = {"quality": ("train_270m", quality), "resume": ("resume_e4b", resume)}

if __name__ == "__main__":
    main()
