"""Whether the same article gets the same title, and what that costs: the bundled server with one slot and with four.

``python benchmarks/same_title.py outputs/quickstart/gguf/titlegen-Q8_0.gguf``. One slot is the default: the engine goes
back to the prompts' shared beginning after each answer, and writes one title at a time. Four slots keep whatever they
read last and write beside each other. Times are taken in turn, so that other work of the machine meets both; only their
ratios are kept.
"""

import argparse
import contextlib
import hashlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
from machine import write_result
from test_serve_speed import wait_for

from titlegen.daemon import free_port
from titlegen.data.sources import embedded_files
from titlegen.families.gemma3 import PROMPT
from titlegen.prompt import SYSTEM

CLIENTS = 4
NOTES = (
    "bundled server, greedy, articles of the embedded corpus. *_again: share of titles that are the same when an "
    "article is asked for twice running; *_after_its_beginning: when two thirds of it were asked for before; *_beside: "
    "when four clients ask at a time. lone_time, four_clients_time: time with one slot over that with four, of one "
    "client and of four at a time, asked in turn."
)


@contextlib.contextmanager
def served(gguf: Path, *options: str) -> Iterator[httpx.Client]:
    """Run a server with the model ``m``; ``options`` are the server's own."""
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        port = free_port()
        command = [sys.executable, "-m", "titlegen.standins.ollama", "--port", str(port), "--directory", directory]
        command += ["--threads", str(os.cpu_count()), *options]
        log = stack.enter_context((Path(directory) / "log").open("wb"))
        process = stack.enter_context(subprocess.Popen(command, stdout=log, stderr=log))  # noqa: S603 - our own
        stack.callback(process.terminate)
        url = f"http://127.0.0.1:{port}"
        client = stack.enter_context(httpx.Client(base_url=url, timeout=600, trust_env=False))
        wait_for(client, "/")
        content = gguf.read_bytes()
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        client.post(f"/api/blobs/{digest}", content=content).raise_for_status()
        body = {
            "model": "m",
            "files": {"m.gguf": digest},
            "template": PROMPT.template,
            "system": SYSTEM,
            "stream": False,
        }
        body["parameters"] = PROMPT.parameters(0.0, 4096, 48)
        client.post("/api/create", json=body).raise_for_status()
        ask(client, "先載入模型。")
        yield client


def ask(client: httpx.Client, article: str) -> str:
    response = client.post("/api/generate", json={"model": "m", "prompt": article, "stream": False})
    return str(response.raise_for_status().json()["response"])


def ask_all(client: httpx.Client, articles: Sequence[str], clients: int = 1) -> tuple[list[str], float]:
    started = time.perf_counter()
    with ThreadPoolExecutor(clients) as threads:
        titles = list(threads.map(lambda article: ask(client, article), articles))
    return titles, time.perf_counter() - started


def same(first: Sequence[str], second: Sequence[str]) -> float:
    return sum(one == other for one, other in zip(first, second, strict=True)) / len(first)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="GGUF file of a trained model")
    parser.add_argument("--articles", type=int, default=24)
    options = parser.parse_args()
    lines = (line for path in embedded_files() for line in path.read_text(encoding="utf-8").splitlines())
    articles = [json.loads(line)["content"] for line in itertools.islice(lines, 0, 20 * options.articles, 20)]
    metrics: dict[str, float] = {}
    times: dict[tuple[int, int], float] = dict.fromkeys(itertools.product((1, 4), (1, CLIENTS)), 0.0)
    with served(options.model) as one, served(options.model, "--parallel", "4") as four:
        servers = {1: one, 4: four}
        alone: dict[int, list[str]] = {}
        beside: dict[int, list[str]] = {}
        for clients, found in ((1, alone), (CLIENTS, beside)):
            # A few articles in turn.
            for start in range(0, len(articles), 2 * CLIENTS):
                part = articles[start : start + 2 * CLIENTS]
                for slots in sorted(servers, reverse=bool(start // (2 * CLIENTS) % 2)):
                    titles, seconds = ask_all(servers[slots], part, clients)
                    found.setdefault(slots, []).extend(titles)
                    times[slots, clients] += seconds
        for slots, name in ((1, "one_slot"), (4, "four_slots")):
            twice, _ = ask_all(servers[slots], [article for article in articles for _ in range(2)])
            begun, _ = ask_all(
                servers[slots], [text for text in articles for text in (text[: 2 * len(text) // 3], text)]
            )
            metrics[f"{name}_again"] = same(twice[::2], twice[1::2])
            metrics[f"{name}_after_its_beginning"] = same(alone[slots], begun[1::2])
            metrics[f"{name}_beside"] = same(alone[slots], beside[slots])
    metrics["lone_time"] = times[1, 1] / times[4, 1]
    metrics["four_clients_time"] = times[1, CLIENTS] / times[4, CLIENTS]
    metrics |= {"articles": len(articles), "load_1min": os.getloadavg()[0]}
    write_result("same_title", metrics, NOTES, "xllamacpp")
    print(json.dumps(metrics, indent=2))


if __name__ == "__main__":
    main()
