"""Pairs of a better and a worse title for one article, from a model's own candidates."""

import itertools
import json
import multiprocessing
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from titlegen.control import NO_CONTROL, Control, with_control
from titlegen.data import Example
from titlegen.data.example import read_jsonl
from titlegen.files import write_atomically
from titlegen.metrics.overlap import rouge_l
from titlegen.metrics.ranking import judge_titles
from titlegen.metrics.title_warnings import Facts
from titlegen.metrics.tokens import tokenize
from titlegen.settings import PreferSettings
from titlegen.text import first_line

# Faults with which no title is an example: another than was asked for, more than a title, grave warnings.
_FAULTLESS = (0, 0, 0)
# Overlap takes time in the square of a title's length.
_READ_CHARS = 200
# Starting processes takes longer than ranking for fewer articles.
_INLINE_TASKS, _MAX_WORKERS, _CHUNK = 200, 8, 25


@dataclass(frozen=True, slots=True)
class Pair:
    """One preference: of two titles for an article, which is the better."""

    id: str
    content: str
    chosen: str
    rejected: str
    origin: Literal["candidates", "chosen", "edited"] = "candidates"
    """The model's own candidates, or what an editor chose or edited."""


@dataclass(frozen=True, slots=True)
class Task:
    """An article for which candidates are drawn, and the control of its title."""

    example: Example
    control: Control = NO_CONTROL

    @property
    def prompt(self) -> Example:
        """The example whose content is what the model reads."""
        return with_control(self.example, self.control)


@dataclass(frozen=True, slots=True)
class Ranked:
    """One candidate with the counts that rank it."""

    raw: str
    faults: tuple[int, ...]
    value: float
    """Agreement with the other candidates and with the reference, 0 to 1."""

    def is_worse(self, best: "Ranked", distance: float) -> bool:
        """Return whether the distance to the best is large enough to learn from."""
        return self.faults > best.faults or (self.faults == best.faults and self.value <= best.value - distance)


def rank_candidates(candidates: Sequence[str], task: Task, weight: float) -> list[Ranked]:
    """Return the different candidates for an article, the best first.

    What was asked for and is not met counts first, then faults (:func:`titlegen.metrics.ranking.rank_titles`).
    ``weight`` is that of the ROUGE-L with the reference, where there is one that meets the control, against the
    agreement among the candidates, in which one that was drawn often counts as often.
    """
    example, control = task.example, task.control
    words = tokenize(example.title) if weight and not control.unmet(example.title) else []

    standings = judge_titles(candidates, Facts(example.content))
    found: dict[str, Ranked] = {}
    for raw, standing in zip(candidates, standings, strict=True):
        title, value = first_line(raw), standing.agreement
        if words:
            value = weight * rouge_l(tokenize(title[:_READ_CHARS]), words).f1 + (1 - weight) * value
        found[raw.strip()] = Ranked(raw, (len(control.unmet(title)), *standing.faults), value)
    return sorted(found.values(), key=lambda one: (one.faults, -one.value))


def make_pairs(tasks: Sequence[Task], candidates: Sequence[Sequence[str]], settings: PreferSettings) -> list[Pair]:
    """Return up to ``settings.pairs`` pairs for each task: its best candidate over worse ones.

    The worse ones lie evenly from the worst upwards, each ``settings.distance`` below the best or with more faults, and
    are about as long, unless a length was asked for: the likelihood of a short title is a shorter sum, and the model
    would learn to write short ones. A task whose best candidate is not what was asked for, or not faultless in title
    and fact, gives none.
    """
    pairs = []
    for task, ranked in zip(tasks, _rank_all(tasks, candidates, settings.reference_weight), strict=True):
        best = ranked[0]
        worse = [one for one in ranked[1:] if one.is_worse(best, settings.distance)]
        if task.control.chars is None:
            worse = [one for one in worse if abs(len(one.raw) - len(best.raw)) <= settings.length_gap]
        if best.faults[:3] != _FAULTLESS or not worse:
            continue
        prompt = task.prompt
        wanted = min(settings.pairs, len(worse))
        places = [len(worse) - 1 - (number * len(worse)) // wanted for number in range(wanted)]
        pairs += [Pair(prompt.id, prompt.content, best.raw, worse[place].raw) for place in places]
    return pairs


def _rank_all(tasks: Sequence[Task], candidates: Sequence[Sequence[str]], weight: float) -> Iterable[list[Ranked]]:
    """Yield the ranked candidates of each task, of many on several cores: each title is checked for its faults."""
    if len(tasks) < _INLINE_TASKS:
        yield from map(rank_candidates, candidates, tasks, itertools.repeat(weight))
        return
    workers = min(os.cpu_count() or 1, _MAX_WORKERS)
    # Spawned: a copy of a process that holds a GPU cannot be used.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(rank_candidates, candidates, tasks, itertools.repeat(weight), chunksize=_CHUNK)


def write_pairs(pairs: Sequence[Pair], path: Path) -> None:
    """Write pairs as JSON lines."""
    write_atomically(path, "".join(json.dumps(asdict(pair), ensure_ascii=False) + "\n" for pair in pairs))


def read_pairs(path: Path) -> list[Pair]:
    """Return the pairs that :func:`write_pairs` wrote."""
    return [Pair(**record) for _, record in read_jsonl(path)]
