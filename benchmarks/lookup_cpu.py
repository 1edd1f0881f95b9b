"""What looking tokens up in the article saves on a CPU: the bundled server with and without, asked in turn.

``chrt -f 10 python benchmarks/lookup_cpu.py outputs/quickstart/gguf/titlegen-Q8_0.gguf FILE.jsonl``, with different
articles under ``content``, writes and prints lookup_cpu.json. Other work of the machine meets both servers; only ratios
are kept. The same articles with their characters in random order hold nothing to copy.
"""

import argparse
import contextlib
import itertools
import json
import os
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import httpx
from machine import write_result
from same_title import served

from titlegen.text import clean_content

NOTES = (
    "bundled server, one slot, greedy, a lone client, new articles, each asked with --lookup N and with --lookup 0 in "
    "turn; ratios with to without, of the median and the 95th percentile of answers' times, and of the sums of times "
    "for reading and for writing. equal_titles: share of titles that are the same. shuffled_*: the characters of each "
    "article in random order. load_1min: what the machine had to do, these servers included. patched_*: llama-server, "
    "built with serving/llama.cpp/prefetch.patch."
)


class Timing(NamedTuple):
    """One answer, in seconds."""

    total: float
    reading: float
    writing: float
    tokens: int
    title: str


def ask(client: httpx.Client, article: str, pause: bool) -> Timing:
    started = time.perf_counter()
    answer = client.post("/api/generate", json={"model": "m", "prompt": article, "stream": False})
    total = time.perf_counter() - started
    if pause:
        time.sleep(total)
    found = answer.raise_for_status().json()
    reading, writing = found["prompt_eval_duration"] / 1e9, found["eval_duration"] / 1e9
    return Timing(total, reading, writing, found["eval_count"], found["response"])


def read_articles(path: Path, characters: int) -> Iterator[str]:
    """Yield the beginnings of the different articles of a file."""
    seen: set[str] = set()
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            article = clean_content(json.loads(line)["content"])[:characters]
            if article and article not in seen:
                seen.add(article)
                yield article


def in_turn(clients: dict[str, httpx.Client], articles: Sequence[str], pause: bool) -> dict[str, list[Timing]]:
    found: dict[str, list[Timing]] = {name: [] for name in clients}
    for number, article in enumerate(articles):
        names = sorted(clients)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            found[name].append(ask(clients[name], article, pause))
    return found


def compare(one: Sequence[Timing], base: Sequence[Timing], name: str) -> dict[str, float]:
    """Return the ratios of an engine to another one, with a name before each."""

    def percentile(items: Sequence[Timing], share: float) -> float:
        return statistics.quantiles([item.total for item in items], n=100)[round(share * 100) - 1]

    def part(items: Sequence[Timing], field: str) -> float:
        return sum(float(getattr(item, field)) for item in items)

    return {
        f"{name}_p50": percentile(one, 0.5) / percentile(base, 0.5),
        f"{name}_p95": percentile(one, 0.95) / percentile(base, 0.95),
        f"{name}_pairs_p50": statistics.median(a.total / b.total for a, b in zip(one, base, strict=True)),
        f"{name}_slower_share": sum(a.total > b.total for a, b in zip(one, base, strict=True)) / len(one),
        f"{name}_reading": part(one, "reading") / part(base, "reading"),
        f"{name}_writing": part(one, "writing") / part(base, "writing"),
        f"{name}_equal_titles": sum(a.title == b.title for a, b in zip(one, base, strict=True)) / len(one),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="GGUF file of a trained model")
    parser.add_argument("source", type=Path, help="JSONL with articles under content")
    parser.add_argument("--articles", type=int, default=300)
    parser.add_argument("--characters", type=int, default=300, help="of an article, at most")
    parser.add_argument("--lookup", type=int, nargs="+", default=[3], help="tokens that are looked up for a pass")
    parser.add_argument("--engine", default="xllamacpp")
    parser.add_argument("--prefix", default="", help="of the figures' names, for another engine beside the first")
    parser.add_argument("--again", action="store_true", help="ask a second server without, for the noise")
    parser.add_argument("--pause", action="store_true", help="leave the machine to others half of the time")
    options = parser.parse_args()
    articles = list(itertools.islice(read_articles(options.source, options.characters), options.articles))
    draw = random.Random(0)
    shuffled = ["".join(draw.sample(article, len(article))) for article in articles[: options.articles // 3]]
    metrics: dict[str, float] = {"articles": len(articles), "shuffled_articles": len(shuffled)}
    with contextlib.ExitStack() as stack:
        sizes = (
            {"without": 0}
            | ({"again": 0} if options.again else {})
            | {f"lookup_{size}": size for size in options.lookup}
        )
        clients = {
            name: stack.enter_context(served(options.model, "--engine", options.engine, "--lookup", str(size)))
            for name, size in sizes.items()
        }
        for prefix, texts in (("", articles), ("shuffled_", shuffled)):
            found = in_turn(clients, texts, options.pause)
            base = found.pop("without")
            for name, timings in found.items():
                metrics |= compare(timings, base, f"{prefix}{name}")
            whole = sum(item.total for item in base)
            metrics[f"{prefix}reading_share"] = sum(item.reading for item in base) / whole
            metrics[f"{prefix}writing_share"] = sum(item.writing for item in base) / whole
            metrics[f"{prefix}tokens"] = statistics.mean(item.tokens for item in base)
    metrics["load_1min"] = os.getloadavg()[0]
    metrics = {options.prefix + name: value for name, value in metrics.items()}
    print(write_result("lookup_cpu", metrics, NOTES, "xllamacpp").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
