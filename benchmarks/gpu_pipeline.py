"""The stages of the GPU profile, through the command line, on one NVIDIA card: what they take and what comes out.

Run the roles one after another on one machine: ``python benchmarks/gpu_pipeline.py ROLE OUT [options]``.

    quality   Gemma 3 270M fine-tuned on real articles (--articles) with both back ends: validation losses and scores
    resume    ``titlegen train`` of E4B (--model), killed after its first checkpoint and run again

Each role writes OUT/ROLE.json.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from machine import device_name

from titlegen.runs import Folder

ROOT = Path(__file__).resolve().parents[1]
_POLL_S = 0.2


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=sorted(ROLES))
    parser.add_argument("out", type=Path)
    parser.add_argument("--articles", type=Path, required=True, help="JSONL with content, title and date")
    parser.add_argument("--model", default="embedded", help="base model directory")
    parser.add_argument("--rows", type=int, default=2000, help="rows of the articles to use")
    parser.add_argument("--backends", nargs="+", default=["unsloth", "peft"])
    parser.add_argument("--candidates", type=int, default=1, help="also score the best of so many titles an article")
    parser.add_argument("--work", type=Path, default=Path("outputs"))
    parser.add_argument("--set", nargs="*", default=[], help="further options of titlegen, without their dashes")
    arguments = parser.parse_args()
    started = time.monotonic()
    result = ROLES[arguments.role](arguments)
    names = ("torch", "transformers", "peft", "trl", "unsloth", "bitsandbytes")
    result |= {
        "machine": device_name(),
        "seconds": round(time.monotonic() - started, 1),
        "date": time.strftime("%Y-%m-%d"),
        "versions": {name: _version(name) for name in names},
    }
    (arguments.out / f"{arguments.role}.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    sys.stdout.write(json.dumps({key: value for key, value in result.items() if key != "titles"})[:3000] + "\n")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


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
    """Train with each back end, score what it writes, and compare the validation losses."""
    found: dict[str, Any] = {}
    for backend in arguments.backends:
        name, _, precision = backend.partition("-")
        output = arguments.work / f"quality-{backend}"
        options = ["--train.backend", name, "--data.val-share", "0.05", "--data.test-share", "0.1"]
        options += ["--train.load-in-4bit" if precision != "16bit" else "--train.no-load-in-4bit"]
        options += ["--data.max-content-tokens", "768", "--train.max-length", "1024", "--train.logging-steps", "10"]
        options += ["--evaluate.target", "merged", "--evaluate.no-base-model", "--evaluate.batch-size", "100"]
        # Exit code 1: a gate failed; the scores are what is asked for.
        seconds = Run("evaluate", arguments, output, *options).wait(allowed=(0, 1))
        directory = output / "gemma3n-e4b"
        found[backend] = {
            "seconds": seconds,
            "training": _read(directory / Folder.ADAPTER / "manifest.json")["results"],
            "losses": [
                record["loss"] for record in _log(directory / Folder.ADAPTER / "train.jsonl") if "loss" in record
            ],
            "splits": _read(directory / Folder.DATA / "manifest.json")["results"]["splits"],
            **_scored(directory / Folder.REPORT),
        }
        if arguments.candidates > 1:
            options += ["--evaluate.candidates", str(arguments.candidates)]
            again = Run("evaluate", arguments, output, *options).wait(allowed=(0, 1))
            found[backend]["of_candidates"] = {
                "candidates": arguments.candidates,
                "seconds": again,
                **_scored(directory / Folder.REPORT),
            }
    return {"backends": found}


def _scored(directory: Path) -> dict[str, Any]:
    report = _read(directory / "report.json")
    return {
        "scores": {name: score["value"] for name, score in report["scores"].items()},
        "intervals": {name: [score["low"], score["high"]] for name, score in report["scores"].items()},
        "lead1": report["baselines"]["lead1"],
        "titles": [[row["reference"], row["prediction"]] for row in _log(directory / "predictions.jsonl")[:20]],
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
    return {
        "killed_after_step": steps_before,
        "resumed_from_step": results["resumed_from_step"],
        "steps": results["steps"],
        "seconds_after_the_kill": seconds,
        "seconds_without_a_kill": whole_seconds,
        "largest_difference": max(abs(curves["resume"][step] - curves["whole"][step]) for step in shared),
        "losses": curves,
        "training": results,
        "adapter_bytes": (killed / "gemma3n-e4b" / Folder.ADAPTER / "adapter_model.safetensors").stat().st_size,
    }


ROLES = {"quality": quality, "resume": resume}

if __name__ == "__main__":
    main()
