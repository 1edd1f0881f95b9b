"""How long a full-size model on a GPU takes for a title: llama.cpp under the offline server, and transformers.

``python benchmarks/gpu_latency.py OUT MODEL GGUF ... --articles FILE [--requests N]`` writes OUT/latency_e4b.json
(``--name``).
MODEL is a merged model's directory, with its tokenizer; each GGUF is served and measured in turn, by ``llama-server``
on PATH, which decides where the model runs. Random weights will do: every title has the same number of tokens.
"""

import argparse
import json
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from itertools import cycle
from pathlib import Path
from typing import Any

from latency_probe import LatencyProbe
from machine import describe_run
from percentiles import PERCENTILES, check_latency, estimate_percentile

from titlegen.data import Example
from titlegen.models import family_at
from titlegen.prompt import SYSTEM
from titlegen.serve.server import find_version
from titlegen.settings import ServeSettings

_CONTENT_TOKENS, _TITLE_TOKENS = 640, 21
_LIMITS_MS = {50: 250.0, 95: 400.0}
_STREAMED, _PLAIN, _WARM_UP = 50, 30, 3
_START_TIMEOUT_S = 60


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("gguf", type=Path, nargs="+")
    parser.add_argument("--articles", type=Path, required=True)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--name", default="latency_e4b")
    arguments = parser.parse_args()
    contents = long_articles(arguments.articles, arguments.model, arguments.requests + 2 * _STREAMED + _WARM_UP)
    asked, streamed = contents[: arguments.requests + _WARM_UP], contents[-_STREAMED:]
    report = describe_run(arguments.name, "torch", "transformers")
    report["versions"]["llama.cpp"] = llama_version()
    report |= {
        "metrics": {},
        "notes": f"{arguments.requests} different articles, each once, one client; the prompt has about "
        f"{_CONTENT_TOKENS} tokens of article and the instruction, the answer {_TITLE_TOKENS}. ttft: first streamed "
        f"part, {_STREAMED} other articles. transformers: generate in bfloat16, one at a time, {_PLAIN} of them.",
        "verdicts": {},
    }
    for gguf in arguments.gguf:
        kind = gguf.stem.rpartition("-")[2].lower()
        found, verdicts = measure_server(gguf, arguments.model, asked, streamed, arguments.out)
        report["metrics"] |= {f"{kind}_{name}": value for name, value in found.items()}
        report["verdicts"][kind] = verdicts
        write(report, arguments.out)
    plain = measure_transformers(arguments.model, contents[arguments.requests : arguments.requests + _PLAIN + _WARM_UP])
    report["metrics"] |= {f"transformers_{name}": value for name, value in plain.items()}
    write(report, arguments.out)


def long_articles(path: Path, model: Path, number: int) -> list[str]:
    """Return so many different articles of the same number of tokens, made of those of a file."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    rows = [json.loads(line)["content"] for line in path.read_text(encoding="utf-8").splitlines()]
    articles = []
    following = cycle(rows)
    for count in range(number):
        text = f"第{count + 1}則。"
        while len(tokens := tokenizer.encode(text, add_special_tokens=False).ids) < _CONTENT_TOKENS:
            text += next(following)
        articles.append(tokenizer.decode(tokens[:_CONTENT_TOKENS]))
    return articles


def measure_server(
    gguf: Path, model: Path, asked: Sequence[str], streamed: Sequence[str], out: Path
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Return what the client's clock and the server's own timings say of a model, milliseconds and tokens a second."""
    import ollama

    with offline_server(out / "server") as host:
        settings = ServeSettings(host=host, model_name="latency", num_ctx=2048, num_predict=_TITLE_TOKENS)
        with closing(ollama.Client(host=host, timeout=600, trust_env=False)) as client:
            digest = client.create_blob(gguf)
            prompt = family_at(model).prompt
            options = prompt.parameters(0.0, settings.num_ctx, settings.num_predict)
            client.create(
                "latency", files={gguf.name: digest}, template=prompt.template, system=SYSTEM, parameters=options
            )
            examples = [Example(str(i), content, "", "test", None) for i, content in enumerate(asked)]
            with closing(LatencyProbe(settings, model, examples)) as probe:
                while probe.remaining:
                    probe.send_next()
            first = []
            for content in streamed:
                started = time.perf_counter()
                parts = iter(client.generate("latency", content, stream=True))
                next(parts)
                first.append(1000 * (time.perf_counter() - started))
                list(parts)
    waits = [timing.wall_ms for timing in probe.timings]
    found = {f"p{p}_ms": estimate_percentile(waits, p).value_ms for p in PERCENTILES}
    found |= {"ttft_p50_ms": statistics.median(first)}
    for name, tokens, took in (("prompt", "prompt_tokens", "prompt_eval_ms"), ("decode", "eval_tokens", "eval_ms")):
        rates = [1000 * getattr(timing, tokens) / getattr(timing, took) for timing in probe.timings]
        found[f"{name}_tok_s"] = statistics.median(rates)
    for name in ("prompt_tokens", "eval_tokens"):
        found[name] = statistics.median(getattr(timing, name) for timing in probe.timings)
    return found, [asdict(gate) for gate in check_latency(waits, _LIMITS_MS)]


@contextmanager
def offline_server(directory: Path) -> Iterator[str]:
    """Run the offline server with ``llama-server`` until the block ends; returns its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "titlegen.standins.ollama", "--port", str(port), "--directory", str(directory)]
    process = subprocess.Popen([*command, "--engine", "llama-server"])  # noqa: S603 - our own program
    host = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while find_version(host) is None:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("the offline server did not start")
            time.sleep(0.1)
        yield host
    finally:
        process.terminate()
        process.wait()


def measure_transformers(model: Path, contents: Sequence[str]) -> dict[str, float]:
    """Return how long ``generate`` takes for as many tokens, one article at a time, milliseconds."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    target = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = AutoTokenizer.from_pretrained(model)
    loaded: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16, device_map=target).eval()
    prompt, waits = family_at(model).prompt, []
    for content in contents:
        started = time.perf_counter()
        ids = tokenizer(prompt.render(content), add_special_tokens=False, return_tensors="pt").to(target)
        with torch.inference_mode():
            out = loaded.generate(**ids, do_sample=False, max_new_tokens=_TITLE_TOKENS, min_new_tokens=_TITLE_TOKENS)
        tokenizer.decode(out[0].tolist())
        waits.append(1000 * (time.perf_counter() - started))
    return {f"p{p}_ms": estimate_percentile(waits[_WARM_UP:], p).value_ms for p in (50, 95)}


def llama_version() -> str:
    """Return what ``llama-server`` says of its version."""
    done = subprocess.run(["llama-server", "--version"], capture_output=True, text=True, check=True)  # noqa: S607
    return (done.stdout + done.stderr).partition("version:")[2].strip().partition("\n")[0]


def write(report: dict[str, Any], out: Path) -> None:
    """Write the report with figures of four digits."""
    metrics = {name: float(f"{value:.4g}") for name, value in report["metrics"].items()}
    text = json.dumps(report | {"metrics": metrics}, indent=2, ensure_ascii=False)
    (out / f"{report['name']}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
