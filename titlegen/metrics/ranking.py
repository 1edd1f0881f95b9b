"""The ranking of several titles for one article, without a reference."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from titlegen.metrics.contract import style_violations, title_violations
from titlegen.metrics.novelty import unknown_words
from titlegen.metrics.overlap import rouge_l
from titlegen.metrics.title_warnings import GRAVE, Facts, find_warnings
from titlegen.metrics.tokens import tokenize
from titlegen.text import first_line

# Outputs are untrusted: numbers and agreement take time in the square of their length.
_MAX_READ_CHARS = 200
_LEAST_TEMPERATURE = 0.8
# Drawn hotter, titles of a small model have more invented words than the doubtful one.
_LEAST_REDRAW_TEMPERATURE = 0.3


def candidate_temperature(temperature: float) -> float:
    """Return the temperature of candidates after the first: at least 0.8, or they would all be the same."""
    return max(temperature, _LEAST_TEMPERATURE)


def redraw_temperature(temperature: float) -> float:
    """Return the temperature of titles that are drawn for a doubtful one: at least 0.3."""
    return max(temperature, _LEAST_REDRAW_TEMPERATURE)


class Chosen(NamedTuple):
    """The raw output for an article, and what it was chosen from."""

    text: str
    first: str
    """The first of the drafts: greedy, or the likeliest."""
    drafts: int = 1
    """How many were written."""


def describe_candidates(number: int, temperature: float, redraws: int = 0) -> dict[str, float | str]:
    """Return the record of the candidates: how many there are, and the temperature of those after the first."""
    if number == 1:
        if not redraws:
            return {"candidates": 1}
        return {
            "strategy": f"best of {redraws + 1} where the first is doubtful",
            "candidates": 1,
            "redraws": redraws,
            "redraw_temperature": redraw_temperature(temperature),
        }
    return {
        "strategy": f"best of {number}",
        "candidates": number,
        "candidate_temperature": candidate_temperature(temperature),
    }


@dataclass(frozen=True, slots=True)
class Standing:
    """The counts that rank a title among others for the same article; less is better, except for ``agreement``."""

    broken: tuple[str, ...]
    """Violations of the form (:func:`titlegen.metrics.contract.title_violations`)."""
    grave: int
    """Warnings of fact or language."""
    slight: int
    """Warnings of form."""
    unclean: tuple[str, ...]
    """What an editor would take out (:func:`titlegen.metrics.contract.style_violations`)."""
    agreement: float
    """Mean ROUGE-L with the other titles, 0 to 1."""

    @property
    def faults(self) -> tuple[int, int, int, int]:
        """What speaks against the title itself, whatever the others are."""
        return len(self.broken), self.grave, self.slight, len(self.unclean)

    @property
    def key(self) -> tuple[int, int, int, int, float]:
        """The sort key, the best title first."""
        return *self.faults, -self.agreement


def rank_titles(outputs: Sequence[str], facts: Facts) -> list[int]:
    """Return the indices of raw outputs for an article, the best first.

    What counts, in this order: title and nothing else, and of its first line what an editor is warned of, first in fact
    and language (numbers, names and denials that the article does not have), then in form (repetition, script, 8 to 30
    characters), clean style, and agreement: of titles drawn at random, the one that is most like the others is the
    likeliest to be like one that a person wrote, while an odd one is often wrong. Source: Kumar and Byrne, Minimum
    Bayes-Risk Decoding for Statistical Machine Translation, 2004, with ROUGE-L as the gain.
    """
    if len(outputs) < 2:  # noqa: PLR2004 - nothing to compare, and reading an article takes its time
        return list(range(len(outputs)))
    standings = judge_titles(outputs, facts)
    return sorted(range(len(outputs)), key=lambda index: standings[index].key)


def judge_titles(outputs: Sequence[str], facts: Facts) -> list[Standing]:
    """Return the standing of each raw output, by which ``rank_titles`` sorts."""
    titles = [first_line(raw)[:_MAX_READ_CHARS] for raw in outputs]
    agreements = agreement(titles)
    warned = {title: Counter(warning.kind in GRAVE for warning in find_warnings(title, facts)) for title in set(titles)}
    return [
        Standing(title_violations(raw), warned[title][True], warned[title][False], style_violations(title), likeness)
        for raw, title, likeness in zip(outputs, titles, agreements, strict=True)
    ]


def is_doubtful(raw: str, facts: Facts) -> bool:
    """Return whether it pays to draw again for a raw output.

    Of 97 titles read by hand, on which this was tried, 17 were wrong: it finds 14 of them, and 19 of the 80 others.
    """
    return any(count_doubts(raw, judge_titles([raw], facts)[0], facts))


def choose_title(first: str, drawn: Sequence[str], facts: Facts) -> int:
    """Return 0 where a doubtful raw output for an article stays, or the number of the drawn one that takes its place.

    Agreement alone replaces no title: the first one is the likeliest.
    """
    if not drawn:
        return 0
    standings = judge_titles([first, *drawn], facts)
    doubts = [count_doubts(raw, standing, facts) for raw, standing in zip((first, *drawn), standings, strict=True)]
    best = min(range(len(doubts)), key=lambda index: (doubts[index], -standings[index].agreement))
    return best if doubts[best] < doubts[0] else 0


def count_doubts(raw: str, standing: Standing, facts: Facts) -> tuple[int, int, int, int, int]:
    """Return the faults of a raw output and its unknown words (:func:`unknown_words`), the gravest first."""
    broken, grave, slight, unclean = standing.faults
    # A character too many is mended at a glance, an invented word is not.
    return broken, grave, len(unknown_words(first_line(raw)[:_MAX_READ_CHARS], facts.plain)), slight, unclean


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
