"""Speed and memory of the preference pass at E4B's size, random weights, beside TRL's DPOTrainer on the same pairs.

``python benchmarks/gpu_prefer_speed.py OUT [OPTIONS]`` writes OUT/prefer_e4b.json. Both train the same adapter of
one model in bfloat16, one after the other: TRL as it ships, with its reference pass in each step, activations
recomputed; then titlegen's pass, whose reference scores are computed before, and counted. Tokens are both titles of a
pair, each with its article. With ``--model`` and ``--tokenizer`` a run in 4 bits with low memory follows, which may use
``--limit-gib`` of the card.
"""

import argparse
import random
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import write_report
from random_e4b import TINY, copy_tokenizer, random_model
from step_clock import step_clock

from titlegen.errors import TitlegenError
from titlegen.models import resolve_base
from titlegen.prefer.trainer import PairRow, build_trainer, score_reference
from titlegen.settings import ModelSettings, PreferSettings, TrainSettings
from titlegen.train.backends import load_for_training
from titlegen.train.memory import Plan
from titlegen.train.trim import CompletionTrim
from titlegen.train.weights import prepare_weights

_WARM = 2
TITLE, INSTRUCTION = 20, 44
# Every logit of a tiny model's pairs would take gigabytes.
_FEW_TOKENS = {"vocab_size": 2000, "vocab_size_per_layer_input": 2000}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=8, help="steps of 32 pairs")
    parser.add_argument("--per-article", type=int, nargs="*", default=[1, 4], help="pairs of one article")
    parser.add_argument("--small", action="store_true", help="a tiny model and few tokens, to try this script on a CPU")
    parser.add_argument("--tokenizer", type=Path, help="directory with Gemma's tokenizer; the embedded model's else")
    parser.add_argument("--model", type=Path, help="where the model is kept for the run with low memory")
    parser.add_argument("--limit-gib", type=float)
    parser.add_argument("--compiled", type=int, default=1)
    arguments = parser.parse_args()
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoTokenizer, Gemma3nTextConfig

    source = arguments.tokenizer or resolve_base(ModelSettings(base="embedded"))
    tokenizer = AutoTokenizer.from_pretrained(source)
    train = TrainSettings(logging_steps=1, gradient_checkpointing=True)
    plain = random_model(Gemma3nTextConfig(**(TINY | _FEW_TOKENS if arguments.small else {})))
    torch.set_default_dtype(torch.float32)
    if arguments.model:
        plain.save_pretrained(arguments.model)
        copy_tokenizer(source, arguments.model, "gemma3n")
    lora = LoraConfig(
        r=train.lora_r,
        lora_alpha=train.lora_alpha,
        target_modules=list(train.target_modules),
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(plain, lora).train()
    metrics: dict[str, float] = {}
    for number in arguments.per_article:
        rows = make_rows(32 * (_WARM + arguments.steps), number, min(200_000, plain.config.vocab_size))
        for name in ("trl", "titlegen"):
            found = measure(model, tokenizer, rows, train, trimmed=name == "titlegen", compiled=arguments.compiled == 1)
            metrics |= {f"{key}_{name}_{number}": value for key, value in found.items()}
        ours, theirs = metrics[f"tok_s_with_reference_titlegen_{number}"], metrics[f"tok_s_trl_{number}"]
        metrics[f"ratio_{number}"] = round(ours / theirs, 2)
    del model, plain
    if arguments.model:
        metrics |= low_memory(arguments, tokenizer)
    write_report(arguments.out / "prefer_e4b.json", {"metrics": metrics}, "torch", "transformers", "peft", "trl")


def make_rows(count: int, per_article: int, vocabulary: int = 200_000) -> list[PairRow]:
    """Return pairs of random tokens: articles as long as the PTS data set's, whose prompts begin alike."""
    source = random.Random(0)

    def ids(length: int) -> list[int]:
        return [source.randrange(200, vocabulary) for _ in range(length)]

    instruction = ids(INSTRUCTION)
    rows: list[PairRow] = []
    while len(rows) < count:
        article = instruction + ids(int(min(1400, max(80, source.lognormvariate(5.9, 0.45)))))
        rows += [
            {"prompt_ids": article, "chosen_ids": ids(TITLE), "rejected_ids": ids(TITLE)} for _ in range(per_article)
        ]
    return rows[:count]


def measure(
    model: Any,
    tokenizer: Any,
    rows: list[PairRow],
    train: TrainSettings,
    *,
    trimmed: bool,
    compiled: bool,
    batch: int = 4,
) -> dict[str, float]:
    """Train on the pairs, and return tokens a second after warm-up, with and without the reference, and memory."""
    import torch

    cuda = torch.cuda.is_available()
    seconds: list[float] = []

    def wait() -> None:
        if cuda:
            torch.cuda.synchronize()

    if cuda:
        torch.cuda.reset_peak_memory_stats()
    trim = CompletionTrim(model, compiled=compiled) if trimmed else None
    plan = Plan(batch, 32 // batch, checkpointing=trim is None)
    settings = PreferSettings(batch_size=32)
    with tempfile.TemporaryDirectory() as work:
        started = time.perf_counter()
        trainer = build_trainer(
            model,
            tokenizer,
            rows,
            settings,
            train.model_copy(update={"save_steps": 10_000}),
            Path(work),
            plan=plan,
            trim=trim,
        )
        if trimmed:
            score_reference(trainer, settings)
        wait()
        reference = time.perf_counter() - started
        trainer.args.save_strategy = "no"
        trainer.add_callback(step_clock(seconds))
        trainer.train()
    # The trainer's own copy of the adapter, which the next one makes anew.
    if "ref" in model.peft_config:
        model.delete_adapter("ref")
    if trimmed:
        untrim(model)
    tokens = sum(2 * len(row["prompt_ids"]) + len(row["chosen_ids"] + row["rejected_ids"]) for row in rows)
    share = sum(seconds[_WARM:]) / len(seconds[_WARM:]) * len(seconds)
    found = {
        "tok_s": round(tokens / share, 1),
        "first_step_s": round(seconds[0], 1),
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry][-1],
    }
    if trimmed:
        found |= {"tok_s_with_reference": round(tokens / (share + reference), 1), "reference_s": round(reference, 1)}
    if cuda:
        found["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    return found


def untrim(model: Any) -> None:
    """Give a model its own forward pass back."""
    vars(model.get_base_model().base_model).pop("forward", None)


def low_memory(arguments: argparse.Namespace, tokenizer: Any) -> dict[str, float]:
    """Return speed and memory with 4-bit weights that stay packed, within the limit."""
    import torch

    torch.cuda.empty_cache()
    if arguments.limit_gib:
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(arguments.limit_gib * 2**30 / total)
    train = TrainSettings(backend="peft", low_memory=True, logging_steps=1)
    try:
        model, _ = load_for_training(arguments.model, train)
        prepare_weights(model, low_memory=True)
        rows = make_rows(32 * 4, 4, min(200_000, model.config.get_text_config().vocab_size))
        found = measure(model, tokenizer, rows, train, trimmed=True, compiled=False, batch=8)
    except TitlegenError as error:
        raise SystemExit(str(error)) from error
    return {f"{key}_low_memory": value for key, value in found.items()}


if __name__ == "__main__":
    main()
