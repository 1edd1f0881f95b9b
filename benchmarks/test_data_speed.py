"""Speed and memory of cleaning, filtering and deduplication, beside a plain loop over the same rules with datasketch.

``pytest benchmarks/test_data_speed.py`` measures up to 100,000 articles; ``-m slow`` goes on to 1,000,000.
"""

import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from machine import write_result

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
SOURCES = sorted(DATA.glob("tainan_gov_*.jsonl"))
needs_data = pytest.mark.skipif(
    len(SOURCES) != 3, reason="the press releases that the articles are made from are not here"
)
SIZES = (10_000, 30_000, 100_000)
FULL_SIZES = (300_000, 1_000_000)
LOOP_ARTICLES = 1000
REPEATS = 3
PACKAGES = ("rensa", "numpy", "datasketch")
NOTES = (
    "Articles of 700 characters on average, made from real press releases, 5% of them near-copies. docs_s and "
    "ratio_vs_loop: reading, cleaning, filtering and deduplicating 100,000 on all cores, against one plain loop over "
    "the same rules with datasketch's MinHash.update and MinHashLSH (ratio_vs_batched_loop: MinHash.update_batch). "
    "peak_gib_1m: resident memory of all processes together for 1,000,000. us_per_doc: the cost curve. "
    "Up to 100,000: the fastest of three runs."
)
NEAR_COPIES = 0.05


def articles(count: int) -> Iterator[dict[str, Any]]:
    """Yield articles like real ones: a release's beginning, sentences of others, an end; one in 20 is a near-copy."""
    rows = [json.loads(line) for path in SOURCES for line in path.read_text(encoding="utf-8").strip().split("\n")]
    rng = random.Random(7)
    sentences = [text for row in rows for text in row["content"].replace("。", "。\0").split("\0") if len(text) > 12]
    mean_chars = sum(map(len, sentences)) / len(sentences)
    titles = [part for row in rows for part in row["title"].split() if len(part) > 5]
    last: dict[str, Any] = {}
    for number in range(count):
        if last and rng.random() < NEAR_COPIES:
            content, place = last["content"], rng.randrange(len(last["content"]))
            yield {**last, "content": f"{content[:place]}又{content[place + 1 :]}", "title": f"{last['title']}又"}
            continue
        row = rows[number % len(rows)]
        first, end = row["content"].split("\n")[0], rng.choice(rows)["content"].split("\n")[-1]
        missing = max(len(row["content"]) - len(first) - len(end), 0)
        middle = "".join(rng.sample(sentences, max(round(missing / mean_chars), 3)))
        title = f"{rng.choice(titles)} {rng.choice(titles)}{number}"
        last = {**row, "content": f"{first}\n{middle}\n{end}", "title": title}
        yield last


def measure(path: Path, workers: int) -> dict[str, float]:
    """Clean, filter and deduplicate a file in this process; returns seconds and peak memory, GiB."""
    from titlegen.data.collect import Spool, collect
    from titlegen.data.prepare import deduplicate
    from titlegen.data.sources import open_source
    from titlegen.data.workers import clean_chunks
    from titlegen.settings import DataSettings

    settings = DataSettings(source=str(path), workers=workers)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        start = time.perf_counter()
        lines, texts = Spool(Path(folder) / "lines"), Spool(Path(folder) / "texts")
        pool = collect(clean_chunks(open_source(settings).rows, settings, None), lines, texts)
        cleaned = time.perf_counter()
        kept = deduplicate(pool, settings)
        end = time.perf_counter()
    # getrusage's own peak would include what the process that started this one held.
    own = int(Path("/proc/self/status").read_text(encoding="ascii").split("VmHWM:")[1].split()[0]) / 2**20
    child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    return {
        "seconds": end - start,
        "dedup_seconds": end - cleaned,
        # The largest child stands for each of them.
        "peak_gib": own + workers * child,
        "rows": pool.counts.rows,
        "kept": len(kept.rows),
        "near_duplicates": kept.dropped["near_duplicate"],
    }


def measure_apart(path: Path, workers: int) -> dict[str, float]:
    """Measure in a process of its own, so that the peak is this run's."""
    command = [sys.executable, __file__, str(path), str(workers)]
    done = subprocess.run(  # noqa: S603 - this file
        command, capture_output=True, text=True, check=True, cwd=ROOT
    )
    return dict(json.loads(done.stdout))


def loop_seconds(path: Path, *, batched: bool) -> float:
    """Return the seconds an article takes in a plain loop over the same rules, with datasketch for the duplicates."""
    from datasketch import MinHash, MinHashLSH

    from titlegen.data.filters import clean_row
    from titlegen.data.sources import open_source
    from titlegen.settings import DataSettings
    from titlegen.text import Removals

    settings = DataSettings(source=str(path), limit=LOOP_ARTICLES)
    rows = list(open_source(settings).rows)
    index = MinHashLSH(threshold=settings.near_duplicate, num_perm=128)
    start = time.perf_counter()
    for number, row in enumerate(rows):
        clean = clean_row(row, settings, Removals(), Removals())
        if isinstance(clean, str):
            continue
        signature = MinHash(num_perm=128)
        shingles = [clean.content[place : place + 5].encode() for place in range(len(clean.content) - 4)]
        if batched:
            signature.update_batch(shingles)
        else:
            for shingle in shingles:
                signature.update(shingle)
        if not index.query(signature):
            index.insert(number, signature)
    return (time.perf_counter() - start) / len(rows)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("articles")


def write_articles(folder: Path, count: int) -> Path:
    path = folder / f"{count}.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for article in articles(count):
            file.write(json.dumps(article, ensure_ascii=False) + "\n")
    return path


def show(curve: dict[int, dict[str, float]]) -> str:
    lines = [f"{'articles':>10} {'docs/s':>8} {'us/doc':>8} {'dedup s':>8} {'peak GiB':>9} {'kept':>8}"]
    lines += [
        f"{count:>10} {count / run['seconds']:>8.0f} {run['seconds'] / count * 1e6:>8.1f} {run['dedup_seconds']:>8.1f} "
        f"{run['peak_gib']:>9.2f} {run['kept']:>8.0f}"
        for count, run in curve.items()
    ]
    return "\n".join(lines)


def run_curve(folder: Path, sizes: tuple[int, ...], repeats: int = 1) -> dict[int, dict[str, float]]:
    """Return the fastest run of each size: what else the machine does can only add time."""
    curve = {}
    for count in sizes:
        path = write_articles(folder, count)
        runs = [measure_apart(path, os.cpu_count() or 1) for _ in range(repeats)]
        curve[count] = min(runs, key=lambda run: run["seconds"])
        path.unlink()
    return curve


def cost_metrics(curve: dict[int, dict[str, float]]) -> dict[str, float]:
    return {f"us_per_doc_{count // 1000}k": run["seconds"] / count * 1e6 for count, run in curve.items()}


@needs_data
def test_cleaning_and_deduplication_beat_a_plain_loop(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sample = write_articles(folder, LOOP_ARTICLES)
    loop, batched = (min(loop_seconds(sample, batched=way) for _ in range(REPEATS)) for way in (False, True))
    curve = run_curve(folder, SIZES, REPEATS)
    costs = {count: run["seconds"] / count for count, run in curve.items()}
    ratio, batched_ratio = loop / costs[100_000], batched / costs[100_000]
    with capsys.disabled():
        print(f"\n{show(curve)}")
        print(f"plain loop {1 / loop:.0f} docs/s: ratio {ratio:.1f}, with update_batch {batched_ratio:.1f}")
    write_result(
        "data_speed",
        {
            "docs_s": 1 / costs[100_000],
            "ratio_vs_loop": ratio,
            "ratio_vs_batched_loop": batched_ratio,
            **cost_metrics(curve),
        },
        NOTES,
        *PACKAGES,
    )
    assert ratio >= 8
    assert costs[100_000] <= 1.5 * costs[10_000]
    # Ten times the articles in far less than ten times the memory.
    assert curve[100_000]["peak_gib"] <= 3 * curve[10_000]["peak_gib"]
    assert 0.9 * NEAR_COPIES < curve[100_000]["near_duplicates"] / 100_000 < 1.5 * NEAR_COPIES


@needs_data
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_million_articles_cost_no_more_each_and_stay_in_memory(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Ten minutes and 8 GB of disk.
    curve = run_curve(folder, (SIZES[-1], *FULL_SIZES))
    with capsys.disabled():
        print(f"\n{show(curve)}")
    write_result("data_speed", {"peak_gib_1m": curve[1_000_000]["peak_gib"], **cost_metrics(curve)}, NOTES, *PACKAGES)
    assert curve[1_000_000]["peak_gib"] < 4
    assert curve[1_000_000]["seconds"] / 1_000_000 <= 1.5 * curve[100_000]["seconds"] / 100_000


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), int(sys.argv[2]))))
