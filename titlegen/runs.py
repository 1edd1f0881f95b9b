"""One run: where its stages write, what each depends on, and whether it has to run again."""

import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any

from titlegen import __version__
from titlegen.errors import ConfigError, TitlegenError
from titlegen.families import ModelFamily
from titlegen.files import new_directory
from titlegen.locks import locked
from titlegen.manifest import (
    Manifest,
    check_files,
    find_manifest,
    is_up_to_date,
    read_manifest,
    stage_key,
    write_manifest,
)
from titlegen.models import family_at, fingerprint, resolve_base
from titlegen.record import read_record, remember, restore
from titlegen.results import Prepared, Result, Trained
from titlegen.settings import Settings

# A smaller share of the text may be left out without a notice.
_MENTIONED_SHARE = 0.01
# Inputs from outside the run.
_EXTERNAL = {
    "source": "the articles of data.source",
    "tokenizer": "the base model's tokenizer",
    "base": "the base model",
    "init_adapter": "the adapter of train.init_adapter",
    "instruction": "the instruction of the prompt",
    "choices": "the editors' choices of prefer.choices",
    "further": "the articles of prefer.source",
    "preferred": "whether the model is preferred (prefer.enabled)",
    "prompt": "the prompt",
}


class Folder(StrEnum):
    """The folders below a profile's own; their names stand here alone."""

    DATA = "data"
    ADAPTER = "lora"
    PREFERRED = "preferred"
    EXPORT = "final-hf"
    GGUF = "gguf"
    VERIFICATION = "verify"
    REPORT = "report"
    """Scores of this model's titles; they are published."""
    SERVED_REPORT = "report-served"
    FILE_REPORT = "report-file"
    """Scores of titles out of a file, which are not this model's."""
    CHECKPOINTS = ".checkpoints"
    PREDICTIONS = ".predictions"


@dataclasses.dataclass(frozen=True)
class StageRun:
    """What one stage did: its directory, its manifest, and whether it had anything to do."""

    name: str
    directory: Path
    manifest: Manifest
    fresh: bool


@dataclasses.dataclass(frozen=True)
class Stage:
    """One step of the pipeline: where it writes, what its result depends on, and how it runs."""

    name: str
    folder: Folder
    settings: "Callable[[Run], Mapping[str, Any]]"
    inputs: "Callable[[Run], Mapping[str, str]]"
    """Names and digests of everything else that the result depends on."""
    build: "Callable[[Run, Path], Result]"
    """Writes into an empty directory and returns what it found out."""
    sections: tuple[str, ...] = ()
    """Sections of the settings that the output remembers; the first is that of ``settings``."""
    revision: int = 1
    """Increased when the code gives another result for the same settings and inputs, so that the stage runs again; a
    release makes every stage run again."""
    applies: "Callable[[Run], bool]" = lambda _: True
    """Whether the settings ask for this stage at all."""
    check: "Callable[[Run], None]" = lambda _: None
    """Raises errors that can be known before the first stage runs."""

    def key(self, run: "Run") -> str:
        """Return the digest of what the result depends on."""
        return stage_key(self.name, self.settings(run), self.inputs(run), self.revision)


class Run:
    """The settings of one command, and what its stages share: base model, results and digests, each found out once."""

    def __init__(self, settings: Settings, *, remake: bool = True) -> None:
        """Take the settings.

        Args:
            settings: all settings.
            remake: make a stage again that was made with other settings, from other files or by another release;
                without it that is an error.
        """
        self.settings = settings
        self.remake = remake
        self.record = read_record(settings.directory)
        self.done: dict[str, StageRun] = {}
        self._checked: set[Path] = set()
        self._unrecorded: set[str] = set()

    @cached_property
    def prompt_digest(self) -> str:
        """Digest of the prompt, for every stage that renders it."""
        return self.family.prompt.digest

    def folder(self, folder: Folder) -> Path:
        """Return where a stage of this run writes."""
        return self.settings.directory / folder

    @property
    def state(self) -> Path:
        """Folder of the records and logs of the servers that titlegen started."""
        return self.settings.output / "run"

    @property
    def card(self) -> Path:
        """Where a push leaves the model card for people to read."""
        return self.settings.directory / "model-card.md"

    @cached_property
    def base(self) -> Path:
        """The base model's directory."""
        return resolve_base(self.settings.model)

    @cached_property
    def family(self) -> ModelFamily:
        """The base model's family."""
        return family_at(self.base)

    @cached_property
    def base_digest(self) -> str:
        """Digest that changes when the base model does."""
        return fingerprint(self.base)

    def digest(self, name: str) -> str:
        """Return the digest of the files of a stage that this run brought up to date."""
        return self.done[name].manifest.digest

    def checked(self, name: str) -> str:
        """Return the digest of a stage's files, after each was compared with the manifest, which is done once a run.

        Raises:
            VerifyError: a file is missing, changed or not listed.
        """
        result = self.done[name]
        if result.directory not in self.checked_directories:
            check_files(result.directory, result.manifest)
            self._checked.add(result.directory)
        return result.manifest.digest

    @property
    def checked_directories(self) -> frozenset[Path]:
        """Directories of the stages whose files were compared with their manifests."""
        # What was written now was hashed for its manifest.
        return frozenset({*self._checked, *(result.directory for result in self.done.values() if result.fresh)})

    def make(self, stage: Stage, after: Sequence[Stage] = ()) -> StageRun:
        """Bring one stage up to date.

        It writes into a temporary directory that takes its folder's place when it is done, so a failure leaves the
        previous result as it was.

        Args:
            stage: the stage.
            after: stages that are brought up to date after it.

        Raises:
            ConfigError: it would be made again, from something else, in a run that may not do so.
        """
        directory = self.folder(stage.folder)
        settings, inputs = stage.settings(self), stage.inputs(self)
        key = stage_key(stage.name, settings, inputs, stage.revision)
        # An up-to-date result can be used from a folder that cannot be written to.
        with contextlib.nullcontext() if is_up_to_date(directory, key) else locked(directory.parent / "run.lock", say):
            # Checked again: another run may have made it while this one waited.
            if is_up_to_date(directory, key):
                say(f"{stage.name}: up to date ({directory})")
                self._unrecorded.update(stage.sections)
                result = StageRun(stage.name, directory, read_manifest(directory), fresh=False)
            else:
                if changes := self._changes(stage, settings, inputs):
                    self._announce(changes, [stage, *after])
                say(f"{stage.name}: running")
                started = time.monotonic()
                with self._remembering(stage), new_directory(directory) as temporary:
                    results = stage.build(self, temporary)
                    elapsed = round(time.monotonic() - started, 2)
                    found = results.as_json() | {"elapsed_s": elapsed}
                    manifest = write_manifest(temporary, stage.name, settings, inputs, found, stage.revision)
                say(f"{stage.name}: done in {elapsed:.1f} s ({directory})")
                if left_out := describe_left_out(results):
                    say(f"{stage.name}: {left_out}")
                result = StageRun(stage.name, directory, manifest, fresh=True)
        self.done[stage.name] = result
        return result

    def keep_settings(self) -> None:
        """Record the settings of stages that all finished; a run that stopped leaves the record alone."""
        # Where this run cannot write, no unfinished run left another record either.
        with contextlib.suppress(TitlegenError):
            remember(self.settings, self._unrecorded)
        self._unrecorded.clear()

    @contextlib.contextmanager
    def _remembering(self, stage: Stage) -> Iterator[None]:
        """Keep the settings that a stage runs with, so that an interrupted run can resume; a failure forgets them."""
        earlier = remember(self.settings, self._unrecorded | {*stage.sections})
        self._unrecorded.clear()
        try:
            yield
        except Exception:
            restore(self.settings, earlier)
            raise

    def _changes(self, stage: Stage, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> list[str]:
        """Return what has changed since a stage was made, each with both values."""
        if not stage.sections:
            return []
        kept = self.record.settings if self.record else {}
        section = stage.sections[0]
        manifest = find_manifest(self.folder(stage.folder))
        before = {f"{section}.{name}": value for name, value in manifest.settings.items()} if manifest else kept
        now = {f"{section}.{name}": value for name, value in settings.items()}
        changes = [
            f"{name} is {value} now and was {before[name]} then"
            for name, value in now.items()
            if name in before and before[name] != value
        ]
        base = self.settings.model.base
        if "model.base" in kept and kept["model.base"] != base and ("base" in inputs or "tokenizer" in inputs):
            changes.append(f"model.base is {base} now and was {kept['model.base']} then")
        elif manifest is not None:
            changes += [
                f"{_EXTERNAL[name]} changed"
                for name, digest in inputs.items()
                if name in _EXTERNAL and manifest.inputs.get(name, digest) != digest
            ]
        if manifest is not None and manifest.revision != stage.revision:
            changes.append(f"the code of {stage.name} comes to another result now")
        if manifest is not None and (release := manifest.versions.get("titlegen", __version__)) != __version__:
            changes.append(f"titlegen is {__version__} now and was {release} then")
        return changes

    def _announce(self, changes: Sequence[str], stages: Sequence[Stage]) -> None:
        """Say what is made again, and why.

        Raises:
            ConfigError: this run may not do so.
        """
        again = [stage.name for stage in stages if find_manifest(self.folder(stage.folder))]
        names, directory = ", ".join(again) or stages[0].name, self.settings.directory
        if not self.remake:
            raise ConfigError(
                f"what is in {directory} was made otherwise: {'; '.join(changes)}. Set that back to go on with it, or "
                f"add --remake to make it again first ({names})"
            )
        say(f"what is in {directory} was made otherwise: {'; '.join(changes)}. Made again: {names}")


def say(text: str) -> None:
    """Print one line of progress for a person; stdout stays free for results."""
    print(text, file=sys.stderr, flush=True)


def describe_left_out(results: Result) -> str:
    """Return how much of the articles' text a stage left out to fit, and the setting that decides; empty for little."""
    if not isinstance(results, Prepared | Trained) or results.left_out_share < _MENTIONED_SHARE:
        return ""
    name, value = results.left_out_by
    return f"{results.left_out_share:.0%} of the text left out to fit {name} {value}"
