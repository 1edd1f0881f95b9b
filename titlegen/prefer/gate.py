"""Whether a preferred model may take the SFT model's place: its titles for the validation articles, paired."""

from collections.abc import Sequence

from titlegen.data import Example
from titlegen.metrics.records import Text
from titlegen.metrics.scores import compare_scores, measure_titles, score_titles
from titlegen.plural import count
from titlegen.results import Decision

# Scores that a reward can be bought with: none may fall by more, whatever the ROUGE-L.
_GUARDED = ("title_only_rate", "length_rate", "clean_rate", "number_support")
_MAX_LOSS = 0.02
_SHOWN = ("rougeL", "bleu1", *_GUARDED, "repetition", "copy_coverage")


def decide(
    examples: Sequence[Example], sft: Sequence[str], preferred: Sequence[str], *, resamples: int, seed: int
) -> Decision:
    """Compare raw titles of both models for the same articles.

    Accepted is a model whose paired difference in ROUGE-L has an interval that is not below zero, and whose rates of
    titles that are a title only, of the right length, clean, and right in their numbers fall by 0.02 at most.
    """
    texts = [Text(example.title, example.content, example.date) for example in examples]
    theirs, ours = measure_titles(sft, texts), measure_titles(preferred, texts)
    differences = compare_scores(ours, theirs, resamples, seed)
    score = differences["rougeL"]
    reasons = []
    if score.low < 0:
        reasons.append(f"rougeL changes by {score.value:+.4f} ({score.low:+.4f} to {score.high:+.4f})")
    reasons += [
        f"{name} falls by {-differences[name].value:.3f}" for name in _GUARDED if differences[name].value < -_MAX_LOSS
    ]
    before, after = score_titles(theirs), score_titles(ours)
    return Decision(
        accepted=not reasons,
        reasons=tuple(reasons),
        rows=len(examples),
        sft={name: round(before[name], 4) for name in _SHOWN},
        preferred={name: round(after[name], 4) for name in _SHOWN},
        differences={name: differences[name] for name in _SHOWN},
    )


def describe_decision(decision: Decision) -> str:
    """Return a decision in words for a person."""
    before, after, difference = decision.sft["rougeL"], decision.preferred["rougeL"], decision.differences["rougeL"]
    rows = count(decision.rows, "validation article")
    found = f"ROUGE-L {before:.3f} before and {after:.3f} after on {rows} (difference {difference.low:+.3f} to "
    found += f"{difference.high:+.3f})"
    if decision.accepted:
        return f"{found}; the preferred model is kept"
    return f"{found}; the SFT model stays: {'; '.join(decision.reasons)}"
