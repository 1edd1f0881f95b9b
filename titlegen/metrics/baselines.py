"""Trivial baselines: titles that a model has to beat before its scores mean anything."""

import random

from titlegen.metrics.contract import MAX_CHARS
from titlegen.metrics.overlap import rouge_l
from titlegen.metrics.tokens import tokenize
from titlegen.text import split_sentences
from titlegen.text.textrank import sentence_ranks

# Later sentences hold no headline, and an article without any mark could have thousands.
_MAX_SENTENCES = 300


def random_sentence(article: str, seed: str) -> str:
    """Return a sentence drawn by the seed, cut to the longest title."""
    sentences = _sentences(article)
    # Not for secrets: equal seeds must give equal titles on every machine.
    return _cut(random.Random(seed).choice(sentences)) if sentences else ""  # noqa: S311


def lead(article: str) -> str:
    """Return the first sentence, cut to the longest title."""
    sentences = _sentences(article)
    return _cut(sentences[0]) if sentences else ""


def textrank(article: str) -> str:
    """Return the most central sentence, cut to the longest title; the first of equals."""
    sentences = _sentences(article)
    ranks = sentence_ranks(sentences)
    return _cut(sentences[ranks.index(max(ranks))]) if ranks else ""


def oracle(article: str, reference: str) -> str:
    """Return the sentence, cut to the longest title, that comes closest to the reference by ROUGE-L.

    It looks at the answer: no title cut out of the article this way can score better.
    """
    expected = tokenize(reference)
    cuts = [_cut(sentence) for sentence in _sentences(article)]
    return max(cuts, key=lambda cut: rouge_l(tokenize(cut), expected).f1, default="")


def _sentences(article: str) -> list[str]:
    return split_sentences(article)[:_MAX_SENTENCES]


def _cut(sentence: str) -> str:
    return sentence[:MAX_CHARS].rstrip("，、；：。,;: ")
