"""Where the time of one training pass goes: a Gemma 3n E4B with random weights, a pass at a time.

``python benchmarks/gpu_pass.py OUT [VARIANT ...]`` writes OUT/pass_e4b.json. A variant is a set of options for the
compiler, over titlegen's own. All are compiled, then take turns: a pass over few tokens, which takes as long as
launching it; one over 4 x 2,048; and one over 8 rows of 545 with two fifths of the layers recomputed.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from machine import write_report
from random_e4b import random_model

ROUNDS, PASSES = 3, 6
VARIANTS: dict[str, dict[str, Any]] = {
    "own": {},
    "patterns": {"pattern_matcher": True},
    "combo": {"combo_kernels": True, "benchmark_combo_kernel": False},
    "cpp": {"cpp_wrapper": True},
}
# rows, tokens of each, share of the layers that keep their activations
SHAPES = {"launch": (4, 110, 1.0), "full": (4, 2048, 1.0), "small_card": (8, 545, 0.6)}
TITLE, INSTRUCTION = 20, 44


def make_batch(rows: int, tokens: int) -> dict[str, Any]:
    """Return packed rows of random tokens that begin alike, on the GPU."""
    import torch

    from titlegen.train.packed import pack

    torch.manual_seed(0)
    ids = torch.randint(5, 200_000, (rows, tokens))
    ids[:, :INSTRUCTION] = ids[0, :INSTRUCTION]
    labels = torch.full_like(ids, -100)
    labels[:, -TITLE:] = ids[:, -TITLE:]
    packed = pack({"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels})
    return {"packed": packed.to("cuda")}


def time_pass(run: Callable[[], None]) -> float:
    """Return milliseconds a pass, of several that are launched without waiting."""
    import torch

    run()
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(PASSES):
        run()
    torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - started) / PASSES


def profile_pass(run: Callable[[], None]) -> tuple[float, int]:
    """Return how long the GPU works on a pass, milliseconds, and on how many kernels and copies."""
    import torch
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        run()
        torch.cuda.synchronize()
    events = [event for event in profiler.key_averages() if event.device_type == DeviceType.CUDA]
    return sum(event.self_device_time_total for event in events) / 1e3, sum(event.count for event in events)


def main() -> None:
    """Compile the variants, and time them in turn."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("variants", nargs="*", help=f"of {', '.join(VARIANTS)}; all of them when none is named")
    arguments = parser.parse_args()
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import Gemma3nTextConfig

    from titlegen.settings import load_settings
    from titlegen.train import trim as module

    settings = load_settings(profile="gemma3n-e4b").train
    model = random_model(Gemma3nTextConfig())
    torch.set_default_dtype(torch.float32)
    lora = LoraConfig(
        r=settings.lora_r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=list(settings.target_modules),
    )
    model = get_peft_model(model, lora).train()
    batches = {name: make_batch(rows, tokens) for name, (rows, tokens, _) in SHAPES.items()}

    def runner(trim: Any, shape: str) -> Callable[[], None]:
        def run() -> None:
            trim.kept_share = lambda _: SHAPES[shape][2]
            trim(batches[shape]).backward()

        return run

    own = dict(module._COMPILE_OPTIONS)
    trims: dict[str, Any] = {}
    metrics: dict[str, float] = {}
    for name in arguments.variants or VARIANTS:
        module._COMPILE_OPTIONS = own | VARIANTS[name]
        trims[name] = module.CompletionTrim(model, compiled=True)
        started = time.perf_counter()
        runner(trims[name], "full")()
        torch.cuda.synchronize()
        if not trims[name].compiled:
            raise SystemExit(f"{name}: the compiler refuses it")
        metrics[f"compile_s_{name}"] = round(time.perf_counter() - started, 1)
    taken: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for shape in SHAPES:
            for name, trim in trims.items():
                taken.setdefault(f"{shape}_ms_{name}", []).append(time_pass(runner(trim, shape)))
    metrics |= {name: round(statistics.median(times), 1) for name, times in taken.items()}
    for name, trim in trims.items():
        busy, kernels = profile_pass(runner(trim, "full"))
        metrics |= {f"gpu_ms_{name}": round(busy, 1), f"kernels_{name}": kernels}
    write_report(arguments.out / "pass_e4b.json", {"metrics": metrics}, "torch", "transformers", "peft")


if __name__ == "__main__":
    main()
