"""The smoke test of a new model: which articles it is asked about, and what is wrong with a title."""

import json
from importlib import resources

from titlegen.metrics.contract import title_violations
from titlegen.serve.answer import Answer
from titlegen.text import split_sentences

_ARTICLES = 5
_TITLE_CHARS = range(4, 61)
_OPENING_CHARS = 160


def smoke_articles() -> list[str]:
    """Return the articles of the smoke test, from the corpus that comes with titlegen."""
    folder = resources.files("titlegen") / "corpus"
    files = sorted((item for item in folder.iterdir() if item.name.endswith(".jsonl")), key=lambda item: item.name)
    rows = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    return [json.loads(row)["content"] for row in rows[:: len(rows) // _ARTICLES][:_ARTICLES]]


def title_problems(answer: Answer) -> list[str]:
    """Return why an answer is no title."""
    found = list(title_violations(answer.raw))
    if answer.done_reason != "stop":
        found.append(f"ended by {answer.done_reason}")
    if len(answer.title) not in _TITLE_CHARS:
        found.append(f"{len(answer.title)} characters")
    return found


def opening_of(article: str) -> str:
    """Return the first sentences of an article, short enough for a command line."""
    opening = ""
    for sentence in split_sentences(article):
        if opening and len(opening) + len(sentence) > _OPENING_CHARS:
            break
        opening += sentence
    return opening
