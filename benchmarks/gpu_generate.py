"""Titles a second of a model on one GPU: titlegen's decoder and transformers' ``generate``, greedy, in batches.

``python benchmarks/gpu_generate.py OUT MODEL --articles FILE [--titles N] [--batch N]`` writes OUT/generate_e4b.json,
or what ``--name`` says.
MODEL is a merged model's directory, with its tokenizer. Random weights will do: every title has the same number of
tokens. All take turns, on the same articles, with as many at a time.
"""

import argparse
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from gpu_train import make_examples
from machine import write_report
from turns import Turns

from titlegen import environment
from titlegen.generation.decoder import TitleDecoder
from titlegen.models import family_at

_TITLE_TOKENS = 24
# Nothing stops a title early.
_NO_TOKEN = -1


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--articles", type=Path, required=True, help="JSONL with content and title")
    parser.add_argument("--titles", type=int, default=128, dest="rows")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--name", default="generate_e4b")
    arguments = parser.parse_args()
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    cuda = torch.cuda.is_available()
    tokenizer = AutoTokenizer.from_pretrained(arguments.model, padding_side="left")
    where = {"dtype": torch.bfloat16, "device_map": "cuda"} if cuda else {"dtype": torch.float32}
    model: Any = AutoModelForCausalLM.from_pretrained(arguments.model, **where).eval()
    rows = encode_prompts(arguments, tokenizer)
    by_length = sorted(rows, key=len, reverse=True)
    # Random weights copy nothing; benchmarks/gpu_lookup.py measures what looking tokens up saves.
    environment.prepare_compiler()
    decoders = [TitleDecoder(model, 0), TitleDecoder(model, 0, records=False), TitleDecoder(model, 0, compile_after=0)]

    def ours(batch: list[list[int]], number: int) -> list[list[int]]:
        return decoders[0].generate(batch, {_NO_TOKEN}, number)

    def unrecorded(batch: list[list[int]], number: int) -> list[list[int]]:
        return decoders[1].generate(batch, {_NO_TOKEN}, number)

    def compiled(batch: list[list[int]], number: int) -> list[list[int]]:
        return decoders[2].generate(batch, {_NO_TOKEN}, number)

    def theirs(width: int | None, batch: list[list[int]], number: int) -> list[list[int]]:
        inputs = tokenizer.pad(
            {"input_ids": batch}, padding="max_length" if width else True, max_length=width, return_tensors="pt"
        ).to(model.device)
        with torch.inference_mode():
            out = model.generate(**inputs, do_sample=False, max_new_tokens=number, min_new_tokens=number)
        tokens: list[list[int]] = out[:, inputs["input_ids"].shape[1] :].tolist()
        return tokens

    longest = len(by_length[0])
    variants: dict[str, tuple[list[list[int]], Callable[[list[list[int]], int], list[list[int]]]]] = {
        "titlegen": (by_length, ours),
        "titlegen_unrecorded": (by_length, unrecorded),
        "titlegen_compiled": (by_length, compiled),
        "generate_static": (rows, lambda batch, number: theirs(longest, batch, number)),
        "generate_by_length": (by_length, lambda batch, number: theirs(None, batch, number)),
    }

    def write_all(name: str, tokens: int) -> dict[tuple[int, ...], list[int]]:
        written: dict[tuple[int, ...], list[int]] = {}
        ordered, write = variants[name]
        for start in range(0, len(ordered), arguments.batch):
            batch = ordered[start : start + arguments.batch]
            # The tokens are on the host: the GPU is done.
            written |= zip(map(tuple, batch), write(batch, tokens), strict=True)
        return written

    titles: dict[str, dict[tuple[int, ...], list[int]]] = {}
    reading, writing = Turns[str](), Turns[str]()
    writing("first", lambda: compiled(by_length[: arguments.batch], _TITLE_TOKENS))
    metrics = {"compiled_first_s": writing.seconds.pop("first")[0]}
    for _ in range(arguments.rounds + 1):
        for name in variants:
            reading(name, partial(write_all, name, 1))
            titles[name] = writing(name, partial(write_all, name, _TITLE_TOKENS))
    read, medians = reading.medians(1), writing.medians(1)
    same = [titles["titlegen"][key][0] == title[0] for key, title in titles["generate_by_length"].items()]
    metrics |= {
        "ratio_vs_static": medians["generate_static"] / medians["titlegen"],
        "ratio_vs_by_length": medians["generate_by_length"] / medians["titlegen"],
        **{f"{name}_titles_s": len(rows) / taken for name, taken in medians.items()},
        **{f"{name}_reading_share": read[name] / medians[name] for name in variants},
        "same_first_token": sum(same) / len(same),
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if cuda else 0.0,
    }
    report = {
        "metrics": {name: float(f"{value:.3g}") for name, value in metrics.items()},
        "notes": f"{len(rows)} prompts of {statistics.mean(map(len, rows)):.0f} tokens on average, at most {longest}, "
        f"{_TITLE_TOKENS} tokens a title, {arguments.batch} at a time, {arguments.rounds} rounds in turn after one to "
        "warm up. generate_static: every prompt padded to the longest; generate_by_length: batches of like length, as "
        "titlegen's are. reading_share: time of the first token alone. titlegen_unrecorded: each step launched anew. "
        "titlegen_compiled: each kind of layer compiled; compiled_first_s: its first batch, compiling included. "
        "With random weights the likeliest tokens lie within rounding of the next: same_first_token is their share.",
    }
    write_report(arguments.out / f"{arguments.name}.json", report, "torch", "transformers")


def encode_prompts(arguments: argparse.Namespace, tokenizer: Any) -> list[list[int]]:
    """Return the tokens of prompts of articles as long as the PTS data set's."""
    arguments.shape = "pts"
    render = family_at(arguments.model).prompt.render
    prompts = [render(example.content) for example in make_examples(arguments)]
    ids: list[list[int]] = tokenizer(prompts, add_special_tokens=False)["input_ids"]
    return ids


if __name__ == "__main__":
    main()
