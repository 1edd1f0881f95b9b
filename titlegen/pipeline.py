"""The stages in order: each brings those before it up to date, and runs only when something it depends on changed."""

import dataclasses
import sys
import time
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from titlegen.errors import ServeError
from titlegen.manifest import (
    Manifest,
    digest_file,
    digest_json,
    is_up_to_date,
    new_directory,
    read_manifest,
    stage_key,
    write_manifest,
)
from titlegen.models import fingerprint, resolve_base
from titlegen.settings import EMBEDDED, Settings


@dataclasses.dataclass(frozen=True)
class StageRun:
    """What one stage did: its directory, its manifest, and whether it had anything to do."""

    name: str
    directory: Path
    manifest: Manifest
    fresh: bool

    @property
    def results(self) -> dict[str, Any]:
        """What the stage found out."""
        return self.manifest.results


def say(text: str) -> None:
    """Print one line of progress for a person; stdout stays free for results."""
    print(text, file=sys.stderr, flush=True)


def run_stage(
    name: str,
    directory: Path,
    settings: Mapping[str, Any],
    inputs: Mapping[str, str],
    build: Callable[[Path], dict[str, Any]],
) -> StageRun:
    """Run a stage unless its directory already holds the result for these settings and inputs.

    The stage writes into a temporary directory that takes its place when it is done, so a failure leaves the
    previous result as it was.
    """
    key = stage_key(name, settings, inputs)
    if is_up_to_date(directory, key):
        say(f"{name}: up to date ({directory})")
        return StageRun(name, directory, read_manifest(directory), fresh=False)
    say(f"{name}: running")
    started = time.monotonic()
    with new_directory(directory) as temporary:
        results = build(temporary)
        elapsed = round(time.monotonic() - started, 2)
        manifest = write_manifest(temporary, name, settings, inputs, {**results, "elapsed_s": elapsed})
    say(f"{name}: done in {elapsed:.1f} s ({directory})")
    return StageRun(name, directory, manifest, fresh=True)


def prepare(settings: Settings) -> StageRun:
    """Clean, filter and split the data set into ``data/``."""
    from titlegen import data

    base = resolve_base(settings.model)
    tokenizer = base / "tokenizer.json"
    return run_stage(
        "prepare",
        settings.directory / "data",
        # The number of workers changes the speed and nothing else.
        settings.data.model_dump(mode="json", exclude={"workers"}),
        {"source": _source_digest(settings), "tokenizer": digest_file(tokenizer)},
        lambda directory: data.prepare(settings.data, tokenizer, directory),
    )


def train(settings: Settings) -> StageRun:
    """Fit the adapter into ``lora/``; an interrupted run goes on from its last checkpoint."""
    from titlegen import data
    from titlegen.train import check_backend, fit

    check_backend(settings.train)
    prepared = prepare(settings)
    base = resolve_base(settings.model)
    stage_settings = settings.train.model_dump(mode="json")
    inputs = {"data": prepared.manifest.digest, "base": fingerprint(base)}
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
    from titlegen.export import gguf_name, merge_adapter, write_gguf

    trained = train(settings)
    base = resolve_base(settings.model)
    merged = run_stage(
        "merge",
        settings.directory / "final-hf",
        settings.export.model_dump(mode="json", exclude={"gguf_types"}),
        {"adapter": trained.manifest.digest, "base": fingerprint(base)},
        lambda directory: merge_adapter(base, trained.directory, settings.export, directory),
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
    from titlegen import data
    from titlegen.verify import require
    from titlegen.verify import verify as run_checks

    merged, converted = export(settings)
    check_files(merged.directory, merged.manifest)
    check_files(converted.directory, converted.manifest)
    base = resolve_base(settings.model)

    def build(directory: Path) -> dict[str, Any]:
        examples = data.load_split(settings.directory / "data", "test")
        checks = run_checks(
            merged.directory,
            base,
            settings.directory / "lora",
            sorted(converted.directory.glob("*.gguf")),
            [example.content for example in examples],
            [example.title for example in examples],
            greedy_articles=settings.export.verify_articles,
        )
        results = require(checks)
        write_atomically(directory / "checks.json", json.dumps(results, indent=2, ensure_ascii=False) + "\n")
        return results

    return run_stage(
        "verify",
        settings.directory / "verify",
        settings.export.model_dump(mode="json", include={"verify_articles"}),
        {"merged": merged.manifest.digest, "gguf": converted.manifest.digest},
        build,
    )


def evaluate(settings: Settings, against: Path | None = None) -> StageRun:
    """Generate titles for a split, score them beside the baselines, and write ``report/`` (``report-served/``)."""
    from titlegen import data
    from titlegen import evaluate as scoring

    target = _target(settings)
    merged, converted = export(settings)
    prepared = prepare(settings)
    examples = data.load_split(prepared.directory, settings.evaluate.split)[: settings.evaluate.limit or None]
    stage_settings = settings.evaluate.model_dump(mode="json") | {"target": target}
    inputs = {"data": prepared.manifest.digest, "model": merged.manifest.digest, "gguf": converted.manifest.digest}
    if target == "server":
        stage_settings["serve"] = settings.serve.model_dump(mode="json")
    elif target not in {"merged", "adapter"}:
        inputs["predictions"] = digest_file(Path(target))
    if against is not None:
        inputs["against"] = digest_file(against)
    # Half-generated splits wait here for the next run of the same model on the same rows.
    work = settings.directory / ".predictions" / stage_key("evaluate", stage_settings, inputs)[:16]

    def build(directory: Path) -> dict[str, Any]:
        generated, described = _generate_split(settings, target, examples, merged.directory, work)
        base_titles = _base_titles(settings, examples, prepared.manifest.digest) if settings.evaluate.base_model else None
        report = scoring.evaluate(
            examples, generated, settings.evaluate, base_predictions=base_titles, generation=described
        )
        scoring.write_report(report, directory, against=against)
        return {"target": target, "report": json.loads((directory / "report.json").read_bytes())}

    name = "report-served" if target == "server" else "report"
    run = run_stage("evaluate", settings.directory / name, stage_settings, inputs, build)
    shutil.rmtree(work, ignore_errors=True)
    return run


def push(settings: Settings, *, dry_run: bool = False, verify_only: str | None = None) -> dict[str, Any]:
    """Publish the export, or with ``dry_run`` say what would be published, or compare a repository with the export."""
    from titlegen import hub

    merged, converted = export(settings)
    target = hub.ensure_hub(settings.hub, settings.output / "run", settings.profile)
    say(f"push: {target.describe()}")
    artefacts = hub.Artefacts(
        export=merged.directory,
        gguf=converted.directory,
        report=settings.directory / "report",
        adapter=settings.directory / "lora",
        data=settings.directory / "data",
    )
    if verify_only is not None:
        return hub.verify_remote(target, verify_only, artefacts, settings)
    if dry_run:
        return hub.plan_push(target, artefacts, settings)
    started = time.monotonic()
    result = hub.push_model(target, artefacts, settings)
    result["elapsed_s"] = round(time.monotonic() - started, 2)
    _remember(settings, "push", result)
    return result


def deploy(settings: Settings, *, rollback: bool = False) -> dict[str, Any]:
    """Put the exported model on the server and switch over to it, or go back to the previous version."""
    from titlegen import serve as serving

    state = settings.output / "run"
    if rollback:
        return serving.rollback(settings.serve, state)
    merged, converted = export(settings)
    check_files(merged.directory, merged.manifest)
    check_files(converted.directory, converted.manifest)
    started = time.monotonic()
    result = serving.deploy(merged.directory, converted.directory, settings.serve, state)
    result["elapsed_s"] = round(time.monotonic() - started, 2)
    _remember(settings, "deploy", result)
    return result


def generate(settings: Settings, article: str) -> dict[str, Any]:
    """Return the deployed model's title for an article in a file, or on standard input for ``-``."""


def serve(settings: Settings, *, stop: bool = False) -> dict[str, Any]:
    """Make sure that a server answers, or end those that titlegen started."""


def _source_digest(settings: Settings) -> str:
    source = settings.data.source
    if source == EMBEDDED:
        folder = resources.files("titlegen") / "corpus"
        return digest_json(
            sorted(item.read_text(encoding="utf-8") for item in folder.iterdir() if ".jsonl" in item.name)
        )
    path = Path(source)
    if path.is_file():
        return digest_file(path)
    return digest_json([source, settings.data.revision])
