"""What a training keeps: its newest checkpoint, its log, and the adapter."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from titlegen.adapter import CONFIG, sign_adapter
from titlegen.files import write_atomically
from titlegen.models import name_of_base
from titlegen.train.progress import LogRecord
from titlegen.train.ranks import ALONE, Ranks

if TYPE_CHECKING:
    from peft import PeftModel


def newest_checkpoint(work: Path, ranks: Ranks = ALONE) -> Path | None:
    """Return the last complete checkpoint in a folder, from which training resumes: the last that every rank has."""
    # trainer_state.json is written last, so a checkpoint without it was cut off.
    complete = {step_of(path) for path in work.glob("checkpoint-*") if (path / "trainer_state.json").is_file()}
    # A host may have stopped before the others.
    step = max(set.intersection(*ranks.gather(complete)), default=None)
    return None if step is None else work / f"checkpoint-{step}"


def step_of(checkpoint: Path) -> int:
    """Return the number of steps that had been done when a checkpoint was written."""
    return int(checkpoint.name.rpartition("-")[2])


def read_log(path: Path) -> list[LogRecord]:
    """Read the log, keeping the last record of a step that was repeated after a resume."""
    records: dict[tuple[float, bool], LogRecord] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        # A kill can cut the last line off.
        with contextlib.suppress(ValueError):
            record: LogRecord = json.loads(line)
            records[record["step"], "eval_loss" in record] = record
    return [records[key] for key in sorted(records)]


def save_adapter(model: PeftModel, base: Path, directory: Path) -> None:
    """Write a PEFT model's adapter as titlegen keeps one: signed with its base model, without paths of this machine."""
    model.save_pretrained(directory)
    # PEFT writes an empty model card; the real one belongs to the published model.
    (directory / "README.md").unlink(missing_ok=True)
    _forget_local_path(directory / CONFIG, base)
    sign_adapter(directory, base)


def _forget_local_path(config: Path, base: Path) -> None:
    """Replace the base model's path on this machine by its name: the adapter may be published."""
    fields = json.loads(config.read_text(encoding="utf-8"))
    if os.path.isabs(fields.get("base_model_name_or_path") or ""):  # noqa: PTH117 - also false for Hub names
        fields["base_model_name_or_path"] = name_of_base(base)
    write_atomically(config, json.dumps(fields, indent=2, sort_keys=True) + "\n")
