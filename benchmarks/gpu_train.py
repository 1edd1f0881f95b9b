"""Speed, memory and correctness of training an E4B of Gemma 3n or 4 with random weights on one GPU.

Run each role in its own process, on one machine: ``python benchmarks/gpu_train.py ROLE OUT [options]``; result files
are made of them by ``benchmarks/train_results.py``. With ``--small`` all but Unsloth run on a CPU, to try them.

    build     write the random model of --family to --model (needs Gemma 3's tokenizer files, --tokenizer)
    plain     transformers and PEFT, bf16, gradient checkpointing, every logit
    unsloth   Unsloth as it ships, with TRL's SFTTrainer (--compiled 0 or 1)
    titlegen  ``titlegen.train.fit`` (--shape fixed or pts, --set key=json for settings, --limit-gib for a smaller card)

Every role writes OUT/NAME.json: tokens a second over the steps after warm-up, peak GiB and the first step's time.
"""

import argparse
import itertools
import json
import os
import random
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from random_e4b import FAMILIES, copy_tokenizer, random_model, text_config
from step_clock import step_clock

WARM = 2
_ROW, _SMALL_ROW = 2048, 64
# What is large in the narrow model.
SMALL_LARGE = 64 * 128
TITLE = "臺南市政府今日舉行記者會說明最新市政建設規劃"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=sorted(ROLES))
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--family", default="gemma3n", choices=FAMILIES)
    parser.add_argument("--small", action="store_true", help="a narrow model and short rows, to try this script")
    parser.add_argument("--articles", type=Path, help="JSONL with content and title")
    parser.add_argument("--name")
    parser.add_argument("--shape", default="fixed", choices=["fixed", "pts"])
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--compiled", type=int, default=1)
    parser.add_argument("--limit-gib", type=float, help="GPU memory that torch may take")
    parser.add_argument("--work", type=Path, help="folder for checkpoints")
    parser.add_argument("--set", action="append", default=[], help="train setting, key=json")
    arguments = parser.parse_args()
    started = time.monotonic()
    result = ROLES[arguments.role](arguments)
    import torch

    result |= {"role": arguments.role, "process_s": round(time.monotonic() - started, 1)}
    if torch.cuda.is_available():
        result["device"] = torch.cuda.get_device_name()
    result["versions"] = {
        name: metadata.version(name) for name in ("torch", "transformers", "peft") if _installed(name)
    } | {name: metadata.version(name) for name in ("unsloth", "trl", "bitsandbytes") if _installed(name)}
    text = json.dumps(result, indent=1)
    (arguments.out / f"{arguments.name or arguments.role}.json").write_text(text + "\n")
    result.pop("versions")
    sys.stdout.write(f"RESULT {arguments.name or arguments.role} {json.dumps(result)}\n")


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def build(arguments: argparse.Namespace) -> dict[str, Any]:
    model = random_model(text_config(arguments.family, small=arguments.small))
    model.save_pretrained(arguments.model)
    copy_tokenizer(arguments.tokenizer, arguments.model, arguments.family)
    return {"parameters": sum(p.numel() for p in model.parameters())}


def fixed_rows(count: int, length: int = 2048, title: int = 20) -> list[dict[str, Any]]:
    """Return rows of one length with random tokens, the last ``title`` of them labelled."""
    generator = random.Random(0)
    rows = []
    for _ in range(count):
        ids = [2, *(generator.randrange(200, 200_000) for _ in range(length - 1))]
        rows.append({"input_ids": ids, "labels": [-100] * (length - title) + ids[-title:]})
    return rows


def plain(arguments: argparse.Namespace) -> dict[str, Any]:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    cuda = torch.cuda.is_available()
    device, length = ("cuda" if cuda else "cpu"), _SMALL_ROW if arguments.small else _ROW
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.bfloat16, device_map=device)
    model.config.use_cache = False
    lora = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.05, target_modules=TARGETS, task_type="CAUSAL_LM")
    model = get_peft_model(model, lora).train()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-4, fused=True)
    rows = fixed_rows(8, length)
    gemm = _gemm_rate() if cuda else 0.0
    seconds = []
    for step in range(WARM + arguments.steps):
        chosen = rows[4 * (step % 2) : 4 * (step % 2) + 4]
        batch = {key: torch.tensor([row[key] for row in chosen], device=device) for key in ("input_ids", "labels")}
        _wait()
        started = time.perf_counter()
        with torch.autocast(device, torch.bfloat16):
            loss = model(**batch, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        _wait()
        seconds.append(time.perf_counter() - started)
    return _speed(seconds, 4 * length) | {"gemm_tflop_s": round(gemm, 1)}


def _wait() -> None:
    """Wait until the GPU is done."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _gemm_rate() -> float:
    """Return the card's TFLOP/s in a large product, and forget the memory that it took."""
    import torch

    left = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    right = torch.randn_like(left)
    for _ in range(5):
        left @ right
    _wait()
    started = time.perf_counter()
    for _ in range(20):
        left @ right
    _wait()
    rate = 20 * 2 * 8192**3 / (time.perf_counter() - started) / 1e12
    del left, right
    torch.cuda.reset_peak_memory_stats()
    return rate


def unsloth(arguments: argparse.Namespace) -> dict[str, Any]:
    os.environ["UNSLOTH_DISABLE_STATISTICS"] = "1"
    os.environ["UNSLOTH_COMPILE_DISABLE"] = "0" if arguments.compiled else "1"
    import unsloth as library  # noqa: I001 - before trl and transformers
    import torch
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    model, tokenizer = library.FastModel.from_pretrained(str(arguments.model), max_seq_length=2048, load_in_4bit=True)
    model = library.FastModel.get_peft_model(
        model,
        r=16,
        lora_alpha=32,
        lora_dropout=0.05,
        target_modules=TARGETS,
        finetune_vision_layers=False,
        random_state=3407,
    )
    # Unsloth 2026.10.7 puts AltUp's coefficients into 4 bits, and the model's own clamp of them then fails. The
    # published weights lie within the limit, so leaving it out changes nothing.
    object.__setattr__(model.config.get_text_config(), "altup_coef_clip", None)
    seconds: list[float] = []

    trainer = SFTTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=Dataset.from_list(fixed_rows(4 * (WARM + arguments.steps))),
        args=SFTConfig(
            output_dir=str(arguments.work),
            max_length=2048,
            dataset_kwargs={"skip_prepare_dataset": True},
            per_device_train_batch_size=4,
            gradient_accumulation_steps=1,
            max_steps=WARM + arguments.steps,
            learning_rate=2e-4,
            bf16=True,
            save_strategy="no",
            logging_steps=1,
            report_to="none",
            seed=3407,
        ),
    )
    trainer.add_callback(step_clock(seconds))
    torch.cuda.reset_peak_memory_stats()
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return _speed(seconds, 4 * 2048) | {"losses": losses[:3]}


def titlegen(arguments: argparse.Namespace) -> dict[str, Any]:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from titlegen.settings import load_settings

    settings = load_settings(profile=f"{arguments.family}-e4b").train.model_copy(
        update={key: json.loads(value) for key, value in (item.split("=", 1) for item in arguments.set)}
    )
    from titlegen import train
    from titlegen.environment import prepare_training_environment
    from titlegen.train import backends, fp8
    from titlegen.train.arguments import steps_between_checkpoints

    # As the stage does, before torch is imported.
    prepare_training_environment(compile_model=False)
    import torch

    if arguments.small:
        # A CPU has such products, too, and what is large in a narrow model is not in others.
        backends.check_fp8, fp8.LARGE = (lambda: None), SMALL_LARGE

    if arguments.limit_gib is not None:
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(arguments.limit_gib * 2**30 / total)
    examples = make_examples(arguments)
    directory = arguments.out / (arguments.name or "titlegen")
    directory.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    results = train.fit(examples, [], arguments.model, settings, arguments.work, directory)
    whole = time.perf_counter() - started
    log = [json.loads(line) for line in (directory / "train.jsonl").read_text().splitlines()]
    for path in directory.iterdir():
        if path.suffix == ".safetensors":
            path.unlink()
    # tokens_per_s in the log is a mean since the start: its product with the time counts tokens.
    points = [(r["step"], r["elapsed_s"], r["tokens_per_s"] * r["elapsed_s"]) for r in log if "tokens_per_s" in r]
    every = steps_between_checkpoints(settings, results.steps)
    return results.as_json() | {
        "tok_s": round(without_checkpoints(points, every), 1),
        "first_step_s": points[0][1],
        "fit_s": round(whole, 1),
        # Loading, self-check, compiling and trial passes lie before the first step.
        "to_first_step_s": round(whole - results.train_s + points[0][1], 1),
        "reserved_gib": round(torch.cuda.max_memory_reserved() / 2**30, 2),
        "losses": [record["loss"] for record in log if "loss" in record][:60],
        "mean_row": results.train_tokens / results.train_rows,
    }


def without_checkpoints(points: list[tuple[int, float, float]], every: int) -> float:
    """Return tokens a second after warm-up, between records in which none is written: the others write none either.

    Args:
        points: step, seconds and tokens until then of each record.
        every: a checkpoint is written behind every so many steps.
    """
    timed = [
        (end[1] - start[1], end[2] - start[2])
        for start, end in itertools.pairwise(points)
        if start[0] >= WARM and not any(step % every == 0 for step in range(start[0], end[0]))
    ]
    if not timed:
        raise SystemExit("no two records without a checkpoint between them; use more --rows or a smaller logging_steps")
    seconds, tokens = map(sum, zip(*timed, strict=True))
    return tokens / seconds


def make_examples(arguments: argparse.Namespace) -> list[Any]:
    """Return articles cut out of real text: all longer than the limit, or as long as those of the PTS data set."""
    from titlegen.data import Example

    rows = [json.loads(line) for line in arguments.articles.read_text(encoding="utf-8").splitlines()]
    generator = random.Random(0)
    examples = []
    text = "\n".join(row["content"] for row in rows)
    for number in range(arguments.rows):
        if arguments.shape == "fixed":
            # Longer than the limit, so that every row is shortened to it.
            start = generator.randrange(len(text) - 6000)
            content, title = text[start : start + 4000], TITLE
        else:
            # Mean 600 characters, as in the PTS data set.
            size = int(min(2200, max(120, generator.lognormvariate(6.3, 0.45))))
            start = generator.randrange(len(text) - 6000)
            content, title = text[start : start + size], rows[number % len(rows)]["title"]
        examples.append(Example(str(number), content, title, "benchmark", None))
    return examples


def _speed(seconds: list[float], tokens: int) -> dict[str, Any]:
    import torch

    return {
        "tok_s": round(tokens * len(seconds[WARM:]) / sum(seconds[WARM:]), 1),
        "first_step_s": round(seconds[0], 1),
        "second_step_s": round(seconds[1], 2),
        "steps": len(seconds),
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2),
    }


TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ROLES = {"build": build, "plain": plain, "unsloth": unsloth, "titlegen": titlegen}

if __name__ == "__main__":
    main()
