"""Which of several titles for one article is the best, without a reference."""

from collections import Counter
from collections.abc import Sequence

from titlegen.metrics.contract import style_violations, title_violations
from titlegen.metrics.overlap import rouge_l
from titlegen.metrics.title_warnings import GRAVE, Facts, find_warnings
from titlegen.metrics.tokens import tokenize
from titlegen.text import first_line

# Outputs are untrusted: numbers and agreement take time in the square of their length.
_MAX_READ_CHARS = 200
_LEAST_TEMPERATURE = 0.8


def candidate_temperature(temperature: float) -> float:
    """Return what candidates after the first are drawn at: at least 0.8, or they would all be the same."""
    return max(temperature, _LEAST_TEMPERATURE)


def describe_candidates(number: int, temperature: float) -> dict[str, float | str]:
    """Return what is recorded of so many candidates: more than one have a temperature of their own."""
    if number == 1:
        return {"candidates": 1}
    return {
        "strategy": f"best of {number}",
        "candidates": number,
        "candidate_temperature": candidate_temperature(temperature),
    }


def rank_titles(outputs: Sequence[str], article: str) -> list[int]:
    """Return the indices of raw outputs for an article, the best first.

    What counts, in this order: title and nothing else, and of its first line what an editor is warned of, first in fact
    and language (numbers, names and denials that the article does not have), then in form (repetition, script, 8 to 30
    characters), clean style, and agreement: of titles drawn at random, the one that is most like the others is the
    likeliest to be like one that a person wrote, while an odd one is often wrong. Source: Kumar and Byrne, Minimum
    Bayes-Risk Decoding for Statistical Machine Translation, 2004, with ROUGE-L as the gain.
    """
    if len(outputs) < 2:  # noqa: PLR2004 - nothing to compare, and reading an article takes its time
        return list(range(len(outputs)))
    titles = [first_line(raw)[:_MAX_READ_CHARS] for raw in outputs]
    agreements = agreement(titles)
    facts = Facts(article)
    warned = {title: Counter(warning.kind in GRAVE for warning in find_warnings(title, facts)) for title in set(titles)}

    def key(index: int) -> tuple[int, int, int, int, float]:
        title = titles[index]
        return (
            len(title_violations(outputs[index])),
            warned[title][True],
            warned[title][False],
            len(style_violations(title)),
            -agreements[index],
        )

    return sorted(range(len(titles)), key=key)


def agreement(titles: Sequence[str]) -> list[float]:
    """Return for each title its mean ROUGE-L with all others, 0 to 1; 0 for a single one."""
    tokens = list(map(tokenize, titles))
    sums = [0.0] * len(tokens)
    for later in range(1, len(tokens)):
        for earlier in range(later):
            gain = rouge_l(tokens[later], tokens[earlier]).f1
            sums[later] += gain
            sums[earlier] += gain
    return [total / max(len(tokens) - 1, 1) for total in sums]
