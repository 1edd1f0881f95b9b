"""The data stage: source, cleaning, filters, near-duplicates, shortening, splits, data card."""

import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import closing
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np

from titlegen.data.card import write_card
from titlegen.data.collect import Collected, Spool, collect
from titlegen.data.date_notes import count_dates, describe_dates
from titlegen.data.date_order import decide_orders, resolve_ambiguous
from titlegen.data.date_reading import UNDATED
from titlegen.data.dedup import U64, Clusters, Rows, join_revisions, join_similar, mix
from titlegen.data.example import KEYS, SPLITS
from titlegen.data.filters import REASONS
from titlegen.data.notes import describe_findings
from titlegen.data.shorten import STRATEGIES, load_counter, shorten, title_coverage
from titlegen.data.sources import Source, open_source
from titlegen.data.split import balance_rows, best_first, draw, keep_first, leak_rate, split_rows
from titlegen.data.workers import clean_chunks
from titlegen.errors import ConfigError, DataError
from titlegen.files import writable
from titlegen.results import Coverage, Prepared, SourceReading, Step
from titlegen.settings import DataSettings

# Comparing the strategies costs three shortenings an article; this many give the mean to about two points.
_COMPARED = 200


@dataclass(frozen=True, slots=True)
class Kept:
    """What deduplication keeps."""

    rows: Rows
    clusters: Rows
    """Cluster of every row, the dropped ones included."""
    dropped: dict[str, int]
    ambiguous: Rows
    """Rows whose id stands for other articles, too."""


def prepare(settings: DataSettings, tokenizer_file: Path, directory: Path) -> Prepared:
    """Write train, val and test, a ``DatasetDict`` and the data card into a fresh directory; return the counts.

    ``directory`` then holds ``{train,val,test}.jsonl``, ``dataset/``, ``data.md``, ``data.json`` and ``lengths.png``.
    The bytes depend on the source's rows, the settings and the tokenizer alone: not on the order of the rows, nor on
    the number of processes.

    Raises:
        DataError: the source cannot be read, or a split would be empty.
        ConfigError: the settings contradict each other.
    """
    check_settings(settings)
    source = open_source(settings)
    with (
        writable(directory),
        tempfile.TemporaryDirectory(prefix=".spool-", dir=directory) as folder,
        closing(Spool(Path(folder) / "lines")) as lines,
        closing(Spool(Path(folder) / "texts")) as texts,
    ):
        pool = collect(clean_chunks(source.rows, settings, tokenizer_file), lines, texts)
        if not len(pool.digests):
            raise DataError(_nothing_left(source, pool))
        orders = decide_orders(pool.counts.orders, settings.date_order)
        late = set(resolve_ambiguous(pool.days, pool.date_forms, pool.date_choices, orders).tolist())
        kept = deduplicate(pool, settings)
        dates = count_dates(pool, kept.rows, orders)
        on_dates = list(describe_dates(dates))
        if settings.split == "time" and (pool.days[kept.rows] == UNDATED).all():
            raise DataError(_no_dates(on_dates))
        splits = split_rows(pool.days[kept.rows], pool.digests[kept.rows], settings, _drops(pool, kept))
        splits = {name: kept.rows[places] for name, places in splits.items()}
        shared = _shared_ids(pool, kept.rows)
        written = {name: _split_lines(pool, rows, name, settings, late, shared) for name, rows in splits.items()}
        sizes = {name: _write_lines(directory / f"{name}.jsonl", parts) for name, parts in written.items()}
        write_dataset(directory, Path(folder))
        findings = describe_findings(source, pool, kept.dropped["duplicate_id"], kept.ambiguous)
        counted = _results(source, pool, kept, sizes, settings)
        coverage = compare_strategies(pool, kept.rows, settings, tokenizer_file)
        results = counted.model_copy(update={"dates": dates, "notes": [*findings, *on_dates], "coverage": coverage})
        write_card(directory, results, pool, kept.rows)
    return results


def check_settings(settings: DataSettings) -> None:
    """Refuse settings that contradict each other.

    Raises:
        ConfigError: naming both values.
    """
    if settings.val_share + settings.test_share >= 1:
        raise ConfigError(
            f"data.val_share {settings.val_share} and data.test_share {settings.test_share} leave nothing to train on; "
            "their sum must be below 1"
        )
    if settings.min_title_chars > settings.max_title_chars:
        raise ConfigError(
            f"data.min_title_chars {settings.min_title_chars} is above data.max_title_chars "
            f"{settings.max_title_chars}; lower the first or raise the second"
        )


def deduplicate(pool: Collected, settings: DataSettings) -> Kept:
    """Return one row of each cluster of near-duplicates, and of each title."""
    clusters = Clusters(len(pool.digests))
    first_text = np.searchsorted(pool.views, np.arange(len(pool.digests))).tolist()
    repeated_ids, ambiguous = join_revisions(
        clusters, _id_keys(pool), pool.titles, pool.digests, lambda row: pool.texts[first_text[row]].decode()
    )
    near = join_similar(
        clusters, pool.views, _bands(pool), pool.signatures, lambda n: pool.texts[n].decode(), settings.near_duplicate
    )
    labels = clusters.labels()
    order = best_first(pool.days, pool.content_chars, pool.digests)
    unique = keep_first(order, labels)
    # One headline over different bodies says nothing about either.
    titled = keep_first(unique, pool.titles)
    dropped = {"duplicate_id": repeated_ids, "near_duplicate": near, "same_title": len(unique) - len(titled)}
    return Kept(titled, labels, dropped, ambiguous)


def _id_keys(pool: Collected) -> U64:
    """Return a key of id and part for each row, 0 for no id: exports count anew in each file and split."""
    keys: U64 = mix(pool.ids ^ mix(pool.parts.astype(np.uint64) + np.uint64(1)))
    keys[pool.ids == 0] = 0
    return keys


def _bands(pool: Collected) -> Iterator[U64]:
    for band in range(pool.band_keys[0].shape[1]):
        yield np.concatenate([keys[:, band] for keys in pool.band_keys])


def _drops(pool: Collected, kept: Kept) -> dict[str, int]:
    return dict((pool.counts.dropped + Counter(kept.dropped)).most_common(4))


def _shared_ids(pool: Collected, rows: Rows) -> set[int]:
    """Return the rows that need another id, since several articles that are kept have theirs."""
    ids = pool.ids[rows]
    _, places, counts = np.unique(ids, return_inverse=True, return_counts=True)
    return set(rows[(counts[places] > 1) & (ids != 0)].tolist())


def _split_lines(
    pool: Collected, rows: Rows, name: str, settings: DataSettings, late: AbstractSet[int], shared: AbstractSet[int]
) -> Iterator[bytes]:
    """Yield the lines of a split.

    Args:
        pool: all clean rows.
        rows: those of the split.
        name: of the split.
        settings: whether it is balanced.
        late: rows that got their date after their line was written.
        shared: rows whose id other articles of the output have, too.
    """
    chosen = [(row, 0) for row in rows.tolist()]
    if settings.balance and name == "train":
        chosen = balance_rows(rows, pool.title_chars, pool.digests, settings.seed)
    for row, copy in chosen:
        line = pool.lines[row]
        if not (copy or row in late or row in shared):
            yield line
            continue
        record = json.loads(line)
        if row in late:
            record["date"] = date.fromordinal(int(pool.days[row])).isoformat()
        identity = f"{pool.digests[row]:016x}" if row in shared else record["id"]
        record["id"] = identity + (f"#{copy + 1}" if copy else "")
        yield json.dumps(record, ensure_ascii=False).encode() + b"\n"


def _write_lines(path: Path, lines: Iterator[bytes]) -> int:
    count = 0
    with path.open("wb") as file:
        for line in lines:
            file.write(line)
            count += 1
    return count


def write_dataset(directory: Path, scratch: Path) -> None:
    """Write ``dataset/``, a ``DatasetDict`` of the three files, with the same bytes for the same files."""
    import datasets
    import pyarrow as pa

    from titlegen.files import digest_file

    schema = pa.schema([pa.field(name, pa.string()) for name in KEYS])
    parts = {}
    for split in SPLITS:
        path = scratch / f"{split}.arrow"
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
            for records in _record_batches(directory / f"{split}.jsonl"):
                writer.write_batch(pa.RecordBatch.from_pylist(records, schema))
        # The fingerprint that datasets would draw is random; it stands in state.json.
        parts[split] = datasets.Dataset(
            datasets.table.MemoryMappedTable.from_file(str(path)),
            split=datasets.NamedSplit(split),
            fingerprint=digest_file(directory / f"{split}.jsonl")[:16],
        )
    bars = datasets.utils.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        datasets.DatasetDict(parts).save_to_disk(str(directory / "dataset"))
    finally:
        if not bars:
            datasets.enable_progress_bars()


def _record_batches(path: Path, size: int = 1000) -> Iterator[list[dict[str, object]]]:
    batch: list[dict[str, object]] = []
    with path.open("rb") as file:
        for line in file:
            batch.append(json.loads(line))
            if len(batch) == size:
                yield batch
                batch = []
    if batch:
        yield batch


def compare_strategies(pool: Collected, rows: Rows, settings: DataSettings, tokenizer_file: Path) -> Coverage:
    """Return how much of the title each shortening strategy keeps in the article, on articles over the budget."""
    # A shortened article has two texts, its content and behind it the full one.
    second = np.flatnonzero(pool.views[1:] == pool.views[:-1]) + 1
    full = dict(zip(pool.views[second].tolist(), second.tolist(), strict=True))
    sample = [row for row in rows[draw(pool.digests[rows], settings.seed)].tolist() if row in full][:_COMPARED]
    count_tokens = load_counter(tokenizer_file)
    covered = dict.fromkeys(("full", *STRATEGIES), 0.0)
    for row in sample:
        title, text = json.loads(pool.lines[row])["title"], pool.texts[full[row]].decode()
        covered["full"] += title_coverage(title, text)
        for strategy in STRATEGIES:
            covered[strategy] += title_coverage(
                title, shorten(text, settings.max_content_tokens, strategy, count_tokens)
            )
    means = {name: round(total / len(sample), 4) if sample else None for name, total in covered.items()}
    return Coverage(articles=len(sample), title_coverage=means)


def _results(source: Source, pool: Collected, kept: Kept, sizes: Mapping[str, int], settings: DataSettings) -> Prepared:
    counts = pool.counts
    left, steps = counts.rows, list[Step]()
    for reason, dropped in [*((reason, counts.dropped[reason]) for reason in REASONS), *kept.dropped.items()]:
        steps.append(Step(step=reason, before=left, dropped=dropped, out=left - dropped))
        left -= dropped
    return Prepared(
        source=source.name,
        columns=source.columns,
        read=SourceReading(
            files=source.findings.files,
            passed_over=list(source.findings.passed_over),
            flattened=dict(sorted(source.findings.flattened.items())),
            instructions=dict(sorted(source.findings.instructions.items())),
            left_out=dict(sorted(counts.unread_rows.items())),
            ambiguous_ids=len(kept.ambiguous),
        ),
        rows=counts.rows,
        kept=len(kept.rows),
        splits=dict(sizes),
        steps=steps,
        converted_from_simplified=counts.converted,
        shortened=counts.shortened,
        left_out_share=round(counts.left_out_chars / counts.whole_chars, 4) if counts.whole_chars else 0.0,
        left_out_by=("data.max_content_tokens", settings.max_content_tokens),
        undated=int((pool.days[kept.rows] < 0).sum()),
        naive_leak_rate=round(leak_rate(kept.clusters, pool.digests, settings), 4),
    )


def _no_dates(notes: Sequence[str]) -> str:
    why = f": {'; '.join(notes)}" if notes else ""
    return (
        f"data.split is time, but no article has a date{why}; name its column with --data.date-column or use "
        "--data.split random"
    )


def _nothing_left(source: Source, pool: Collected) -> str:
    reasons = ", ".join(f"{reason} {count}" for reason, count in pool.counts.dropped.most_common(4))
    return (
        f"no article of {source.name!r} is left after the filters: {pool.counts.rows} rows, dropped: {reasons}; "
        "check --data.content-column and --data.title-column, or loosen the filters"
    )
