"""Running one stage: up to date or built anew, alone in its folder, with a manifest beside what it wrote."""

import contextlib
import dataclasses
import fcntl
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from titlegen.manifest import (
    Manifest,
    is_up_to_date,
    new_directory,
    read_manifest,
    stage_key,
    writable,
    write_atomically,
    write_manifest,
)
from titlegen.settings import Settings

# Less of the text than this may be missing without a word.
_MENTIONED_SHARE = 0.01


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


def describe_left_out(results: Mapping[str, Any]) -> str:
    """Return how much of the articles' text a stage left out to fit, and the setting that decides; empty for little."""
    share, (name, value) = results.get("left_out_share", 0.0), results.get("left_out_by", ("", 0))
    return f"{share:.0%} of the text left out to fit {name} {value}" if share >= _MENTIONED_SHARE else ""


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
    # What is there can be used where nothing can be written.
    with contextlib.nullcontext() if is_up_to_date(directory, key) else _alone(directory.parent):
        # Asked again: another run may have made it while this one waited.
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
        if left_out := describe_left_out(results):
            say(f"{name}: {left_out}")
        return StageRun(name, directory, manifest, fresh=True)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold a profile's folder: two runs at once would write into each other's temporary directories."""
    with writable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "run.lock").open("w")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another run that writes to {folder}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            # Some network file systems have no locks.
            say(f"{folder} cannot be locked ({error.strerror}): let only one run write there at a time")
        yield


def remember(settings: Settings, name: str, result: Mapping[str, Any]) -> None:
    """Keep the result of a stage that has no directory of its own, for the table."""
    write_atomically(settings.directory / f"{name}.json", json.dumps(result, indent=2, ensure_ascii=False) + "\n")


def recall(settings: Settings, name: str) -> dict[str, Any] | None:
    """Return what ``remember`` kept; None when nothing was."""
    path = settings.directory / f"{name}.json"
    result: dict[str, Any] | None = json.loads(path.read_bytes()) if path.is_file() else None
    return result
