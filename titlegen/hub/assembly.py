"""The contents of a push: the export with its card, proofs and serving files, in one folder."""

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from titlegen.errors import GateError, HubError
from titlegen.evaluate.words import Words
from titlegen.files import digest_file, write_atomically
from titlegen.hub.card import DATA_CARD, REPORT, CardFacts, read_preference, read_report, render_card
from titlegen.manifest import MANIFEST, FileRecord, Manifest, check_files, read_manifest, stage_key
from titlegen.modelfile import render_modelfile
from titlegen.models import family_at
from titlegen.prompt import SYSTEM, PromptFormat
from titlegen.results import DataCardSummary, Verified, read_result
from titlegen.settings import ServeSettings, Settings

CARD = "README.md"
_ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
_MAX_CARD_BYTES = 2**24


@dataclass(frozen=True)
class Artefacts:
    """The directories of one run that are published; report, adapter and data may be absent."""

    export: Path
    gguf: Path
    report: Path
    adapter: Path
    data: Path
    verification: Path | None = None
    """Directory of the verify stage; when given, it must have passed for this very export."""
    card: Path | None = None
    """Where a push leaves the model card for people to read."""
    trained: Path | None = None
    """Directory of the adapter that preference training started from, where there was such training."""
    checked: frozenset[Path] = frozenset()
    """Directories whose files the caller compared with their manifests: hashing gigabytes takes its time."""

    def check(self, directory: Path, manifest: Manifest) -> None:
        """Compare the files of a directory with its manifest, unless that was done.

        Raises:
            VerifyError: a file is missing, changed or not listed.
        """
        if directory not in self.checked:
            check_files(directory, manifest)


@dataclass(frozen=True)
class Assembled:
    """A folder that is ready to upload, and what is in it."""

    folder: Path
    files: Mapping[str, FileRecord]
    """Size and SHA-256 of each file by its path in the repository."""
    failed_gates: tuple[str, ...]
    evaluated: bool

    @property
    def total_bytes(self) -> int:
        """Bytes of all files."""
        return sum(record.size for record in self.files.values())


@contextmanager
def assemble_files(artefacts: Artefacts, settings: Settings, repo_id: str) -> Iterator[Assembled]:
    """Yield a folder with everything to upload; what the stages wrote is linked there, not copied.

    Equal artefacts and settings give equal bytes, so that pushing them again changes nothing.

    Raises:
        VerifyError: the export or the GGUF files are not what their manifests say.
        GateError: a gate failed, and the settings do not allow that.
        HubError: the artefacts do not belong together.
    """
    export, gguf = _check_artefacts(artefacts, settings)
    report = read_report(artefacts.report)
    failed = tuple(gate.name for gate in report.failed) if report else ()
    if failed and not settings.hub.allow_failed_gates:
        require_gates(artefacts)
    with tempfile.TemporaryDirectory(prefix="titlegen-push-") as temporary:
        folder = Path(temporary)
        files = {name: record for name, record in export.files.items() if name != CARD}
        _link(artefacts.export, files, folder)
        if gguf is not None:
            named = {name: record for name, record in gguf.files.items() if name.endswith(".gguf")}
            _link(artefacts.gguf, named, folder)
            files |= named
        if settings.hub.include_adapter:
            _link(artefacts.adapter, _ADAPTER_FILES, folder / "adapter")
        if report is not None:
            _link(artefacts.report, (REPORT,), folder)
        data = _write_data_card(artefacts.data, folder)
        family = family_at(artefacts.export)
        ggufs = [name for name in files if name.endswith(".gguf")]
        for name, text in ollama_files(settings.serve, ggufs, family.prompt).items():
            write_atomically(folder / name, text)
        training = _settings_of(artefacts.trained or artefacts.adapter)
        preference = None if artefacts.trained is None else read_preference(artefacts.adapter)
        names = tuple(sorted(files))
        facts = CardFacts(repo_id, settings, family, training, report, data, export.results, names, preference)
        write_atomically(folder / CARD, render_card(facts))
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if path.is_file() and name not in files:
                files[name] = FileRecord(size=path.stat().st_size, sha256=digest_file(path))
        manifest = _describe(export, gguf, training, files)
        write_atomically(folder / MANIFEST, manifest)
        content = (folder / MANIFEST).read_bytes()
        files[MANIFEST] = FileRecord(size=len(content), sha256=digest_file(folder / MANIFEST))
        yield Assembled(folder, files, failed, report is not None)


def require_gates(artefacts: Artefacts) -> None:
    """Refuse a model that failed a gate, from its report alone.

    Raises:
        GateError: a gate failed; the message says what to do about each.
        HubError: the report cannot be read.
    """
    report = read_report(artefacts.report)
    words = Words("en")
    failed = report.failed if report else []
    if failed:
        lines = [f"{gate.name} {gate.value:.3f} is below {gate.limit:g} ({words.advise(gate.name)})" for gate in failed]
        raise GateError(
            f"gates failed: {'; '.join(lines)}. After a change run `titlegen evaluate`, then push; or push it as it is "
            "with --hub.allow-failed-gates (the model card will say so)"
        )


def _check_artefacts(artefacts: Artefacts, settings: Settings) -> tuple[Manifest, Manifest | None]:
    """Return the manifests of export and GGUF files, proven to be of one model that was verified."""
    export = read_manifest(artefacts.export)
    artefacts.check(artefacts.export, export)
    gguf = read_manifest(artefacts.gguf) if settings.hub.include_gguf else None
    if gguf is not None:
        artefacts.check(artefacts.gguf, gguf)
        _check_origin("GGUF", gguf, "merged", export, artefacts)
    if (artefacts.report / MANIFEST).is_file():
        report = read_manifest(artefacts.report)
        artefacts.check(artefacts.report, report)
        _check_origin("report", report, "model", export, artefacts)
        if report.results.get("target") not in {"merged", "adapter"}:
            raise HubError(
                f"{artefacts.report} is of titles that this model did not write ({report.results.get('target')}); run "
                "`titlegen evaluate --evaluate.target merged`, then push"
            )
    if (artefacts.adapter / MANIFEST).is_file():
        adapter = read_manifest(artefacts.adapter)
        artefacts.check(artefacts.adapter, adapter)
        if export.inputs.get("adapter") != adapter.digest:
            raise HubError(
                f"{artefacts.adapter} is another adapter than the one in {artefacts.export}; run `titlegen export`"
            )
    if artefacts.verification is not None:
        verification = read_manifest(artefacts.verification)
        _check_origin("verification", verification, "merged", export, artefacts)
        if gguf is not None and verification.inputs.get("gguf") != gguf.digest:
            raise HubError(f"the verification is of other GGUF files than {artefacts.gguf}; run `titlegen verify`")
        checks = read_result(Verified, verification).checks
        failed = [check.name for check in checks if not check.passed]
        if failed or not checks:
            raise HubError(f"the export is not verified ({', '.join(failed[:3]) or 'no check ran'}); export it again")
    return export, gguf


def _check_origin(what: str, manifest: Manifest, name: str, export: Manifest, artefacts: Artefacts) -> None:
    """Refuse an artefact of another model: its manifest names the digest of its input."""
    if manifest.inputs.get(name) != export.digest:
        raise HubError(f"the {what} is of another model than {artefacts.export}; run its stage again, then push")


def _settings_of(directory: Path) -> dict[str, object]:
    return read_manifest(directory).settings if (directory / MANIFEST).is_file() else {}


def _link(source: Path, names: Mapping[str, FileRecord] | tuple[str, ...], folder: Path) -> None:
    for name in names:
        if not (source / name).is_file():
            raise HubError(f"{source / name} does not exist; run the stage that writes it first")
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to((source / name).resolve())


def ollama_files(settings: ServeSettings, ggufs: list[str], prompt: PromptFormat) -> dict[str, str]:
    """Return the files from which Ollama takes prompt and parameters, by name.

    ``ollama run hf.co/ORG/REPO`` reads ``template``, ``system`` and ``params``; ``ollama create -f Modelfile`` in a
    downloaded copy reads the Modelfile.

    Source: huggingface.co/docs/hub/ollama.
    """
    parameters = prompt.parameters(settings.temperature, settings.num_ctx, settings.num_predict)
    files = {
        "template": prompt.template,
        "system": SYSTEM,
        "params": json.dumps(parameters, ensure_ascii=False, indent=2) + "\n",
    }
    if ggufs:
        files["Modelfile"] = render_modelfile(f"./{ggufs[0]}", settings, prompt)
    return files


def _write_data_card(data: Path, folder: Path) -> DataCardSummary | None:
    """Write the counts of the data stage as one line of JSON, without pieces of the articles, and return them."""
    path = data / "data.json"
    if not path.is_file():
        return None
    if path.stat().st_size > _MAX_CARD_BYTES:
        raise HubError(f"{path} is larger than {_MAX_CARD_BYTES} bytes; run `titlegen prepare` again")
    try:
        content = json.loads(path.read_bytes())
        card = DataCardSummary.model_validate(content)
    except ValueError as error:
        raise HubError(f"{path} is not a data card; run `titlegen prepare` again") from error
    content.pop("rules", None)
    # A path is useless to others, and reveals this machine.
    source = Path(str(content.get("source", "")))
    content["source"] = source.name if source.is_absolute() or source.exists() else str(source)
    write_atomically(folder / DATA_CARD, json.dumps(content, ensure_ascii=False) + "\n")
    return card


def _describe(
    export: Manifest, gguf: Manifest | None, training: dict[str, object], files: Mapping[str, FileRecord]
) -> str:
    """Return the manifest of the whole repository; it depends on nothing but what is published."""
    settings = {"train": training, "export": export.settings, "gguf": gguf.settings if gguf else {}}
    inputs = {"export": export.digest} | ({"gguf": gguf.digest} if gguf else {})
    manifest = Manifest(
        stage="push",
        key=stage_key("push", settings, inputs),
        settings=settings,
        inputs=inputs,
        files=dict(sorted(files.items())),
        versions=export.versions,
        git_revision=export.git_revision,
        results={"export": export.results},
    )
    return manifest.model_dump_json(indent=2) + "\n"
