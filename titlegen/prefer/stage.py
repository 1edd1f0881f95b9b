"""The whole of preference training, from the SFT adapter to the exported one; it resumes where it stopped."""

import json
import random
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from titlegen.adapter import CONFIG, WEIGHTS
from titlegen.control import draw_control
from titlegen.data import Example
from titlegen.errors import DataError
from titlegen.evaluate import generate_predictions
from titlegen.files import new_directory, write_atomically
from titlegen.generation import TransformersGenerator
from titlegen.models import family_at
from titlegen.plural import count
from titlegen.prefer.candidates import draw_candidates
from titlegen.prefer.choices import Choice, as_pairs
from titlegen.prefer.gate import decide
from titlegen.prefer.learn import learn
from titlegen.prefer.pairs import Pair, Task, make_pairs, read_pairs, write_pairs
from titlegen.results import Decision, Learned, Preferred
from titlegen.settings import EvaluateSettings, PreferSettings, TrainSettings

PAIRS = "pairs.jsonl"
_RESULTS = "results.json"


@dataclass(frozen=True)
class Articles:
    """The inputs of preference training."""

    train: Sequence[Example]
    val: Sequence[Example]
    test: Sequence[Example]
    """Looked at only to leave an editor's choices about them out."""
    further: Sequence[Example] = ()
    """Articles without titles."""
    choices: Sequence[Choice] = ()
    """The preferences of editors."""


def prefer(
    articles: Articles,
    base: Path,
    adapter: Path,
    settings: PreferSettings,
    *,
    train: TrainSettings,
    evaluation: EvaluateSettings,
    work: Path,
    directory: Path,
) -> Preferred:
    """Train an adapter on its own best titles, and write the one that is better on the validation articles.

    Args:
        articles: train articles, and those that decide.
        base: directory of the base model.
        adapter: the SFT adapter.
        settings: candidates, pairs and objective.
        train: settings that made the adapter.
        evaluation: longest title, articles at a time, resamples.
        work: folder of what is half done; it is removed at the end.
        directory: fresh folder for the adapter.

    Raises:
        DataError: no article gives a pair, or no validation article decides.
    """
    work.mkdir(parents=True, exist_ok=True)
    if not articles.val:
        raise DataError("prefer needs validation articles, for they decide; give it some with --data.val-share 0.1")
    current, trainings = adapter, list[Learned]()
    for number in range(settings.rounds):
        folder = work / f"round-{number + 1}"
        pairs = _pairs(articles, base, current, settings, train=train, evaluation=evaluation, work=folder)
        learned = folder / "preferred"
        if not learned.is_dir():
            with new_directory(learned) as temporary:
                results = learn(
                    pairs, base, current, settings, train=train, work=folder / "learning", directory=temporary
                )
                write_atomically(temporary / _RESULTS, json.dumps(results.as_json()))
        trainings.append(Learned.model_validate_json((learned / _RESULTS).read_bytes()))
        current = learned
    decision = _decide(articles.val, base, adapter, current, evaluation=evaluation, work=work)
    for path in (current if decision.accepted else adapter).iterdir():
        if path.name in {CONFIG, WEIGHTS}:
            shutil.copyfile(path, directory / path.name)
    shutil.copyfile(current.parent / PAIRS, directory / PAIRS)
    shutil.rmtree(work)
    return Preferred(
        articles=len(_some(articles.train, settings)) + len(articles.further),
        pairs=len(pairs),
        choices=sum(pair.origin != "candidates" for pair in pairs),
        rounds=trainings,
        decision=decision,
    )


def _pairs(
    articles: Articles,
    base: Path,
    adapter: Path,
    settings: PreferSettings,
    *,
    train: TrainSettings,
    evaluation: EvaluateSettings,
    work: Path,
) -> list[Pair]:
    """Return the pairs, and keep them for a call that resumes."""
    work.mkdir(parents=True, exist_ok=True)
    path = work / PAIRS
    if path.is_file():
        return read_pairs(path)
    drawn_for = [*_some(articles.train, settings), *articles.further]
    tasks = list(_tasks(drawn_for, train.control_share, settings.seed))
    drawing = evaluation.model_copy(
        update={"candidates": settings.candidates, "temperature": settings.temperature, "seed": settings.seed}
    )
    # Two drawings for one article have one id, and the order is kept by numbers.
    prompts = [Example(str(number), task.prompt.content, "", "", None) for number, task in enumerate(tasks)]
    drawn = draw_candidates(base, adapter, prompts, drawing, work / "candidates.jsonl")
    pairs = make_pairs(tasks, drawn, settings)
    known = [example.content for example in (*articles.train, *articles.further)]
    held_out = [example.content for example in (*articles.val, *articles.test)]
    pairs += as_pairs(articles.choices, known, held_out) * settings.choices_weight
    if not pairs:
        raise DataError(
            f"none of {count(len(tasks), 'article')} gives a pair: no candidate is better than another by "
            f"prefer.distance {settings.distance}; lower it, or draw more with --prefer.candidates"
        )
    write_pairs(pairs, path)
    return pairs


def _some(examples: Sequence[Example], settings: PreferSettings) -> list[Example]:
    """Return as many train articles as the settings allow, drawn."""
    if not settings.limit or len(examples) <= settings.limit:
        return list(examples)
    return random.Random(settings.seed).sample(list(examples), settings.limit)  # noqa: S311 - a sample, no secret


def _tasks(examples: Sequence[Example], control_share: float, seed: int) -> Iterable[Task]:
    """Yield every article, and a share of them again with a control."""
    source = random.Random(seed)  # noqa: S311 - a choice of articles, no secret
    for example in examples:
        yield Task(example)
        if source.random() < control_share:
            yield Task(example, draw_control(example, source))


def _decide(
    val: Sequence[Example], base: Path, adapter: Path, learned: Path, *, evaluation: EvaluateSettings, work: Path
) -> Decision:
    greedy = evaluation.model_copy(update={"candidates": 1, "temperature": 0.0})
    prompt = family_at(base).prompt.digest
    sft, preferred = (
        generate_predictions(
            TransformersGenerator(base, folder, greedy), val, work / f"{name}.jsonl", greedy.batch_size, prompt=prompt
        ).predictions
        for name, folder in (("sft", adapter), ("preferred-titles", learned))
    )
    return decide(val, sft, preferred, resamples=evaluation.resamples, seed=evaluation.seed)
