"""Tokens that are looked up in the article: the titles are those that are written without."""

import contextlib
import os
import secrets
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from corpus import corpus_rows
from ollama_server import offline_server, wait_until

from titlegen.daemon import free_port
from titlegen.families.gemma3 import PROMPT

# Short enough for one portion of keys: llama.cpp divides more among its threads, for a single token alone.
ARTICLES = [row["content"][:120] for row in corpus_rows()[:8]]
Answer = Mapping[str, Any]


@pytest.fixture(scope="module")
def gguf(tiny_gguf: Callable[[str], Path]) -> Path:
    return tiny_gguf("q8_0")


@contextlib.contextmanager
def engine(gguf: Path, folder: Path, lookup: int) -> Iterator[Callable[..., Answer]]:
    """Run llama.cpp's own server as the bundled server does; it says how many drafts were right."""
    key, port = secrets.token_hex(), free_port()
    key_file = folder / f"key-{lookup}"
    key_file.write_text(key)
    command = [sys.executable, "-m", "titlegen.standins.ollama.llama", "--model", str(gguf), "--port", str(port)]
    command += ["--key-file", str(key_file), "--parallel", "1", "--num-ctx", "512", "--threads", "1"]
    command += ["--lookup", str(lookup), "--parent", str(os.getpid())]
    with (
        subprocess.Popen(command, stdout=subprocess.DEVNULL) as process,  # noqa: S603 - our own command
        httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {key}"}, timeout=60, trust_env=False
        ) as client,
    ):

        def is_ready() -> bool:
            with contextlib.suppress(httpx.TransportError):
                return client.get("/slots").is_success
            return False

        def ask(article: str, **fields: Any) -> Answer:
            body = {"prompt": PROMPT.render(article).removeprefix(PROMPT.bos), "n_predict": 48, "cache_prompt": False}
            answer: Answer = client.post("/completion", json=body | fields).raise_for_status().json()
            return answer

        try:
            wait_until(is_ready)
            yield ask
        finally:
            process.kill()


@pytest.fixture(scope="module")
def engines(gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Callable[..., Answer]]]:
    """One that looks nothing up, and one that looks up three tokens."""
    folder = tmp_path_factory.mktemp("engines")
    with engine(gguf, folder, 0) as without, engine(gguf, folder, 3) as looking:
        yield [without, looking]


def right_drafts(answers: list[Answer]) -> int:
    return sum(answer["timings"].get("draft_n_accepted", 0) for answer in answers)


def test_greedy_titles_are_the_same_in_fewer_passes(engines: list[Callable[..., Answer]]) -> None:
    without, looking = ([ask(article, temperature=0) for article in ARTICLES] for ask in engines)
    assert [answer["content"] for answer in looking] == [answer["content"] for answer in without]
    assert right_drafts(without) == 0
    assert right_drafts(looking) > 0


def test_a_seed_draws_the_same_title(engines: list[Callable[..., Answer]]) -> None:
    # Of two tokens each time, so that the text differs and repeats itself.
    drawn = [
        [ask(article, temperature=0.5, top_k=2, seed=seed) for article in ARTICLES[:4] for seed in range(4)]
        for ask in engines
    ]
    texts = [[answer["content"] for answer in answers] for answers in drawn]
    assert texts[0] == texts[1]
    assert len(set(texts[0])) > len(texts[0]) // 2
    assert right_drafts(drawn[1]) > 0


def test_titles_are_drawn_as_often(engines: list[Callable[..., Answer]]) -> None:
    """Other seeds on either side: how titles end has the same frequencies."""
    draws = 300
    counts = []
    for offset, ask in enumerate(engines):
        fields = {"n_predict": 14, "temperature": 0.5, "top_k": 2}
        answers = [ask("甲乙" * 20, seed=1000 * (offset + 1) + number, **fields) for number in range(draws)]
        counts.append(Counter(answer["content"][-1:] for answer in answers))
        assert (right_drafts(answers) > 0) == bool(offset)
    for text, count in (counts[0] + counts[1]).most_common(5):
        share = count / (2 * draws)
        # Five standard deviations of a difference of two shares.
        assert abs(counts[0][text] - counts[1][text]) / draws <= 5 * (2 * share * (1 - share) / draws) ** 0.5


def stand_in(folder: Path, gguf_options: str) -> Path:
    """Return a program with llama-server's options, and the engine of xllamacpp in it."""
    program = folder / "llama-server"
    program.write_text(
        f"""#!{sys.executable}
import argparse, pathlib, sys, threading
parser = argparse.ArgumentParser()
for name in ("model", "ctx-size", "parallel", "threads", "ubatch-size", "host", "port", "api-key-file"):
    parser.add_argument("--" + name, required=True)
for name in ("log-verbosity", "cache-ram"):
    parser.add_argument("--" + name, required=True)
for name in {gguf_options}:
    parser.add_argument("--" + name)
parser.add_argument("--context-shift", action="store_true")
parser.add_argument("--swa-full", action="store_true")
options = parser.parse_args()
pathlib.Path({str(folder / "used")!r}).write_text(" ".join(sys.argv[1:]))
import xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.n_ctx, params.n_parallel = options.model, int(options.ctx_size), int(options.parallel)
params.hostnames, params.port, params.verbosity = [options.host], int(options.port), 1
params.api_keys = [pathlib.Path(options.api_key_file).read_text()]
params.cpuparams.n_threads = int(options.threads)
server = xllamacpp.Server(params)
threading.Event().wait()
"""
    )
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    return program


@pytest.mark.parametrize("lookup", [0, 3])
def test_a_program_is_told_what_to_look_up(tmp_path: Path, gguf: Path, lookup: int) -> None:
    program = stand_in(tmp_path, repr(["spec-type", "spec-ngram-simple-size-n", "spec-ngram-simple-size-m"]))
    with offline_server(tmp_path, "--engine", str(program), "--lookup", str(lookup)) as server:
        server.create("m", gguf, template=PROMPT.template)
        assert server.generate(model="m", prompt=ARTICLES[0], options={"num_predict": 4})["response"]
        assert not list(server.directory.glob(".key-*"))
    used = (tmp_path / "used").read_text()
    assert ("--spec-type ngram-simple --spec-ngram-simple-size-n 2 --spec-ngram-simple-size-m 3" in used) == bool(
        lookup
    )


def test_a_program_that_cannot_do_it_is_used_without_and_refused_with(tmp_path: Path, gguf: Path) -> None:
    program = stand_in(tmp_path, "[]")
    with offline_server(tmp_path, "--engine", str(program)) as server:
        server.create("m", gguf, template=PROMPT.template)
        assert server.generate(model="m", prompt=ARTICLES[0], options={"num_predict": 4})["response"]
    command = [sys.executable, "-m", "titlegen.standins.ollama", "--port", str(free_port())]
    command += ["--directory", str(tmp_path / "models"), "--engine", str(program), "--lookup", "3"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)  # noqa: S603
    assert result.returncode == 2
    assert "install a newer llama.cpp, or leave --lookup" in result.stderr
