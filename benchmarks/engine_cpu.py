"""The effect of llama.cpp's build, and of n-gram speculation, on a CPU: engines side by side on one model.

``chrt -f 10 python benchmarks/engine_cpu.py outputs/quickstart/gguf/titlegen-Q8_0.gguf --native bin/llama-server``,
with a llama-server that was built on this machine from the source in xllamacpp's sdist (``pip download --no-binary
xllamacpp xllamacpp``, ``cmake -DGGML_NATIVE=ON``). Every article is asked of each engine in turn, so that other work of
the machine meets all of them; only ratios are kept.

``--patched`` is one built from the same source with ``serving/llama.cpp/prefetch.patch``.

With ``--passes`` it measures single passes in place of answers and writes pass_cpu.json: milliseconds over 1 to 64
tokens behind 200, with 1 and 2 threads, with the head for no token, for one and for all, and how fast this machine
reads as many bytes. Nothing else may run beside that.
"""

import argparse
import contextlib
import ctypes
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from machine import measured_folder, write_report, write_result
from test_serve_speed import articles, wait_for
from turns import Turns

from titlegen.daemon import free_port
from titlegen.environment import SHORT_WAIT
from titlegen.families.gemma3 import PROMPT

CHARS, TITLE_TOKENS, NUM_CTX, DRAFTS = 300, 48, 4096, (2, 3, 4)
NOTES = (
    f"llama.cpp's own HTTP server, one slot, greedy, {CHARS} characters in, new articles, every article asked of each "
    "engine in turn; ratios of medians to the engine inside xllamacpp's wheel, which is built for AVX2 without AVX-512 "
    "and VNNI. native: the same source built on this machine; patched: with serving/llama.cpp/prefetch.patch; "
    "patched_lookup: that with three tokens looked up. lookup_N: n-gram speculation with n = 1 and N drafted tokens, "
    "which are checked in one pass. reading, writing: tokens a second; p50: time of an answer; equal_titles: share of "
    "titles equal to the wheel's. load_1min: what else the machine had to do."
)
BEFORE, WIDTHS, THREADS, OUTPUTS, ROUNDS = 200, (1, 2, 3, 4, 8, 64), (1, 2), ("none", "one", "all"), 8
PASS_NOTES = (
    f"Medians of {ROUNDS} rounds in turn, milliseconds of a pass behind {BEFORE} tokens. ms_N_OUTPUT_T: N tokens, the "
    "head for none of them, for one or for all, T threads; native_: llama.cpp built on this machine, patched_: with "
    "serving/llama.cpp/prefetch.patch, the rest the wheel of PyPI (AVX2 alone). gbyte_s_T: how fast T threads of numpy "
    "read as many bytes as the file has; stream_ms: how long that takes. gop_s_4: arithmetic a second, two operations "
    "a weight and token, in a pass over four tokens. head_share: of a pass over one token; ratio_4: a pass over four "
    "tokens, with four logits, to one over one."
)


class Opaque(ctypes.Structure):
    """Parameters of llama.cpp, by value: at least as large as its own structures, of which only the start is known."""

    _fields_ = [("words", ctypes.c_uint32 * 256)]


class Batch(ctypes.Structure):
    """A ``llama_batch``."""

    _fields_ = [
        ("count", ctypes.c_int32),
        ("tokens", ctypes.POINTER(ctypes.c_int32)),
        ("embeddings", ctypes.POINTER(ctypes.c_float)),
        ("places", ctypes.POINTER(ctypes.c_int32)),
        ("sequences", ctypes.POINTER(ctypes.c_int32)),
        ("sequence", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
        ("outputs", ctypes.POINTER(ctypes.c_int8)),
    ]


class Passes:
    """Passes of llama.cpp over a few tokens behind ``BEFORE`` others, in this process."""

    def __init__(self, library: Path, model: Path) -> None:
        """Load a library and a GGUF file, and read what stands before."""
        self._library = found = ctypes.CDLL(str(library))
        for name in ("llama_model_load_from_file", "llama_init_from_model", "llama_get_memory"):
            getattr(found, name).restype = ctypes.c_void_p
        for name in ("llama_model_default_params", "llama_context_default_params"):
            getattr(found, name).restype = Opaque
        found.llama_batch_init.restype = Batch
        silent = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)
        self._silent = silent
        found.llama_log_set(silent, None)
        loaded = found.llama_model_load_from_file(os.fsencode(model), found.llama_model_default_params())
        parameters = found.llama_context_default_params()
        # Source: llama.h, llama_context_params: n_ctx, n_batch, n_ubatch, n_seq_max
        parameters.words[0:4] = [512, 512, 512, 1]
        self._context = ctypes.c_void_p(found.llama_init_from_model(ctypes.c_void_p(loaded), parameters))
        self._memory = ctypes.c_void_p(found.llama_get_memory(self._context))
        self._batch = found.llama_batch_init(512, 0, 1)
        self.run(0, BEFORE, 0)

    def run(self, start: int, width: int, outputs: int, threads: int = THREADS[-1]) -> float:
        """Return seconds of a pass over ``width`` tokens from a place on, of which the last ``outputs`` get logits."""
        batch, library = self._batch, self._library
        library.llama_set_n_threads(self._context, threads, threads)
        library.llama_memory_seq_rm(self._memory, 0, start, -1)
        batch.count = width
        for index in range(width):
            batch.tokens[index], batch.places[index] = 1000 + 37 * (start + index), start + index
            batch.sequences[index], batch.sequence[index][0] = 1, 0
            batch.outputs[index] = index >= width - outputs
        started = time.perf_counter()
        if library.llama_decode(self._context, batch):
            raise SystemExit("llama_decode failed; is this the library of the pinned xllamacpp?")
        library.llama_synchronize(self._context)
        return time.perf_counter() - started


def time_passes(library: Path, model: Path) -> dict[str, float]:
    """Return medians of all kinds of passes, milliseconds, with two operations a weight and token."""
    passes, taken = Passes(library, model), dict[str, list[float]]()
    for number in range(ROUNDS + 1):
        for threads, width, output in itertools.product(THREADS, WIDTHS, OUTPUTS):
            seconds = passes.run(BEFORE, width, {"none": 0, "one": 1, "all": width}[output], threads)
            taken.setdefault(f"ms_{width}_{output}_{threads}", []).extend([1e3 * seconds] if number else [])
    found = {name: statistics.median(values) for name, values in taken.items()}
    for threads in THREADS:
        one, four = found[f"ms_1_all_{threads}"], found[f"ms_4_all_{threads}"]
        found[f"ratio_4_{threads}"] = four / one
        found[f"head_share_{threads}"] = 1 - found[f"ms_1_none_{threads}"] / one
        # Q8_0 has 34 bytes for 32 weights.
        found[f"gop_s_4_{threads}"] = 2 * 4 * model.stat().st_size * 32 / 34 / four / 1e6
    return found


def time_memory(size: int) -> dict[str, float]:
    """Return how fast so many bytes are read, with each number of threads, and how long that takes."""
    import numpy as np

    numbers = np.arange(size // 8, dtype=np.int64)
    found, turns = dict[str, float](), Turns[int]()
    for threads in THREADS:
        parts = np.array_split(numbers, threads)
        with ThreadPoolExecutor(threads) as pool:
            for _ in range(ROUNDS):
                turns(threads, lambda: list(pool.map(np.sum, parts)))  # noqa: B023 - called at once
        seconds = turns.medians(0)[threads]
        found |= {f"gbyte_s_{threads}": size / seconds / 1e9, f"stream_ms_{threads}": 1e3 * seconds}
    return found


def measure_passes(model: Path, libraries: dict[str, Path]) -> None:
    """Write pass_cpu.json; each library is loaded in a process of its own, for all have the same names in them."""
    metrics = time_memory(model.stat().st_size)
    for prefix, library in libraries.items():
        code = "import json, sys, engine_cpu as e; print(json.dumps(e.time_passes(*map(e.Path, sys.argv[1:]))))"
        command = [sys.executable, "-c", code, str(library.resolve()), str(model.resolve())]
        # A library's own neighbours, wherever it was linked.
        env = os.environ | {"LD_LIBRARY_PATH": str(library.resolve().parent)}
        run = subprocess.run(command, cwd=Path(__file__).parent, env=env, check=True, stdout=subprocess.PIPE)  # noqa: S603
        metrics |= {prefix + name: value for name, value in json.loads(run.stdout).items()}
    print(write_result("pass_cpu", metrics, PASS_NOTES, "xllamacpp", "numpy").read_text(encoding="utf-8"))


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


def native(program: Path, model: Path, port: int, draft: int = 0) -> list[str]:
    """Return the command of a llama-server program with the same settings."""
    options = {"--model": model, "--port": port, "--ctx-size": NUM_CTX, "--parallel": 1, "--cache-ram": 0}
    options |= {"--host": "127.0.0.1", "--threads": os.cpu_count(), "--log-verbosity": 1}
    if draft:
        spec = "--spec-ngram-simple"
        options |= {"--spec-type": "ngram-simple", f"{spec}-size-n": 1, f"{spec}-size-m": draft, f"{spec}-min-hits": 1}
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
    parser.add_argument("--native", type=Path, help="a llama-server that was built on this machine")
    parser.add_argument("--articles", type=int, default=24)
    parser.add_argument("--patched", type=Path, help="another one, built with prefetch.patch")
    parser.add_argument("--passes", action="store_true", help="measure single passes in place of answers")
    options = parser.parse_args()
    programs = {name: path for name in ("native", "patched") if (path := getattr(options, name)) is not None}
    if options.passes:
        import xllamacpp

        libraries = {"": Path(xllamacpp.__file__).parent / "xllamacpp.abi3.so"}
        measure_passes(
            options.model, libraries | {f"{name}_": path.with_name("libllama.so") for name, path in programs.items()}
        )
        return
    names = ("wheel", *programs, "patched_lookup", *(f"lookup_{size}" for size in DRAFTS))
    ports = {name: free_port() for name in names}
    commands = {"wheel": wheel(options.model, ports["wheel"], 0)}
    commands |= {f"lookup_{size}": wheel(options.model, ports[f"lookup_{size}"], size) for size in DRAFTS}
    for name, program in programs.items():
        commands[name] = native(program, options.model, ports[name])
    if options.patched:
        commands["patched_lookup"] = native(options.patched, options.model, ports["patched_lookup"], DRAFTS[1])
    found: dict[str, list[Timing]] = {name: [] for name in commands}
    with contextlib.ExitStack() as stack:
        clients = {name: stack.enter_context(running(command, ports[name])) for name, command in commands.items()}
        # The first article is read into cold caches.
        for number, article in zip(range(options.articles + 1), articles(CHARS), strict=False):
            for name in sorted(clients, reverse=bool(number % 2)):
                timing = ask(clients[name], article)
                found[name] += [timing] if number else []
    base = found.pop("wheel")
    metrics = {"articles": options.articles, "load_1min": round(os.getloadavg()[0], 1)}
    for name, timings in sorted(found.items()):
        metrics |= compare(name, timings, base)
    write_report(measured_folder() / "engine_cpu.json", {"metrics": metrics, "notes": NOTES}, "xllamacpp")


if __name__ == "__main__":
    main()
