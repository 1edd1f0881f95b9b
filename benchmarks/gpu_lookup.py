"""What drafts, kept recordings and compiling save in titlegen's own decoder: E4B with random weights on one GPU.

``python benchmarks/gpu_lookup.py OUT [--family gemma3n] [--small]`` writes and prints OUT/lookup_e4b.json, or what
``--name`` says; ``--small`` tries the script with a narrow model, on the CPU as well. Random weights copy nothing, so a
share of the drafts is made right: about that of a trained model on Chinese articles (18 tokens of a title in 9.1
passes, 40 titles of the quickstart).
"""

import argparse
import os
import re
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from machine import write_report
from random_e4b import FAMILIES, random_model, text_config
from turns import Turns

from titlegen import environment
from titlegen.generation import writing
from titlegen.generation.decoder import TitleDecoder
from titlegen.train.trim import CompletionTrim

_DRAFTS = 3
# Nothing stops a title early.
_NO_TOKEN = -1
# Source: docs/performance.md, "Roofline".
_TFLOP_S = 775
# Kernels by what they do, the first that fits; those of the CPU for a trial without a GPU.
_PARTS = {
    "attention": r"flash|fmha|attention",
    "products": r"gemm|nvjet|cutlass|xmma|gemv|splitK|aten::(add|b|badd)?mm",
    "fused": r"triton|graph_\d|cpp_fused",
    "copies": r"memcpy|memset|copy|index|gather|scatter|cat",
    "rest": r"",
}
NOTES = (
    "Random weights in bfloat16, random tokens in, greedy; milliseconds of a call, from prompts to tokens on the host, "
    "median, variants in turn after one round to warm up. plain: a token a pass; unrecorded: each pass "
    "launched anew; anew: recorded in each call, as before recordings were kept; lookup: three tokens looked up for a "
    "pass, which random weights never copy, so that it is given up after a few passes; right: as many drafts are right "
    "as for a trained model. compiled: as plain, each kind of layer compiled, in reading and in writing; its first_s, "
    "the first call of all, compiles, with cached_files in the compiler's cache before. reading: up to the first "
    "token. reading_PART_ms, reading_PART_launches: the GPU's time and kernels in reading, under a profiler; pass_: "
    "the same in all passes behind it; host_: what the CPU spends in CUDA's own functions, and in torch's. limit: of "
    f"its products, two operations a weight and token, at {_TFLOP_S} TFLOP/s. first_s: the first call of all. equal: "
    "share of the titles that are the same as plain's "
    "(in 16 bits, products of other sizes round differently, and compiled operations less often)."
)


class Told:
    """Drafts that are right as often as wanted, from titles that are known."""

    def __init__(self, share: float) -> None:
        self.share = share
        self.titles = torch.zeros(1, 1, dtype=torch.int64)

    def take(self, titles: list[list[int]], device: torch.device) -> None:
        """Take the titles of a batch, in place: a recording reads from here."""
        rows = torch.tensor([[*row, *[0] * (_DRAFTS + 1)] for row in titles], device=device)
        if self.titles.shape == rows.shape:
            self.titles.copy_(rows)
        else:
            self.titles = rows

    def look_up(self, history: Any, _: Any, ends: Any, number: int) -> Any:
        written = ends - (history.shape[1] - self.titles.shape[1])
        places = (written[:, None] + torch.arange(number, device=ends.device)).clamp(max=self.titles.shape[1] - 1)
        right = places * 7919 % 100 < 100 * self.share
        return torch.where(right, self.titles.gather(1, places), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--family", choices=FAMILIES, default=FAMILIES[0])
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--name", default="lookup_e4b")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--read", type=int, default=640, help="tokens of a prompt")
    parser.add_argument("--write", type=int, default=21, help="tokens of a title")
    parser.add_argument("--right", type=float, default=0.6, help="share of right drafts")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    config = text_config(arguments.family, small=arguments.small)
    model = random_model(config).eval()
    environment.prepare_compiler()
    cache = Path(os.environ["TORCHINDUCTOR_CACHE_DIR"])
    metrics: dict[str, float] = {"cached_files": sum(path.is_file() for path in cache.rglob("*"))}
    for batch in arguments.batches:
        metrics |= measure(model, batch, arguments)
    if torch.cuda.is_available():
        metrics["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    path = arguments.out / f"{arguments.name}.json"
    write_report(path, {"metrics": metrics, "notes": NOTES}, "torch", "transformers")


def measure(model: Any, batch: int, arguments: argparse.Namespace) -> dict[str, float]:
    """Return milliseconds, titles a second and equal titles of every variant with so many titles at a time."""
    generator = torch.Generator().manual_seed(batch)
    # As long as they may be, and a little shorter, as articles are.
    lengths = [arguments.read - number % 40 for number in range(batch)]
    prompts = [torch.randint(5, model.config.vocab_size, (n,), generator=generator).tolist() for n in lengths]
    decoders = {
        "plain": TitleDecoder(model, 0),
        "unrecorded": TitleDecoder(model, 0, records=False),
        "anew": TitleDecoder(model, 0),
        "lookup": TitleDecoder(model, _DRAFTS),
        "right": TitleDecoder(model, _DRAFTS),
        "compiled": TitleDecoder(model, 0, compile_after=0),
    }
    told, module = Told(arguments.right), cast("Any", writing)
    looked_up = module.look_up
    titles: dict[str, list[list[int]]] = {}
    turns = Turns[str]()
    for _ in range(arguments.rounds + 1):
        for name, decoder in decoders.items():
            if name == "anew":
                decoder.forget()
            if name == "right":
                told.take(titles["plain"], model.device)
            module.look_up = told.look_up if name == "right" else looked_up
            titles[name] = turns(name, partial(decoder.generate, prompts, {_NO_TOKEN}, arguments.write))
        for name, prefix in (("plain", ""), ("compiled", "compiled_")):
            turns(f"{prefix}reading", lambda: decoders[name].read(prompts).logits.argmax(-1).tolist())  # noqa: B023
    module.look_up = looked_up
    found = {f"batch_{batch}_{name}": value for name, value in limits(model, sum(lengths)).items()}
    found |= {f"batch_{batch}_first_s": round(turns.seconds["plain"][0], 3)}
    found |= {f"batch_{batch}_compiled_first_s": round(turns.seconds["compiled"][0], 3)}
    for name in ("plain", "compiled"):
        parts = profile_parts(decoders[name], prompts, arguments.write)
        found |= {f"batch_{batch}_{name}_{part}": value for part, value in parts.items()}
    for name, median in turns.medians(1).items():
        found[f"batch_{batch}_{name}_ms"] = round(1000 * median, 1)
        if name in titles:
            found[f"batch_{batch}_{name}_titles_s"] = round(batch / median, 2)
            same = sum(one == other for one, other in zip(titles[name], titles["plain"], strict=True))
            found[f"batch_{batch}_{name}_equal"] = round(same / batch, 3)
    return found


def limits(model: Any, tokens: int) -> dict[str, float]:
    """Return the operations of reading so many tokens, the titles' first ones left out, and what they take at least."""
    trim = CompletionTrim(model, clamp=False)
    boundary = trim.model.layers[trim.boundary].self_attn
    read = [*trim.model.layers[: trim.boundary], boundary.k_proj, boundary.v_proj]
    read += [getattr(trim.model, name, None) for name in ("per_layer_model_projection", "altup_projections")]
    modules = [module for part in read if part is not None for module in part.modules()]
    weights = sum(module.weight.numel() for module in modules if isinstance(module, torch.nn.Linear))
    operations = 2 * weights * tokens / 1e12
    return {"reading_tflop": round(operations, 1), "reading_limit_ms": round(1000 * operations / _TFLOP_S, 1)}


def profile_parts(decoder: TitleDecoder, prompts: list[list[int]], tokens: int) -> dict[str, float]:
    """Return what reading, and all passes behind it, take of the GPU's time, and how many kernels, part by part."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    cuda, found = torch.cuda.is_available(), dict[str, float]()
    reading = decoder.read(prompts)
    for step, run in (
        ("reading", lambda: decoder.read(prompts).logits.argmax(-1).tolist()),
        ("pass", lambda: decoder.write(reading, {_NO_TOKEN}, tokens)),
    ):
        with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as profiler:
            run()
        for event in profiler.key_averages():
            if cuda and event.device_type == DeviceType.CPU:
                host = f"{step}_host_{event.key.lower() if event.key.startswith('cuda') else 'torch'}"
                for name, value in ((f"{host}_ms", event.self_cpu_time_total / 1e3), (f"{host}_calls", event.count)):
                    found[name] = found.get(name, 0) + value
            if (event.device_type == DeviceType.CUDA) != cuda:
                continue
            part = next(part for part, pattern in _PARTS.items() if re.search(pattern, event.key, re.IGNORECASE))
            spent = event.self_device_time_total if cuda else event.self_cpu_time_total
            for name, value in ((f"{step}_{part}_ms", spent / 1e3), (f"{step}_{part}_launches", event.count)):
                found[name] = found.get(name, 0) + value
    return {name: round(value, 1) for name, value in found.items()}


if __name__ == "__main__":
    main()
