"""The last stage: titles for a split, from any generator, scored beside the baselines."""

import contextlib
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from titlegen.control import draw_control, with_control
from titlegen.errors import DataError, TitlegenError
from titlegen.files import digest_file
from titlegen.manifest import check_files, read_manifest
from titlegen.results import Evaluated, read_result
from titlegen.runs import Folder, Run, Stage, StageRun, say
from titlegen.stages import CONVERT, PREFER, PREPARE, adapter_stage, bring_up_to_date, stages_up_to

if TYPE_CHECKING:
    from titlegen import evaluate as scoring
    from titlegen.data import Example

# Number of candidates whose best is scored beside the first.
_BEST_OF = 8
# Settings that change how a report is written, and none of its titles.
_WRITING = frozenset({"language", "gates", "resamples", "base_model"})
_FOLDERS = {"server": Folder.SERVED_REPORT, "merged": Folder.REPORT, "adapter": Folder.REPORT}


def evaluate(run: Run, against: Path | None = None) -> StageRun:
    """Score a split's titles into ``report/``, or ``report-served/`` for those of a server.

    Titles out of a file need the prepared split alone: they are not this model's, and no model is asked.

    Args:
        run: this run.
        against: directory or report.json of another evaluation, to compare with article by article.

    Raises:
        DataError: a file of titles does not exist, or the split is empty.
    """
    target = run.settings.evaluate.target
    other = None if against is None else (against if against.is_dir() else against.parent) / "predictions.jsonl"
    # Checked first, before hours of training are lost to a wrong path.
    for option, path in (("--evaluate.target", None if _generates(target) else Path(target)), ("--against", other)):
        if path is not None and not path.is_file():
            raise DataError(
                f"{option}: {path} does not exist, or is no file; give the predictions.jsonl of an evaluation"
            )
    bring_up_to_date(run, PREPARE)
    split = run.settings.evaluate.split
    if not _examples(run):
        raise DataError(
            f"the {split} split is empty, and there is nothing to score; give it articles with --data.{split}-share "
            "0.1, or choose another with --evaluate.split"
        )
    if _generates(target):
        bring_up_to_date(run, *stages_up_to(CONVERT))
    return bring_up_to_date(run, _scoring(run, against, other))


def failed_gates(result: StageRun) -> list[str]:
    """Return the names of the gates that an evaluation failed; an undecided gate did not fail."""
    return [gate.name for gate in read_result(Evaluated, result.manifest).report.failed]


def _generates(target: str) -> bool:
    return target in {"auto", *_FOLDERS}


def _scoring(run: Run, against: Path | None, other: Path | None) -> Stage:
    """Return the stage for what the settings ask to score, and for a comparison."""
    from titlegen import evaluate as scoring
    from titlegen import serve as serving

    settings = run.settings
    target = _target(run)
    language = settings.report.chosen_language
    # A file's titles are not this model's: what is pushed is report/.
    folder = _FOLDERS.get(target, Folder.FILE_REPORT)
    # Both change the speed and nothing else.
    values = settings.evaluate.model_dump(mode="json", exclude={"devices", "compile"})
    values |= {"target": target, "language": language}
    if target in _FOLDERS and _redraws(run):
        values["redraws"] = _redraws(run)
    if target == "server":
        values["serve"] = settings.serve.model_dump(mode="json")

    def inputs(run: Run) -> Mapping[str, str]:
        found = {"data": run.digest("prepare")}
        if _generates(target):
            found |= {"model": run.digest("merge"), "gguf": run.digest("gguf"), "prompt": run.prompt_digest}
        else:
            found["predictions"] = digest_file(Path(target))
        if target == "server":
            found["served"] = serving.served_digest(settings.serve)
        return found if other is None else found | {"against": digest_file(other)}

    def build(run: Run, directory: Path) -> Evaluated:
        examples = _examples(run)
        kept = _kept_titles(run.folder(folder), values, inputs(run), examples)
        titles = kept or _titles(run, target, examples)
        has_base = settings.evaluate.base_model and _generates(target)
        base_titles = _base_titles(run, examples) if has_base else None
        report = scoring.evaluate(
            examples,
            titles.predictions,
            settings.evaluate,
            base_predictions=base_titles,
            generation=titles.description,
            dataset=settings.data.source,
            firsts=titles.firsts,
            variants=_variants(run, target, examples),
        )
        written = scoring.write_report(report, directory, against=against, language=language)
        return Evaluated(target=target, report=written)

    is_exported = target == "server" and settings.serve.source == "gguf"
    if is_exported and not serving.is_deployed(settings.serve, run.folder(Folder.GGUF)):
        say(f"evaluate: {settings.serve.model_name} on the server is not the exported model; deploy it first")
    return Stage(
        "evaluate",
        folder,
        settings=lambda _: values,
        inputs=inputs,
        build=build,
        revision=2,
    )


def _kept_titles(
    directory: Path, settings: Mapping[str, object], inputs: Mapping[str, str], examples: "Sequence[Example]"
) -> "scoring.Generation | None":
    """Return the titles of the existing report and how they were generated, when they would be the same again."""
    from titlegen import evaluate as scoring

    try:
        manifest = read_manifest(directory)
        check_files(directory, manifest)
        generation = read_result(Evaluated, manifest).report.generation
    except TitlegenError:
        return None
    old, new = ({k: v for k, v in found.items() if k not in _WRITING} for found in (manifest.settings, settings))
    if old != new or not inputs.items() - {("against", inputs.get("against"))} <= manifest.inputs.items():
        return None
    path = directory / "predictions.jsonl"
    firsts = scoring.read_predictions(path, examples, "first")
    return scoring.Generation(scoring.read_predictions(path, examples), generation, firsts)


def _target(run: Run) -> str:
    """Return the target to score: ``auto`` is the server once the exported model is deployed there."""
    settings = run.settings
    if settings.evaluate.target != "auto":
        return settings.evaluate.target
    from titlegen import serve as serving

    return "server" if serving.is_deployed(settings.serve, run.folder(Folder.GGUF)) else "merged"


def _examples(run: Run) -> "list[Example]":
    from titlegen import data

    evaluation = run.settings.evaluate
    return data.load_split(run.folder(Folder.DATA), evaluation.split)[: evaluation.limit or None]


def _redraws(run: Run) -> int:
    """Return how many titles are drawn where one is doubtful: as for users, unless the best of several is scored."""
    return run.settings.serve.redraws if run.settings.evaluate.candidates == 1 else 0


def _titles(run: Run, target: str, examples: "Sequence[Example]") -> "scoring.Generation":
    """Return the titles that a target writes for the examples, and how it wrote them."""
    from titlegen import evaluate as scoring
    from titlegen import serve as serving
    from titlegen.generation import open_generator

    settings = run.settings
    partial = run.folder(Folder.PREDICTIONS) / f"{target}.jsonl"
    with contextlib.ExitStack() as stack:
        generator: scoring.Generator
        if target == "server":
            generator = serving.ServedGenerator(
                settings.serve,
                run.folder(Folder.EXPORT),
                digest=serving.served_digest(settings.serve),
                candidates=settings.evaluate.candidates,
                temperature=settings.evaluate.temperature,
            )
        elif target == "merged":
            generator = stack.enter_context(
                open_generator(run.folder(Folder.EXPORT), None, settings.evaluate, _redraws(run))
            )
        elif target == "adapter":
            generator = stack.enter_context(
                open_generator(run.base, run.folder(adapter_stage(run).folder), settings.evaluate, _redraws(run))
            )
        else:
            titles = scoring.read_predictions(Path(target), examples)
            return scoring.Generation(titles, {"generator": "file", "name": Path(target).name}, titles)
        generated = scoring.generate_predictions(
            generator, examples, partial, settings.evaluate.batch_size, prompt=run.prompt_digest
        )
    partial.unlink()
    return generated


def _variants(run: Run, target: str, examples: "Sequence[Example]") -> "list[scoring.Variant]":
    """Return the variants that are scored beside a preferred model, or one that takes requests for length and words.

    Their titles are kept like the untuned model's, and generated again when a model changes.
    """
    from titlegen import evaluate as scoring
    from titlegen.generation import TransformersGenerator

    settings = run.settings.evaluate
    folders = {
        "merged": (run.folder(Folder.EXPORT), None),
        "adapter": (run.base, run.folder(adapter_stage(run).folder)),
    }
    if target not in folders:
        return []

    def write(name: str, model: tuple[Path, Path | None], given: "Sequence[Example]", candidates: int) -> list[str]:
        # Titles that were asked for are not drawn again.
        redraws = 0 if name == "controlled" else _redraws(run)
        generator = TransformersGenerator(*model, settings.model_copy(update={"candidates": candidates}), redraws)
        partial = run.folder(Folder.PREDICTIONS) / f"{name}.jsonl"
        size = settings.batch_size
        return scoring.generate_predictions(generator, given, partial, size, prompt=run.prompt_digest).predictions

    found = []
    if PREFER.applies(run):
        titles = write("sft", (run.base, run.folder(Folder.ADAPTER)), examples, settings.candidates)
        found.append(scoring.Variant("sft", titles, settings.candidates))
        if settings.candidates < _BEST_OF:
            titles = write("best_of", folders[target], examples, _BEST_OF)
            found.append(scoring.Variant("best_of", titles, _BEST_OF))
    if run.settings.train.control_share:
        controls = [draw_control(example, random.Random(example.id)) for example in examples]  # noqa: S311 - a sample
        asked = [with_control(example, control) for example, control in zip(examples, controls, strict=True)]
        titles = write("controlled", folders[target], asked, settings.candidates)
        found.append(scoring.Variant("controlled", titles, settings.candidates, controls))
    return found


def _base_titles(run: Run, examples: "Sequence[Example]") -> list[str]:
    """Return the untuned model's titles; they are kept, since no later run changes them."""
    from titlegen import evaluate as scoring
    from titlegen.generation import open_generator

    partial = run.folder(Folder.PREDICTIONS) / "base.jsonl"
    size = run.settings.evaluate.batch_size
    with open_generator(run.base, None, run.settings.evaluate) as generator:
        return scoring.generate_predictions(generator, examples, partial, size, prompt=run.prompt_digest).predictions
