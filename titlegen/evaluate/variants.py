"""Other titles for the same articles beside a report's: before preference training, the best of many, as asked for."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from titlegen.control import Control
from titlegen.metrics.records import Text
from titlegen.metrics.scores import Contributions, compare_scores, measure_titles, score_titles
from titlegen.results import ScoredVariant

_SHOWN = ("rougeL", "bleu1", "title_only_rate", "length_rate", "number_support")


@dataclass(frozen=True)
class Variant:
    """Raw titles that were made otherwise, one for each article."""

    kind: Literal["first", "sft", "best_of", "controlled"]
    titles: Sequence[str]
    candidates: int = 1
    controls: Sequence[Control] = field(default=())
    """What each title was asked for."""


def score_variant(
    variant: Variant, texts: Sequence[Text], ours: Contributions, resamples: int, seed: int
) -> ScoredVariant:
    """Return a variant's scores, and their paired differences from the report's own titles."""
    theirs = measure_titles(variant.titles, texts)
    scores, differences = score_titles(theirs), compare_scores(theirs, ours, resamples, seed)
    asked = list(zip(variant.controls, variant.titles, strict=False))
    lengths = ["chars" not in control.unmet(title) for control, title in asked if control.chars is not None]
    words = [not set(control.include) & set(control.unmet(title)) for control, title in asked if control.include]
    return ScoredVariant(
        kind=variant.kind,
        candidates=variant.candidates,
        scores={name: scores[name] for name in _SHOWN},
        differences={name: differences[name] for name in _SHOWN},
        in_slot_share=sum(lengths) / len(lengths) if lengths else None,
        with_word_share=sum(words) / len(words) if words else None,
    )
