"""Which of several titles for one article is the best, without a reference."""

from collections.abc import Sequence

from titlegen.metrics.contract import has_title_length, style_violations, title_violations
from titlegen.metrics.numbers import article_readings, find_numbers, is_supported
from titlegen.metrics.overlap import rouge_l
from titlegen.metrics.tokens import tokenize

# Outputs are untrusted, and agreement takes time in the product of two lengths.
_MAX_READ_CHARS = 200
CANDIDATE_TEMPERATURE = 0.8
"""At least; candidates after the first are drawn as hot, or they would all be the same."""


def rank_titles(outputs: Sequence[str], article: str) -> list[int]:
    """Return the indices of raw outputs for an article, the best first.

    What counts, in this order: title and nothing else, numbers that the article has, 8 to 30 characters, clean style,
    and agreement: of titles drawn at random, the one that is most like the others is the likeliest to be like one that
    a person wrote, while an odd one is often wrong. Source: Kumar and Byrne, Minimum Bayes-Risk Decoding for
    Statistical Machine Translation, 2004, with ROUGE-L as the gain.
    """
    agreements = agreement(outputs)
    facts = article_readings(article)

    def key(index: int) -> tuple[int, int, bool, int, float]:
        raw = outputs[index]
        return (
            len(title_violations(raw)),
            sum(not is_supported(number, facts) for number in find_numbers(raw)),
            not has_title_length(raw),
            len(style_violations(raw)),
            -agreements[index],
        )

    return sorted(range(len(outputs)), key=key)


def agreement(outputs: Sequence[str]) -> list[float]:
    """Return for each output its mean ROUGE-L with all others, 0 to 1; 0 for a single one."""
    tokens = [tokenize(raw[:_MAX_READ_CHARS]) for raw in outputs]
    sums = [0.0] * len(tokens)
    for later in range(1, len(tokens)):
        for earlier in range(later):
            gain = rouge_l(tokens[later], tokens[earlier]).f1
            sums[later] += gain
            sums[earlier] += gain
    return [total / max(len(tokens) - 1, 1) for total in sums]
