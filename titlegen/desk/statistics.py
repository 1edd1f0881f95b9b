"""How often the first candidate was taken, how much was edited, and where the model was wrong."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rapidfuzz.distance import LCSseq

from titlegen.desk.store import Choice

# Titles beside each other on the page, the last ones first.
_SHOWN = 200


@dataclass(frozen=True, slots=True)
class LogLine:
    """One title as it may have to be disclosed: which model made it, when, and what an editor changed."""

    time: str
    model: str
    model_digest: str
    place: int
    candidate: str
    title: str
    edited: bool
    slot: str
    number: int
    """Under which it is taken back."""
    withdrawn: str | None
    """When it was taken back."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """Of all choices that were not taken back; shares are 0 to 1."""

    made: int
    """Times that candidates were asked for."""
    chosen: int
    first_taken: float
    edited: float
    characters_changed: float
    """Of titles that were edited, the mean share of characters that did not stay."""
    wrong: dict[str, int]
    """Claims of the candidates that were taken which their article does not back, by kind."""
    wrong_kept: dict[str, int]
    """Those that stand in the title as it was kept: without a change."""
    log: tuple[LogLine, ...]
    """The last ones first, those that were taken back as well: they may have been printed."""


def summarise(choices: Sequence[Choice], made: int) -> Statistics:
    """Return the figures of the statistics page."""
    counted = [choice for choice in choices if choice.withdrawn is None]
    edited = [choice for choice in counted if choice.edited]
    wrong = Counter(kind for choice in counted for kind in choice.made.candidates[choice.place].wrong)
    kept = Counter(
        kind for choice in counted if not choice.edited for kind in choice.made.candidates[choice.place].wrong
    )
    return Statistics(
        made,
        len(counted),
        _share(sum(choice.place == 0 for choice in counted), len(counted)),
        _share(len(edited), len(counted)),
        _share(sum(map(_changed, edited)), len(edited)),
        dict(wrong),
        dict(kept),
        tuple(
            LogLine(
                choice.time,
                choice.made.model,
                choice.made.model_digest,
                choice.place + 1,
                choice.candidate,
                choice.title,
                choice.edited,
                choice.slot,
                choice.number,
                choice.withdrawn,
            )
            for choice in reversed(choices[-_SHOWN:])
        ),
    )


def _changed(choice: Choice) -> float:
    longest = max(len(choice.candidate), len(choice.title), 1)
    return 1 - LCSseq.similarity(choice.candidate, choice.title) / longest


def _share(part: float, whole: int) -> float:
    return part / whole if whole else 0.0
