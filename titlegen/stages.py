"""The stages in order: each brings those before it up to date, and runs only when something it depends on changed."""

import json
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from titlegen.errors import ConfigError, DataError, TitlegenError
from titlegen.manifest import (
    check_files,
    digest_file,
    read_manifest,
    stage_key,
    write_atomically,
)
from titlegen.models import fingerprint, resolve_base
from titlegen.prompt import render_prompt
from titlegen.runs import StageRun, recall, remember, run_stage, say
from titlegen.settings import EMBEDDED, DataSettings, Settings

if TYPE_CHECKING:
    from titlegen import hub
    from titlegen.serve import Client

# Articles whose prompts and tokens are compared.
_PARITY_ARTICLES = 1000


def prepare(settings: Settings) -> StageRun:
    """Clean, filter and split the data set into ``data/``."""
    from titlegen import data

    base = resolve_base(settings.model)
    tokenizer = base / "tokenizer.json"
    run = run_stage(
        "prepare",
        settings.directory / "data",
        # The number of workers changes the speed and nothing else.
        settings.data.model_dump(mode="json", exclude={"workers"}),
        {"source": data.source_digest(settings.data), "tokenizer": digest_file(tokenizer)},
        lambda directory: data.prepare(settings.data, tokenizer, directory),
    )
    for note in run.results["notes"] if run.fresh else ():
        say(f"prepare: {note}")
    return run


def train(settings: Settings) -> StageRun:
    """Fit the adapter into ``lora/``; an interrupted run goes on from its last checkpoint."""
    from titlegen import data
    from titlegen.train import check_backend, digest_init_adapter, fit, resolve_init_adapter

    if unlocked := check_backend(settings.train):
        say(f"train: versions other than the tested ones of constraints.txt: {', '.join(unlocked)}")
    prepared = prepare(settings)
    base = resolve_base(settings.model)
    stage_settings = settings.train.model_dump(mode="json")
    inputs = {"data": prepared.manifest.digest, "base": fingerprint(base)}
    if settings.train.init_adapter is not None:
        inputs["init_adapter"] = digest_init_adapter(resolve_init_adapter(settings.train.init_adapter))
    # A checkpoint of other settings or data must not be resumed, so the folder carries the key.
    work = settings.directory / ".checkpoints" / stage_key("train", stage_settings, inputs)[:16]
    return run_stage(
        "train",
        settings.directory / "lora",
        stage_settings,
        inputs,
        lambda directory: fit(
            data.load_split(prepared.directory, "train"),
            data.load_split(prepared.directory, "val"),
            base,
            settings.train,
            work,
            directory,
        ),
    )


def export(settings: Settings) -> tuple[StageRun, StageRun]:
    """Merge the adapter into ``final-hf/`` and convert that to ``gguf/``."""
    from titlegen.data.shorten import load_counter
    from titlegen.export import gguf_name, merge_adapter, write_gguf

    trained = train(settings)
    base = resolve_base(settings.model)

    def merge(directory: Path) -> dict[str, Any]:
        around = load_counter(base / "tokenizer.json")(render_prompt(""))
        # What the client sends to the model that is served, too.
        budget = min(settings.data.max_content_tokens, settings.train.max_length - around)
        return merge_adapter(base, trained.directory, settings.export, directory) | {"content_tokens": budget}

    merged = run_stage(
        "merge",
        settings.directory / "final-hf",
        settings.export.model_dump(mode="json", exclude={"gguf_types", "verify_articles"}),
        {"adapter": trained.manifest.digest, "base": fingerprint(base)},
        merge,
    )

    def convert(directory: Path) -> dict[str, Any]:
        for kind in settings.export.gguf_types:
            write_gguf(merged.directory, kind, directory / gguf_name(kind))
        return {"types": list(settings.export.gguf_types)}

    converted = run_stage(
        "gguf",
        settings.directory / "gguf",
        settings.export.model_dump(mode="json", include={"gguf_types"}),
        {"merged": merged.manifest.digest},
        convert,
    )
    return merged, converted


def verify(settings: Settings) -> StageRun:
    """Prove that the export is base + adapter and that its prompt is served as it was trained, into ``verify/``."""
    from titlegen.verify import require
    from titlegen.verify import verify as run_checks

    merged, converted = export(settings)
    for run in (merged, converted):
        check_files(run.directory, run.manifest)
    # What the merge is compared with: a changed adapter would prove itself.
    adapter = settings.directory / "lora"
    check_files(adapter, read_manifest(adapter))
    base = resolve_base(settings.model)

    def build(directory: Path) -> dict[str, Any]:
        examples = _parity_examples(settings)
        found = run_checks(
            merged.directory,
            base,
            adapter,
            sorted(converted.directory.glob("*.gguf")),
            [example.content for example in examples],
            [example.title for example in examples],
            greedy_articles=settings.export.verify_articles,
        )
        results = require(found.checks) | {"titles": found.titles}
        write_atomically(directory / "checks.json", json.dumps(results, indent=2, ensure_ascii=False) + "\n")
        return results

    return run_stage(
        "verify",
        settings.directory / "verify",
        settings.export.model_dump(mode="json", include={"verify_articles"}),
        {"merged": merged.manifest.digest, "gguf": converted.manifest.digest},
        build,
    )


def _parity_examples(settings: Settings) -> list[Any]:
    """Return the articles on which training and serving are compared, the test split's first."""
    from titlegen import data

    splits = (data.load_split(settings.directory / "data", split) for split in ("test", "val", "train"))
    return [example for split in splits for example in split][:_PARITY_ARTICLES]


def verify_directory(settings: Settings, directory: Path, base: Path | None, adapter: Path | None) -> list[Any]:
    """Check a model directory that any tool may have made, and the GGUF files in it; nothing is written.

    Args:
        settings: how many articles' titles are compared.
        directory: the model, in safetensors.
        base: directory of the base model, None to check what holds without it.
        adapter: directory of the adapter, None to leave the merge itself unchecked.

    Raises:
        ConfigError: a directory does not exist, or an adapter is given without its base.
    """
    from titlegen.data.sources import open_source
    from titlegen.verify import verify as run_checks

    for path in filter(None, (directory, base, adapter)):
        if not path.is_dir():
            raise ConfigError(f"{path} is not a directory; give one to `titlegen verify`")
    if adapter and not base:
        raise ConfigError(f"--adapter {adapter} changes a base model; give its directory with --base")
    rows = list(open_source(DataSettings(source=EMBEDDED)).rows)
    contents, titles = [row.content for row in rows], [row.title for row in rows]
    ggufs = sorted(directory.glob("*.gguf"))
    number = settings.export.verify_articles
    return run_checks(directory, base, adapter, ggufs, contents, titles, greedy_articles=number).checks


def evaluate(settings: Settings, against: Path | None = None) -> StageRun:
    """Generate titles for a split, score them beside the baselines, and write ``report/`` (``report-served/``)."""
    from titlegen import data
    from titlegen import evaluate as scoring
    from titlegen import serve as serving

    # Before hours of training are spent on what a wrong path ends.
    target = settings.evaluate.target
    predictions_file = None if target in {"auto", "server", "merged", "adapter"} else Path(target)
    other = None if against is None else (against if against.is_dir() else against.parent) / "predictions.jsonl"
    for option, path in (("--evaluate.target", predictions_file), ("--against", other)):
        if path is not None and not path.is_file():
            raise DataError(
                f"{option}: {path} does not exist, or is no file; give the predictions.jsonl of an evaluation"
            )
    prepared = prepare(settings)
    split = settings.evaluate.split
    examples = data.load_split(prepared.directory, split)[: settings.evaluate.limit or None]
    if not examples:
        raise DataError(
            f"the {split} split is empty, and there is nothing to score; give it articles with --data.{split}-share "
            "0.1, or choose another with --evaluate.split"
        )
    merged, converted = export(settings)
    target = _target(settings)
    language = settings.report.chosen_language
    stage_settings = settings.evaluate.model_dump(mode="json") | {"target": target, "language": language}
    inputs = {"data": prepared.manifest.digest, "model": merged.manifest.digest, "gguf": converted.manifest.digest}
    if target == "server":
        stage_settings["serve"] = settings.serve.model_dump(mode="json")
        inputs["served"] = serving.served_digest(settings.serve)
        if settings.serve.source == "gguf" and not serving.is_deployed(settings.serve, converted.directory):
            say(f"evaluate: {settings.serve.model_name} on the server is not the exported model; deploy it first")
    elif predictions_file is not None:
        inputs["predictions"] = digest_file(predictions_file)
    if other is not None:
        inputs["against"] = digest_file(other)

    # A file's titles are not this model's: what is pushed is report/.
    name = {"server": "report-served", "merged": "report", "adapter": "report"}.get(target, "report-file")
    earlier = settings.directory / name

    def build(directory: Path) -> dict[str, Any]:
        kept = _kept_titles(earlier, stage_settings, inputs, examples)
        predictions, generation = kept or _generate_split(settings, target, examples)
        base_titles = _base_titles(settings, examples) if settings.evaluate.base_model else None
        report = scoring.evaluate(
            examples,
            predictions,
            settings.evaluate,
            base_predictions=base_titles,
            generation=generation,
            dataset=settings.data.source,
        )
        scoring.write_report(report, directory, against=against, language=language)
        return {"target": target, "report": json.loads((directory / "report.json").read_bytes())}

    return run_stage("evaluate", earlier, stage_settings, inputs, build)


# What changes how a report is written and not one title in it.
_WRITING = frozenset({"language", "gates", "resamples", "base_model"})


def _kept_titles(
    directory: Path, settings: Mapping[str, Any], inputs: Mapping[str, str], examples: Sequence[Any]
) -> tuple[list[str], dict[str, Any]] | None:
    """Return the titles of the report that is there, and how they came to be, when they would be the same again."""
    from titlegen import evaluate as scoring

    try:
        manifest = read_manifest(directory)
        check_files(directory, manifest)
    except TitlegenError:
        return None
    old, new = ({k: v for k, v in found.items() if k not in _WRITING} for found in (manifest.settings, settings))
    if old != new or not inputs.items() - {("against", inputs.get("against"))} <= manifest.inputs.items():
        return None
    report = json.loads((directory / "report.json").read_bytes())
    return scoring.read_predictions(directory / "predictions.jsonl", examples), report["generation"]


def failed_gates(run: StageRun) -> list[str]:
    """Return the names of the gates that an evaluation failed; an undecided gate did not fail."""
    return [gate["name"] for gate in run.results["report"]["gates"] if gate["verdict"] == "fail"]


def _target(settings: Settings) -> str:
    """Return what generates: ``auto`` is the server once the exported model is deployed there."""
    if settings.evaluate.target != "auto":
        return settings.evaluate.target
    from titlegen import serve as serving

    return "server" if serving.is_deployed(settings.serve, settings.directory / "gguf") else "merged"


def _generate_split(settings: Settings, target: str, examples: Sequence[Any]) -> tuple[list[str], dict[str, Any]]:
    from titlegen import evaluate as scoring
    from titlegen import serve as serving

    generator: Any
    if target == "server":
        digest = serving.served_digest(settings.serve)
        generator = serving.ServedGenerator(
            settings.serve,
            settings.directory / "final-hf",
            digest=digest,
            candidates=settings.evaluate.candidates,
            temperature=settings.evaluate.temperature,
        )
    elif target == "merged":
        generator = scoring.TransformersGenerator(settings.directory / "final-hf", None, settings.evaluate)
    elif target == "adapter":
        base = resolve_base(settings.model)
        generator = scoring.TransformersGenerator(base, settings.directory / "lora", settings.evaluate)
    else:
        return scoring.read_predictions(Path(target), examples), {"generator": "file", "name": Path(target).name}
    partial = settings.directory / ".predictions" / f"{target}.jsonl"
    generated = scoring.generate_predictions(generator, examples, partial, settings.evaluate.batch_size)
    partial.unlink()
    return generated.predictions, generated.description


def _base_titles(settings: Settings, examples: Sequence[Any]) -> list[str]:
    """Return the untuned model's titles; they are kept, since no later run changes them."""
    from titlegen import evaluate as scoring

    generator = scoring.TransformersGenerator(resolve_base(settings.model), None, settings.evaluate)
    partial = settings.directory / ".predictions" / "base.jsonl"
    return scoring.generate_predictions(generator, examples, partial, settings.evaluate.batch_size).predictions


def push(settings: Settings, *, dry_run: bool = False, verify_only: str | None = None) -> dict[str, Any]:
    """Publish the export, or with ``dry_run`` say what would be published, or compare a repository with the export."""
    from titlegen import hub

    published = artefacts(settings)
    # Before minutes are spent on what ends so anyway; what is compared or planned only may have failed.
    if verify_only is None and not settings.hub.allow_failed_gates:
        hub.require_gates(published)
    verify(settings)
    target = hub.ensure_hub(settings.hub, settings.output / "run", settings.profile)
    say(f"push: {target.describe()}")
    if verify_only is not None:
        return hub.verify_remote(target, verify_only, published, settings)
    if dry_run:
        return hub.plan_push(target, published, settings)
    started = time.monotonic()
    earlier = recall(settings, "push") or {}
    result = hub.push_model(target, published, settings)
    # Also when nothing was committed: the download of that commit may have failed, or never ended.
    if (earlier.get("url"), earlier.get("commit")) != (result["url"], result["commit"]):
        say("push: downloading what arrived, and comparing a title")
        article = _parity_examples(settings)[0].content
        hub.check_download(target, article, revision=result["commit"], export=published.export)
    result["elapsed_s"] = round(time.monotonic() - started, 2)
    remember(settings, "push", result)
    return result


def artefacts(settings: Settings) -> "hub.Artefacts":
    """Return the directories of what is published."""
    from titlegen import hub

    return hub.Artefacts(
        export=settings.directory / "final-hf",
        gguf=settings.directory / "gguf",
        report=settings.directory / "report",
        adapter=settings.directory / "lora",
        data=settings.directory / "data",
        verification=settings.directory / "verify",
        card=settings.directory / "model-card.md",
    )


def deploy(settings: Settings, *, rollback: bool = False) -> dict[str, Any]:
    """Put the exported model on the server and switch over to it, or go back to the previous version."""
    from titlegen import serve as serving

    state = settings.output / "run"
    if rollback:
        return serving.rollback(settings.serve, state)
    verified = verify(settings)
    started = time.monotonic()
    folders = (settings.directory / "final-hf", settings.directory / "gguf")
    is_exported = settings.serve.source == "gguf"
    accept = partial(_check_served, settings, verified.results["titles"]) if is_exported else None
    result = serving.deploy(*folders, settings.serve, state, say, accept)
    result["parity"] = result.pop("accepted")
    result["elapsed_s"] = round(time.monotonic() - started, 2)
    remember(settings, "deploy", result)
    return result


def _check_served(settings: Settings, titles: Sequence[str], client: "Client") -> dict[str, Any]:
    """Compare the greedy titles of a model on the server with those of the merged model.

    Raises:
        VerifyError: too few are equal.
    """
    from titlegen.verify import check_served, require

    say("deploy: comparing the new model's titles with the merged model's")
    examples = _parity_examples(settings)[: len(titles)]
    served = [client.ask(example.content, {"temperature": 0.0}).raw for example in examples]
    kind = settings.serve.quantize or settings.export.gguf_types[0]
    check: dict[str, Any] = require([check_served(served, titles, kind.upper())])["checks"][0]
    return check
