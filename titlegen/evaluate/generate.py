"""Raw outputs for a split: batch by batch, with progress, resumed where an interrupted run stopped."""

import functools
import json
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from titlegen.data import Example
from titlegen.errors import TitlegenError
from titlegen.files import digest_json, writable, write_atomically
from titlegen.generation import Advance, unwatched
from titlegen.metrics.ranking import Chosen


class Generator(Protocol):
    """Anything that writes titles: a model in this process, a server, a rule."""

    def choose(self, contents: Sequence[str], advance: Advance = unwatched) -> list[Chosen]:
        """Return the raw output for each article, in order, with whatever the model wrote around the title.

        ``advance`` is called with what has been done since the last call, in articles, so that a person sees a long
        batch move.
        """
        ...

    def describe(self) -> dict[str, object]:
        """Return what decides the outputs, as JSON: model, decoding, device; the same before and after a run."""
        ...


class _Written(NamedTuple):
    """A line of the file of what is done: the title of one article, and the call that wrote it."""

    id: str
    prediction: str
    first: str
    drafts: int
    call_s: float
    call: str
    """The id of the call's first article."""
    titles: int
    """Of the call."""


class Generation(NamedTuple):
    """Raw outputs in the order of the examples, and how they were generated."""

    predictions: list[str]
    description: dict[str, object]
    """The generator's own, and ``timing``: seconds for this many titles, and of one call of ``titles_per_call``.

    Where some were drawn again also ``redrawn`` and ``replaced``: for how many, and how many titles are other ones.
    """
    firsts: list[str]
    """What came first for each article; where nothing was chosen from several, the prediction."""


def generate_predictions(
    generator: Generator, examples: Sequence[Example], partial: Path, batch_size: int = 8, *, prompt: str
) -> Generation:
    """Generate a title for every example and remember each batch in ``partial`` (JSONL, keyed by example id).

    A later call with the same generator, prompt and examples takes from that file what it holds; the file of another
    run is started anew. Batches go from long articles to short ones: little padding, and a lack of memory shows early.

    Args:
        generator: what writes the titles.
        examples: the articles.
        partial: file for what is done.
        batch_size: articles at a time.
        prompt: digest of the prompt that is put around them.

    Raises:
        TitlegenError: the generator returned another number of titles than it was asked for, or the disk is full.
    """
    # Several cards are given a batch each.
    batch_size *= getattr(generator, "batches_at_once", 1)
    articles = [[example.id, example.content] for example in examples]
    key = digest_json({"generator": generator.describe(), "prompt": prompt, "examples": articles})
    done = _read_partial(partial, key, {example.id for example in examples})
    pending = sorted((example for example in examples if example.id not in done), key=lambda e: (-len(e.content), e.id))
    with writable(partial):
        # Written anew, so that a line which was cut off does not swallow the next one.
        write_atomically(partial, "".join(map(_line, [{"key": key}, *(title._asdict() for title in done.values())])))
        with partial.open("a", encoding="utf-8") as file, _progress(len(examples), len(done)) as progress:
            (task,) = progress.task_ids
            for start in range(0, len(pending), batch_size):
                batch = pending[start : start + batch_size]
                written = _generate_batch(generator, batch, functools.partial(progress.advance, task))
                file.write("".join(_line(title._asdict()) for title in written))
                file.flush()
                os.fsync(file.fileno())
                done |= {title.id: title for title in written}
                progress.update(task, completed=len(done))
    titles = [done[example.id] for example in examples]
    description = generator.describe() | {"timing": _timing(titles, batch_size)}
    decoding = description.get("decoding")
    if isinstance(decoding, Mapping) and decoding.get("redraws"):
        redrawn = sum(title.drafts > 1 for title in titles)
        replaced = sum(title.first != title.prediction for title in titles)
        description |= {"redrawn": redrawn, "replaced": replaced}
    return Generation([title.prediction for title in titles], description, [title.first for title in titles])


def _generate_batch(generator: Generator, batch: Sequence[Example], advance: Advance) -> list[_Written]:
    started = time.perf_counter()
    outputs = generator.choose([example.content for example in batch], advance)
    elapsed = time.perf_counter() - started
    if len(outputs) != len(batch):
        raise TitlegenError(
            f"{type(generator).__name__} returned {len(outputs)} titles for {len(batch)} articles; it must return one "
            "for each"
        )
    call = round(elapsed, 4), batch[0].id, len(batch)
    return [
        _Written(example.id, chosen.text, chosen.first, chosen.drafts, *call)
        for example, chosen in zip(batch, outputs, strict=True)
    ]


def _line(record: Mapping[str, object]) -> str:
    # Half a surrogate pair, which a server may send, has no UTF-8 form.
    return json.dumps(record, ensure_ascii=False).encode("utf-8", "replace").decode() + "\n"


def _read_partial(partial: Path, key: str, ids: set[str]) -> dict[str, _Written]:
    try:
        # A title can hold characters that splitlines takes for line ends.
        lines = partial.read_text(encoding="utf-8", errors="replace").removesuffix("\n").split("\n")
    except FileNotFoundError:
        return {}
    records = []
    for line in lines:
        try:
            records.append(json.loads(line))
        except ValueError:
            # The last line of a run that was cut off; it is generated again.
            break
    if not records or records[0] != {"key": key}:
        return {}
    # A batch that was cut off is generated again: titles that are drawn depend on which stand beside them.
    try:
        titles = [_Written(**record) for record in records[1:]]
    except TypeError:
        # Another release kept something else of each title.
        return {}
    written = Counter(title.call for title in titles)
    return {title.id: title for title in titles if written[title.call] == title.titles and title.id in ids}


def _timing(titles: Sequence[_Written], batch_size: int) -> dict[str, object]:
    calls = {title.call: title.call_s for title in titles}
    if not calls:
        return {}
    seconds = np.array(list(calls.values()))
    return {
        "titles": len(titles),
        "seconds": round(float(seconds.sum()), 2),
        "titles_per_call": batch_size,
        "call_p50_s": round(float(np.quantile(seconds, 0.5)), 4),
        "call_p95_s": round(float(np.quantile(seconds, 0.95)), 4),
    }


def _progress(total: int, done: int) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    progress = Progress(
        TextColumn("generating titles"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    progress.add_task("generate", total=total, completed=done)
    return progress
