"""What a person sees of a run: a line on each stage, the table of stages and scores, the checks."""

from collections.abc import Callable, Sequence

from titlegen.errors import ConfigError
from titlegen.manifest import MANIFEST, Manifest, read_manifest
from titlegen.plural import count
from titlegen.record import MADE_BY, given_profile, made_by, profiles_made, recall, with_whole_paths
from titlegen.release import kept_result
from titlegen.results import (
    Check,
    ConvertedFiles,
    Deployed,
    Evaluated,
    Gate,
    Merged,
    Preferred,
    Prepared,
    Pushed,
    Result,
    Trained,
    Verified,
    read_result,
)
from titlegen.runs import Folder, Run, StageRun, describe_left_out, say
from titlegen.settings import Settings
from titlegen.stages import PIPELINE

FOLDERS = {
    **{stage.name: stage.folder for stage in PIPELINE},
    "evaluate": Folder.REPORT,
    "evaluate served": Folder.SERVED_REPORT,
}


def open_run(given: Settings, verb: str, *, remake: bool = True) -> Run:
    """Return a run with what the output remembers and what is given now, and say what is in use.

    Raises:
        ConfigError: the record cannot be read, or all that is there is of another profile and must not be made again.
    """
    run = Run(recall(given), remake=remake)
    announce(run.settings, verb)
    _say_remembered(given, run.settings, remake=remake)
    return run


def announce(settings: Settings, verb: str) -> None:
    """Say which profile, base model and device are about to be used."""
    backend = {"peft": "TRL and PEFT", "unsloth": "Unsloth on CUDA"}[settings.train.backend]
    say(
        f"titlegen {verb}: profile {settings.profile}, data {settings.data.source}, base model {settings.model.base}, "
        f"training with {backend}, output {settings.directory}"
    )


def describe(run: StageRun) -> str:
    """Return one line on a stage for a person."""
    state = f"done in {read_result(Result, run.manifest).elapsed_s:.1f} s" if run.fresh else "up to date"
    return f"{run.name}: {state}; {run.directory}"


def describe_checks(checks: Sequence[Check]) -> str:
    """Return one line for each check: what was compared, the figure and its bound; then the faults."""
    rows = [
        (check.name, "passed" if check.passed else "FAILED", check.figure, check.bound, check.compared)
        for check in checks
    ]
    lines = _aligned([("check", "verdict", "found", "bound", "compared"), *rows])
    return "\n".join([*lines, *(f"{check.name}: {check.detail}" for check in checks if not check.passed)])


def table(settings: Settings) -> str:
    """Return the table of what stands in the output folder: time, place and result of every stage."""
    rows = []
    for name, folder in FOLDERS.items():
        if (settings.directory / folder / MANIFEST).is_file():
            manifest = read_manifest(settings.directory / folder)
            elapsed_s = read_result(Result, manifest).elapsed_s
            rows.append((name, f"{elapsed_s:.1f} s", str(settings.directory / folder), _FACTS[name](manifest)))
    if pushed := kept_result(settings, "push", Pushed):
        rows.append(("push", f"{pushed.elapsed_s:.1f} s", pushed.url, f"{count(pushed.files, 'file')} verified"))
    if deployed := kept_result(settings, "deploy", Deployed):
        rows.append(("deploy", f"{deployed.elapsed_s:.1f} s", deployed.host, deployed.model))
    return "\n".join(_aligned([("stage", "time", "where", "what"), *rows]))


def _prepared(manifest: Manifest) -> str:
    results = read_result(Prepared, manifest)
    parts = [f"{count} {split}" for split, count in results.splits.items()]
    return ", ".join(filter(None, [*parts, describe_left_out(results)]))


def _trained(manifest: Manifest) -> str:
    results = read_result(Trained, manifest)
    facts, before = [count(results.steps, "step")], results.val_loss_at_start
    # A model that has learned already stays at its level, where batches differ more than a training changes.
    if results.first_loss is not None and results.last_loss is not None and before is None:
        facts.append(f"training loss {results.first_loss:.2f} to {results.last_loss:.2f}")
    if results.val_loss is not None:
        facts.append(f"validation loss {'' if before is None else f'{before:.2f} to '}{results.val_loss:.2f}")
    return ", ".join(filter(None, [*facts, describe_left_out(results)]))


def _preferred(manifest: Manifest) -> str:
    results = read_result(Preferred, manifest)
    taken = "the preferred model is kept" if results.decision.accepted else "the SFT model stays"
    return f"{count(results.pairs, 'pair')}, {taken}"


def _merged(manifest: Manifest) -> str:
    results = read_result(Merged, manifest)
    return f"{results.merged_tensors} of {results.tensors} tensors changed"


def _converted(manifest: Manifest) -> str:
    return ", ".join(read_result(ConvertedFiles, manifest).types)


def _verified(manifest: Manifest) -> str:
    return f"{count(len(read_result(Verified, manifest).checks), 'check')} passed"


def _evaluated(manifest: Manifest) -> str:
    return count(read_result(Evaluated, manifest).report.rows, "article")


# What each stage produced, in a few words.
_FACTS: dict[str, Callable[[Manifest], str]] = {
    "prepare": _prepared,
    "train": _trained,
    "prefer": _preferred,
    "merge": _merged,
    "gguf": _converted,
    "verify": _verified,
    "evaluate": _evaluated,
    "evaluate served": _evaluated,
}


def describe_evaluation(run: Run, scored: StageRun) -> str:
    """Return the scores, under the table of all stages where anything was made."""
    made = any(result.fresh for result in run.done.values())
    lines = [*_score_lines(scored), "", f"report: {scored.directory / 'report.html'}"]
    return "\n".join([table(run.settings), "", *lines] if made else lines)


def describe_push(result: Pushed) -> str:
    """Return where the model is, and what of it was verified."""
    state = "" if result.committed else ", which it held before"
    return f"{result.url} holds {count(result.verified_files, 'verified file')} at {result.commit[:12]}{state}"


def describe_deployment(result: Deployed) -> str:
    """Return what answers where, and a command to try it."""
    return f"{result.model} answers at {result.host}\nTry it:\n  {result.curl}"


def _score_lines(scored: StageRun) -> list[str]:
    """Return the scores of a report beside those of the baselines on the same articles."""
    # Scoring and reports take a while to import, and most verbs show no scores.
    from titlegen.evaluate.words import Words
    from titlegen.metrics.records import GATED

    results = read_result(Evaluated, scored.manifest)
    report = results.report
    columns = {"this model": {name: report.scores[name].value for name in GATED}}
    columns |= {
        label: report.baselines[key]
        for label, key in (("untuned", "base_model"), ("Lead-1", "lead1"), ("oracle", "oracle"))
        if report.baselines.get(key)
    }
    limits = [_verdicts(report.gates), _verdicts(report.specification)]
    rows = [(f"score ({results.target})", *columns, "gate", "specification")]
    rows += [
        (name, *(f"{column[name]:.3f}" for column in columns.values()), *(found.get(name, "-") for found in limits))
        for name in GATED
    ]
    words = Words("en")
    measured = words(f"measured.short_{report.dataset.kind}", rows=report.rows)
    lines = [*_aligned(rows), f"measured on {measured}"]
    return [*lines, *(f"{gate.name} failed: {words.advise(gate.name)}" for gate in report.failed)]


def _verdicts(gates: Sequence[Gate]) -> dict[str, str]:
    return {gate.name: f"{gate.verdict} ({gate.limit:g})" for gate in gates}


def _say_remembered(given: Settings, recalled: Settings, *, remake: bool) -> None:
    """Say which settings the output remembers, and that another profile was used where none was chosen.

    Raises:
        ConfigError: all that stands in the output is of another profile, in a run that may not make anything again.
    """
    without = with_whole_paths(given)
    kept = [
        f"{name} = {value}"
        for section in MADE_BY
        for name, value in made_by(recalled, section).items()
        if value != made_by(without, section)[name]
    ]
    if kept:
        say(f"as {recalled.directory} was made: {', '.join(kept)}")
    others = profiles_made(recalled.output)
    if others and not given_profile(given) and not recalled.directory.is_dir():
        if not remake:
            raise ConfigError(
                f"nothing was made of profile {recalled.profile} in {recalled.output}, but of {others[0]}: name it "
                f"with --profile {others[0]}, or add --remake to make {recalled.profile} first"
            )
        say(f"profile {recalled.profile}; {recalled.output} also holds what was made of {others[0]}")


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
