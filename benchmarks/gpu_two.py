"""What two cards of one machine are worth: training, generation, and PEFT's own way, each in turn with one card.

``python benchmarks/gpu_two.py OUT --tokenizer FOLDER --articles FILE [--part NAME ...]`` writes
OUT/train_e4b_two_gpus.json, and again after each part, so that a time limit costs only what comes after it: what that
file has already is not measured again, and ``--earlier`` takes it from other files, made on the same kind of cards; an
empty ``--part`` puts these together without a card. All parts take about nine minutes; ``one two one_again`` five. The
model is made, and the compile cache filled by ``first``, where a part needs them and they are not in WORK. The weights
are random, of Gemma 3n E4B's true size. With ``--tiny`` a small model stands for it and processes on the CPU for cards:
for trying the script.

Each training is a process of its own, timed from its start to its end with the adapter saved; tokens a second are those
between log lines without a checkpoint, after warm-up. The trainings in turn have as many rows at a time on a card
whether one trains or two, and the same rows in a step: one card computes them in twice as many passes.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gpu_train import TARGETS, copy_tokenizer, fixed_rows, make_examples, random_model, without_checkpoints
from machine import describe_run
from machine import device_name as name_of_card
from random_e4b import TINY

ROOT = Path(__file__).resolve().parents[1]
NAME = "train_e4b_two_gpus"
# Seconds that a part is given; one that would not end in time is left out.
_PARTS_S = {"one": 70, "two": 70, "one_again": 70, "two_whole": 100, "generate": 90, "peft": 80}
_BUILD_S, _FIRST_S = 60, 120
# Fewer rows than a speed could be taken from: they fill the compile cache.
_FIRST_ROWS = 128
_BASELINE_LENGTH, _BASELINE_ROWS = 2048, 4


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--articles", type=Path, required=True, help="JSONL with content and title")
    parser.add_argument("--work", type=Path, help="folder for the model and the trainings; default: OUT/work")
    parser.add_argument("--earlier", type=Path, nargs="+", help="results to go on from; default: the one in OUT")
    parser.add_argument("--budget-s", type=float, default=560)
    parser.add_argument("--part", nargs="*", default=list(_PARTS_S), choices=list(_PARTS_S))
    parser.add_argument("--rows", type=int, default=960, help="articles of the trainings in turn")
    parser.add_argument("--at-a-time", type=int, default=16, help="rows at a time on a card; a step has twice as many")
    parser.add_argument("--whole-rows", type=int, default=1400)
    parser.add_argument("--titles", type=int, default=384)
    parser.add_argument("--batch", type=int, default=64, help="titles at a time")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--role", choices=sorted(ROLES), help="what one process of this script does")
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--auto", action="store_true", help="as many rows at a time as titlegen chooses")
    arguments = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    arguments.work = arguments.work or arguments.out / "work"
    if arguments.role:
        ROLES[arguments.role](arguments)
    else:
        Measurement(arguments).run()


class Measurement:
    """The parts, one after another, with what each found."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments, self.started = arguments, time.monotonic()
        self.model = arguments.work / "model"
        self.compiled = arguments.work / "compiled"
        self.warmed = False
        self.head = describe_run(NAME, "torch", "transformers", "peft", "trl", "accelerate")
        self.head["device"] = device_name()
        self.found: dict[str, Any] = {}
        for path in arguments.earlier or [arguments.out / f"{NAME}.json"]:
            self.take(path)
        self.report: dict[str, Any] = {}

    def take(self, path: Path) -> None:
        """Take over what was measured before on such cards."""
        if not path.is_file() and not self.arguments.earlier:
            return
        known = json.loads(path.read_bytes())
        if not (self.arguments.part or self.found):
            self.head |= {key: known[key] for key in self.head}
        if known["device"] != (here := self.head["device"]):
            raise SystemExit(f"{path} was measured on {known['device']}, and this is {here}; give another OUT")
        parts = known["parts"].items()
        self.found |= {name: found for name, found in parts if not {"failed", "left_out"} & found.keys()}

    def run(self) -> None:
        """Run the parts that fit into the time, and write what is known after each."""
        self.arguments.work.mkdir(parents=True, exist_ok=True)
        parts: dict[str, Callable[[], dict[str, Any]]] = {
            "one": lambda: self.train("one", 1, self.arguments.rows),
            "two": lambda: self.train("two", 2, self.arguments.rows),
            "one_again": lambda: self.train("one_again", 1, self.arguments.rows),
            "two_whole": lambda: self.train("two_whole", 2, self.arguments.whole_rows, epochs=3, auto=True),
            "generate": lambda: self.process("generate", devices=2),
            "peft": self.peft,
        }
        for name in self.arguments.part:
            if name in self.found:
                print(f"RESULT {name} was measured before", flush=True)
                continue
            # Another machine's model and cache are not here.
            if not (self.model / "config.json").is_file():
                self.part("build", lambda: self.process("build"), _BUILD_S)
                if "parameters" not in self.found["build"]:
                    raise SystemExit(1)
            if name not in {"generate", "peft"} and not self.warmed and not self.graphs():
                self.warmed = True
                self.part("first", lambda: self.train("first", 1, _FIRST_ROWS), _FIRST_S)
            self.part(name, parts[name], _PARTS_S[name])
        self.write()
        print(json.dumps(self.report), flush=True)

    def graphs(self) -> int:
        """Return how many compiled graphs the cache has."""
        return sum(1 for _ in self.compiled.glob("fxgraph/*/*"))

    def part(self, name: str, measure: Callable[[], dict[str, Any]], needed: float) -> None:
        """Measure one part, unless it would not end in time."""
        before = time.monotonic()
        left = self.arguments.budget_s - (before - self.started)
        if needed > left:
            self.found[name] = {"left_out": f"{left:.0f} s left, {needed:.0f} needed"}
        else:
            try:
                self.found[name] = measure()
            except (OSError, subprocess.SubprocessError, ValueError, KeyError, SystemExit) as error:
                self.found[name] = {"failed": str(error)[-2000:]}
        self.found[name]["part_s"] = round(time.monotonic() - before, 1)
        print(f"RESULT {name} {json.dumps(self.found[name])[:1500]}", flush=True)
        self.write()

    def train(self, name: str, devices: int, rows: int, *, epochs: int = 1, auto: bool = False) -> dict[str, Any]:
        """Train in a process of its own."""
        started, graphs = time.monotonic(), self.graphs()
        result = self.process("train", name=name, devices=devices, rows=rows, epochs=epochs, auto=auto)
        # A second card that finds what the first has compiled adds none.
        return result | {"process_s": round(time.monotonic() - started, 1), "graphs_compiled": self.graphs() - graphs}

    def peft(self) -> dict[str, Any]:
        """Train with transformers, PEFT and DistributedDataParallel, without anything of titlegen."""
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
        return self.process("peft", launcher=launcher)

    def process(
        self,
        role: str,
        *,
        name: str = "",
        devices: int = 1,
        rows: int = 0,
        epochs: int = 1,
        auto: bool = False,
        launcher: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Run a role of this script and return what it wrote; its output goes to WORK/NAME.log."""
        given = self.arguments
        out = given.out / (name or role)
        # What a part left that was cut off.
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        command = [sys.executable, *launcher, str(Path(__file__)), str(out), "--role", role]
        command += ["--tokenizer", str(given.tokenizer), "--articles", str(given.articles), "--work", str(given.work)]
        command += ["--devices", str(devices), "--rows", str(rows or given.rows), "--epochs", str(epochs)]
        command += ["--titles", str(given.titles), "--batch", str(given.batch), "--at-a-time", str(given.at_a_time)]
        command += [*(["--tiny"] if given.tiny else []), *(["--auto"] if auto else [])]
        environment = os.environ | {"TQDM_DISABLE": "1", "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
        environment["TORCHINDUCTOR_CACHE_DIR"] = str(self.compiled.absolute())
        log = given.work / f"{name or role}.log"
        with log.open("w") as file:
            # What hangs is not to take the time of the other parts.
            limit = max(1.0, self.arguments.budget_s + 30 - (time.monotonic() - self.started))
            done = subprocess.run(command, stdout=file, stderr=file, env=environment, check=False, timeout=limit)  # noqa: S603
        code = done.returncode
        if code:
            raise SystemExit(log.read_text(errors="replace")[-2000:])
        result: dict[str, Any] = json.loads((out / "result.json").read_bytes())
        shutil.rmtree(out)
        return result

    def write(self) -> None:
        """Write the figures that are known."""
        found, metrics = self.found, {}
        speeds = {
            cards: [found[name]["tok_s"] for name in names if "tok_s" in found.get(name, {})]
            for cards, names in ((1, ("one", "one_again")), (2, ("two",)))
        }
        for cards, known in speeds.items():
            if known:
                metrics[f"tok_s_{cards}"] = statistics.mean(known)
        if all(speeds.values()):
            metrics["ratio_train"] = metrics["tok_s_2"] / metrics["tok_s_1"]
        if "process_s" in found.get("two_whole", {}):
            metrics["whole_s_2"] = found["two_whole"]["process_s"]
            metrics["train_s_2"] = found["two_whole"]["train_s"]
        for cards, name in ((1, "one"), (2, "two")):
            if "tok_s" in found.get(name, {}):
                metrics[f"peak_gib_{cards}"] = found[name]["peak_gib"] or 0.0
                metrics[f"graphs_compiled_{cards}"] = found[name]["graphs_compiled"]
        metrics |= {key: value for key, value in found.get("generate", {}).items() if key.startswith("generate_")}
        if "tok_s" in found.get("peft", {}):
            metrics["tok_s_2_peft"] = found["peft"]["tok_s"]
        report = self.head | {
            "metrics": {name: float(f"{value:.4g}") for name, value in metrics.items()},
            "notes": f"Random weights of E4B's true size, rows as in the PTS set, back end peft, compiled. tok_s_N: "
            f"tokens a second on N cards after warm-up, without checkpoints, one card before and after two, "
            f"{self.arguments.at_a_time} rows at a time on each card and {2 * self.arguments.at_a_time} in a step; the "
            "compile cache was filled by one card before, and graphs_compiled_2 is how many two cards added to it. "
            "whole_s_2: 1,400 articles, 3 epochs, two cards, from process start to its end with the adapter saved, "
            "with that cache and as many rows at a time as titlegen chooses; train_s_2 of it was training. parts_s: "
            "where the time went in the first rank, from its beginning on (before: until fit is called; plan: trial "
            "passes); launch: torchrun in front of it; end: behind its result; command_: the command itself, in front "
            "of the ranks (start, torch) and behind them. generate: greedy titles of 24 tokens, all batches alike, "
            "in turn. tok_s_2_peft: transformers, PEFT and DistributedDataParallel, bf16, checkpointing, 4 x 2,048 a "
            "card.",
            "parts": found,
        }
        (self.arguments.out / f"{NAME}.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        self.report = report


def device_name() -> str:
    """Return how many cards of which kind are visible."""
    import torch

    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return f"{cards} x {name_of_card()}" if cards > 1 else name_of_card()


def build(arguments: argparse.Namespace) -> None:
    """Write the random model."""
    from transformers import Gemma3nTextConfig

    model = random_model(Gemma3nTextConfig(**(TINY if arguments.tiny else {})))
    directory = arguments.work / "model"
    model.save_pretrained(directory)
    copy_tokenizer(arguments.tokenizer, directory, "gemma3n")
    _write(arguments, {"parameters": sum(parameter.numel() for parameter in model.parameters())})


def train(arguments: argparse.Namespace) -> None:
    """Train as the stage does, on so many cards."""
    from titlegen.settings import load_settings
    from titlegen.train import launch, train_adapter
    from titlegen.train.arguments import steps_between_checkpoints
    from titlegen.train.parts import Parts

    change: dict[str, Any] = {"backend": "peft", "devices": arguments.devices, "logging_steps": 5}
    change |= {"num_train_epochs": arguments.epochs, "compile": True}
    if not arguments.auto:
        # One card twice in a step, two once: the same rows in a step, and as many at a time.
        change |= {"auto_batch": False, "per_device_train_batch_size": arguments.at_a_time}
        change |= {"gradient_accumulation_steps": 2}
    if arguments.tiny:
        change |= {"load_in_4bit": False, "compile": False, "max_length": 128, "logging_steps": 1, "save_steps": 3}
        change |= {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    settings = load_settings(profile="gemma3n-e4b").train.model_copy(update=change)
    arguments.shape = "pts"
    prepared, directory = arguments.out / "data", arguments.out / "lora"
    prepared.mkdir()
    directory.mkdir()
    lines = [json.dumps(asdict(example)) + "\n" for example in make_examples(arguments)]
    (prepared / "train.jsonl").write_text("".join(lines), encoding="utf-8")
    (prepared / "val.jsonl").write_text("", encoding="utf-8")
    parts, start_ranks, told = Parts(), launch._run, list[float]()

    # torchrun and its ranks run in this call alone.
    def clocked(devices: Any, command: Sequence[str], folder: Path) -> None:
        parts.end("torch")
        start_ranks(devices, command, folder)
        told.append(time.time() - (folder / launch.RESULT).stat().st_mtime)
        parts.end("ranks")

    launch._run = clocked
    parts.end("start")
    results = train_adapter(
        prepared, arguments.work / "model", settings, arguments.out / "checkpoints", directory, key="benchmark"
    )
    parts.end("rest")
    seconds = dict(results.parts_s)
    if told:
        # What the command spends before and behind the ranks, and torchrun beside them.
        seconds["end"] = told[0]
        seconds["launch"] = parts.seconds["ranks"] - sum(seconds.values())
        seconds |= {f"command_{name}": parts.seconds[name] for name in ("start", "torch", "rest")}
    log = [json.loads(line) for line in (directory / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    points = [(r["step"], r["elapsed_s"], r["tokens_per_s"] * r["elapsed_s"]) for r in log if "tokens_per_s" in r]
    every = steps_between_checkpoints(settings, results.steps)
    _write(
        arguments,
        {
            **({} if arguments.rows == _FIRST_ROWS else {"tok_s": round(without_checkpoints(points, every), 1)}),
            "first_step_s": points[0][1],
            "parts_s": {name: round(taken, 2) for name, taken in seconds.items()},
            "losses": [record["loss"] for record in log if "loss" in record][:40],
            **{
                name: getattr(results, name)
                for name in ("devices", "steps", "train_s", "train_tokens", "load_peak_gib")
            },
            **{name: getattr(results, name) for name in ("peak_gib", "plan", "frozen_weights", "compiled")},
        },
    )


def generate(arguments: argparse.Namespace) -> None:
    """Write titles on one card and on two, in turn."""
    from titlegen.generation import SpreadGenerator, TransformersGenerator
    from titlegen.settings import EvaluateSettings

    settings = EvaluateSettings(batch_size=arguments.batch, max_new_tokens=24)
    arguments.shape, arguments.rows = "pts", arguments.titles
    contents = [example.content for example in make_examples(arguments)]
    one = TransformersGenerator(arguments.work / "model", None, settings)
    two = SpreadGenerator(one, 2)
    seconds: dict[str, list[float]] = {"one": [], "two": []}
    titles = {}
    try:
        # The first round loads and warms up.
        for number in range(3):
            for name, generator in (("one", one), ("two", two)):
                started = time.perf_counter()
                titles[name] = generator.generate(contents)
                if number:
                    seconds[name].append(time.perf_counter() - started)
    finally:
        two.close()
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    same = sum(left == right for left, right in zip(titles["one"], titles["two"], strict=True))
    _write(
        arguments,
        {
            "generate_ratio": medians["one"] / medians["two"],
            **{f"generate_titles_s_{name}": len(contents) / taken for name, taken in medians.items()},
            "generate_same_titles": same / len(contents),
            "seconds": seconds,
        },
    )


def peft(arguments: argparse.Namespace) -> None:
    """Train as one of two ranks with what transformers, PEFT and torch bring."""
    import torch
    import torch.distributed as dist
    from peft import LoraConfig, get_peft_model
    from torch.nn.parallel import DistributedDataParallel
    from transformers import AutoModelForCausalLM

    cuda = torch.cuda.is_available()
    rank = int(os.environ["LOCAL_RANK"])
    if cuda:
        torch.cuda.set_device(rank)
    dist.init_process_group("nccl" if cuda else "gloo")
    device = torch.device("cuda", rank) if cuda else torch.device("cpu")
    model: Any = AutoModelForCausalLM.from_pretrained(
        arguments.work / "model", dtype=torch.bfloat16, device_map={"": device}
    )
    model.config.use_cache = False
    lora = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.05, target_modules=TARGETS, task_type="CAUSAL_LM")
    model = get_peft_model(model, lora).train()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    # The adapters of keys and values that Gemma 3n's upper layers never read have no gradient.
    wrapped = DistributedDataParallel(model, device_ids=[rank] if cuda else None, find_unused_parameters=True)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-4)
    length = 64 if arguments.tiny else _BASELINE_LENGTH
    rows = fixed_rows(2 * _BASELINE_ROWS, length)[rank::2]
    batch = {key: torch.tensor([row[key] for row in rows], device=device) for key in ("input_ids", "labels")}
    seconds = []
    for _ in range(8):
        dist.barrier()
        started = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16):
            loss = wrapped(**batch, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        float(loss)
        seconds.append(time.perf_counter() - started)
    if rank == 0:
        step = statistics.median(seconds[2:])
        _write(arguments, {"tok_s": round(2 * _BASELINE_ROWS * length / step, 1), "step_s": round(step, 4)})
    dist.destroy_process_group()


def _write(arguments: argparse.Namespace, result: dict[str, Any]) -> None:
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "result.json").write_text(json.dumps(result), encoding="utf-8")


ROLES = {"build": build, "train": train, "generate": generate, "peft": peft}

if __name__ == "__main__":
    main()
