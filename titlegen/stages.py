"""The way of the articles to a proven model and its scores, told forwards; a stage runs when what it reads changed."""

import json
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from titlegen import prompt
from titlegen.manifest import digest_file, digest_json, write_atomically
from titlegen.runs import Folder, Run, Stage, StageRun, say

if TYPE_CHECKING:
    from titlegen.data import Example

# Articles whose prompts and tokens are compared.
_PARITY_ARTICLES = 1000


def bring_up_to_date(run: Run, *way: Stage) -> StageRun:
    """Bring each stage of a way up to date, in order, and return the last one's result."""
    pending = [stage for stage in way if stage.name not in run.done]
    for stage in pending:
        stage.check(run)
    for number, stage in enumerate(pending, start=1):
        run.make(stage, after=pending[number:])
    run.settle()
    return run.done[way[-1].name]


# 1. Clean, filter and split the data set.


def _prepare(run: Run, directory: Path) -> dict[str, Any]:
    from titlegen import data

    results = data.prepare(run.settings.data, run.base / "tokenizer.json", directory)
    for note in results["notes"]:
        say(f"prepare: {note}")
    return results


def _prepare_inputs(run: Run) -> dict[str, str]:
    from titlegen import data

    return {
        "source": data.source_digest(run.settings.data),
        "tokenizer": digest_file(run.base / "tokenizer.json"),
        # Taken off the articles of a source that is made of chats.
        "instruction": digest_json(prompt.INSTRUCTION),
    }


PREPARE = Stage(
    "prepare",
    Folder.DATA,
    # The number of workers changes the speed and nothing else.
    settings=lambda run: run.settings.data.model_dump(mode="json", exclude={"workers"}),
    inputs=_prepare_inputs,
    build=_prepare,
    sections=("data", "model"),
    revision=2,
)


# 2. Fit the adapter; an interrupted run goes on from its last checkpoint.


def _check_backend(run: Run) -> None:
    from titlegen.train import check_backend

    if unlocked := check_backend(run.settings.train):
        say(f"train: versions other than the tested ones of constraints.txt: {', '.join(unlocked)}")


def _train(run: Run, directory: Path) -> dict[str, Any]:
    from titlegen import data
    from titlegen.train import fit

    prepared = run.folder(Folder.DATA)
    # A checkpoint of other settings or data must not be resumed, so the folder carries the key.
    work = run.folder(Folder.CHECKPOINTS) / TRAIN.key(run)[:16]
    train, val = (data.load_split(prepared, split) for split in ("train", "val"))
    return fit(train, val, run.base, run.settings.train, work, directory)


def _train_inputs(run: Run) -> dict[str, str]:
    from titlegen.train import digest_init_adapter, resolve_init_adapter

    inputs = {"data": run.digest("prepare"), "base": run.base_digest, "prompt": run.prompt_digest}
    if (start := run.settings.train.init_adapter) is not None:
        inputs["init_adapter"] = digest_init_adapter(resolve_init_adapter(start))
    return inputs


TRAIN = Stage(
    "train",
    Folder.ADAPTER,
    settings=lambda run: run.settings.train.model_dump(mode="json"),
    inputs=_train_inputs,
    build=_train,
    sections=("train",),
    revision=2,
    check=_check_backend,
)


# 3. Merge the adapter into the base model.


def _merge(run: Run, directory: Path) -> dict[str, Any]:
    from titlegen.data.shorten import load_counter
    from titlegen.export import merge_adapter

    around = load_counter(run.base / "tokenizer.json")(run.family.prompt.render(""))
    # What the client sends to the model that is served, too.
    budget = min(run.settings.data.max_content_tokens, run.settings.train.max_length - around)
    merged = merge_adapter(run.base, run.folder(Folder.ADAPTER), run.settings.export, directory)
    return merged | {"content_tokens": budget}


MERGE = Stage(
    "merge",
    Folder.EXPORT,
    settings=lambda run: run.settings.export.model_dump(mode="json", exclude={"gguf_types", "verify_articles"}),
    inputs=lambda run: {
        "adapter": run.digest("train"),
        "base": run.base_digest,
        "prompt": run.prompt_digest,
        "budget": digest_json([run.settings.data.max_content_tokens, run.settings.train.max_length]),
    },
    build=_merge,
    sections=("export",),
    revision=2,
)


# 4. Convert the merged model.


def _convert(run: Run, directory: Path) -> dict[str, Any]:
    from titlegen.export import gguf_name, write_gguf

    kinds = run.settings.export.gguf_types
    for kind in kinds:
        write_gguf(run.folder(Folder.EXPORT), kind, directory / gguf_name(kind))
    return {"types": list(kinds)}


CONVERT = Stage(
    "gguf",
    Folder.GGUF,
    settings=lambda run: run.settings.export.model_dump(mode="json", include={"gguf_types"}),
    inputs=lambda run: {"merged": run.digest("merge")},
    build=_convert,
    sections=("export",),
    revision=2,
)


# 5. Prove that the export is base + adapter and that its prompt is served as it was trained.


def _verify(run: Run, directory: Path) -> dict[str, Any]:
    from titlegen.verify import require, verify

    examples = parity_examples(run)
    found = verify(
        run.folder(Folder.EXPORT),
        run.base,
        run.folder(Folder.ADAPTER),
        sorted(run.folder(Folder.GGUF).glob("*.gguf")),
        [example.content for example in examples],
        [example.title for example in examples],
        greedy_articles=run.settings.export.verify_articles,
        say=say,
    )
    results = require(found.checks) | {"titles": found.titles}
    write_atomically(directory / "checks.json", json.dumps(results, indent=2, ensure_ascii=False) + "\n")
    return results


def parity_examples(run: Run) -> "list[Example]":
    """Return the articles on which training and serving are compared, the test split's first."""
    from titlegen import data

    splits = (data.load_split(run.folder(Folder.DATA), split) for split in ("test", "val", "train"))
    return [example for split in splits for example in split][:_PARITY_ARTICLES]


VERIFY = Stage(
    "verify",
    Folder.VERIFICATION,
    settings=lambda run: run.settings.export.model_dump(mode="json", include={"verify_articles"}),
    inputs=lambda run: {
        # The merge is compared with it: a changed adapter would prove itself.
        "adapter": run.checked("train"),
        "merged": run.checked("merge"),
        "gguf": run.checked("gguf"),
        "prompt": run.prompt_digest,
    },
    build=_verify,
    sections=("export",),
    revision=4,
)

WAY = (PREPARE, TRAIN, MERGE, CONVERT, VERIFY)


def way_to(last: Stage) -> Sequence[Stage]:
    """Return the stages up to one of them."""
    return [*takewhile(lambda stage: stage is not last, WAY), last]
