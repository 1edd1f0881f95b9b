"""A real model, whose every layer rounds, on the bundled server: the same article gets the same answer."""

import concurrent.futures
from collections.abc import Callable
from pathlib import Path

import pytest
from corpus import corpus_rows
from ollama_server import OfflineServer, offline_server

from titlegen.families.gemma3 import PROMPT
from titlegen.prompt import SYSTEM

# With random weights many tokens are nearly as likely as the best one, so that rounding decides often.
ARTICLES = [row["content"] for row in corpus_rows()[:10]]
OPTIONS = {"temperature": 0.0, "seed": 0, "num_predict": 48}


@pytest.fixture(scope="module")
def gguf(tiny_gguf: Callable[[str], Path]) -> Path:
    return tiny_gguf("q8_0")


def ask(server: OfflineServer, article: str) -> str:
    return str(server.generate(model="m", prompt=article, options=OPTIONS)["response"])


def answers(server: OfflineServer) -> dict[str, list[str]]:
    """Return the answers of all articles, asked for in each way in which people do."""
    alone = [ask(server, article) for article in ARTICLES]
    again = [ask(server, article) for article in ARTICLES for _ in range(2)]
    begun = []
    for article in ARTICLES:
        ask(server, article[: 2 * len(article) // 3])
        begun.append(ask(server, article))
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        beside = list(threads.map(lambda article: ask(server, article), ARTICLES))
        beside += threads.map(lambda article: ask(server, article), ARTICLES[::-1])
    # Another opening of the prompt takes this one's place.
    other = []
    for article in ARTICLES:
        server.generate(model="m", prompt=article, system="別的系統文字。", options=OPTIONS)
        other.append(ask(server, article))
    return {
        "alone": alone,
        "again": again[1::2],
        "begun": begun,
        "beside": beside[: len(ARTICLES)],
        "backwards": beside[: len(ARTICLES) - 1 : -1],
        "other": other,
    }


@pytest.mark.fault
def test_the_same_article_gets_the_same_answer_whatever_was_asked_before_or_beside(gguf: Path, tmp_path: Path) -> None:
    with offline_server(tmp_path) as server:
        server.create("m", gguf, template=PROMPT.template, system=SYSTEM)
        found = answers(server)
    assert len({answer for answer in found["alone"] if answer}) > len(ARTICLES) // 2
    for way, titles in found.items():
        assert titles == found["alone"], way
    # Also by another process, whose first article is another one.
    with offline_server(tmp_path) as server:
        assert [ask(server, article) for article in ARTICLES[::-1]] == found["alone"][::-1]


def test_with_several_slots_rounding_shows(gguf: Path, tmp_path: Path) -> None:
    """What the test above would miss, were the model too small to round."""
    with offline_server(tmp_path, "--parallel", "4") as server:
        server.create("m", gguf, template=PROMPT.template, system=SYSTEM)
        found = answers(server)
    assert any(titles != found["alone"] for titles in found.values())


def test_an_answer_that_is_broken_off_leaves_nothing_behind(gguf: Path, tmp_path: Path) -> None:
    with offline_server(tmp_path) as server:
        server.create("m", gguf, template=PROMPT.template, system=SYSTEM)
        alone = [ask(server, article) for article in ARTICLES[:4]]
        for article in ARTICLES[4:]:
            part = server.stream(model="m", prompt=article, options=OPTIONS)
            next(part)
            part.close()  # type: ignore[attr-defined]
        assert [ask(server, article) for article in ARTICLES[:4]] == alone
        # Longer than the window: the beginning of the prompt is shifted out while it is answered.
        server.generate(model="m", prompt=ARTICLES[4], options=OPTIONS | {"num_predict": 6000})
        assert [ask(server, article) for article in ARTICLES[:4]] == alone
        # Longer than the window from the start.
        assert server.http.post("/api/generate", json={"model": "m", "prompt": ARTICLES[4] * 60}).status_code == 400
        assert [ask(server, article) for article in ARTICLES[:4]] == alone
