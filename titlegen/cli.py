"""The verbs of the command line; the work is in the modules below."""

import dataclasses
import json
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import cyclopts

from titlegen import console
from titlegen.app import AsJson, Options, Remake, app, bring_up_to_date, emit, run
from titlegen.console import EXIT_DONE, EXIT_GATE
from titlegen.errors import ConfigError
from titlegen.results import Verified, read_result
from titlegen.settings import load_settings


@app.command
def prepare(*, settings: Options = None, as_json: AsJson = False) -> int:
    """Clean, filter and split the data set."""
    return bring_up_to_date(settings, "prepare", as_json=as_json)


@app.command
def train(*, settings: Options = None, as_json: AsJson = False) -> int:
    """Fit the adapter (prepares the data first when needed); an interrupted run resumes."""
    return bring_up_to_date(settings, "train", as_json=as_json)


@app.command
def prefer(*, settings: Options = None, as_json: AsJson = False) -> int:
    """Train the adapter further on its own best titles (trains first when needed); later commands know it."""
    given = settings or load_settings()
    enabled = {**dict(given.given.get("prefer", {})), "enabled": True}
    return bring_up_to_date(load_settings(**{**given.given, "prefer": enabled}), "prefer", as_json=as_json)


@app.command
def export(*, settings: Options = None, as_json: AsJson = False) -> int:
    """Merge the adapter into the base model, convert it to GGUF and verify both (trains first when needed)."""
    from titlegen import stages, summary

    run = summary.open_run(settings or load_settings(), "export")
    stages.bring_up_to_date(run, *stages.PIPELINE)
    made = [run.done[stage.name] for stage in (stages.MERGE, stages.CONVERT, stages.VERIFY)]
    emit(
        {stage.name: stage.manifest.results for stage in made}, "\n".join(map(summary.describe, made)), as_json=as_json
    )
    return EXIT_DONE


@app.command
def evaluate(*, settings: Options = None, against: Path | None = None, as_json: AsJson = False) -> int:
    """Generate titles for a split, score them and write the report; exit code 1 when a gate fails.

    Args:
        settings: all settings.
        against: another report.json to compare with, article by article.
        as_json: print the report as one JSON object.
    """
    from titlegen import scoring, summary

    run = summary.open_run(settings or load_settings(), "evaluate")
    scored = scoring.evaluate(run, against=against)
    emit(scored.manifest.results, summary.describe_evaluation(run, scored), as_json=as_json)
    return EXIT_GATE if scoring.failed_gates(scored) else EXIT_DONE


@app.command
def verify(
    directory: Path | None = None,
    *,
    settings: Options = None,
    base: Path | None = None,
    adapter: Path | None = None,
    modelfile: Path | None = None,
    as_json: AsJson = False,
) -> int:
    """Prove that the export is the trained model and that its prompt is served as it was trained.

    Args:
        directory: check this model directory, whoever made it, and the GGUF files in it, instead of the export.
        settings: all settings.
        base: directory of its base model; without it, what only a comparison shows is left out.
        adapter: directory of the adapter that was merged into it.
        modelfile: compare this Modelfile, whoever wrote it, with the directory's chat template, token by token.
        as_json: print every check as one JSON object.
    """
    from titlegen import stages, summary
    from titlegen.verify import require
    from titlegen.verify.directory import verify_directory

    if directory is None and (base or adapter or modelfile):
        raise ConfigError("--base, --adapter and --modelfile belong to a directory; name it with --directory")
    run = summary.open_run(settings or load_settings(), "verify")
    if directory is None:
        manifest = stages.bring_up_to_date(run, *stages.PIPELINE).manifest
        emit(manifest.results, summary.describe_checks(read_result(Verified, manifest).checks), as_json=as_json)
        return EXIT_DONE
    checks = verify_directory(directory, base, adapter, modelfile, greedy_articles=run.settings.export.verify_articles)
    emit(Verified(checks=checks).as_json(), summary.describe_checks(checks), as_json=as_json)
    require(checks)
    return EXIT_DONE


@app.command
def push(
    *,
    settings: Options = None,
    dry_run: Annotated[bool, cyclopts.Parameter(negative="")] = False,
    verify_only: str | None = None,
    remake: Remake = False,
    as_json: AsJson = False,
) -> int:
    """Publish the exported model to the Hub and prove that what arrived is what was sent.

    Args:
        settings: all settings.
        dry_run: print what would be uploaded, and upload nothing.
        verify_only: compare this repository (ORG/NAME) with the local export, and upload nothing.
        remake: first make again what was made with other settings, from other files or by another release.
        as_json: print one JSON object.
    """
    from titlegen import release, summary

    run = summary.open_run(settings or load_settings(), "push", remake=remake)
    if dry_run and verify_only is None:
        planned = release.preview_push(run)
        emit(planned, json.dumps(planned, indent=2), as_json=as_json)
        return EXIT_DONE
    result = release.push(run) if verify_only is None else release.verify_remote(run, verify_only)
    emit(result.as_json(), summary.describe_push(result), as_json=as_json)
    return EXIT_DONE


@app.command
def deploy(
    *,
    settings: Options = None,
    rollback: Annotated[bool, cyclopts.Parameter(negative="")] = False,
    remake: Remake = False,
    as_json: AsJson = False,
) -> int:
    """Create the model on the Ollama server, smoke-test it and switch over to it.

    Args:
        settings: all settings.
        rollback: go back to the previous version of the model instead.
        remake: first make again what was made with other settings, from other files or by another release.
        as_json: print one JSON object.
    """
    from titlegen import release, summary

    run = summary.open_run(settings or load_settings(), "deploy", remake=remake or rollback)
    result = release.rollback(run.settings) if rollback else release.deploy(run)
    emit(result.as_json(), summary.describe_deployment(result), as_json=as_json)
    return EXIT_DONE


@app.command
def generate(  # noqa: PLR0913 - one for each option
    # A single hyphen is no option.
    article: Annotated[str, cyclopts.Parameter(allow_leading_hyphen=True)],
    /,
    *,
    settings: Options = None,
    out: Path | None = None,
    number: Annotated[int, cyclopts.Parameter(name="--n", validator=cyclopts.validators.Number(gte=1, lte=64))] = 1,
    concurrency: Annotated[int, cyclopts.Parameter(validator=cyclopts.validators.Number(gte=1, lte=256))] = 4,
    engine: Literal["direct", "ray"] = "direct",
    ordered: Annotated[bool, cyclopts.Parameter(negative="")] = False,
    chars: int | None = None,
    include: Annotated[tuple[str, ...], cyclopts.Parameter(negative="")] = (),
    as_json: AsJson = False,
) -> int:
    """Print a title for an article, or write one for every row of a file or folder, from the deployed model.

    A run over a file can be interrupted: the same command goes on from what is written. Exit code 1 when an article
    of the file got no title; its line in the result says why.

    Args:
        article: path of a text file, - for standard input, or with --out a file, folder or pattern as for prepare.
        settings: all settings; --data.content-column names the column that holds the article.
        out: JSONL file for the titles, in the order of the articles.
        number: titles for each article, the best first by the output contract and by numbers that the article has.
        concurrency: articles of a file that are worked on at a time; with Ray, on each server.
        engine: with ray, --out is a folder, and any number of servers, GPUs and machines works on it (docs/cluster.md).
        ordered: with --engine ray, also write all titles into one file, in the order of the articles.
        chars: most characters of the title, 13, 18, 23 or 28; at most four fewer.
        include: a word that the title has to have, as often as there are words.
        as_json: print titles, timings and token counts as one JSON object.
    """
    from titlegen import service
    from titlegen.control import Control
    from titlegen.record import serve_as_trained

    resolved = serve_as_trained(settings or load_settings())
    control = Control(chars, include)
    if out is not None or engine == "ray" or ordered:
        if control:
            raise ConfigError("--chars and --include are for one article; leave them out with --out")
        options: dict[str, int] = {"number": number, "concurrency": concurrency}
        result = service.generate_many(resolved, article, out, engine=engine, ordered=ordered, **options)
        emit(dataclasses.asdict(result), result.message, as_json=as_json)
        return EXIT_GATE if result.failed else EXIT_DONE
    answers = service.generate(resolved, article, number, control)
    best, *_ = found = [answer.as_json() for answer in answers]
    titles = "\n".join(answer.answer.title for answer in answers)
    emit(best if number == 1 else {**best, "candidates": found}, titles, as_json=as_json)
    return EXIT_DONE


@app.command
def serve(
    *,
    settings: Options = None,
    stop: Annotated[bool, cyclopts.Parameter(negative="")] = False,
    as_json: AsJson = False,
) -> int:
    """Start the model server when none answers; it outlives this command.

    Args:
        settings: all settings.
        stop: end the servers that titlegen started.
        as_json: print one JSON object.
    """
    from titlegen import service

    resolved = settings or load_settings()
    result = service.stop_servers(resolved) if stop else service.serve(resolved)
    emit(dataclasses.asdict(result), result.message, as_json=as_json)
    return EXIT_DONE


@app.command
def desk(
    *, settings: Options = None, choices: Path | None = None, pairs: Path | None = None, as_json: AsJson = False
) -> int:
    """Open the editor's desk: a page where a headline is chosen, checked and remembered.

    Args:
        settings: all settings.
        choices: write what was chosen into this .jsonl or .csv file instead.
        pairs: write pairs of titles for training into this .jsonl file instead.
        as_json: print one JSON object.
    """
    from titlegen import desk as editors_desk
    from titlegen.record import serve_as_trained

    resolved = serve_as_trained(settings or load_settings())
    if choices is None and pairs is None:
        editors_desk.serve_desk(resolved)
    else:
        result = editors_desk.export(resolved, choices, pairs)
        emit(result, result["message"], as_json=as_json)
    return EXIT_DONE


@app.command
def plan(*, settings: Options = None, rows: int | None = None, as_json: AsJson = False) -> int:
    """Say what every stage would read, write and need, in disk, memory and minutes; nothing is downloaded or changed.

    Args:
        settings: all settings.
        rows: number of articles, for a data set on the Hub other than the profile's own.
        as_json: print one JSON object.
    """
    from titlegen.plan import as_record, make_plan, table
    from titlegen.record import recall

    resolved = recall(settings or load_settings())
    stages = make_plan(resolved, rows)
    emit(as_record(resolved, stages), table(resolved, stages), as_json=as_json)
    return EXIT_DONE


@app.command
def doctor(*, settings: Options = None, as_json: AsJson = False) -> int:
    """Check this machine for a profile and say what each problem needs; exit code 1 when something is missing."""
    from titlegen.doctor import examine, table
    from titlegen.record import recall

    checks = examine(recall(settings or load_settings()))
    emit([check._asdict() for check in checks], table(checks), as_json=as_json)
    return EXIT_GATE if any(check.state == "missing" for check in checks) else EXIT_DONE


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code (:func:`titlegen.console.run`)."""
    if argv is None:
        console.prepare_process()
    return console.run(partial(run, sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    sys.exit(main())
