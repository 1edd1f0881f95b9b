"""The pipeline from articles to a verified model, as a flat list; a stage runs when its settings or inputs changed."""

import json
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from titlegen import prompt
from titlegen.errors import ConfigError
from titlegen.files import digest_file, digest_json, write_atomically
from titlegen.plural import count
from titlegen.results import ConvertedFiles, Merged, Preferred, Prepared, Trained, Verified
from titlegen.runs import Folder, Run, Stage, StageRun, say

if TYPE_CHECKING:
    from titlegen.data import Example

# Articles whose prompts and tokens are compared.
_PARITY_ARTICLES = 1000


def bring_up_to_date(run: Run, *way: Stage) -> StageRun:
    """Bring stages up to date, in order, and return the last one's result."""
    pending = [stage for stage in way if stage.name not in run.done and stage.applies(run)]
    for stage in pending:
        stage.check(run)
    for number, stage in enumerate(pending, start=1):
        run.make(stage, after=pending[number:])
    run.keep_settings()
    return run.done[way[-1].name]


# 1. Clean, filter and split the data set.


def _prepare(run: Run, directory: Path) -> Prepared:
    from titlegen import data

    results = data.prepare(run.settings.data, run.base / "tokenizer.json", directory)
    for note in results.notes:
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


# 2. Fit the adapter; an interrupted run resumes from its last checkpoint.


def _check_backend(run: Run) -> None:
    from titlegen.cards import visible_cards
    from titlegen.train import check_backend
    from titlegen.train.devices import choose_devices

    choose_devices(run.settings.train, *visible_cards())
    if unlocked := check_backend(run.settings.train):
        say(f"train: versions other than the tested ones of constraints.txt: {', '.join(unlocked)}")


def _train(run: Run, directory: Path) -> Trained:
    from titlegen.train import train_adapter

    # A checkpoint of other settings or data must not be resumed, so the folder carries the key.
    key = TRAIN.key(run)
    work = run.folder(Folder.CHECKPOINTS) / key[:16]
    return train_adapter(run.folder(Folder.DATA), run.base, run.settings.train, work, directory, key)


def _train_inputs(run: Run) -> dict[str, str]:
    from titlegen.train import digest_init_adapter, resolve_init_adapter

    inputs = {"data": run.digest("prepare"), "base": run.base_digest, "prompt": run.prompt_digest}
    if (start := run.settings.train.init_adapter) is not None:
        inputs["init_adapter"] = digest_init_adapter(resolve_init_adapter(start))
    return inputs


TRAIN = Stage(
    "train",
    Folder.ADAPTER,
    # The number of cards changes the speed and nothing else.
    settings=lambda run: run.settings.train.model_dump(mode="json", exclude={"devices"}),
    inputs=_train_inputs,
    build=_train,
    sections=("train",),
    revision=2,
    check=_check_backend,
)


# 3. When asked for, learn from the adapter's own best titles, and from editors.


def _check_preference(run: Run) -> None:
    from titlegen.prefer import read_choices

    if run.settings.data.val_share == 0:
        raise ConfigError("prefer needs validation articles, which decide; data.val_share is 0: raise it to 0.1")
    if (choices := run.settings.prefer.choices) is not None:
        read_choices(Path(choices))


def _prefer(run: Run, directory: Path) -> Preferred:
    from titlegen import data
    from titlegen.prefer import Articles, describe_decision, prefer, read_choices, without

    settings = run.settings
    train, val, test = (data.load_split(run.folder(Folder.DATA), split) for split in ("train", "val", "test"))
    choices = () if settings.prefer.choices is None else read_choices(Path(settings.prefer.choices))
    results = without("unsloth", prefer)(
        Articles(train, val, test, _further_articles(run), choices),
        run.base,
        run.folder(Folder.ADAPTER),
        settings.prefer,
        train=settings.train,
        evaluation=settings.evaluate,
        work=run.folder(Folder.CHECKPOINTS) / f"prefer-{PREFER.key(run)[:16]}",
        directory=directory,
    )
    if choices:
        used = results.choices // settings.prefer.choices_weight
        said = f"{used} of {count(len(choices), 'choice')} of editors used"
        say(f"prefer: {said}; the others have no article, or one that is held out")
    say(f"prefer: {describe_decision(results.decision)}")
    return results


def _further_articles(run: Run) -> "list[Example]":
    """Return the articles of prefer.source, cleaned and cut as those for training; none of a split."""
    from titlegen import data

    source = run.settings.prefer.source
    if source is None:
        return []
    splits = [data.load_split(run.folder(Folder.DATA), split) for split in data.SPLITS]
    known = {example.content for split in splits for example in split}
    found = data.load_untitled(run.settings.data.model_copy(update={"source": source}), run.base / "tokenizer.json")
    return [example for example in found if example.content not in known]


def _prefer_inputs(run: Run) -> dict[str, str]:
    from titlegen import data

    settings = run.settings.prefer
    inputs = {"adapter": run.digest("train"), "data": run.digest("prepare"), "base": run.base_digest}
    inputs |= {"prompt": run.prompt_digest}
    if settings.choices is not None:
        inputs["choices"] = digest_file(Path(settings.choices))
    if settings.source is not None:
        inputs["further"] = data.source_digest(run.settings.data.model_copy(update={"source": settings.source}))
    return inputs


PREFER = Stage(
    "prefer",
    Folder.PREFERRED,
    settings=lambda run: run.settings.prefer.model_dump(mode="json", exclude={"enabled"}),
    inputs=_prefer_inputs,
    build=_prefer,
    sections=("prefer",),
    applies=lambda run: run.settings.prefer.enabled,
    check=_check_preference,
)


def adapter_stage(run: Run) -> Stage:
    """Return the stage whose adapter is exported."""
    return PREFER if PREFER.applies(run) else TRAIN


# 4. Merge the adapter into the base model.


def _merge(run: Run, directory: Path) -> Merged:
    from titlegen.data.shorten import load_counter
    from titlegen.export import merge_adapter

    around = load_counter(run.base / "tokenizer.json")(run.family.prompt.render(""))
    # The client uses this length for the served model, too.
    budget = min(run.settings.data.max_content_tokens, run.settings.train.max_length - around)
    merged = merge_adapter(run.base, run.folder(adapter_stage(run).folder), run.settings.export, directory)
    return merged.model_copy(update={"content_tokens": budget})


MERGE = Stage(
    "merge",
    Folder.EXPORT,
    settings=lambda run: run.settings.export.model_dump(mode="json", exclude={"gguf_types", "verify_articles"}),
    inputs=lambda run: {
        "adapter": run.digest(adapter_stage(run).name),
        "preferred": digest_json(PREFER.applies(run)),
        "base": run.base_digest,
        "prompt": run.prompt_digest,
        "budget": digest_json([run.settings.data.max_content_tokens, run.settings.train.max_length]),
    },
    build=_merge,
    # The settings of the stage before are recorded here, too: it does not run when they turn it off.
    sections=("export", "prefer"),
    revision=2,
)


# 5. Convert the merged model.


def _convert(run: Run, directory: Path) -> ConvertedFiles:
    from titlegen.export import gguf_name, write_gguf

    kinds = run.settings.export.gguf_types
    for kind in kinds:
        write_gguf(run.folder(Folder.EXPORT), kind, directory / gguf_name(kind))
    return ConvertedFiles(types=list(kinds))


CONVERT = Stage(
    "gguf",
    Folder.GGUF,
    settings=lambda run: run.settings.export.model_dump(mode="json", include={"gguf_types"}),
    inputs=lambda run: {"merged": run.digest("merge")},
    build=_convert,
    sections=("export",),
    revision=2,
)


# 6. Prove that the export is base + adapter and that its prompt is served as it was trained.


def _verify(run: Run, directory: Path) -> Verified:
    from titlegen.verify import require, verify

    examples = parity_examples(run)
    found = verify(
        run.folder(Folder.EXPORT),
        run.base,
        run.folder(adapter_stage(run).folder),
        sorted(run.folder(Folder.GGUF).glob("*.gguf")),
        [example.content for example in examples],
        [example.title for example in examples],
        greedy_articles=run.settings.export.verify_articles,
        say=say,
    )
    require(found.checks)
    results = Verified(checks=found.checks, titles=found.titles)
    write_atomically(directory / "checks.json", json.dumps(results.as_json(), indent=2, ensure_ascii=False) + "\n")
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
        # The merge is compared with it, so a changed adapter would pass.
        "adapter": run.checked(adapter_stage(run).name),
        "merged": run.checked("merge"),
        "gguf": run.checked("gguf"),
        "prompt": run.prompt_digest,
    },
    build=_verify,
    sections=("export",),
    revision=4,
)

PIPELINE = (PREPARE, TRAIN, PREFER, MERGE, CONVERT, VERIFY)


def stages_up_to(last: Stage) -> Sequence[Stage]:
    """Return the stages up to one of them."""
    return [*takewhile(lambda stage: stage is not last, PIPELINE), last]
