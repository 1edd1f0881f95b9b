"""An article's titles from a model's raw output: the same code for every engine."""

import dataclasses
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from titlegen.errors import ServeError
from titlegen.families import neutralise_control_tokens
from titlegen.manifest import MANIFEST, read_manifest
from titlegen.metrics.title_warnings import TitleWarning, find_warnings
from titlegen.prompt import PromptFormat
from titlegen.serve.article import Article
from titlegen.settings import ServeSettings
from titlegen.text import first_line, to_traditional

ABORTED = "aborted"
_SURROGATE = re.compile("[\ud800-\udfff]")
# What moves a terminal's cursor, colours it, or turns the direction of its text.
_UNPRINTED = re.compile(
    "\x1b\\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)


@dataclasses.dataclass(frozen=True)
class Answer:
    """What the model wrote for an article."""

    title: str
    """The first line of text, in the script of training, with control tokens made plain."""
    raw: str
    """The raw output."""
    done_reason: str
    """``stop`` (the model ended its title), ``length`` (it was cut off), ``aborted`` (the server broke off)."""
    prompt_tokens: int
    eval_tokens: int
    total_s: float
    load_s: float
    trimmed: bool
    """Whether the end of the article was left out, at a sentence end, to fit the context window."""
    unmet: tuple[str, ...] = ()
    """What was requested and is missing: ``chars`` for the length, else the word."""
    warnings: tuple[TitleWarning, ...] = ()
    """What an editor should look at, the most serious first; checked against the cleaned article."""
    seed: int = 0
    """Of the draw; 0 is the greedy title."""
    redraws: int = 0
    """Titles that were drawn because the first one was doubtful; this is the better of them all."""


def trained_content_tokens(model_directory: Path | None) -> int | None:
    """Return the token budget of the articles that an exported model was trained on; None where nothing says so."""
    if model_directory is None or not (model_directory / MANIFEST).is_file():
        return None
    budget = read_manifest(model_directory).results.get("content_tokens")
    return budget if isinstance(budget, int) and budget > 0 else None


def content_budget(
    settings: ServeSettings, prompt: PromptFormat, count: Callable[[str], int], trained: int | None
) -> int:
    """Return how many tokens of an article are sent, at most: what the context window leaves, and training read.

    Args:
        settings: context window and longest title.
        prompt: what stands around the article.
        count: returns the tokens of a text.
        trained: budget of the articles that the model was trained on, None where that is not known.

    Raises:
        ServeError: the context window has no room for an article.
    """
    around = count(prompt.render(""))
    budget = settings.num_ctx - settings.num_predict - around
    if budget < 1:
        raise ServeError(
            f"serve.num_ctx = {settings.num_ctx} leaves no room for an article beside {around} tokens of "
            f"instruction and {settings.num_predict} of title; raise it"
        )
    return min(budget, trained or budget)


def make_answer(
    raw: str,
    article: Article,
    *,
    convert: bool,
    done_reason: str,
    prompt_tokens: int = 0,
    eval_tokens: int = 0,
    total_s: float = 0.0,
    load_s: float = 0.0,
) -> Answer:
    """Return what a model wrote for an article as a title, checked against the article.

    Args:
        raw: everything that it wrote.
        article: what it read.
        convert: put a title in Simplified Chinese into Traditional.
        done_reason: how it ended.
        prompt_tokens: that it read.
        eval_tokens: that it wrote.
        total_s: time that it took.
        load_s: of that, for loading the model.
    """
    # A server may send half a surrogate pair, which has no UTF-8 form.
    raw = _SURROGATE.sub("\ufffd", raw)
    title = neutralise_control_tokens(first_line(_UNPRINTED.sub("", _in_script(raw, convert=convert))))
    return Answer(
        title=title,
        raw=raw,
        done_reason=done_reason,
        prompt_tokens=prompt_tokens,
        eval_tokens=eval_tokens,
        total_s=total_s,
        load_s=load_s,
        trimmed=article.trimmed,
        warnings=find_warnings(title, article.facts),
    )


def rank_answers(answers: Sequence[Answer], article: Article, *, convert: bool) -> list[Answer]:
    """Return the answers with the best first (:func:`titlegen.metrics.ranking.rank_titles`)."""
    from titlegen.metrics.ranking import rank_titles

    order = rank_titles([_in_script(answer.raw, convert=convert) for answer in answers], article.facts)
    # A title that was cut off comes after every whole one, and one that misses a request after those that meet it.
    ranked = [answers[index] for index in order]
    return sorted(ranked, key=lambda answer: (answer.done_reason != "stop", len(answer.unmet)))


def is_doubtful(answer: Answer, article: Article, *, convert: bool) -> bool:
    """Return whether it pays to draw again (:func:`titlegen.metrics.ranking.is_doubtful`)."""
    from titlegen.metrics import ranking

    return ranking.is_doubtful(_in_script(answer.raw, convert=convert), article.facts)


def choose_answer(answers: Sequence[Answer], article: Article, *, convert: bool) -> list[Answer]:
    """Return the first answer, and those that were drawn because it is doubtful, the one to take in front.

    Which one that is decides :func:`titlegen.metrics.ranking.choose_title`; a title that was cut off is not taken.
    """
    from titlegen.metrics.ranking import choose_title

    first, *drawn = (dataclasses.replace(answer, redraws=len(answers) - 1) for answer in answers)
    whole = [answer for answer in drawn if answer.done_reason == "stop"]
    texts = [_in_script(answer.raw, convert=convert) for answer in (first, *whole)]
    best = [first, *whole][choose_title(texts[0], texts[1:], article.facts)]
    return [best, *(answer for answer in (first, *drawn) if answer is not best)]


def only_titles(answers: Sequence[Answer], model_name: str) -> list[Answer]:
    """Return the answers that are titles, each title once.

    Raises:
        ServeError: none is.
    """
    different: dict[str, Answer] = {}
    for answer in answers:
        if answer.title and answer.done_reason != ABORTED:
            different.setdefault(answer.title, answer)
    if different:
        return list(different.values())
    aborted = any(answer.done_reason == ABORTED for answer in answers)
    what = "repeated itself until the server broke off" if aborted else "wrote nothing for this article"
    raise ServeError(f"{model_name} {what}; deploy a better trained model")


def _in_script(text: str, *, convert: bool) -> str:
    """Return a model's text in the script of training."""
    return to_traditional(text).text if convert else text
